"""What goes through a participant: deliveries with their tickets, runs, news of facts, and jobs (calls to make)."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from segue.machine.facts import (
    AnyFact,
    Fact,
    Key,
    Pause,
    Placed,
    Reset,
    Signal,
    Stop,
    Token,
    Undone,
)
from segue.plan.graph import EXIT, RUN, Plan
from segue.plan.projection import Mode
from segue.ports.store import CellKey, CellKind, Due, DueKey
from segue.ports.tracing import Place
from segue.runtime.tickets import Ticket, Tickets, redelivered
from segue.wire import envelope
from segue.wire.envelope import Call, Event
from segue.wire.requests import Order, Reply, Start

Mark = tuple[str, str, str, int, int, int]
"""A fact and the number of its redrive; a plain tuple, so that the garbage collector need not look at the many."""


def mark(cell: CellKey, redrive: int) -> Mark:
    """The mark of a recorded fact."""
    return cell.run, cell.node, cell.tag, cell.revision, int(cell.kind), redrive


def undoing(node: str) -> str:
    """The name under which the undo of a node has its marks and due rows."""
    return f"{node}:undo"


class RunRef(NamedTuple):
    """The run that something belongs to."""

    id: str
    plan: Plan
    mode: Mode
    key: str
    epoch: int = 1

    def cell(self, key: Key, revision: int = 1) -> CellKey:
        """The cell of a node's outcome."""
        return CellKey(self.id, key.node, key.tag, revision, CellKind.OUTCOME)

    def parking(self, key: Key, revision: int = 1) -> CellKey:
        """Where it is recorded that a call has a due row."""
        return CellKey(self.id, key.node, key.tag, revision, CellKind.PARKED)

    def mark(self, node: str, tag: str, revision: int, kind: CellKind) -> CellKey:
        """A cell that says something by being there."""
        return CellKey(self.id, node, tag, revision, kind)

    def guard(self, revision: int = 1) -> DueKey:
        """The row that sees to it that a revision of the run ends."""
        return self.row(Key(EXIT), revision)

    def row(self, key: Key, revision: int) -> DueKey:
        """A due row of a node; that of another revision or placement is never taken for it."""
        tag = key.tag if revision == 1 else f"{key.tag}/{revision}"
        return DueKey(self.id, key.node, tag if self.epoch == 1 else f"{tag}@{self.epoch}")

    def owns(self, row: DueKey) -> bool:
        """Whether a row of who decides the run is of this placement; if not, there is another one for the same."""
        return (row.tag.partition("@")[2] or "1") == str(self.epoch)

    @property
    def noticed(self) -> CellKey:
        """Where it is recorded that there are notices of this run here."""
        return CellKey(self.id, RUN, "", 0, CellKind.NOTICED)

    @property
    def marked(self) -> CellKey:
        """Where it is recorded that the calls which had begun before the first notice are marked."""
        return CellKey(self.id, RUN, "", 1, CellKind.NOTICED)

    def placed(self, epoch: int) -> CellKey:
        """Where it is recorded that the run was moved."""
        return CellKey(self.id, RUN, "", epoch, CellKind.PLACED)

    def place(self, fact: AnyFact) -> CellKey:
        """The cell of a fact.

        A region is either stopped or comes to its exit, so both have one cell, and the first one counts. What came of
        the exit of a stopped region is kept beside it (`CellKind.END`). A race's losers, a caught body and a
        completed run whose parent is undone are stopped whatever came of them.
        """
        if isinstance(fact, Fact):
            (node, tag), _, revision = fact
            return CellKey(self.id, node, tag, revision, CellKind.OUTCOME)
        match fact:
            case Stop(scope, tag, revision, reason):
                region = self.plan.index.regions.get(scope)
                if region is None or reason in ("lost", "caught", "undone"):
                    return CellKey(self.id, scope, tag, revision, CellKind.STOP)
                return CellKey(self.id, region.exit, tag, revision, CellKind.OUTCOME)
            case Token(key, scope, revision):
                return CellKey(self.id, f"{key.node}@{scope}", key.tag, revision, CellKind.TOKEN)
            case Undone(key, revision):
                return CellKey(self.id, key.node, key.tag, revision, CellKind.UNDONE)
            case Reset(revision):
                return CellKey(self.id, RUN, "", revision, CellKind.RESET)
            case Pause(number):
                return CellKey(self.id, RUN, "", number, CellKind.PAUSE)
            case Placed(epoch):
                return self.placed(epoch)
            case Signal(name, slot):
                return CellKey(self.id, name, slot, 0, CellKind.SIGNAL)


class News:
    """A fact that this participant heard, decided or found, with the event that announces it.

    `cell` is where it is recorded; `recorded`: it is there, or in this turn's commit, already; `decided`: in this turn;
    `said`: what of it is published.
    """

    __slots__ = ("cell", "decided", "event", "fact", "raw", "recorded", "redrive", "run", "said", "tickets")

    def __init__(
        self, run: RunRef, fact: AnyFact, event: Event, raw: bytes, tickets: Tickets = (), recorded: bool = False
    ) -> None:
        self.run = run
        self.fact = fact
        self.event = event
        self.raw = raw
        self.tickets = tickets
        self.recorded = recorded
        self.redrive = event.redrive
        self.decided = False
        self.said = b""
        self.cell = run.place(fact)

    @property
    def again(self) -> bool:
        """Whether it may have been heard before: it was redelivered, redriven, or found recorded."""
        return self.recorded or self.repeated

    @property
    def repeated(self) -> bool:
        """Whether what it rests on was redelivered or redriven: somebody may have died over it."""
        return self.redrive > 0 or redelivered(self.tickets)

    @property
    def mark(self) -> Mark:
        """What makes it the same news."""
        return mark(self.cell, self.redrive)


class Job:
    """A call of a step that is to be made, or under way.

    `since`: the revision since which its node was never undone; `started`: when this process began with it.
    """

    __slots__ = (
        "args",
        "attempt",
        "bare",
        "born",
        "due",
        "inputs",
        "key",
        "lost",
        "parked_at",
        "perhaps",
        "redrive",
        "revision",
        "run",
        "since",
        "started",
        "tickets",
        "undo",
        "withdrawn",
    )

    def __init__(
        self, run: RunRef, key: Key, revision: int, args: dict[str, Any], inputs: tuple[Place, ...], tickets: Tickets
    ) -> None:
        self.run = run
        self.key = key
        self.revision = revision
        self.args = args
        self.inputs = inputs
        self.tickets = tickets
        self.attempt = 1
        self.bare = False
        self.since = 1
        self.started = 0.0
        self.lost = 0
        self.parked_at = 0.0
        self.due = False
        self.redrive = 0
        self.undo = False
        self.withdrawn = False
        self.perhaps = False
        self.born = 0.0

    @property
    def name(self) -> str:
        """The name under which it has its marks and due row."""
        return undoing(self.key.node) if self.undo else self.key.node

    @property
    def cell(self) -> CellKey:
        """Where its result is recorded."""
        if self.undo:
            return CellKey(self.run.id, self.key.node, self.key.tag, self.revision, CellKind.UNDONE)
        return self.run.cell(self.key, self.revision)

    @property
    def parking(self) -> CellKey:
        """Where it is recorded that it has a due row."""
        return CellKey(self.run.id, self.name, self.key.tag, self.revision, CellKind.PARKED)

    @property
    def redelivered(self) -> bool:
        """Whether somebody may have begun it, and died."""
        return redelivered(self.tickets)

    @property
    def sending(self) -> CellKey:
        """Where it is recorded that it was sent."""
        return CellKey(self.run.id, self.name, self.key.tag, self.revision, CellKind.SENT)

    @property
    def row(self) -> DueKey:
        """Its due row."""
        # That of a step is where it runs, wherever the run is decided.
        run = self.run
        if run.epoch > 1 and run.plan.index.nodes[self.key.node].kind == "step":
            run = run._replace(epoch=1)
        return run.row(Key(self.name, self.key.tag), self.revision)

    def call(self, source: str, time: datetime, withdraw: bool = False) -> Call:
        """The command that asks for it, or that says that it is not needed any more."""
        run, node = self.run, self.run.plan.index.nodes[self.key.node]
        return Call(
            id=envelope.event_id(run.id, self.name, self.key.tag, self.revision, "withdraw" if withdraw else "call"),
            source=source,
            subject=f"{run.plan.flow}/{node.id}",
            time=time,
            run=run.id,
            plan=run.plan.hash,
            flow=run.plan.flow,
            node=node.id,
            step=node.step,
            data=msgspec.Raw(msgspec.json.encode(self.args)),
            type=envelope.CALL,
            specversion=envelope.SPEC,
            mode=run.mode,
            epoch=run.epoch,
            inputs=self.inputs,
            tag=self.key.tag,
            revision=self.revision,
            key=run.key,
            redrive=self.redrive,
            undo=self.undo,
            since=self.since,
            withdraw=withdraw,
            perhaps=self.perhaps,
        )


class Arrived(NamedTuple):
    """Input of a turn: a message."""

    ticket: Ticket


class Starting(NamedTuple):
    """Input of a turn: a start, and where its reply goes."""

    start: Start
    replies: list[Reply | None]
    place: int
    done: Any


class Asked(NamedTuple):
    """Input of a turn: a request that changes a live run, and where its reply goes."""

    request: Order
    replies: list[Reply | None]
    place: int
    done: Any


class Returned(NamedTuple):
    """Input of a turn: an attempt has finished. `retry_at` set: it failed and another one follows."""

    job: Job
    kind: str
    data: bytes
    began: datetime
    traceparent: str = ""
    retry_at: float = 0.0


class Overdue(NamedTuple):
    """Input of a turn: a due row that was claimed."""

    due: Due


class Tick(NamedTuple):
    """Input of a turn: look at the calls that take long."""


Input = Arrived | Starting | Asked | Returned | Overdue | Tick
