"""What goes through a participant: deliveries with their tickets, runs, news of facts, and jobs (calls to make)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from segue.machine.facts import Cause, Fact, Failure, Key, Outcome
from segue.plan.graph import Plan
from segue.plan.projection import Mode
from segue.ports.store import CellKey, CellKind, Due
from segue.ports.tracing import Place
from segue.ports.transport import Consumer, Delivery
from segue.wire import envelope
from segue.wire.envelope import Call, Event
from segue.wire.requests import Reply, Start

Mark = tuple[str, str, str, int, int]
"""A fact and the number of its redrive; a plain tuple, so that the garbage collector need not look at the many."""


def mark(cell: CellKey, redrive: int) -> Mark:
    """The mark of a recorded fact."""
    return cell.run, cell.node, cell.tag, cell.revision, redrive


class Ticket:
    """A delivery and how many things must still happen before it may be acknowledged."""

    __slots__ = ("consumer", "delivery", "holds")

    def __init__(self, delivery: Delivery, consumer: Consumer) -> None:
        self.delivery = delivery
        self.consumer = consumer
        self.holds = 0


Tickets = tuple[Ticket, ...]


class RunRef(NamedTuple):
    """The run that something belongs to."""

    id: str
    plan: Plan
    mode: Mode
    key: str

    def cell(self, key: Key, revision: int = 1) -> CellKey:
        """The cell of a node's outcome."""
        return CellKey(self.id, key.node, key.tag, revision, CellKind.OUTCOME)

    def parking(self, key: Key, revision: int = 1) -> CellKey:
        """Where it is recorded that a call has a due row."""
        return CellKey(self.id, key.node, key.tag, revision, CellKind.PARKED)


class News:
    """A fact that this participant heard, decided or found, with the event that announces it.

    `cell` is where it is recorded; `recorded`: it is there, or in this turn's commit, already.
    """

    __slots__ = ("cell", "event", "fact", "raw", "recorded", "redrive", "run", "tickets")

    def __init__(
        self, run: RunRef, fact: Fact, event: Event, raw: bytes, tickets: Tickets = (), recorded: bool = False
    ) -> None:
        self.run = run
        self.fact = fact
        self.event = event
        self.raw = raw
        self.tickets = tickets
        self.recorded = recorded
        self.redrive = event.redrive
        self.cell = run.cell(fact.key, fact.revision)

    @property
    def again(self) -> bool:
        """Whether it may have been heard before: it was redelivered, redriven, or found recorded."""
        return self.redrive > 0 or self.recorded or any(ticket.delivery.deliveries > 1 for ticket in self.tickets)

    @property
    def mark(self) -> Mark:
        """What makes it the same news."""
        return mark(self.cell, self.redrive)


class Job:
    """A call of a step that is to be made, or under way."""

    __slots__ = (
        "args",
        "attempt",
        "due",
        "inputs",
        "key",
        "parked_at",
        "redrive",
        "revision",
        "run",
        "since",
        "tickets",
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
        self.since = 0.0
        self.parked_at = 0.0
        self.due = False
        self.redrive = 0

    @property
    def cell(self) -> CellKey:
        """Where its result is recorded."""
        return self.run.cell(self.key, self.revision)

    @property
    def parking(self) -> CellKey:
        """Where it is recorded that it has a due row."""
        return self.run.parking(self.key, self.revision)

    def call(self, source: str, time: datetime) -> Call:
        """The command that asks for it."""
        run, node = self.run, self.run.plan.index.nodes[self.key.node]
        return Call(
            id=envelope.event_id(run.id, self.key.node, self.key.tag, self.revision, "call"),
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
            inputs=self.inputs,
            tag=self.key.tag,
            revision=self.revision,
            key=run.key,
            redrive=self.redrive,
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


Input = Arrived | Starting | Returned | Overdue | Tick


def fitting(fact: Fact, size: int) -> Fact:
    """A decision whose event is too large, as one that fits: no value, or causes that do not say why."""
    outcome, key = fact.outcome, fact.key
    if outcome.kind == "completed":
        error = Failure("PayloadTooLarge", f"the value of {key.node} has {size:,} bytes as an event")
        return fact._replace(outcome=Outcome("failed", causes=(Cause(key.node, key.tag, error),)))
    causes = tuple(Cause(cause.node, cause.tag) for cause in outcome.causes)
    return fact._replace(outcome=Outcome(outcome.kind, causes=causes))


def make_event(run: RunRef, fact: Fact, source: str, time: datetime, traceparent: str = "") -> Event:
    """The event that announces a decided fact."""
    node = fact.key.node
    kind, data = envelope.kind_of(node, fact.outcome), envelope.data_of(node, fact.outcome)
    return _event(run, fact.key, fact.revision, kind, data, source, time, traceparent=traceparent)


def result_event(item: Returned, source: str, time: datetime) -> Event:
    """The event that announces what an attempt came to."""
    job = item.job
    return _event(
        job.run,
        job.key,
        job.revision,
        item.kind,
        item.data,
        source,
        time,
        attempt=job.attempt,
        began=item.began,
        traceparent=item.traceparent,
    )


def _event(
    run: RunRef, key: Key, revision: int, kind: str, data: bytes, source: str, time: datetime, **more: Any
) -> Event:
    node = envelope.public_node(key.node)
    flow = run.plan.flow
    # A node fails for good once, but may fail to be retried often.
    distinct = f"{kind}/{more['attempt']}" if kind == "attempt.failed" else kind
    return Event(
        id=envelope.event_id(run.id, node, key.tag, revision, distinct),
        source=source,
        type=envelope.TYPE + kind,
        subject=f"{flow}/{node}",
        time=time,
        run=run.id,
        plan=run.plan.hash,
        flow=flow,
        node=node,
        specversion=envelope.SPEC,
        data=msgspec.Raw(data),
        tag=key.tag,
        revision=revision,
        key=run.key,
        **more,
    )


class View:
    """What a turn knows of one run: loaded outcomes, news of this turn, and who waits for which delivery."""

    __slots__ = ("known", "mine", "news", "outcomes", "parked", "run")

    def __init__(self, run: RunRef, mine: frozenset[str]) -> None:
        self.run = run
        self.mine = mine
        self.outcomes: dict[Key, Outcome] = {}
        self.news: dict[Key, News] = {}
        self.known: dict[Key, tuple[Event, bytes] | None] = {}
        """What was loaded; None while, or because, the store has nothing."""
        self.parked: set[Key] = set()

    def learn(self, raw: bytes) -> None:
        """Take a recorded outcome into account."""
        event = envelope.decode(raw)
        fact = envelope.fact_of(event)
        if fact is not None:
            self.take(fact, event, raw)

    def take(self, fact: Fact, event: Event, raw: bytes) -> None:
        """Take a recorded fact into account."""
        self.outcomes[fact.key] = fact.outcome
        self.known[fact.key] = event, raw

    def hear(self, news: News) -> None:
        """Take news into account; tickets of repeated news add up."""
        before = self.news.get(news.fact.key)
        if before is not None and before.tickets:
            news.tickets = join_tickets((before.tickets, news.tickets))
        self.news[news.fact.key] = news

    def tickets(self, key: Key) -> Tickets:
        """Deliveries of this turn that a node's decision rests on."""
        ups = self.run.plan.index.ups[key.node]
        found = [news.tickets for up in ups if (news := self.news.get(Key(up, key.tag))) and news.tickets]
        return join_tickets(found) if len(found) > 1 else found[0] if found else ()

    def inputs(self, key: Key) -> tuple[Place, ...]:
        """The attempts that a node's inputs came from."""
        places = []
        for up in self.run.plan.index.ups[key.node]:
            place = Key(up, key.tag)
            news, known = self.news.get(place), self.known.get(place)
            event = news.event if news is not None else known[0] if known is not None else None
            if event is not None and event.attempt:
                places.append(Place(up, key.tag, event.attempt))
        return tuple(places)


def join_tickets(several: Iterable[Tickets]) -> Tickets:
    """Each ticket once."""
    return tuple(dict.fromkeys(ticket for tickets in several for ticket in tickets))
