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
)
from segue.model.app import App
from segue.model.flow import Flow, flow
from segue.model.retry import Retry, hours, minutes, seconds
from segue.model.service import Service
from segue.model.step import Step
from segue.model.tracing import after, either, otherwise, when

if TYPE_CHECKING:
    from segue.compose import connect
    from segue.hooks import hookimpl
    from segue.runtime.executor import current

__all__ = [
    "App",
    "DeclarationError",
    "Flow",
    "InvalidInput",
    "NotAccepted",
    "PlaceholderError",
    "ResultTimeout",
    "Retry",
    "RunFailed",
    "SegueError",
    "Service",
    "Step",
    "UnknownFlow",
    "UnknownRun",
    "after",
    "connect",
    "current",
    "either",
    "flow",
    "hookimpl",
    "hours",
    "minutes",
    "otherwise",
    "seconds",
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
