"""What a turn knows of one run."""

from __future__ import annotations

from segue.machine.facts import Fact, Key, Outcome, State
from segue.machine.step import inputs
from segue.ports.tracing import Place
from segue.runtime.work import News, RunRef, Tickets, join_tickets
from segue.wire import envelope
from segue.wire.envelope import Event
from segue.wire.said import fact_of


class View:
    """What a turn knows of one run: loaded outcomes, news of this turn, and who waits for which delivery.

    Attributes:
        run: The run.
        mine: The nodes of it that are decided here.
        outcomes: What is known to be final.
        news: What this turn heard or decided.
        known: What was loaded; None while, or because, the store has nothing.
        parked: Calls that have a due row.
        counts: Tallies that were asked for.
        noticed: Whether the run has notices here; None if that was not asked yet.
        pending: News that wait for a look at the whole run.
        ahead: The newest epoch that was heard of: whoever has not got there yet decides nothing.
    """

    __slots__ = ("ahead", "counts", "known", "mine", "news", "noticed", "outcomes", "parked", "pending", "run")

    def __init__(self, run: RunRef, mine: frozenset[str]) -> None:
        self.run = run
        self.mine = mine
        self.outcomes: dict[Key, Outcome] = {}
        self.news: dict[Key, News] = {}
        self.known: dict[Key, tuple[Event, bytes] | None] = {}
        self.parked: set[Key] = set()
        self.counts: dict[Key, int] = {}
        self.noticed: bool | None = None
        self.pending: list[News] = []
        self.ahead = 1

    @property
    def whole(self) -> bool:
        """Whether the run is looked at as a whole, or was heard of from where it has been moved to."""
        return bool(self.noticed) or self.ahead > 1

    @property
    def state(self) -> State:
        """What is known, for the machine."""
        return State(self.outcomes, counts=self.counts)

    def learn(self, raw: bytes) -> None:
        """Take a recorded outcome into account."""
        event = envelope.decode(raw)
        fact = fact_of(event)
        if isinstance(fact, Fact):
            self.take(fact, event, raw)

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
        found = [news.tickets for up in self._sources(key) if (news := self.news.get(up)) and news.tickets]
        return join_tickets(found) if len(found) > 1 else found[0] if found else ()

    def inputs(self, key: Key) -> tuple[Place, ...]:
        """The attempts that a node's inputs came from."""
        places = []
        for place in self._sources(key):
            news, known = self.news.get(place), self.known.get(place)
            event = news.event if news is not None else known[0] if known is not None else None
            if event is not None and event.attempt:
                places.append(Place(place.node, place.tag, event.attempt))
        return tuple(places)

    def _sources(self, key: Key) -> list[Key]:
        if not self.run.plan.index.nodes[key.node].construct:
            return [Key(up, key.tag) for up in self.run.plan.index.ups[key.node]]
        return inputs(self.run.plan, self.state, key)
