"""What a turn knows of one run."""

from __future__ import annotations

from segue.machine.facts import AnyFact, Fact, Key, Outcome, State, Stop, Token, Undone
from segue.machine.step import inputs
from segue.plan.graph import EXIT, RUN
from segue.ports.tracing import Place
from segue.runtime.tickets import Tickets, join_tickets
from segue.runtime.work import News, RunRef
from segue.wire.envelope import Event
from segue.wire.said import is_notice


class View:
    """What a turn knows of one run: loaded outcomes, news of this turn, and who waits for which delivery.

    Attributes:
        run: The run.
        mine: The nodes of it that are decided here.
        outcomes: What is known to be final.
        state: What is known, for the machine: it grows with `outcomes` and `counts`.
        news: What this turn heard or decided.
        known: What was loaded; None while, or because, the store has nothing.
        parked: Calls that have a due row.
        counts: Tallies that were asked for.
        noticed: Whether the run has notices here; None if that was not asked yet.
        pending: News that wait for a look at the whole run.
        ahead: The newest epoch that was heard of: whoever has not got there yet decides nothing.
    """

    __slots__ = (
        "ahead",
        "counts",
        "known",
        "mine",
        "news",
        "noticed",
        "outcomes",
        "parked",
        "pending",
        "run",
        "state",
    )

    def __init__(self, run: RunRef, mine: frozenset[str]) -> None:
        self.run = run
        self.mine = mine
        self.outcomes: dict[Key, Outcome] = {}
        self.news: dict[Key, News] = {}
        self.known: dict[Key, tuple[Event, bytes] | None] = {}
        self.parked: set[Key] = set()
        self.counts: dict[Key, int] = {}
        self.state = State(self.outcomes, counts=self.counts)
        self.noticed: bool | None = None
        self.pending: list[News] = []
        self.ahead = 1

    @property
    def whole(self) -> bool:
        """Whether the run is looked at as a whole, or was heard of from where it has been moved to."""
        return bool(self.noticed) or self.ahead > 1

    def take(self, fact: Fact, event: Event, raw: bytes) -> None:
        """Take a recorded fact into account."""
        self.outcomes[fact.key] = fact.outcome
        self.known[fact.key] = event, raw

    def hear(self, key: Key, news: News) -> None:
        """Take news into account; tickets of repeated news add up."""
        before = self.news.get(key)
        if before is not None and before.tickets:
            news.tickets = join_tickets((before.tickets, news.tickets))
        self.news[key] = news

    def tickets(self, key: Key) -> Tickets:
        """Deliveries of this turn that a node's decision rests on."""
        news = self.news
        found = [item.tickets for up in self.sources(key) if (item := news.get(up)) is not None and item.tickets]
        return join_tickets(found) if len(found) > 1 else found[0] if found else ()

    def inputs(self, key: Key) -> tuple[Place, ...]:
        """The attempts that a node's inputs came from."""
        places = []
        for place in self.sources(key):
            news, known = self.news.get(place), self.known.get(place)
            event = news.event if news is not None else known[0] if known is not None else None
            if event is not None and event.attempt:
                places.append(Place(place.node, place.tag, event.attempt))
        return tuple(places)

    def sources(self, key: Key) -> list[Key]:
        """What a node's decision rests on."""
        name, tag = key
        index = self.run.plan.index
        if index.nodes[name].construct:
            return inputs(self.run.plan, self.state, key)
        return [Key(up, tag) for up in index.ups[name]]

    def concerned(self, notice: AnyFact) -> bool:
        """Whether a notice matters here."""
        index = self.run.plan.index
        if isinstance(notice, Stop):
            scope = notice.scope
            return scope == RUN or any(scope in index.scopes[index.nodes[node].region] for node in self.mine)
        if isinstance(notice, Token):
            return any(up in self.mine for up in index.ups.get(notice.key.node, ()))
        if isinstance(notice, Undone):
            return notice.key.node in self.mine
        return True

    def keeps(self, fact: AnyFact) -> bool:
        """Whether a fact is recorded here: own ones, and what own nodes wait for."""
        if not isinstance(fact, Fact):
            return not is_notice(fact) or (self.concerned(fact) and not (isinstance(fact, Undone) and fact.error))
        index = self.run.plan.index
        if fact.outcome.kind == "failed" and EXIT in self.mine and fact.key.node in index.stopping:
            return True
        return fact.key.node in self.mine or bool(index.fed(self.mine)[fact.key.node])

    def needs_later(self, key: Key) -> bool:
        """Whether a node here is decided, or undone, long after it heard an outcome: then it needs its inputs again."""
        index = self.run.plan.index
        return any(
            index.nodes[down].undoable or index.nodes[down].kind in ("wait", "sleep", "timer")
            for down in index.downs[key.node]
            if down in self.mine
        )
