"""What happened in a simulation, as the participants recorded, said and did it; and what must hold at every moment."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from segue.errors import InvalidInput, SegueError
from segue.machine.facts import AnyFact, Fact
from segue.plan.names import ENTRY
from segue.plan.projection import Mode
from segue.ports.store import CellKey, CellKind
from segue.ports.transport import Message
from segue.runtime.ids import child_run_id
from segue.runtime.work import Job
from segue.testing.sim.timeline import Timeline
from segue.wire import envelope
from segue.wire.envelope import ATTEMPT_FAILED, Event, Parent
from segue.wire.requests import Reply
from segue.wire.said import fact_of

if TYPE_CHECKING:
    from segue.testing.sim.host import SimHost

_segue = logging.getLogger("segue")


class Said(NamedTuple):
    """An event that was published; `effects`: how many there had been before."""

    at: float
    subject: str
    event: Event
    fact: AnyFact | None
    effects: int


class Effect(NamedTuple):
    """An attempt that did something: it completed or failed for good, or a subflow began. `undo`: it undid the step."""

    at: float
    part: str
    cell: CellKey
    kind: str
    args: dict[str, Any]
    undo: bool


class Log:
    """What happened.

    Args:
        timeline: The time.

    Attributes:
        modes: The runs that clients started, and how they are run.
        parents: The nodes that runs are the subflows of.
        cells: Recorded values by participant and cell, in order.
        said: Published events, in order.
        effects: What attempts did, in order.
        listeners: Called with each event that is published.
        answers: Replies to clients.
        signals: Values that were sent, by name and slot.
        attempts: How many of each call have done what they do.
        latest: When something new happened last.
        wrong: What must not happen and did.
    """

    def __init__(self, timeline: Timeline) -> None:
        self.modes: dict[str, Mode] = {}
        self.parents: dict[str, Parent] = {}
        self.cells: dict[tuple[str, CellKey], bytes] = {}
        self.said: list[Said] = []
        self.effects: list[Effect] = []
        self.listeners: list[Callable[[Said], None]] = []
        self.answers: list[Reply] = []
        self.signals: dict[tuple[str, str], list[Any]] = {}
        self.wrong: list[str] = []
        self.latest = 0.0
        self.attempts: Counter[CellKey] = Counter()
        self._timeline = timeline
        self._recorded_at: dict[tuple[str, CellKey], float] = {}
        self._facts: dict[bytes, tuple[Event, AnyFact | None]] = {}

    def read(self, raw: bytes) -> tuple[Event, AnyFact | None]:
        """The event and the fact in recorded or published bytes."""
        found = self._facts.get(raw)
        if found is None:
            event = envelope.decode(raw)
            found = self._facts[raw] = event, fact_of(event)
        return found

    def recorded(self, part: str, key: CellKey, value: bytes) -> None:
        """A cell was written."""
        self.latest = self._timeline.now
        self.cells[part, key] = value
        self._recorded_at[part, key] = self._timeline.now
        if key.node == ENTRY and key.kind == CellKind.OUTCOME:
            self._child(part, key, *self.read(value))
        elif key.kind == CellKind.UNDONE and child_run_id(*key[:4]) in self.parents:
            self.effects.append(Effect(self._timeline.now, part, key, "compensated", {}, True))

    def _child(self, part: str, key: CellKey, event: Event, fact: AnyFact | None) -> None:
        """A run began; if it is a subflow, its node has done something."""
        parent = envelope.decode_parent(event)
        if parent is None or key.run in self.parents or not isinstance(fact, Fact):
            return
        self.parents[key.run] = parent
        cell = CellKey(parent.run, parent.node, parent.tag, parent.revision, CellKind.OUTCOME)
        self.effects.append(Effect(self._timeline.now, part, cell, event.kind, fact.outcome.value, False))

    def message(self, message: Message) -> None:
        """A message was published: what it says must be recorded by who says it."""
        try:
            parts = envelope.split(message.body)
            if b'"type":"segue.call"' in message.body[:400]:
                return
            for raw in parts:
                event, fact = self.read(bytes(raw))
                said = Said(self._timeline.now, message.subject, event, fact, len(self.effects))
                self.said.append(said)
                for listen in self.listeners:
                    listen(said)
        except InvalidInput as error:
            self.wrong.append(f"published on {message.subject}, but unreadable: {error.message}")

    def called(self, host: SimHost, job: Job) -> None:
        """An attempt begins: not of what was recorded before its turn began."""
        self.latest = self._timeline.now
        at = self._recorded_at.get((host.name, job.cell))
        if at is not None and at < host.turned:
            self.wrong.append(f"{host.replica} runs {job.cell}, though its result was recorded before")

    def tried(self, job: Job) -> int:
        """How many attempts of a call there were before this one."""
        return self.attempts[job.cell]

    def came_to(self, part: str, job: Job, kind: str) -> None:
        """An attempt has done what it does."""
        self.attempts[job.cell] += 1
        if kind != ATTEMPT_FAILED:
            self.effects.append(Effect(self._timeline.now, part, job.cell, kind, job.args, job.undo))


class _Complaints(logging.Handler):
    def __init__(self, found: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._found = found
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            text, error = record.getMessage(), record.exc_info[1] if record.exc_info else None
            if isinstance(error, SegueError) and error.retryable:
                return  # what went wrong was the weather, and the inputs are handed back
            self._found.append(text if error is None else f"{text}: {error!r}")


@contextmanager
def listening(found: list[str]) -> Iterator[None]:
    """Take the errors that participants log as what must not happen; warnings of what goes wrong are expected."""
    handler, level = _Complaints(found), _segue.level
    _segue.addHandler(handler)
    _segue.setLevel(logging.ERROR)
    try:
        yield
    finally:
        _segue.removeHandler(handler)
        _segue.setLevel(level)
