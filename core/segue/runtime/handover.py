"""Handing a run over (R13): what those who decided it know of it, in pages, and what the new ones do with that.

What is handed over is read once, after the move was recorded, and kept: whoever asks again gets the same. Facts are
final, so nothing of them is lost or contradicted by what comes late; what may have been called goes along, and so do
the times of what waits, since both are known to nobody else. A call that was ready may have been made, so it counts as
one; its service sees to it that it is made, unless it finds the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from segue.errors import TransportUnavailable
from segue.machine.facts import AnyFact, Fact, Invoke, Key, Pause, Placed, State, Stop
from segue.machine.routes import Mine
from segue.machine.whole import gather, look
from segue.plan.graph import ENTRY, RUN
from segue.ports.store import Cell, CellKey, CellKind
from segue.runtime.placing import other, placement, truth
from segue.runtime.reader import SETTLED
from segue.runtime.view import View
from segue.runtime.work import Job, News, RunRef, make_event
from segue.wire import envelope, requests
from segue.wire.requests import Done, Install, Page, Placing, Refused, Reply, Yield, Yielded
from segue.wire.said import fact_of

if TYPE_CHECKING:
    from segue.runtime.participant import Participant
    from segue.runtime.turn import Turn

PAGE = 1000
"""Calls and waiting nodes in a page; how many facts it has is a matter of their size."""

_BEGUN = frozenset({CellKind.PARKED, CellKind.SENT})
_HIDDEN = _BEGUN | {CellKind.NOTICED, CellKind.WAITING, CellKind.SNAPSHOT, CellKind.PLACED}


class Handover:
    """Gives runs away and takes them over, on behalf of a participant.

    Args:
        host: The participant.
    """

    def __init__(self, host: Participant) -> None:
        self._host = host

    async def run(self, to: Placing) -> RunRef | None:
        """The run, as it will be placed; None if its plan cannot be had now."""
        try:
            plan = await self._host.catalog.plan(to.plan)
        except TransportUnavailable:
            return None
        return None if plan is None else RunRef(to.run, plan, to.mode, to.key, to.epoch)

    # Giving away.

    async def give(self, turn: Turn, request: Yield) -> Reply:
        """Decide nothing of a run any more, and hand over what is known of it."""
        run = await self.run(request.to)
        if run is None:
            return Refused(f"plan {request.to.plan} is not in the registry yet", retry=True)
        now = placement(await self._scan(run.id))
        if now is not None and now.epoch > run.epoch:
            return Refused(f"run {run.id} has been moved since")
        if now is None or now.epoch < run.epoch:
            view = turn.view(run._replace(mode=other(run.mode), epoch=run.epoch - 1))
            await turn.loads.notices([view])
            await turn.whole.first(view)
            self._place(turn, run)
            await turn.commit()
        pages = await self.snapshot(run)
        if request.page >= len(pages):
            return Refused(f"there are {len(pages)} pages")
        return pages[request.page]

    async def snapshot(self, run: RunRef) -> list[Yielded]:
        """What was known here when the run was moved to where it is now; the same whenever it is asked for."""
        cells = await self._scan(run.id)
        kept = _pages(run.id, run.epoch, cells)
        if not kept:
            pages = self._read(run, cells)
            written = [
                Cell(_page(run.id, run.epoch, number), requests.encode_page(Yielded(page, number + 1 < len(pages))))
                for number, page in enumerate(pages)
            ]
            await self._host.insist(partial(self._host.store.commit, written))
            kept = _pages(run.id, run.epoch, await self._scan(run.id))
        return kept

    def _read(self, run: RunRef, cells: Mapping[CellKey, bytes]) -> list[Page]:
        final = {(cell.node, cell.tag, cell.revision) for cell in cells if cell.kind == CellKind.OUTCOME}
        state = self._state(run, cells)
        mine = self._host.role.mine(run.plan, other(run.mode))
        begun = {(*key, revision) for key, revision in state.started}
        begun |= {(*effect.key, effect.revision) for effect in self._ready(run, cells, mine)}
        naps = [requests.decode_nap(raw) for cell, raw in cells.items() if cell.kind == CellKind.WAITING]
        waiting = tuple(nap for nap in naps if (nap.node, nap.tag, nap.revision) not in final)
        pages: list[Page] = []
        facts: list[msgspec.Raw] = []
        size, most = 0, self._host.max_event // 2
        for cell, raw in cells.items():
            if cell.kind in _HIDDEN:
                continue
            if facts and size + len(raw) > most:
                pages.append(Page(tuple(facts)))
                facts, size = [], 0
            facts.append(msgspec.Raw(raw))
            size += len(raw)
        rest = sorted(begun - final)
        pages.append(Page(tuple(facts)))
        parts = range(0, max(len(rest), len(waiting)), PAGE)
        return [*pages, *(Page((), tuple(rest[i : i + PAGE]), waiting[i : i + PAGE]) for i in parts)]

    # Taking over.

    async def take(self, turn: Turn, request: Install) -> Reply:
        """Keep a page of what is known of a run; with the last one, go on with what is decided here."""
        run = await self.run(request.to)
        if run is None:
            return Refused(f"plan {request.to.plan} is not in the registry yet", retry=True)
        now = placement(await self._scan(run.id))
        if now is not None and now.epoch >= run.epoch:
            if now.epoch == run.epoch:
                view = turn.view(run)
                view.noticed = True
                turn.whole.wake(view)
            return Done(False)
        given = self._keep(turn, run, request.page)
        self._correct(turn, await turn.commit(), given)
        if request.last:
            await turn.commit()
            await self._begin(turn, run)
        return Done(True)

    def _keep(self, turn: Turn, run: RunRef, page: Page) -> dict[CellKey, bytes]:
        index = run.plan.index
        given: dict[CellKey, bytes] = {}
        for raw in page.facts:
            fact = fact_of(envelope.decode(raw))
            if fact is not None:
                given[run.place(fact)] = bytes(raw)
        for cell, body in given.items():
            turn.draft.mark(cell, body)
        for node, tag, revision in page.begun:
            if node in index.nodes:
                kind = CellKind.PARKED if index.nodes[node].kind == "flow" else CellKind.SENT
                turn.draft.mark(run.mark(node, tag, revision, kind))
        for nap in page.naps:
            mark = run.mark(nap.node, nap.tag, nap.revision, CellKind.WAITING)
            turn.draft.mark(mark, requests.encode_nap(nap))
        return given

    def _correct(self, turn: Turn, lost: Mapping[CellKey, bytes], given: Mapping[CellKey, bytes]) -> None:
        """What was recorded here after the run had been moved away does not count where others decided otherwise."""
        for cell, raw in given.items():
            chosen = cell.kind in (CellKind.OUTCOME, CellKind.STOP, CellKind.SIGNAL)
            if chosen and cell in lost and fact_of(envelope.decode(lost[cell])) != fact_of(envelope.decode(raw)):
                turn.draft.mark(cell._replace(kind=CellKind.CORRECTED), raw)

    async def _begin(self, turn: Turn, run: RunRef) -> None:
        """All is here: from now on, what is the share of this participant is decided by it."""
        cells = await self._scan(run.id)
        mine = self._host.role.mine(run.plan, run.mode)
        for cell, raw in cells.items():
            waiting = cell.kind == CellKind.WAITING and cell._replace(kind=CellKind.OUTCOME) not in cells
            if waiting and cell.node in mine:
                turn.draft.wait(run, requests.decode_nap(raw))
        self._place(turn, run)
        if ENTRY in mine:
            if run.key:
                bind = partial(self._host.store.bind, run.plan.flow, [(run.key, run.id)])
                await self._host.insist(bind)
            # Also if it has ended: that was recorded by somebody who perhaps could not say it any more.
            turn.whole.reopen(View(run, mine), gather(run.plan, _facts(cells)).revision)
        view = turn.view(run)
        self._host.placing.place(view, Placed(run.epoch, run.mode))
        self._say(turn, view, cells)
        calls = self._calls(turn, run, cells)
        await turn.commit()
        for job in calls:
            turn.draft.job(job)
        turn.whole.wake(view)

    def _say(self, turn: Turn, view: View, cells: Mapping[CellKey, bytes]) -> None:
        """Say what was decided before: whoever recorded it may have been overtaken before he could."""
        for cell, raw in cells.items():
            if cell.kind in _HIDDEN:
                continue
            event = envelope.decode(raw)
            fact = fact_of(event)
            if fact is None or not self._host.placing.speaks(view, fact):
                continue
            if isinstance(fact, Fact):
                kind = view.run.plan.index.nodes[fact.key.node].kind
                if kind in ("step", "flow") or not turn.effects.said(view, fact):
                    continue
            again = msgspec.structs.replace(event, epoch=view.run.epoch)
            turn.draft.publish(News(view.run, fact, again, envelope.encode(again)))

    def _calls(self, turn: Turn, run: RunRef, cells: Mapping[CellKey, bytes]) -> list[Job]:
        """Go on with calls that may have begun elsewhere; the commands to send for it.

        A service gives them a due row of its own: by then, a call that is under way at a replica has one too, under
        the same key. Runs of other flows are asked for again, which is harmless.
        """
        host, now, commands = self._host, turn.draft.now.timestamp(), []
        mine = host.role.mine(run.plan, run.mode)
        on = {
            (effect.key, effect.revision)
            for effect in look(run.plan, self._state(run, cells), mine)
            if isinstance(effect, Invoke)
        }
        for effect in self._ready(run, cells, mine):
            job = Job(run, effect.key, effect.revision, effect.args, (), ())
            goes_on, job.attempt = (job.key, job.revision) in on, 0
            if run.plan.index.nodes[job.key.node].kind == "flow":
                if job.parking in cells:
                    turn.draft.due[job.row] = host.overdue.row(job, now)
            elif not host.role.executes:
                turn.draft.mark(job.sending)
                job.perhaps = True
                commands += [job] if goes_on else []
            elif goes_on and job.sending in cells and job.parking not in cells and job.cell not in host.running:
                turn.draft.due[job.row] = host.overdue.row(job, now + SETTLED)
        return commands

    def _place(self, turn: Turn, run: RunRef) -> None:
        event = make_event(run, Placed(run.epoch, run.mode), self._host.source, turn.draft.now)
        turn.draft.mark(run.placed(run.epoch), envelope.encode(event))
        turn.draft.mark(run.noticed)
        self._host.placing.note(run.id)

    async def _see_to(self, turn: Turn, run: RunRef) -> None:
        """Calls of this service that may have begun elsewhere, and runs of other flows: each has a due row from now on.

        A call that is under way at a replica has its own one soon, under the same key.
        """
        cells = await self._scan(run.id)
        state, index, host = self._state(run, cells), run.plan.index, self._host
        placed = host.role.mine(run.plan, run.mode)
        mine = placed or host.role.mine(run.plan, other(run.mode))
        for effect in look(run.plan, state, mine):
            if not isinstance(effect, Invoke):
                continue
            job = Job(run, effect.key, effect.revision, effect.args, (), ())
            job.attempt = 0
            kind = index.nodes[effect.key.node].kind
            if kind == "flow" and effect.key.node in placed and job.parking in cells:
                at = turn.draft.now.timestamp()
            elif kind == "step" and host.role.executes and self._unbacked(job, cells):
                at = turn.draft.now.timestamp() + SETTLED
            else:
                continue
            turn.draft.due[job.row] = host.overdue.row(job, at)

    def _unbacked(self, job: Job, cells: Mapping[CellKey, bytes]) -> bool:
        """Whether a call may be under way, and nothing here stands behind it."""
        begun = job.sending in cells or not self._host.role.mine(job.run.plan, job.run.mode)
        return begun and job.parking not in cells and job.cell not in self._host.running

    # What is known.

    def _ready(self, run: RunRef, cells: Mapping[CellKey, bytes], mine: Mine) -> list[Invoke]:
        """Calls that may have been made, because nothing was missing for them; a stop came too late for them."""
        facts = [fact for fact in _facts(cells) if not isinstance(fact, Stop | Pause)]
        return [effect for effect in look(run.plan, gather(run.plan, facts), mine) if isinstance(effect, Invoke)]

    def _state(self, run: RunRef, cells: Mapping[CellKey, bytes]) -> State:
        nodes = run.plan.index.nodes
        begun = {
            (Key(cell.node, cell.tag), cell.revision) for cell in cells if cell.kind in _BEGUN and cell.node in nodes
        }
        here = self._host.running.values()
        begun |= {(job.key, job.revision) for job in here if job.run.id == run.id and not job.undo}
        return gather(run.plan, _facts(cells), begun)

    async def _scan(self, run: str) -> Mapping[CellKey, bytes]:
        return truth(await self._host.insist(partial(self._host.store.scan, [run])))


def _pages(run: str, epoch: int, cells: Mapping[CellKey, bytes]) -> list[Yielded]:
    """The pages that were kept; of several writers the first one's count, and another one may have written more."""
    pages: list[Yielded] = []
    more = True
    while more and (raw := cells.get(_page(run, epoch, len(pages)))) is not None:
        pages.append(requests.decode_page(raw))
        more = pages[-1].more
    return pages


def _page(run: str, epoch: int, number: int) -> CellKey:
    return CellKey(run, RUN, str(number), epoch, CellKind.SNAPSHOT)


def _facts(cells: Mapping[CellKey, bytes]) -> list[AnyFact]:
    facts = (fact_of(envelope.decode(raw)) for cell, raw in cells.items() if cell.kind not in _HIDDEN)
    return [fact for fact in facts if fact is not None]
