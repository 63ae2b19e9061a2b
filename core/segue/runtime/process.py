"""Settings of a process that does nothing but take part."""

from __future__ import annotations

import gc


def settle() -> None:
    """Spare the garbage collector what lives as long as the process.

    Modules and plans are never garbage, and what goes through the loop is freed by counting references: with Python's
    defaults, looking at it all again and again took a fifth of a participant's time. Call it once everything is open.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
