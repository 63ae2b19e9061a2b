"""Where in the user's code something was written, for messages."""

from __future__ import annotations

import sys
from types import FrameType

_PACKAGE = __name__.rpartition(".")[0]


def user_frame() -> FrameType:
    """The innermost frame of the user's code: not of this package, the standard library, or a generated method."""
    frame: FrameType | None = sys._getframe(1)
    second_best = None
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if not module.startswith(_PACKAGE):
            library = module.partition(".")[0] in sys.stdlib_module_names
            if not library and frame.f_code.co_filename != "<string>":
                return frame
            second_best = second_best or frame
        frame = frame.f_back
    return second_best or sys._getframe(1)


def here() -> str:
    """File and line of the user's code that is running, as `path.py:12`."""
    frame = user_frame()
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
