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
from segue.machine.scopes import since
from segue.machine.whole import gather, look
from segue.plan.graph import ENTRY, RUN, Plan
from segue.ports.store import Cell, CellKey, CellKind
from segue.runtime.placing import corrected, other, placement, truth
from segue.runtime.reader import SETTLED
from segue.runtime.rivals import NEVER
from segue.runtime.saying import make_event
from segue.runtime.view import View
from segue.runtime.work import Job, News, RunRef
from segue.wire import envelope, requests
from segue.wire.requests import Done, Install, Page, Placing, Refused, Reply, Yield, Yielded
from segue.wire.said import fact_of

if TYPE_CHECKING:
    from segue.runtime.participant import Participant
    from segue.runtime.turn import Turn

PAGE = 1000
"""Calls and waiting nodes in a page; how many facts it has is a matter of their size."""

_BEGUN = frozenset({CellKind.PARKED, CellKind.SENT})
_CHOSEN = frozenset({CellKind.OUTCOME, CellKind.END, CellKind.STOP, CellKind.SIGNAL})
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
            pages = await self._read(run, cells)
            written = [
                Cell(_page(run.id, run.epoch, number), requests.encode_page(Yielded(page, number + 1 < len(pages))))
                for number, page in enumerate(pages)
            ]
            await self._host.insist(partial(self._host.store.commit, written))
            kept = _pages(run.id, run.epoch, await self._scan(run.id))
        return kept

    async def _read(self, run: RunRef, cells: Mapping[CellKey, bytes]) -> list[Page]:
        final = {(cell.node, cell.tag, cell.revision) for cell in cells if cell.kind == CellKind.OUTCOME}
        known = await self._facts(cells)
        mine = self._host.role.mine(run.plan, other(run.mode))
        begun = {(*key, revision) for key, revision in self._state(run, cells, known).started}
        begun |= {(*effect.key, effect.revision) for effect in _ready(run, known, mine)}
        naps = [requests.decode_nap(raw) for cell, raw in cells.items() if cell.kind == CellKind.WAITING]
        waiting = tuple(nap for nap in naps if (nap.node, nap.tag, nap.revision) not in final)
        pages: list[Page] = []
        facts: list[tuple[CellKey, bytes]] = []
        size, most = 0, self._host.values.max_event // 2
        for cell, raw in cells.items():
            if cell.kind in _HIDDEN or _copied(run.plan, cell, mine):
                continue
            if facts and size + len(raw) > most:
                pages.append(_paged(facts))
                facts, size = [], 0
            facts.append((cell, raw))
            size += len(raw)
        rest = sorted(begun - final)
        pages.append(_paged(facts))
        parts = range(0, max(len(rest), len(waiting)), PAGE)
        return [*pages, *(Page(begun=tuple(rest[i : i + PAGE]), naps=waiting[i : i + PAGE]) for i in parts)]

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
        await self._correct(turn, await turn.commit(), given)
        if request.last:
            await turn.commit()
            await self._begin(turn, run)
        return Done(True)

    def _keep(self, turn: Turn, run: RunRef, page: Page) -> dict[CellKey, bytes]:
        index = run.plan.index
        given: dict[CellKey, bytes] = {}
        for ends, facts in ((False, page.facts), (True, page.ends)):
            for raw in facts:
                # Where it belongs does not depend on a value that would have to be fetched.
                fact = fact_of(envelope.decode(raw))
                if fact is not None:
                    cell = run.place(fact)
                    given[cell._replace(kind=CellKind.END) if ends else cell] = bytes(raw)
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

    async def _correct(self, turn: Turn, lost: Mapping[CellKey, bytes], given: Mapping[CellKey, bytes]) -> None:
        """What was recorded here after the run had been moved away does not count where others decided otherwise."""
        for cell, raw in given.items():
            if cell.kind not in _CHOSEN or cell not in lost or lost[cell] == raw:
                continue
            here, there = [await self._host.opened(envelope.decode(one)) for one in (lost[cell], raw)]
            if fact_of(here) != fact_of(there):
                turn.draft.mark(corrected(cell), raw)

    async def _begin(self, turn: Turn, run: RunRef) -> None:
        """All is here: from now on, what is the share of this participant is decided by it."""
        cells = await self._scan(run.id)
        known = await self._facts(cells)
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
            turn.whole.reopen(View(run, mine), gather(run.plan, known).revision)
        view = turn.view(run)
        self._host.placing.place(view, Placed(run.epoch, run.mode))
        self._say(turn, view, cells)
        calls = self._calls(turn, run, cells, known)
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

    def _calls(self, turn: Turn, run: RunRef, cells: Mapping[CellKey, bytes], known: list[AnyFact]) -> list[Job]:
        """Go on with calls that may have begun elsewhere; the commands to send for it.

        A service gives them a due row of its own: by then, a call that is under way at a replica has one too, under
        the same key. Runs of other flows are asked for again, which is harmless.
        """
        host, now, commands = self._host, turn.draft.now.timestamp(), []
        mine = host.role.mine(run.plan, run.mode)
        state = self._state(run, cells, known)
        on = {(effect.key, effect.revision) for effect in look(run.plan, state, mine) if isinstance(effect, Invoke)}
        for effect in _ready(run, known, mine):
            job = Job(run, effect.key, effect.revision, effect.args, (), ())
            goes_on, job.attempt = (job.key, job.revision) in on, 0
            job.since = since(state, job.key, job.revision)
            if run.plan.index.nodes[job.key.node].kind == "flow":
                if job.parking in cells:
                    turn.draft.due[job.row] = host.overdue.row(job, now)
            elif not host.role.executes:
                turn.draft.mark(job.sending)
                job.perhaps = True
                commands += [job] if goes_on else []
            elif goes_on and cells.get(job.sending, NEVER) != NEVER and not self._backed(job, cells):
                turn.draft.mark(job.parking)
                turn.draft.due[job.row] = host.overdue.row(job, now + SETTLED, again=True)
        return commands

    def _backed(self, job: Job, cells: Mapping[CellKey, bytes]) -> bool:
        return job.parking in cells or job.cell in self._host.running

    def _place(self, turn: Turn, run: RunRef) -> None:
        event = make_event(run, Placed(run.epoch, run.mode), self._host.source, turn.draft.now)
        turn.draft.mark(run.placed(run.epoch), envelope.encode(event))
        turn.draft.mark(run.noticed)
        turn.draft.mark(run.marked)
        self._host.placing.note(run.id)

    # What is known.

    async def _facts(self, cells: Mapping[CellKey, bytes]) -> list[AnyFact]:
        events = [envelope.decode(raw) for cell, raw in cells.items() if cell.kind not in _HIDDEN]
        facts = [fact_of(await self._host.opened(event)) for event in events]
        return [fact for fact in facts if fact is not None]

    def _state(self, run: RunRef, cells: Mapping[CellKey, bytes], known: list[AnyFact]) -> State:
        nodes = run.plan.index.nodes
        begun = {
            (Key(cell.node, cell.tag), cell.revision)
            for cell, raw in cells.items()
            if cell.kind in _BEGUN and cell.node in nodes and raw != NEVER
        }
        here = self._host.running.values()
        begun |= {(job.key, job.revision) for job in here if job.run.id == run.id and not job.undo}
        return gather(run.plan, known, begun)

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


def _copied(plan: Plan, cell: CellKey, mine: Mine) -> bool:
    """Whether a cell is about the exit of a region that somebody else decides, who alone knows if it was stopped."""
    if cell.kind not in (CellKind.OUTCOME, CellKind.END) or cell.node in mine:
        return False
    node = plan.index.nodes[cell.node]
    return node.kind == "exit" and bool(node.construct)


def _paged(cells: list[tuple[CellKey, bytes]]) -> Page:
    ends = tuple(msgspec.Raw(raw) for cell, raw in cells if cell.kind == CellKind.END)
    return Page(tuple(msgspec.Raw(raw) for cell, raw in cells if cell.kind != CellKind.END), ends=ends)


def _ready(run: RunRef, known: list[AnyFact], mine: Mine) -> list[Invoke]:
    """Calls that may have been made, because nothing was missing for them; a stop came too late for them."""
    facts = [fact for fact in known if not isinstance(fact, Stop | Pause)]
    return [effect for effect in look(run.plan, gather(run.plan, facts), mine) if isinstance(effect, Invoke)]
