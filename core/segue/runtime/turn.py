"""One turn of a participant: a batch of inputs through the phases of the loop.

    accept   starts: bind keys, record the run's entry and its guard
    record   results of finished calls, and choices, put-if-absent; the loser takes the recorded value
    read     deliveries into facts and calls; calls whose result is recorded repeat it
    derive   load what the facts touch, let the machine decide, hear what it decided, until nothing follows
    look     runs that have notices: at all that is known of them here
    commit   arrivals with their tallies, and decisions; joins completed by this commit are decided too
    launch   calls that are ready; they come back as inputs of a later turn
    publish  what is recorded, never what is merely known
    settle   acknowledge deliveries that nothing waits for any more

What rests on user code, on time or on what is not known is recorded before anything is derived from it: two executions
may differ. What the machine derives from recorded facts is the same for everybody, so it may share a commit with them.

Who decides a join: the loaded state was read before this turn's arrivals were written, so a join that is complete with
an arrival which only this turn knows is complete nowhere else. Results are written before the state is read; of several
replicas that record the inputs of one join, all may then read it as complete, so only the tally's answer counts.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from segue.errors import InvalidInput, OutcomeConflict
from segue.machine.facts import Await, Choose, Fact, Key, Signal
from segue.machine.step import LOADED_JOIN, decide, hear, inputs, size, slots
from segue.plan.graph import ENTRY
from segue.plan.names import opening
from segue.ports.store import CellKey, Join
from segue.runtime import backoff
from segue.runtime.draft import Draft
from segue.runtime.effects import Effects
from segue.runtime.loading import Loader
from segue.runtime.naps import Naps
from segue.runtime.rivals import Rivals
from segue.runtime.saying import result_event
from segue.runtime.sizes import feeds
from segue.runtime.tickets import Tickets
from segue.runtime.view import View
from segue.runtime.whole import Whole
from segue.runtime.work import Arrived, Asked, Input, News, Overdue, Returned, RunRef, Starting
from segue.wire import envelope
from segue.wire.envelope import ATTEMPT_FAILED, Event
from segue.wire.said import fact_of, is_notice

if TYPE_CHECKING:
    from segue.runtime.participant import Participant

log = logging.getLogger("segue.turn")

UNDO_AGAIN = 600.0
"""Seconds until an undo whose attempts are used up is tried again."""

_DYNAMIC = frozenset({"entry", "close", "settle"})
"""Gateways that are looked at before all their inputs are there, or whose number of inputs the state tells."""


class Turn:
    """One turn; see the module's text.

    Args:
        host: The participant: its role, store, transport and catalog.
        again: Whether its inputs have been in a turn before, which may have failed half-way.
    """

    def __init__(self, host: Participant, again: bool = False) -> None:
        self.host = host
        self.again = again
        self.draft = Draft(host)
        self.views: dict[str, View] = {}
        self.counted: set[CellKey] = set()
        self.complete: set[Join] = set()
        self.started: set[str] = set()
        self.choices: list[News] = []
        self.acted: dict[str, int] = {}
        self.later: list[News] = []
        self.loads = Loader(self)
        self.effects = Effects(self)
        self.naps = Naps(self)
        self.whole = Whole(self)
        self.rivals = Rivals(self)

    # The phases.

    async def run(self, batch: Sequence[Input]) -> None:
        """Take a batch of inputs through all phases; when this returns, its effects are recorded and published."""
        try:
            await self._phases(batch)
        finally:
            # Its parts point back at it, so all that it holds would wait for the garbage collector.
            vars(self).clear()

    async def _phases(self, batch: Sequence[Input]) -> None:
        host = self.host
        self.draft.done, host.done = host.done, []
        starts = [item for item in batch if isinstance(item, Starting)]
        finished = [item for item in batch if isinstance(item, Returned)]
        asked = [item for item in batch if isinstance(item, Asked)]
        proposed = await host.reception.accept(self, starts) if starts else []
        proposed += await self._results(finished)
        news = await self._record(proposed)
        await host.placing.runs([item.job.run for item in finished if item.job.due])
        news += await host.reader.read(self, [item for item in batch if isinstance(item, Arrived)])
        news += await host.overdue.read(self, [item.due for item in batch if isinstance(item, Overdue)])
        await backoff.failing(self, [item.job for item in finished if item.retry_at and not item.job.undo])
        host.overdue.park(self)
        if asked:
            await host.orders.read(self, asked)
        await self._go_on(news)
        host.role.launch(self, self.rivals.jobs())
        if self.draft.ended or self.draft.undone:
            await host.families.over(self)
        messages = self.draft.outbox.messages()
        await host.flush()
        if messages:
            await host.insist(partial(host.transport.publish, messages))
        self._published(finished, starts, asked)
        await self.draft.settle()
        await host.report([(end.run, end.event) for end in self.draft.ended])

    async def _go_on(self, news: list[News]) -> None:
        """Derive what follows, until nothing new is chosen or decided."""
        while True:
            chosen, self.choices = self.choices, []
            later, self.later = self.later, []
            found = await self._record(chosen)
            for item in found:
                if isinstance(item.fact, Signal):
                    await self.naps.signalled(item)
            await self._derive([*news, *later, *found])
            await self.whole.look()
            await self.commit()
            await self.naps.begin()
            news = []
            draft = self.draft
            if self.choices or self.later or self.whole.pending or draft.cells or draft.due or draft.naps:
                continue
            if not (await self.rivals.overtaken() or self.draft.back(self.rivals.jobs())):
                return

    async def _results(self, finished: Iterable[Returned]) -> list[News]:
        """What finished calls propose to record; a failed attempt that another one follows gets a due row instead."""
        found = []
        for item in finished:
            job = item.job
            self.host.running.pop(job.cell, None)
            event, raw = self.host.values.encode(result_event(item, self.host.source, self.draft.now))
            if item.retry_at or item.kind == "compensation.failed":
                self.draft.outbox.event(job.run.mode, event.flow, event.node, event.kind, raw)
                if item.kind != ATTEMPT_FAILED:
                    job.attempt = 0
                self.draft.park(job, item.retry_at or self.draft.now.timestamp() + UNDO_AGAIN, again=True)
                continue
            if job.due:
                self.draft.after.append(job.row)
            result = await self.news(job.run, event, raw, job.tickets)
            if result is not None:
                found.append(result)
        return found

    async def _record(self, proposed: list[News]) -> list[News]:
        """Commit what rests on the world outside; what counts is what is recorded now, whoever recorded it."""
        if not proposed:
            return []
        # Two inputs of a race may both have led to a choice; the first one counts.
        proposed = list({news.cell: news for news in reversed(proposed)}.values())[::-1]
        for news in proposed:
            if is_notice(news.fact) and (view := self.view(news.run)).mine:
                await self.loads.notices([view])
                await self.whole.first(view)
        for news in proposed:
            self.draft.keep(news)
        lost = await self.commit(LOADED_JOIN + 1)
        self.counted |= {news.cell for news in proposed} - lost.keys()
        recorded = []
        for news in proposed:
            raw = lost.get(news.cell)
            is_entry = isinstance(news.fact, Fact) and news.fact.key.node == ENTRY
            another = news.run.id in self.started or raw != news.raw
            if raw is not None and is_entry and another and not self.again:
                continue  # somebody else has started it, and its guard sees that it gets going
            found = news if raw is None else await self._winner(news, raw)
            if found is not None:
                found.tickets, found.recorded = news.tickets, True
                if self.effects.shown(self.view(found.run), found.fact):
                    self.draft.publish(found)
                recorded.append(found)
        return recorded

    async def _winner(self, loser: News, raw: bytes) -> News | None:
        """The recorded fact that a proposal lost against; a run accepted before may have an older plan."""
        event, run = envelope.decode(raw), loser.run
        if event.plan != run.plan.hash:
            plan = await self.host.catalog.plan(event.plan)
            if plan is None:
                log.error("run %s: its plan %s is not in the registry", run.id, event.plan)
                return None
            run = run._replace(plan=plan)
            self.views.pop(run.id, None)
        return await self.news(run, event, raw)

    async def _derive(self, news: list[News]) -> None:
        """Hear facts and what follows from them, one edge a round, until nothing new is decided."""
        while news:
            asked: dict[CellKey, View] = {}
            fresh: dict[str, list[News]] = {}
            for item in news:
                self.draft.seen.append(item.mark)
                if self._leads_nowhere(item):
                    continue
                view = self.view(item.run)
                if not (view.mine or view.noticed):
                    continue
                view.ahead = max(view.ahead, item.event.epoch)
                self.loads.notice(view, asked)
                fresh.setdefault(item.run.id, []).append(item)
                if isinstance(item.fact, Fact) and not view.whole:
                    view.hear(item.fact.key, item)
                    self.loads.ask(view, item, item.fact, asked)
            await self.loads.load(asked)
            await self.loads.counts([self.views[run] for run in fresh])
            news = []
            for run, items in fresh.items():
                view = self.views[run]
                # What comes with the first notice is not forgotten: after a reset, it may have been said for that.
                if view.whole or any(is_notice(item.fact) and view.concerned(item.fact) for item in items):
                    self.whole.take(view, items)
                    continue
                plain = [item for item in items if isinstance(item.fact, Fact) and item.fact.revision == 1]
                if plain:
                    news += self._hear(view, plain)
                if len(plain) < len(items):
                    self.whole.early(view, items)
                    self.whole.take(view, [item for item in items if not isinstance(item.fact, Fact)])

    def _leads_nowhere(self, item: News) -> bool:
        """Whether nothing here follows from a recorded outcome, not even that something before it may be undone."""
        index, fact = item.run.plan.index, item.fact
        if not item.recorded or not isinstance(fact, Fact) or index.undoable or item.run.id in self.host.noticed:
            return False
        return not index.fed(self.host.role.mine(item.run.plan, item.run.mode))[fact.key.node]

    def _hear(self, view: View, items: list[News]) -> list[News]:
        run = view.run
        facts = [item.fact for item in items if isinstance(item.fact, Fact)]
        try:
            _, effects = hear(run.plan, view.state, facts, view.mine)
        except OutcomeConflict as error:
            log.error("run %s: %s", run.id, error)
            return []
        for fact in facts:
            view.outcomes.setdefault(fact.key, fact.outcome)
        # Stops may be chosen, and whoever looks at the whole run then knows what is recorded only.
        kept = run.plan.index.fed(view.mine) if any(isinstance(effect, Choose) for effect in effects) else {}
        for item, fact in zip(items, facts, strict=True):
            needed = fact.key.node in view.mine or kept.get(fact.key.node) or view.needs_later(fact.key)
            if not item.recorded and needed:
                self.draft.keep(item)
        redrive = max(item.redrive for item in items)
        found = [self.effects.act(view, effect, redrive) for effect in effects]
        return [news for news in found if news is not None]

    async def commit(self, smallest: int = 2) -> dict[CellKey, bytes]:
        """Write cells and due rows; then decide the joins that this commit completed, until none is left.

        Args:
            smallest: Completed joins with fewer inputs are left to `_derive`, which loads all their inputs anyway.

        Returns:
            The recorded values of cells that were there before.
        """
        lost: dict[CellKey, bytes] = {}
        draft = self.draft
        while draft.cells or draft.due or draft.done:
            written, due, done = draft.cells, list(draft.due.values()), draft.done
            draft.cells, draft.due, draft.done = {}, {}, []
            cells = [cell for cell, _ in written.values()]
            for cell, news in written.values():
                if feeds(cell) and news is not None:
                    self.view(news.run)  # where a join that it completes is decided
            await self.host.flush()
            result = await self.host.insist(partial(self.host.store.commit, cells, due=due, done=done))
            lost |= result.lost
            self.host.facts.add(
                (cell.key, (news.fact, news.event, news.raw))
                for cell, news in written.values()
                if feeds(cell)
                and news is not None
                and isinstance(news.fact, Fact)
                and cell.key not in result.lost
                and cell.key not in result.refused
            )
            await self.rivals.found(written, result)
            # What was there before counts no more, here or in a commit whose answer was lost: its joins are asked for.
            again = {
                join for cell in cells if self.rivals.recount(*written[cell.key], result.lost) for join in cell.joins
            }
            again -= result.tallies.keys()
            tallies = self.host.sizes.hear(result.tallies)
            if again:
                found = await self.host.insist(partial(self.host.store.tally, list(again)))
                tallies |= self.host.sizes.hear(found)
            vain = result.lost.keys() | result.refused
            fresh = Counter(join for cell in cells if cell.key not in vain for join in cell.joins)
            await self._complete(tallies, fresh, smallest)
        return lost

    async def _complete(self, tallies: dict[Join, int], fresh: Counter[Join], smallest: int) -> None:
        """Decide joins whose last input has just been counted, and let further items of a map in."""
        joins = {
            join: self.views[join.run] for join in tallies if join.revision == 1 and not self.views[join.run].noticed
        }
        opens: dict[CellKey, View] = {}
        for join, view in joins.items():
            node = view.run.plan.index.nodes[join.node]
            if node.kind == "close" and (opened := Key(opening(node.construct), join.tag)) not in view.outcomes:
                opens[view.run.cell(opened)] = view
        await self.loads.load(opens)
        ready: list[tuple[View, Key]] = []
        for join, view in joins.items():
            plan, key, count = view.run.plan, Key(join.node, join.tag), tallies[join]
            view.counts[key] = max(count, view.counts.get(key, 0))
            ready += [(view, entry) for entry in slots(plan, view.state, key, count - fresh[join], count)]
            number = size(plan, view.state, key)
            if count < number or not number:
                continue
            self.complete.add(join)
            dynamic = plan.index.nodes[key.node].kind in _DYNAMIC
            if (dynamic or number >= smallest) and key not in view.outcomes:
                ready.append((view, key))
        want = {
            view.run.cell(part): view
            for view, key in ready
            for part in (key, *inputs(view.run.plan, view.state, key))
            if part not in view.outcomes
        }
        await self.loads.load(want)
        news = []
        for view, key in ready:
            effect = decide(view.run.plan, view.state, key)
            if not isinstance(effect, Await) and (item := self.effects.act(view, effect, 0)) is not None:
                news.append(item)
        await self._derive(news)

    # Helpers of the phases, the reader and the reception.

    def view(self, run: RunRef) -> View:
        """What this turn knows of a run."""
        view = self.views.get(run.id)
        if view is None:
            view = self.views[run.id] = View(run, self.host.role.mine(run.plan, run.mode))
        if run.id in self.host.moved:
            view.noticed = True
        return view

    async def news(self, run: RunRef, event: Event, raw: bytes, tickets: Tickets = ()) -> News | None:
        """The news that an event is; None if it announces no fact, or a broken one."""
        try:
            fact = fact_of(await self.host.opened(event))
        except InvalidInput as error:
            log.error("run %s: %s", run.id, error)
            return None
        return None if fact is None else News(run, fact, event, raw, tickets)

    def _published(self, finished: Iterable[Returned], starts: Iterable[Starting], asked: Iterable[Asked]) -> None:
        """Everything is recorded and published: let go of what waited for it."""
        self.host.done += self.draft.after
        self.host.seen.add((mark, None) for mark in self.draft.seen)
        for item in finished:
            self.draft.release(item.job.tickets)
        counts = self.host.counts
        counts.events += len(self.draft.seen)
        counts.calls += len(self.draft.jobs)
        counts.ended += len(self.draft.ended)
        for start in starts:
            counts.started += 1
            start.done.set()
        for order in asked:
            order.done.set()
