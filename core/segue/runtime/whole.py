"""Runs that have notices: everything that is known of them here is read, and looked at as a whole.

What a look decides is recorded before the next look reads, so whoever writes last sees all: of two replicas that each
record something, at least one finds what follows from both. A call is marked before it is made: a step by its parking
(put-if-absent, with a due row behind it), a command by a mark of its own; so a repeated look makes it once, and a stop
knows what may have begun.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from segue.machine.facts import (
    AnyFact,
    Choose,
    Effect,
    Fact,
    Invoke,
    Key,
    Listen,
    Placed,
    Record,
    Repeat,
    Reset,
    Sleep,
    State,
    Stop,
    Token,
    Undo,
    Undone,
    Withdraw,
)
from segue.machine.routes import inputs
from segue.machine.scopes import revision
from segue.machine.whole import gather, look, renewed
from segue.plan.graph import EXIT, RUN
from segue.ports.store import CellKey, CellKind, Due
from segue.ports.tracing import Place
from segue.runtime.overdue import GUARD_FIRST, LEASE
from segue.runtime.placing import newest, truth
from segue.runtime.reader import withdrawn
from segue.runtime.view import View
from segue.runtime.work import Job, News
from segue.wire import envelope
from segue.wire.envelope import Event
from segue.wire.said import fact_of, is_notice

if TYPE_CHECKING:
    from segue.runtime.turn import Turn

log = logging.getLogger("segue.whole")

_MARKS = frozenset({CellKind.PARKED, CellKind.SENT, CellKind.WAITING, CellKind.NOTICED})


class Seen(NamedTuple):
    """All that is recorded of a run here."""

    state: State
    facts: list[AnyFact]
    events: dict[CellKey, tuple[AnyFact, Event, bytes]]
    marks: frozenset[CellKey]


class Whole:
    """The runs of a turn that have notices.

    Args:
        turn: The turn.
    """

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._host = turn.host
        self._draft = turn.draft
        self._pending: dict[str, View] = {}

    def take(self, view: View, items: list[News]) -> None:
        """News of a run that is, or is from now on, looked at as a whole."""
        for item in items:
            if view.noticed or not is_notice(item.fact) or _concerns(view, item.fact):
                view.pending.append(item)
                self._pending[view.run.id] = view

    async def look(self) -> None:
        """Look at the runs that there is news of."""
        while self._pending:
            pending, self._pending = self._pending, {}
            for view in pending.values():
                if not view.noticed and view.ahead > 1 and not await self._installed(view):
                    continue
                if not view.noticed and not any(is_notice(item.fact) for item in view.pending):
                    view.pending = []  # a signal that nothing waits for yet
                    continue
                await self.first(view)
                await self._again(view)

    async def read(self, view: View) -> Seen:
        """Everything that is recorded of a run here."""
        cells = truth(await self._host.insist(partial(self._host.store.scan, [view.run.id])))
        facts: list[AnyFact] = []
        events: dict[CellKey, tuple[AnyFact, Event, bytes]] = {}
        for cell, raw in cells.items():
            if cell.kind in _MARKS or cell.kind == CellKind.SNAPSHOT:
                continue
            event = envelope.decode(raw)
            fact = fact_of(event)
            if fact is not None:
                facts.append(fact)
                events[cell] = (fact, event, raw)
        marks = frozenset(cell for cell in cells if cell.kind in _MARKS)
        self._host.placing.place(view, newest(facts))
        return Seen(self._gather(view, facts, marks), facts, events, marks)

    def _gather(self, view: View, facts: list[AnyFact], marks: frozenset[CellKey]) -> State:
        begun = {
            (Key(cell.node, cell.tag), cell.revision)
            for cell in marks
            if cell.kind in (CellKind.PARKED, CellKind.SENT) and cell.node in view.run.plan.index.nodes
        }
        for job in self._host.running.values():
            if job.run.id == view.run.id and not job.undo:
                begun.add((job.key, job.revision))
        return gather(view.run.plan, facts, begun)

    async def first(self, view: View) -> None:
        """A run gets its first notice here, in the next commit: what was ready before has been called already."""
        if view.noticed:
            return
        await self._turn.commit()
        seen = await self.read(view)
        before = self._gather(view, [fact for fact in seen.facts if not is_notice(fact)], seen.marks)
        for effect in look(view.run.plan, before, view.mine):
            if isinstance(effect, Invoke):
                self._draft.mark(view.run.mark(*effect.key, effect.revision, CellKind.SENT))
        self._draft.mark(view.run.noticed)
        view.noticed = True
        self._host.noticed.add([(view.run.id, None)])

    async def _installed(self, view: View) -> bool:
        """Keep what comes from where a run has been moved to; whether the move has got here meanwhile."""
        for item in view.pending:
            if not item.recorded:
                self._draft.mark(item.cell, item.raw)
        await self._turn.commit()
        await self._turn.loads.load({view.run.noticed: view})
        if not view.noticed:
            view.pending = []
        return bool(view.noticed)

    def wake(self, view: View) -> None:
        """Let a run be looked at, though there is no news of it."""
        self._pending[view.run.id] = view

    async def _again(self, view: View) -> None:
        """Record what is new, and find all that follows."""
        items, view.pending = view.pending, []
        for item in items:
            if not item.recorded and (view.ahead > 1 or _kept(view, item.fact)):
                self._draft.keep(item)
                if isinstance(item.fact, Fact):
                    self._draft.forget(view.run, item.fact)
        redrive = max((item.redrive for item in items), default=0)
        await self._turn.commit()
        seen = await self.read(view)
        self._host.placing.forward(self._turn, view, items)
        if not view.mine:
            return
        if redrive and not self._said(view, redrive):
            self._repeat(view, seen, redrive)
        if any(isinstance(item.fact, Reset) for item in items):
            self._renew(view, seen)
        while True:
            effects = look(view.run.plan, seen.state, view.mine)
            if not self._decide(view, effects, seen):
                break
            await self._turn.commit()
            seen = await self.read(view)
        calls = [job for effect in effects if (job := self._call(view, effect, seen, redrive)) is not None]
        lost = await self._turn.commit()
        for job in calls:
            if job.parking not in lost and (redrive or job.sending not in lost):
                self._draft.job(job)
        for effect in effects:
            if isinstance(effect, Sleep | Listen):
                self._draft.naps.append((view.run, effect))

    def _decide(self, view: View, effects: list[Effect], seen: Seen) -> bool:
        """Record decisions and choices; False if there are none."""
        found = False
        for effect in effects:
            if isinstance(effect, Record):
                found = self._keep(view, effect.fact, seen) or found
            elif isinstance(effect, Choose):
                for fact in effect.facts:
                    found = self._keep(view, fact, seen) or found
        return found

    def _keep(self, view: View, fact: AnyFact, seen: Seen) -> bool:
        cell = view.run.place(fact)
        if cell in seen.events or cell in self._draft.cells:
            return False
        if isinstance(fact, Fact):
            news = self._turn.effects.decided(view, fact, 0)
        else:
            news = self._turn.effects.news(view, fact)
            self._draft.keep(news)
            self._draft.publish(news)
        if isinstance(fact, Reset):
            self.reopen(view, fact.revision)
        return True

    def reopen(self, view: View, revision: int) -> None:
        """A run that had ended goes on: it has a guard again."""
        guard = view.run.guard(revision)
        self._draft.due[guard] = Due(guard, self._draft.now.timestamp() + GUARD_FIRST, 0, b"")

    # Calls.

    def _call(self, view: View, effect: Effect, seen: Seen, redrive: int) -> Job | None:
        """The call that an effect asks for, marked as begun; None if it has begun already."""
        run = view.run
        if isinstance(effect, Withdraw):
            self._withdraw(view, effect, seen, redrive)
            return None
        if not isinstance(effect, Invoke | Undo):
            return None
        args = effect.args if isinstance(effect, Invoke) else {"args": effect.args, "result": effect.result}
        job = Job(run, effect.key, effect.revision, args, _inputs(view, effect, seen), ())
        job.undo = isinstance(effect, Undo)
        job.redrive = redrive
        if job.cell in self._host.running or job.parking in seen.marks:
            return None
        refusal = self._host.role.refuses(self._turn, job)
        if refusal is not None and not job.undo:
            self._turn.later.append(self._turn.effects.decided(view, Fact(job.key, refusal, job.revision), redrive))
            return None
        if self._host.role.executes or run.plan.index.nodes[job.key.node].kind == "flow":
            if job.sending in seen.marks and not job.undo:
                return None  # begun before the first notice: a delivery or a due row is behind it
            self._draft.park(job, self._draft.now.timestamp() + LEASE)
            return job
        if job.sending in seen.marks and not redrive:
            return None
        self._draft.mark(job.sending)
        return job

    def _withdraw(self, view: View, effect: Withdraw, seen: Seen, redrive: int) -> None:
        job = Job(view.run, effect.key, effect.revision, {}, (), ())
        cell, running = withdrawn(job), job.cell in self._host.running
        if cell in seen.marks and not redrive:
            return
        job.redrive = redrive
        self._draft.mark(cell)
        self._host.role.withdraw(self._turn, job)
        flow = view.run.plan.index.nodes[job.key.node].kind == "flow"
        if redrive and self._host.role.executes and not (flow or running or job.parking in seen.marks):
            self._turn.effects.give_up(job)

    # Saying things again.

    def _said(self, view: View, redrive: int) -> bool:
        cell = view.run.noticed
        key = (cell.run, cell.node, cell.tag, cell.revision, int(cell.kind), redrive)
        if key in self._host.seen:
            return True
        self._draft.seen.append(key)
        return False

    def _repeat(self, view: View, seen: Seen, redrive: int) -> None:
        """The guard woke up: say everything that was decided here once more."""
        for fact, event, raw in seen.events.values():
            if isinstance(fact, Placed):
                continue
            moved = view.run.epoch > 1 and self._host.placing.speaks(view, fact)
            if event.source != self._host.source and not moved:
                continue
            if isinstance(fact, Fact) and not self._turn.effects.said(view, fact):
                continue
            if isinstance(fact, Fact) and fact.key.node == EXIT and fact.revision != seen.state.revision:
                continue
            self._publish(view, fact, event, raw, redrive)

    def _renew(self, view: View, seen: Seen) -> None:
        """After a reset: say again what reset nodes of others wait for."""
        for effect in renewed(view.run.plan, seen.state, view.mine):
            if isinstance(effect, Repeat):
                known = seen.events.get(view.run.cell(effect.key, effect.revision))
                if known is not None:
                    self._publish(view, *known, seen.state.revision)

    def _publish(self, view: View, fact: AnyFact, event: Event, raw: bytes, redrive: int) -> None:
        news = News(view.run, fact, event, raw)
        news.redrive = redrive
        self._draft.publish(news)


def _inputs(view: View, effect: Invoke | Undo, seen: Seen) -> tuple[Place, ...]:
    """The attempts that the inputs of a call came from; of an undo the one that it undoes."""
    plan, state = view.run.plan, seen.state
    places = []
    for key in [effect.key] if isinstance(effect, Undo) else inputs(plan, state, effect.key):
        known = seen.events.get(view.run.cell(key))
        if known is not None and known[1].attempt and revision(plan, state.resets, key) == 1:
            places.append(Place(*key, known[1].attempt))
    return tuple(places)


def _concerns(view: View, fact: AnyFact) -> bool:
    """Whether a notice matters here."""
    index = view.run.plan.index
    if isinstance(fact, Stop):
        return fact.scope == RUN or any(fact.scope in index.scopes[index.nodes[node].region] for node in view.mine)
    if isinstance(fact, Token):
        return any(up in view.mine for up in index.ups.get(fact.key.node, ()))
    if isinstance(fact, Undone):
        return fact.key.node in view.mine
    return True


def _kept(view: View, fact: AnyFact) -> bool:
    """Whether a fact is recorded here: own ones, and what own nodes wait for."""
    if not isinstance(fact, Fact):
        return not is_notice(fact) or (_concerns(view, fact) and not (isinstance(fact, Undone) and fact.error))
    index = view.run.plan.index
    return fact.key.node in view.mine or bool(index.fed(view.mine)[fact.key.node])
