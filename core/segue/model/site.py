"""Where in the user's code something was written, for messages."""

from __future__ import annotations

import sys
from types import FrameType

_PACKAGE = __name__.rpartition(".")[0]
_SKIPPED = (_PACKAGE, "contextlib")


def user_frame() -> FrameType:
    """The innermost frame of the user's code: outside this package, `contextlib` and generated methods."""
    frame: FrameType | None = sys._getframe(1)
    generated = None
    while frame is not None:
        if not frame.f_globals.get("__name__", "").startswith(_SKIPPED):
            if frame.f_code.co_filename != "<string>":
                return frame
            generated = generated or frame
        frame = frame.f_back
    return generated or sys._getframe(1)


def here() -> str:
    """File and line of the user's code that is running, as `path.py:12`."""
    frame = user_frame()
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
