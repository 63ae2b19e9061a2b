"""One turn of a participant: a batch of inputs through the phases of the loop.

    accept   starts: bind keys, record the run's entry and its guard
    record   results of finished calls, put-if-absent; the loser takes the recorded value
    read     deliveries into facts and calls; calls whose result is recorded repeat it
    derive   load what the facts touch, let the machine decide, hear what it decided, until nothing follows
    commit   arrivals with their tallies, and decisions; joins completed by this commit are decided too
    launch   calls that are ready; they come back as inputs of a later turn
    publish  what is recorded, never what is merely known
    settle   acknowledge deliveries that nothing waits for any more

What rests on user code is recorded before anything is derived from it: two executions may differ. What the machine
derives from recorded facts is the same for everybody, so it may share a commit with them.

Who decides a join: the loaded state was read before this turn's arrivals were written, so a join that is complete with
an arrival which only this turn knows is complete nowhere else. Results are written before the state is read; of several
replicas that record the inputs of one join, all may then read it as complete, so only the tally's answer counts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from segue.errors import OutcomeConflict, SegueError
from segue.machine.facts import Await, Effect, Fact, Invoke, Key, Record, Repeat, State
from segue.machine.step import LOADED_JOIN, decide, hear, inputs, wanted
from segue.plan.graph import ENTRY, EXIT
from segue.ports.store import CellKey, CellKind, DueKey, Join
from segue.runtime.draft import Draft
from segue.runtime.work import (
    Arrived,
    Input,
    Job,
    News,
    Overdue,
    Returned,
    RunRef,
    Starting,
    Tickets,
    View,
    fitting,
    make_event,
    mark,
    result_event,
)
from segue.wire import envelope
from segue.wire.envelope import Event

if TYPE_CHECKING:
    from segue.runtime.participant import Participant

log = logging.getLogger("segue.turn")


class Turn:
    """One turn; see the module's text.

    Args:
        host: The participant: its role, store, transport and catalog.
    """

    def __init__(self, host: Participant) -> None:
        self.host = host
        self.draft = Draft(host)
        self.views: dict[str, View] = {}
        self.counted: set[CellKey] = set()
        self.complete: set[Join] = set()
        self.started: set[str] = set()

    # The phases.

    async def run(self, batch: Sequence[Input]) -> None:
        """Take a batch of inputs through all phases; when this returns, its effects are recorded and published."""
        host = self.host
        self.draft.done, host.done = host.done, []
        starts = [item for item in batch if isinstance(item, Starting)]
        finished = [item for item in batch if isinstance(item, Returned)]
        proposed = await host.reception.accept(self, starts) if starts else []
        proposed += self._results(finished)
        news = await self._record(proposed)
        news += await host.reader.read(self, [item for item in batch if isinstance(item, Arrived)])
        news += await host.overdue.read(self, [item.due for item in batch if isinstance(item, Overdue)])
        host.overdue.park(self)
        await self._derive(news)
        await self._commit()
        host.role.launch(self, list(self.draft.jobs.values()))
        messages = self.draft.outbox.messages()
        if messages:
            await host.insist(partial(host.transport.publish, messages))
        self._published(finished, starts)
        await self.draft.settle()
        await host.report([(run, event) for run, event, _ in self.draft.ended])

    def _results(self, finished: Iterable[Returned]) -> list[News]:
        """What finished calls propose to record; a failed attempt that another one follows gets a due row instead."""
        found = []
        for item in finished:
            job = item.job
            self.host.running.pop(job.cell, None)
            event = result_event(item, self.host.source, self.draft.now)
            if item.retry_at:
                self.draft.outbox.event(job.run.mode, event.flow, event.node, item.kind, envelope.encode(event))
                self.draft.park(job, item.retry_at)
                continue
            if job.due:
                self.draft.after.append(DueKey(job.run.id, *job.key))
            result = self.news(job.run, event, envelope.encode(event), job.tickets)
            if result is not None:
                found.append(result)
        return found

    async def _record(self, proposed: list[News]) -> list[News]:
        """Commit what rests on the world outside; what counts is what is recorded now, whoever recorded it."""
        for news in proposed:
            self.draft.keep(news)
        lost = await self._commit(LOADED_JOIN + 1)
        self.counted = {news.cell for news in proposed} - lost.keys()
        recorded = []
        for news in proposed:
            raw = lost.get(news.cell)
            if raw is not None and news.fact.key.node == ENTRY and (news.run.id in self.started or raw != news.raw):
                continue  # somebody else has started it, and its guard sees that it gets going
            found = news if raw is None else await self._winner(news, raw)
            if found is not None:
                found.tickets, found.recorded = news.tickets, True
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
        return self.news(run, event, raw)

    async def _derive(self, news: list[News]) -> None:
        """Hear facts and what follows from them, one edge a round, until nothing new is decided."""
        while news:
            asked: dict[CellKey, View] = {}
            fresh: dict[str, list[News]] = {}
            for item in news:
                self.draft.seen.append(item.mark)
                view = self.view(item.run)
                if item.recorded and not item.run.plan.index.fed(view.mine)[item.fact.key.node]:
                    continue
                view.hear(item)
                fresh.setdefault(item.run.id, []).append(item)
                self._ask(view, item, asked)
            await self._load(asked)
            news = []
            for run, items in fresh.items():
                news += self._hear(self.views[run], items)

    def _hear(self, view: View, items: list[News]) -> list[News]:
        run = view.run
        try:
            _, effects = hear(run.plan, State(view.outcomes), [item.fact for item in items], view.mine)
        except OutcomeConflict as error:
            log.error("run %s: %s", run.id, error)
            return []
        for item in items:
            view.outcomes.setdefault(item.fact.key, item.fact.outcome)
        for item in items:
            if not item.recorded and item.fact.key.node in view.mine:
                self.draft.keep(item)
        redrive = max(item.redrive for item in items)
        found = [self._act(view, effect, redrive) for effect in effects]
        return [news for news in found if news is not None]

    async def _commit(self, smallest: int = 2) -> dict[CellKey, bytes]:
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
                if cell.joins and news is not None:
                    self.view(news.run)  # where a join that it completes is decided
            result = await self.host.insist(partial(self.host.store.commit, cells, due=due, done=done))
            lost |= result.lost
            self.host.facts.add(
                (cell.key, (news.fact, news.event, news.raw))
                for cell, news in written.values()
                if cell.joins and news is not None and cell.key not in result.lost
            )
            # Another replica may have ended a run at the same time.
            self.draft.ended = [
                item for item in self.draft.ended if result.lost.get(item[0].cell(Key(EXIT)), item[2]) == item[2]
            ]
            # What was there before counts no more, here or in a commit whose answer was lost: its joins are asked for.
            again = {join for cell in cells if cell.key in result.lost for join in cell.joins} - result.tallies.keys()
            tallies = result.tallies
            if again:
                tallies = tallies | await self.host.insist(partial(self.host.store.tally, list(again)))
            await self._complete(tallies, smallest)
        return lost

    async def _complete(self, tallies: dict[Join, int], smallest: int) -> None:
        """Decide joins whose last input has just been counted."""
        ready: list[tuple[View, Key]] = []
        want: dict[CellKey, View] = {}
        for join, count in tallies.items():
            view, key = self.views[join.run], Key(join.node, join.tag)
            size = len(view.run.plan.index.ups[join.node])
            if count < size:
                continue
            self.complete.add(join)
            if size < smallest or key in view.outcomes:
                continue
            ready.append((view, key))
            for part in (key, *inputs(view.run.plan, key)):
                if part not in view.outcomes:
                    want[view.run.cell(part, join.revision)] = view
        await self._load(want)
        news = []
        for view, key in ready:
            effect = decide(view.run.plan, State(view.outcomes), key)
            if not isinstance(effect, Await) and (item := self._act(view, effect, 0)) is not None:
                news.append(item)
        await self._derive(news)

    # What effects mean.

    def _act(self, view: View, effect: Effect, redrive: int) -> News | None:
        """Carry out one effect of the machine; what was decided is heard next."""
        run = view.run
        if isinstance(effect, Invoke | Record) and self._elsewhere(view, effect):
            return None
        match effect:
            case Await(key):
                self._await(view, key)
            case Invoke(key, revision, args):
                job = Job(run, key, revision, args, view.inputs(key), view.tickets(key))
                refusal = self.host.role.refuses(self, job)
                if refusal is not None:
                    return self._decided(view, Fact(key, refusal, revision), redrive)
                job.redrive = redrive
                if key not in view.parked:
                    self.draft.job(job)
            case Record(fact):
                return self._decided(view, fact, redrive)
            case Repeat(key, revision):
                return self._repeat(view, key, revision, redrive)
        return None

    def _elsewhere(self, view: View, effect: Invoke | Record) -> bool:
        """Whether a join that reads as complete is decided by the replica whose commit completed it."""
        key = effect.key if isinstance(effect, Invoke) else effect.fact.key
        revision = effect.revision if isinstance(effect, Invoke) else effect.fact.revision
        ups = view.run.plan.index.ups[key.node]
        if len(ups) < 2 or not self.counted:
            return False
        brought = [news.cell for up in ups if (news := view.news.get(Key(up, key.tag)))]
        mine = Join(view.run.id, key.node, key.tag, revision) in self.complete
        return bool(brought) and not mine and self.counted.issuperset(brought)

    def _decided(self, view: View, fact: Fact, redrive: int) -> News:
        """Record a decision, publish it if somebody hears it, and close the run with its exit."""
        run = view.run
        event = make_event(run, fact, self.host.source, self.draft.now)
        raw = envelope.encode(event)
        if len(raw) > self.host.max_event:
            fact = fitting(fact, len(raw))
            event = make_event(run, fact, self.host.source, self.draft.now)
            raw = envelope.encode(event)
        news = News(run, fact, event, raw, view.tickets(fact.key), recorded=True)
        news.redrive = redrive
        self.draft.keep(news)
        if fact.key.node in self.host.role.emits(run.plan, run.mode):
            self.draft.publish(news)
        if fact.key.node == EXIT:
            self.draft.ended.append((run, event, raw))
            self.draft.after.append(DueKey(run.id, EXIT, ""))
        return news

    def _await(self, view: View, key: Key) -> None:
        """An incomplete join: record those of its inputs that this turn brought."""
        for up in view.run.plan.index.ups[key.node]:
            item = view.news.get(Key(up, key.tag))
            if item is not None and not item.recorded:
                self.draft.keep(item)

    def _repeat(self, view: View, key: Key, revision: int, redrive: int) -> News | None:
        """Something decided before is touched again: publish it again, once per redrive and process."""
        known = view.known.get(key)
        if known is None or mark(view.run.cell(key, revision), redrive) in self.host.seen:
            return None
        event, raw = known
        if redrive:
            event = msgspec.structs.replace(event, redrive=redrive)
            raw = envelope.encode(event)
        news = self.news(view.run, event, raw, view.tickets(key))
        if news is None:
            return None
        news.recorded = True
        if key.node in self.host.role.emits(view.run.plan, view.run.mode):
            self.draft.publish(news)
        return news

    # Helpers of the phases, the reader and the reception.

    def view(self, run: RunRef) -> View:
        """What this turn knows of a run."""
        view = self.views.get(run.id)
        if view is None:
            view = self.views[run.id] = View(run, self.host.role.mine(run.plan, run.mode))
        return view

    def news(self, run: RunRef, event: Event, raw: bytes, tickets: Tickets = ()) -> News | None:
        """The news that an event is; None if it announces no fact, or a broken one."""
        try:
            fact = envelope.fact_of(event)
        except SegueError as error:
            log.error("run %s: %s", run.id, error)
            return None
        return None if fact is None else News(run, fact, event, raw, tickets)

    def _ask(self, view: View, item: News, asked: dict[CellKey, View]) -> None:
        """What must be read before a fact can be heard.

        Facts are final, so those that this process recorded lately are at hand; only what may be absent is read. What
        rests on a fact that this turn recorded first is not recorded anywhere.
        """
        run, fact = item.run, item.fact
        first = item.cell in self.counted
        if first and fact.key.node == ENTRY:
            return
        ups = run.plan.index.ups
        for key in wanted(run.plan, fact.key, view.mine):
            if key in view.known or key in view.news or (first and fact.key.node in ups[key.node]):
                continue
            cell = run.cell(key, fact.revision)
            view.known[key] = None
            if (known := self.host.facts.get(cell)) is not None:
                view.take(*known)
            else:
                asked[cell] = view
        if item.again and not first and self.host.role.executes:
            # A call that may follow from it may have been parked when it was heard before.
            for node in run.plan.index.fed(view.mine)[fact.key.node]:
                if run.plan.index.nodes[node].kind == "step":
                    asked[run.parking(Key(node, fact.key.tag), fact.revision)] = view

    async def _load(self, asked: dict[CellKey, View]) -> None:
        if asked:
            found = await self.host.insist(partial(self.host.store.load, asked))
            for key, raw in found.items():
                if key.kind == CellKind.PARKED:
                    asked[key].parked.add(Key(key.node, key.tag))
                else:
                    asked[key].learn(raw)

    def _published(self, finished: Iterable[Returned], starts: Iterable[Starting]) -> None:
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
