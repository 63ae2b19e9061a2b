"""Segue: declare a flow once; run it orchestrated or choreographed, and see it the same way in both."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from segue.errors import (
    DeclarationError,
    InvalidInput,
    NotAccepted,
    PlaceholderError,
    ResultTimeout,
    RunFailed,
    SegueError,
    UnknownFlow,
    UnknownRun,
    UnknownSchedule,
)
from segue.model import expr
from segue.model.app import App
from segue.model.attempts import Error, attempt
from segue.model.blocks import after, either, otherwise, when
from segue.model.compute import compute
from segue.model.constructs import each, n_of, race, repeat
from segue.model.ends import emit, finish, raise_
from segue.model.flow import Flow, flow
from segue.model.retry import Retry, hours, minutes, seconds
from segue.model.schedule import Schedule
from segue.model.service import Service
from segue.model.step import Step
from segue.model.waits import sleep, sleep_until, wait_for

if TYPE_CHECKING:
    from segue.compose import connect
    from segue.hooks import hookimpl
    from segue.runtime.executor import current

__all__ = [
    "App",
    "DeclarationError",
    "Error",
    "Flow",
    "InvalidInput",
    "NotAccepted",
    "PlaceholderError",
    "ResultTimeout",
    "Retry",
    "RunFailed",
    "Schedule",
    "SegueError",
    "Service",
    "Step",
    "UnknownFlow",
    "UnknownRun",
    "UnknownSchedule",
    "after",
    "attempt",
    "compute",
    "connect",
    "current",
    "each",
    "either",
    "emit",
    "expr",
    "finish",
    "flow",
    "hookimpl",
    "hours",
    "minutes",
    "n_of",
    "otherwise",
    "race",
    "raise_",
    "repeat",
    "seconds",
    "sleep",
    "sleep_until",
    "wait_for",
    "when",
]

_LATER = {"hookimpl": "segue.hooks", "connect": "segue.compose", "current": "segue.runtime.executor"}
"""Names that load more than the declaration needs, so they are imported at their first use."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'segue' has no attribute {name!r}")
    value = getattr(import_module(_LATER[name]), name)
    globals()[name] = value
    return value
