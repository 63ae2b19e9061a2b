"""The tracing port: what the shell tells about attempts and runs, so that one trace covers a run in both modes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Protocol


class Place(NamedTuple):
    """An attempt of a node: what a span id is derived from, together with run and revision.

    An attempt to undo a node has the name of the node with `:undo`.
    """

    node: str
    tag: str
    attempt: int


class Attempt(NamedTuple):
    """One attempt of a step, about to run.

    `inputs` are the attempts that produced its inputs, of an undo the one that it undoes; only those of revision 1.
    """

    run: str
    flow: str
    key: str
    mode: str
    service: str
    step: str
    place: Place
    inputs: tuple[Place, ...]
    revision: int = 1


class RunSpan(NamedTuple):
    """A revision of a run that has ended.

    Times in seconds since the epoch; `caller` is the W3C traceparent of who started it.
    """

    run: str
    flow: str
    key: str
    mode: str
    status: str
    error: str
    started: float
    ended: float
    caller: str
    revision: int = 1


class Tracing(Protocol):
    """Where spans go. Implementations never raise and never block."""

    def attempt(self, attempt: Attempt) -> AbstractContextManager[None]:
        """A span around one attempt, current while user code runs; an exception that leaves it marks it failed."""
        ...

    def run(self, span: RunSpan) -> None:
        """Export the root span of a run, once, by whoever ends it."""
        ...

    def caller(self) -> str:
        """The W3C traceparent of the current span, or ""."""
        ...

    def close(self) -> None:
        """Flush what is buffered."""
        ...


class NoTracing:
    """Tracing switched off."""

    def attempt(self, attempt: Attempt) -> AbstractContextManager[None]:
        """Nothing."""
        return nullcontext()

    def run(self, span: RunSpan) -> None:
        """Nothing."""

    def caller(self) -> str:
        """Nothing."""
        return ""

    def close(self) -> None:
        """Nothing."""
