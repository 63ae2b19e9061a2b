"""What the machine's effects mean to a participant: what is recorded, published, called, or waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segue.machine.facts import (
    AnyFact,
    Await,
    Cause,
    Choose,
    Effect,
    Fact,
    Failure,
    Invoke,
    Key,
    Listen,
    Outcome,
    Placed,
    Record,
    Repeat,
    Sleep,
)
from segue.plan.graph import ENTRY, EXIT
from segue.ports.store import CellKey, Join
from segue.runtime.saying import make_event
from segue.runtime.view import View
from segue.runtime.work import Job, News, mark

if TYPE_CHECKING:
    from segue.runtime.turn import Turn


class Effects:
    """Carries out effects in a turn.

    Args:
        turn: The turn.
    """

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._host = turn.host
        self._draft = turn.draft

    def act(self, view: View, effect: Effect, redrive: int) -> News | None:
        """Carry out one effect of the machine in a run without notices; what was decided is heard next."""
        match effect:
            case Invoke():
                if not self._elsewhere(view, effect.key, effect.revision):
                    return self._invoke(view, effect, redrive)
            case Record(Fact() as fact):
                if not self._elsewhere(view, fact.key, fact.revision):
                    limited = self._host.sizes.limited(view.run, fact)
                    if limited is None:
                        return self.decided(view, fact, redrive)
                    self.choose(view, (limited,))
            case Await(key):
                self._await(view, key)
            case Repeat(key, revision):
                return self._repeat(view, key, revision, redrive)
            case Choose(facts):
                self.choose(view, facts)
                if not view.noticed:
                    self._turn.rivals.plain += self._turn.choices[-len(facts) :]
            case Sleep() | Listen():
                self._draft.naps.append((view.run, effect))
        return None

    def choose(self, view: View, facts: tuple[AnyFact, ...]) -> None:
        """Facts that count only once they are recorded."""
        for fact in facts:
            self._turn.choices.append(self.news(view, fact))
            if not isinstance(fact, Placed):
                self.acts(view)

    def acts(self, view: View) -> None:
        """Something is decided here that the store does not refuse, should the run have been moved away."""
        self._turn.acted.setdefault(view.run.id, view.run.epoch)

    def give_up(self, job: Job) -> None:
        """Its service declares a call cancelled that was withdrawn and does not run."""
        fact = Fact(job.key, Outcome("cancelled", causes=(Cause(*job.key),)), job.revision)
        self.choose(self._turn.view(job.run), (fact,))

    def news(self, view: View, fact: AnyFact) -> News:
        """A fact that is decided here, with its event."""
        values = self._host.values
        event, raw = values.encode(make_event(view.run, fact, self._host.source, self._draft.now))
        if len(raw) > values.max_event and isinstance(fact, Fact):
            fact = fitting(fact, values.too_large(f"the value of {fact.key.node}", len(raw)).message)
            event, raw = values.encode(make_event(view.run, fact, self._host.source, self._draft.now))
        tickets = view.tickets(fact.key) if isinstance(fact, Fact) else ()
        return News(view.run, fact, event, raw, tickets)

    def decided(self, view: View, fact: Fact, redrive: int, cell: CellKey | None = None) -> News:
        """Record a decision, publish it if somebody hears it, and close the run with its exit.

        Args:
            view: The run.
            fact: What was decided.
            redrive: Why it is looked at again; 0 if it is not.
            cell: Where it is recorded, if not at its place.
        """
        run = view.run
        if view.noticed:
            self.acts(view)
        news = self.news(view, fact)
        news.cell = cell or news.cell
        news.recorded = news.decided = True
        news.redrive = redrive
        self._draft.keep(news, plain=not view.noticed)
        if self.said(view, fact):
            self._draft.publish(news)
        if fact.key.node == EXIT:
            self._draft.ended.append(news)
            self._draft.after.append(run.guard(fact.revision))
        return news

    def said(self, view: View, fact: Fact) -> bool:
        """Whether a decision is published.

        What is cancelled because its scope is stopped always is: an observer cannot derive it, since it does not know
        what had begun by then.
        """
        if view.noticed and fact.outcome.kind == "cancelled":
            return True
        return fact.key.node in self._host.role.emits(view.run.plan, view.run.mode)

    def shown(self, view: View, fact: AnyFact) -> bool:
        """Whether a choice is published; the exit of a region is one only because the region may be stopped first."""
        if isinstance(fact, Fact) and view.run.plan.index.nodes[fact.key.node].kind == "exit":
            return self.said(view, fact)
        return True

    def _invoke(self, view: View, effect: Invoke, redrive: int) -> News | None:
        key, revision, args = effect
        job = Job(view.run, key, revision, args, view.inputs(key), view.tickets(key))
        refusal = self._host.role.refuses(self._turn, job)
        if refusal is not None:
            return self.decided(view, Fact(key, refusal, revision), redrive)
        job.redrive = redrive
        job.bare = not job.tickets and Key(ENTRY) not in view.news  # the guard stands behind a run that has just begun
        if key in view.parked:
            return None
        self._draft.job(job)
        return None

    def _elsewhere(self, view: View, key: Key, revision: int) -> bool:
        """Whether a join that reads as complete is decided by the replica whose commit completed it."""
        index = view.run.plan.index
        ups = index.ups[key.node]
        if len(ups) < 2 or not self._turn.counted or index.nodes[key.node].kind in ("entry", "close", "settle"):
            return False
        brought = [news.cell for up in ups if (news := view.news.get(Key(up, key.tag)))]
        mine = Join(view.run.id, key.node, key.tag, revision) in self._turn.complete
        return bool(brought) and not mine and self._turn.counted.issuperset(brought)

    def _await(self, view: View, key: Key) -> None:
        """An incomplete join: record those of its inputs that this turn brought."""
        for up in view.run.plan.index.ups[key.node]:
            item = view.news.get(Key(up, key.tag))
            if item is not None and not item.recorded:
                self._draft.keep(item)

    def _repeat(self, view: View, key: Key, revision: int, redrive: int) -> News | None:
        """Something decided before is touched again: publish it again, once per redrive and process."""
        known = view.known.get(key)
        if known is None or mark(view.run.cell(key, revision), redrive) in self._host.seen:
            return None
        news = News(view.run, Fact(key, view.outcomes[key], revision), *known, view.tickets(key))
        news.recorded, news.redrive = True, redrive
        if key.node in self._host.role.emits(view.run.plan, view.run.mode):
            self._draft.publish(news)
        return news


def fitting(fact: Fact, why: str) -> Fact:
    """A decision whose event is too large, as one that fits: no value, or causes that do not say why."""
    outcome, key = fact.outcome, fact.key
    if outcome.kind == "completed":
        error = Failure("PayloadTooLarge", why)
        return fact._replace(outcome=Outcome("failed", causes=(Cause(key.node, key.tag, error),)))
    causes = tuple(Cause(cause.node, cause.tag) for cause in outcome.causes)
    return fact._replace(outcome=Outcome(outcome.kind, causes=causes))
