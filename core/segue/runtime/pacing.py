"""How many guards go off: after a broker was wiped, or its home was down for hours, those of all open runs are due.

Each guard makes everybody who knows its run repeat what they said. So only so many a second go off in a process; each
other one gets a slot of its own in the time to come, which its due row carries, and goes off then. Nothing is kept here
but the next free slot, and other due rows never wait for guards.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from zlib import crc32

from segue.ports.store import Due

BURST = 0.25
"""Seconds of which the guards may go off at once."""

LATE = 5.0
"""Seconds after which a slot has passed unused, as when the process was down: many such may come at once again."""

SPREAD = 0.25
"""By which share at most a guard waits longer than it must: what began together need not come again together."""


class Pace:
    """Gives guards their turns.

    Args:
        rate: Guards a second.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free = -inf

    def sort(self, rows: Iterable[Due], now: float) -> tuple[list[Due], list[Due]]:
        """The guards that may go off now, and the others with the times at which they may."""
        ready: list[Due] = []
        later: list[Due] = []
        for row in rows:
            if now - _slot(row) <= LATE:
                ready.append(row)
                continue
            slot = max(self._free, now)
            self._free = slot + 1 / self._rate
            if slot <= now + BURST:
                ready.append(row)
            else:
                later.append(row._replace(at=slot, body=str(slot).encode(), owner=""))
        return ready, later


def spread(run: str, attempt: int, pause: float) -> float:
    """A pause before a guard's next attempt, longer by a share that depends on run and attempt alone."""
    return pause * (1 + SPREAD * crc32(f"{run}/{attempt}".encode()) / 2**32)


def _slot(row: Due) -> float:
    return float(row.body) if row.body else -inf
