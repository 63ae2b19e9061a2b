"""What goes through a participant: deliveries with their tickets, runs, news of facts, and jobs (calls to make)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from segue.machine.facts import Fact, Key, Outcome
from segue.plan.graph import ENTRY, EXIT, Plan
from segue.plan.projection import Mode
from segue.ports.store import CellKey, CellKind, Due
from segue.ports.tracing import Place
from segue.ports.transport import Consumer, Delivery
from segue.wire import envelope
from segue.wire.envelope import Call, Event
from segue.wire.requests import Reply, Start


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


class News(NamedTuple):
    """A fact that this participant heard, decided or found, with the event that announces it.

    `recorded`: it is in the store, or in this turn's commit, already.
    """

    run: RunRef
    fact: Fact
    event: Event
    raw: bytes
    tickets: Tickets = ()
    redrive: int = 0
    recorded: bool = False

    @property
    def cell(self) -> CellKey:
        """Where the fact is recorded."""
        return self.run.cell(self.fact.key, self.fact.revision)


class Job:
    """A call of a step that is to be made, or under way."""

    __slots__ = ("args", "attempt", "due", "inputs", "key", "parked_at", "revision", "run", "since", "tickets")

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

    @property
    def cell(self) -> CellKey:
        """Where its result is recorded."""
        return self.run.cell(self.key, self.revision)

    def call(self, source: str, time: datetime, redrive: int = 0) -> Call:
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
            redrive=redrive,
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


def make_event(
    run: RunRef, fact: Fact, source: str, time: datetime, *, kind: str = "", data: bytes | None = None, attempt: int = 0
) -> Event:
    """The event that announces a fact, or something else (`kind`, `data`) about its node."""
    node = fact.key.node
    kind = kind or envelope.kind_of(node, fact.outcome)
    public = envelope.public_node(node)
    # A node fails for good once, but may fail to be retried often.
    distinct = f"{kind}/{attempt}" if kind == "attempt.failed" else kind
    return Event(
        id=envelope.event_id(run.id, public, fact.key.tag, fact.revision, distinct),
        source=source,
        type=envelope.TYPE + kind,
        subject=f"{run.plan.flow}/{public}",
        time=time,
        run=run.id,
        plan=run.plan.hash,
        flow=run.plan.flow,
        node=public,
        specversion=envelope.SPEC,
        data=msgspec.Raw(envelope.data_of(node, fact.outcome) if data is None else data),
        tag=fact.key.tag,
        revision=fact.revision,
        attempt=attempt,
        key=run.key,
    )


class View:
    """What a turn knows of one run: loaded outcomes, news of this turn, and who waits for which delivery."""

    __slots__ = ("asked", "attempts", "mine", "news", "outcomes", "raw", "run")

    def __init__(self, run: RunRef, mine: frozenset[str]) -> None:
        self.run = run
        self.mine = mine
        self.outcomes: dict[Key, Outcome] = {}
        self.attempts: dict[Key, int] = {}
        self.raw: dict[Key, bytes] = {}
        self.news: dict[Key, News] = {}
        self.asked: set[Key] = set()

    def learn(self, raw: bytes) -> None:
        """Take a recorded outcome into account."""
        event = envelope.decode(raw)
        fact = envelope.fact_of(event)
        if fact is not None:
            self.outcomes[fact.key] = fact.outcome
            self.attempts[fact.key] = event.attempt
            self.raw[fact.key] = raw

    def hear(self, news: News) -> None:
        """Take news into account; tickets of repeated news add up."""
        before = self.news.get(news.fact.key)
        if before is not None:
            news = news._replace(tickets=join_tickets((before.tickets, news.tickets)))
        self.news[news.fact.key] = news
        self.attempts.setdefault(news.fact.key, news.event.attempt)

    def tickets(self, key: Key) -> Tickets:
        """Deliveries of this turn that a node's decision rests on."""
        ups = self.run.plan.index.ups[key.node]
        found = [news.tickets for up in ups if (news := self.news.get(Key(up, key.tag))) and news.tickets]
        return join_tickets(found)

    def inputs(self, key: Key) -> tuple[Place, ...]:
        """The attempts that a node's inputs came from."""
        places = []
        for up in self.run.plan.index.ups[key.node]:
            attempt = self.attempts.get(Key(up, key.tag), 0)
            if attempt and up not in (ENTRY, EXIT):
                places.append(Place(up, key.tag, attempt))
        return tuple(places)


def join_tickets(several: Iterable[Tickets]) -> Tickets:
    """Each ticket once."""
    return tuple(dict.fromkeys(ticket for tickets in several for ticket in tickets))
