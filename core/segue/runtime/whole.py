"""Runs that have notices: everything that is known of them here is read, and looked at as a whole.

What a look decides is recorded before the next look reads, so whoever writes last sees all: of two replicas that each
record something, at least one finds what follows from both. A call is marked before it is made: a step by its parking
(put-if-absent, with a due row behind it), a command by a mark of its own; so a repeated look makes it once, and a stop
knows what may have begun.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from segue.machine.facts import (
    AnyFact,
    Choose,
    Effect,
    Fact,
    Invoke,
    Key,
    Listen,
    Record,
    Reset,
    Sleep,
    State,
    Stop,
    Token,
    Undo,
    Withdraw,
)
from segue.machine.routes import inputs
from segue.machine.scopes import revision, since
from segue.machine.whole import follow, gather, look
from segue.plan.graph import ENTRY, EXIT
from segue.ports.store import CellKey, CellKind, Due
from segue.ports.tracing import Place
from segue.runtime import backoff
from segue.runtime.overdue import GUARD_FIRST, LEASE
from segue.runtime.placing import newest, truth
from segue.runtime.repeats import Repeats, Seen
from segue.runtime.rivals import NEVER
from segue.runtime.view import View
from segue.runtime.work import Job, News
from segue.wire import envelope
from segue.wire.envelope import Event
from segue.wire.said import fact_of, is_notice

if TYPE_CHECKING:
    from segue.runtime.turn import Turn

log = logging.getLogger("segue.whole")

_MARKS = frozenset({CellKind.PARKED, CellKind.SENT, CellKind.WAITING, CellKind.NOTICED})


class Whole:
    """The runs of a turn that have notices.

    Args:
        turn: The turn.

    Attributes:
        pending: Runs that must be looked at, by id.
    """

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._host = turn.host
        self._draft = turn.draft
        self.pending: dict[str, View] = {}
        self._withdrawn: list[Job] = []
        self._repeats = Repeats(turn)

    def take(self, view: View, items: list[News]) -> None:
        """News of a run that is, or is from now on, looked at as a whole."""
        for item in items:
            if view.noticed or not is_notice(item.fact) or view.concerned(item.fact):
                view.pending.append(item)
                self.pending[view.run.id] = view

    def early(self, view: View, items: list[News]) -> None:
        """Outcomes after a reset that has not been heard of here: they are kept, and not acted on."""
        for item in items:
            fact = item.fact
            if isinstance(fact, Fact) and fact.revision > 1 and not item.recorded and view.keeps(fact):
                self._draft.keep(item)

    async def look(self) -> None:
        """Look at the runs that there is news of."""
        while self.pending:
            pending, self.pending = self.pending, {}
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
            fact = fact_of(await self._host.opened(event))
            if fact is not None:
                facts.append(fact)
                events[cell] = (fact, event, raw)
        marks = {cell: raw for cell, raw in cells.items() if cell.kind in _MARKS}
        self._host.placing.place(view, newest(facts))
        return Seen(self._gather(view, facts, marks), facts, events, marks)

    def _gather(self, view: View, facts: list[AnyFact], marks: Mapping[CellKey, bytes]) -> State:
        begun = {
            (Key(cell.node, cell.tag), cell.revision)
            for cell in marks
            if cell.kind in (CellKind.PARKED, CellKind.SENT)
            and cell.node in view.run.plan.index.nodes
            and marks[cell] != NEVER
        }
        for job in self._host.running.values():
            if job.run.id == view.run.id and not job.undo:
                begun.add((job.key, job.revision))
        return gather(view.run.plan, facts, begun)

    async def first(self, view: View) -> None:
        """A run gets its first notice here, in the next commit: what was ready before has been called already."""
        if self._host.noticed.get(view.run.id):
            return
        fresh = not view.noticed
        if fresh:
            await self._turn.commit()
            self._draft.mark(view.run.noticed)
            await self._turn.commit()
        seen = await self.read(view)
        marked = view.run.marked in seen.marks
        self._noticed(view, marked)
        if not marked:
            self._mark_begun(view, seen)
        if fresh:
            await self._turn.rivals.recheck([view.run.id])

    def _mark_begun(self, view: View, seen: Seen) -> None:
        """What was ready without the notice may have been called already."""
        before = self._gather(view, [fact for fact in seen.facts if not is_notice(fact)], seen.marks)
        for effect in look(view.run.plan, before, view.mine):
            if isinstance(effect, Invoke):
                self._draft.mark(view.run.mark(*effect.key, effect.revision, CellKind.SENT))
        self._draft.mark(view.run.marked)

    def _noticed(self, view: View, marked: bool) -> None:
        view.noticed = True
        self._host.noticed.add([(view.run.id, marked)])

    def wake(self, view: View) -> None:
        """There are notices of a run, as it turns out."""
        self._noticed(view, False)
        self.pending[view.run.id] = view

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

    async def _again(self, view: View) -> None:
        """Record what is new, and find all that follows."""
        items, view.pending = view.pending, []
        for item in items:
            if not item.recorded and (view.ahead > 1 or view.keeps(item.fact)):
                self._draft.keep(item)
        redrive = max((item.redrive for item in items), default=0)
        await self._turn.commit()
        seen = await self.read(view)
        self._host.placing.forward(self._turn, view, items)
        if not view.mine:
            return
        if redrive or self._turn.again or any(item.repeated for item in items):
            self._repeats.all(view, seen, redrive)
        if any(isinstance(item.fact, Reset) for item in items):
            self._repeats.renew(view, seen)
        while True:
            effects = look(view.run.plan, seen.state, view.mine)
            if not await self._on(view, effects, seen):
                break
            seen = await self.read(view)
        calls = [job for effect in effects if (job := self._call(view, effect, seen, redrive)) is not None]
        lost = await self._turn.commit()
        withdrawn, self._withdrawn = self._withdrawn, []
        await backoff.relieve(self._turn, withdrawn)
        for job in calls:
            if lost.get(job.parking, self._draft.me) != self._draft.me:
                continue
            begun = lost.get(job.sending, self._draft.me)
            if begun == NEVER:
                self._draft.after.append(job.row)
            elif redrive or begun == self._draft.me:
                self._draft.job(job)
        for effect in effects:
            if isinstance(effect, Sleep | Listen):
                self._draft.naps.append((view.run, effect))

    async def _on(self, view: View, effects: list[Effect], seen: Seen) -> bool:
        """Record what was decided, and what follows from it alone: it takes no look at everything for each edge.

        Returns:
            Whether anything was recorded, so that a further look may find more.
        """
        state, found = seen.state, False
        while True:
            asked, decided = await self._give_up(view, effects)
            decided = [fact for fact in decided if self._keep(view, fact, seen)]
            decided += self._decide(view, effects, seen)
            found = found or asked or bool(decided)
            if not decided:
                return found
            lost = await self._turn.commit()
            facts = [fact for fact in (self._recorded(view, fact, lost) for fact in decided) if isinstance(fact, Fact)]
            if len(facts) < len(decided):
                return True
            state, effects = follow(view.run.plan, state, facts, view.mine)

    def _recorded(self, view: View, fact: AnyFact, lost: dict[CellKey, bytes]) -> AnyFact | None:
        """What is recorded of what was decided here: another replica may have been faster."""
        raw = lost.get(view.run.place(fact))
        return fact if raw is None else fact_of(envelope.decode(raw))

    def _decide(self, view: View, effects: list[Effect], seen: Seen) -> list[AnyFact]:
        """Decisions and choices that are new, to be recorded."""
        found: list[AnyFact] = []
        for effect in effects:
            if isinstance(effect, Record) and not _gives_up(view, effect):
                found += [effect.fact] if self._keep(view, effect.fact, seen) else []
            elif isinstance(effect, Choose):
                found += [fact for fact in effect.facts if self._keep(view, fact, seen)]
        return found

    async def _give_up(self, view: View, effects: list[Effect]) -> tuple[bool, list[AnyFact]]:
        """Calls that have not begun are cancelled, unless somebody begins them at the same time.

        Returns:
            Whether there are any, and what comes of those that nobody begins.
        """
        facts: dict[CellKey, AnyFact] = {}
        for effect in effects:
            if isinstance(effect, Record) and _gives_up(view, effect) and isinstance(effect.fact, Fact):
                cell = view.run.mark(*effect.fact.key, effect.fact.revision, CellKind.SENT)
                facts[cell] = effect.fact
                self._draft.mark(cell, NEVER)
        if not facts:
            return False, []
        lost = await self._turn.commit()
        return True, [fact for cell, fact in facts.items() if lost.get(cell, NEVER) == NEVER]

    def _keep(self, view: View, fact: AnyFact, seen: Seen) -> bool:
        cell = view.run.place(fact)
        if isinstance(fact, Fact) and cell in seen.events and isinstance(seen.events[cell][0], Stop):
            cell = cell._replace(kind=CellKind.END)
        if cell in seen.events or cell in self._draft.cells:
            return False
        limited = self._host.sizes.limited(view.run, fact) if isinstance(fact, Fact) else None
        if limited is not None:
            self._turn.effects.choose(view, (limited,))
            return False
        if isinstance(fact, Fact):
            self._turn.effects.decided(view, fact, 0, cell)
            if fact.key.node == EXIT:
                self._repeats.because(view, seen)
        else:
            self._turn.effects.acts(view)
            news = self._turn.effects.news(view, fact)
            self._draft.keep(news)
            self._draft.publish(news)
        if isinstance(fact, Token) and fact.key.node == ENTRY:
            self._draft.undone[view.run.cell(fact.key)] = 0
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
        job.since = since(seen.state, job.key, job.revision)
        job.redrive = redrive
        if job.cell in self._host.running or job.parking in seen.marks:
            return None
        refusal = self._host.role.refuses(self._turn, job)
        if refusal is not None and not job.undo:
            self._turn.later.append(self._turn.effects.decided(view, Fact(job.key, refusal, job.revision), redrive))
            return None
        if self._host.role.executes or run.plan.index.nodes[job.key.node].kind == "flow":
            if job.sending in seen.marks and not job.undo:
                # Begun before the first notice, by whoever holds its delivery; should that fail, the row is there.
                job.attempt = 0
                self._draft.park(job, self._draft.now.timestamp() + LEASE)
                return None
            self._draft.mark(job.sending)
            self._draft.park(job, self._draft.now.timestamp() + LEASE)
            return job
        if job.sending in seen.marks and not (redrive or self._turn.again):
            return None
        self._draft.mark(job.sending)
        return job

    def _withdraw(self, view: View, effect: Withdraw, seen: Seen, redrive: int) -> None:
        job = Job(view.run, effect.key, effect.revision, effect.args or {}, (), ())
        cell, running = backoff.withdrawn(job), job.cell in self._host.running
        if cell in seen.marks and not redrive:
            return
        job.redrive = redrive
        self._draft.mark(cell)
        flow = view.run.plan.index.nodes[job.key.node].kind == "flow"
        if flow and effect.args is None:
            job.redrive = 0  # it cannot be started again
        self._host.role.withdraw(self._turn, job)
        if self._host.role.executes and not flow and not running and job.parking in seen.marks:
            self._withdrawn.append(job)
        if redrive and self._host.role.executes and not (flow or running or job.parking in seen.marks):
            self._turn.effects.give_up(job)


def _inputs(view: View, effect: Invoke | Undo, seen: Seen) -> tuple[Place, ...]:
    """The attempts that the inputs of a call came from; of an undo the one that it undoes."""
    plan, state = view.run.plan, seen.state
    places = []
    for key in [effect.key] if isinstance(effect, Undo) else inputs(plan, state, effect.key):
        known = seen.events.get(view.run.cell(key))
        if known is not None and known[1].attempt and revision(plan, state.resets, key) == 1:
            places.append(Place(*key, known[1].attempt))
    return tuple(places)


def _gives_up(view: View, effect: Record) -> bool:
    """Whether a decision rests on a call's not having begun."""
    fact = effect.fact
    if not isinstance(fact, Fact) or fact.outcome.kind != "cancelled":
        return False
    return view.run.plan.index.nodes[fact.key.node].kind in ("step", "flow")
