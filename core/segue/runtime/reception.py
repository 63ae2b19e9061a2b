"""Requests to a participant: starts go through a turn and are answered once committed, the others are read-only."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from segue.errors import InvalidInput, SegueError, TransportUnavailable
from segue.machine.facts import Fact, Key, Outcome
from segue.plan.graph import ENTRY, EXIT, RUN, Plan
from segue.plan.projection import COORDINATOR, Mode, holder
from segue.ports.store import CellKey, CellKind, Due
from segue.runtime.ids import check_key, check_run_id
from segue.runtime.overdue import GUARD_FIRST, newest_end
from segue.runtime.placing import other, placement, standing, truth, waits
from segue.runtime.saying import make_event
from segue.runtime.work import Asked, News, RunRef, Starting, mark
from segue.wire import envelope, requests
from segue.wire.records import FlowRecord
from segue.wire.requests import (
    Accepted,
    Answer,
    Ask,
    Find,
    Found,
    Install,
    Purge,
    Refused,
    Reply,
    Send,
    Start,
    Yield,
)

if TYPE_CHECKING:
    from segue.runtime.participant import Participant
    from segue.runtime.turn import Turn

log = logging.getLogger("segue.reception")


class Reception:
    """Answers requests on behalf of a participant.

    Args:
        host: The participant.
    """

    def __init__(self, host: Participant) -> None:
        self._host = host

    async def question(self, body: bytes) -> bytes:
        """Answer a list of requests that change nothing; never raises for what a caller sent."""
        try:
            asked = requests.decode_requests(body)
        except InvalidInput as error:
            return requests.encode([Refused(error.message, error.hint)])
        refused = Refused("only questions are answered here", "send it where requests are taken")
        return requests.encode([await self.answer(one) if isinstance(one, Find | Ask) else refused for one in asked])

    async def handover(self, body: bytes) -> bytes:
        """Answer a list of requests of those who move a run; never raises for what a caller sent."""
        return await self.handle(body, True)

    async def handle(self, body: bytes, moving: bool = False) -> bytes:
        """Answer a list of requests; never raises for what a caller sent.

        Args:
            body: The requests.
            moving: They came from those who move runs, and nobody else may hand runs over.
        """
        try:
            asked = requests.decode_requests(body)
        except InvalidInput as error:
            return requests.encode([Refused(error.message, error.hint)])
        if self._host.stopping:
            return requests.encode([Refused(f"{self._host.name} is stopping", retry=True) for _ in asked])
        replies: list[Reply | None] = [None] * len(asked)
        starts: list[Starting] = []
        orders: list[Asked] = []
        for place, request in enumerate(asked):
            if isinstance(request, Yield | Install) is not moving:
                replies[place] = Refused("a request of this kind is not answered here")
                continue
            if isinstance(request, Start | Send) and request.dataref:
                try:
                    request = await self._host.insist(partial(self._host.values.disclose, request))
                except SegueError as error:
                    replies[place] = Refused(error.message, error.hint, error.retryable)
                    continue
            if isinstance(request, Start):
                starts.append(Starting(request, replies, place, self._host.event()))
            elif isinstance(request, Find | Ask | Purge):
                replies[place] = await self.answer(request)
            else:
                orders.append(Asked(request, replies, place, self._host.event()))
        # Here and not in a turn, because it may have to wait for another participant.
        starts = await self._welcome(starts)
        self._host.put(*starts, *orders)
        for waiting in [item.done for item in starts] + [item.done for item in orders]:
            await waiting.wait()
        return requests.encode([reply or Refused("the request was dropped", retry=True) for reply in replies])

    async def answer(self, request: Find | Ask | Purge) -> Reply:
        """Answer what no turn is needed for."""
        store = self._host.store
        try:
            if isinstance(request, Purge):
                return await self._host.purger.sweep(request)
            if isinstance(request, Find):
                key = check_key(request.key)
                run = (await store.find(request.flow, [key])).get(key, "")
                entry = CellKey(run, ENTRY, "", 1, CellKind.OUTCOME)
                # A key whose home died before it recorded the run has no run.
                return Found(run if run and await store.load([entry]) else "")
            entry = CellKey(check_run_id(request.run), ENTRY, "", 1, CellKind.OUTCOME)
            noticed = CellKey(entry.run, RUN, "", 0, CellKind.NOTICED)
            cells: Mapping[CellKey, bytes] = await store.load([entry, entry._replace(node=EXIT), noticed])
            raw = cells.get(entry._replace(node=EXIT))
            if noticed in cells:
                cells = truth(await store.scan([entry.run]))
                raw = newest_end(cells)
            begun = cells.get(entry)
            plan = None if begun is None else await self._host.catalog.plan(envelope.decode(begun).plan)
        except SegueError as error:
            return Refused(error.message, error.hint, error.retryable)
        known, moving = (False, None) if plan is None else standing(plan, self._host, entry.run, cells)
        if plan is None or not known:
            return Answer(False)  # others may have heard of it too, or decided it before
        now, ended = placement(cells), msgspec.Raw(b"null" if raw is None else raw)
        answer = Answer(True, ended, plan.hash, 1 if now is None else now.epoch)
        if moving is None:
            return answer
        left = waits(plan, cells, entry.run, moving)
        return msgspec.structs.replace(answer, moving=moving.mode, waits=left)

    async def _welcome(self, starts: list[Starting]) -> list[Starting]:
        """The starts that may be accepted here; the others have their replies."""
        by_flow: dict[str, list[Starting]] = defaultdict(list)
        for item in starts:
            if _readable(item):
                by_flow[item.start.flow].append(item)
        welcome: list[Starting] = []
        for flow, group in by_flow.items():
            try:
                await self._look_again(flow, group)
                record, plan, mode = await self._at_home(flow)
                welcome += await self._elsewhere(record, mode, holder(plan, other(mode)), group)
            except SegueError as error:
                _refuse(group, error)
        return welcome

    async def _look_again(self, flow: str, group: list[Starting]) -> None:
        """Where a caller knows of another record than this participant, as just after a deploy, the registry says."""
        record = self._host.catalog.flows.get(flow)
        if record is None or any((item.start.plan, item.start.mode) != (record.plan, record.mode) for item in group):
            await self._host.insist(partial(self._host.catalog.refresh, flow))

    async def _at_home(self, flow: str) -> tuple[FlowRecord, Plan, Mode]:
        """What new runs of a flow get, if this is their home.

        Raises:
            UnknownFlow: It is not deployed.
            TransportUnavailable: Its plan is not here yet, or this is not its home, or not any more.
        """
        host = self._host
        record = host.catalog.flow(flow)
        plan = await host.catalog.plan(record.plan)
        if plan is None:
            raise TransportUnavailable(f"plan {record.plan} of flow {flow!r} is not in the registry yet")
        mode: Mode = "orchestrated" if host.name == COORDINATOR else "choreographed"
        home = holder(plan, record.mode)
        if home != host.name:
            raise TransportUnavailable(f"{host.name} is not the home of flow {flow!r}", f"its home is {home}")
        return record, plan, mode

    async def accept(self, turn: Turn, starts: list[Starting]) -> list[News]:
        """Bind keys and propose the entries of new runs, with their guards.

        A key that is bound gives its run; what the run's entry says is what is recorded.
        """
        by_flow: dict[str, list[Starting]] = defaultdict(list)
        for start in starts:
            by_flow[start.start.flow].append(start)
        proposed: dict[str, News] = {}
        for flow, group in by_flow.items():
            try:
                await self._accept(turn, flow, group, proposed)
            except SegueError as error:
                _refuse(group, error)
        return list(proposed.values())

    async def _accept(self, turn: Turn, flow: str, group: list[Starting], proposed: dict[str, News]) -> None:
        host = self._host
        _, plan, mode = await self._at_home(flow)
        pairs = {item.start.key: item.start.run for item in group if item.start.key}
        bound = {}
        if pairs:
            bound = await host.insist(partial(host.store.bind, flow, list(pairs.items())))
        others = {run for key, run in bound.items() if run != pairs[key]}
        turn.started |= others
        entries = [CellKey(run, ENTRY, "", 1, CellKind.OUTCOME) for run in others]
        entries += [CellKey(item.start.run, ENTRY, "", 1, CellKind.OUTCOME) for item in group if item.start.parent]
        there = await host.insist(partial(host.store.load, entries)) if entries else {}
        await self._tell_parents(turn, group, there)
        for item in group:
            start = item.start
            run = RunRef(bound.get(start.key, start.run), plan, mode, start.key)
            item.replies[item.place] = Accepted(run.id, mode, run.id != start.run)
            entry = run.cell(Key(ENTRY))
            if entry in there or mark(entry, 0) in host.seen or run.id in proposed:
                continue  # it runs, or one of several starts at once counts
            fact = Fact(Key(ENTRY), Outcome("completed", msgspec.json.decode(start.input)))
            parent = envelope.encode_parent(start.parent) if start.parent is not None else ""
            event = make_event(run, fact, host.source, turn.draft.now, traceparent=start.traceparent, parent=parent)
            proposed[run.id] = News(run, fact, *host.values.encode(event))
            guard = run.guard()
            turn.draft.due[guard] = Due(guard, turn.draft.now.timestamp() + GUARD_FIRST, 0, b"")

    async def _tell_parents(self, turn: Turn, group: list[Starting], there: dict[CellKey, bytes]) -> None:
        """A subflow that is started again, and has ended: its parent has not heard of it."""
        for item in group:
            entry = CellKey(item.start.run, ENTRY, "", 1, CellKind.OUTCOME)
            if item.start.parent is None or entry not in there:
                continue
            cells = await self._host.insist(partial(self._host.store.scan, [item.start.run]))
            end = newest_end(truth(cells))
            if end is not None:
                # Another body than before, or the broker drops it as a repeat of what was lost.
                again = msgspec.structs.replace(envelope.decode(end), redrive=int(turn.draft.now.timestamp()))
                await self._host.families.tell(turn, envelope.decode(there[entry]), again)

    async def _elsewhere(self, record: FlowRecord, mode: Mode, elsewhere: str, group: list[Starting]) -> list[Starting]:
        """After a change of mode, a key may belong to a run at the other placement; one key is one run."""
        if record.changed is None or (self._host.now() - record.changed).total_seconds() > record.key_lifetime:
            return group
        keys = [item.start.key for item in group if item.start.key]
        here = await self._host.insist(partial(self._host.store.find, record.flow, keys))
        absent = [item for item in group if item.start.key and item.start.key not in here]
        if not absent:
            return group
        asked: list[requests.Request] = [Find(record.flow, item.start.key) for item in absent]
        subject = self._host.subjects.questions(elsewhere)
        try:
            answer = await self._host.transport.request(subject, requests.encode(asked), 5.0)
            replies = requests.decode_replies(answer)
            if len(replies) != len(absent):
                raise InvalidInput(f"{len(absent)} questions, {len(replies)} answers")
        except (TransportUnavailable, InvalidInput) as error:
            log.warning("cannot ask %s for keys of %s: %s", elsewhere, record.flow, error.message)
            replies = [
                Refused(
                    f"flow {record.flow!r} ran at {elsewhere!r} before, which does not answer whether it knows the key",
                    f"start {elsewhere!r}, or deploy with a shorter key_lifetime if its runs are over",
                    retry=True,
                )
                for _ in absent
            ]
        settled = set()
        for item, reply in zip(absent, replies, strict=True):
            if isinstance(reply, Found) and reply.run:
                item.replies[item.place] = Accepted(reply.run, other(mode), True)
                settled.add(id(item))
            elif isinstance(reply, Refused):
                item.replies[item.place] = reply
                settled.add(id(item))
        return [item for item in group if id(item) not in settled]


def _readable(item: Starting) -> bool:
    """Whether a start can be read; if not, it is refused before anything changes."""
    try:
        check_key(item.start.key)
        if check_run_id(item.start.run) != item.start.run:
            raise InvalidInput(f"run id {item.start.run!r} is not written as 32 hex digits")
        if not isinstance(msgspec.json.decode(item.start.input), dict):
            raise InvalidInput("the input is not an object of the flow's parameters")
    except (InvalidInput, msgspec.MsgspecError) as error:
        item.replies[item.place] = Refused(f"bad start of {item.start.flow!r}: {error}")
        return False
    return True


def _refuse(group: list[Starting], error: SegueError) -> None:
    for item in group:
        item.replies[item.place] = Refused(error.message, error.hint, error.retryable)
