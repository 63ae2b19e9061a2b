"""Requests that change a live run: signals, cancel, pause, resume, retry, move. What is granted becomes a fact."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from segue.errors import InvalidInput, ObjectLost
from segue.machine import orders
from segue.machine.facts import AnyFact, Key, Pause, Placed, Reset, Signal, Stop
from segue.plan.graph import ENTRY, EXIT
from segue.plan.projection import COORDINATOR, Mode, holder
from segue.ports.store import CellKey, CellKind
from segue.runtime.ids import check_run_id, is_child
from segue.runtime.placing import accepted, newest, standing
from segue.runtime.view import View
from segue.runtime.work import Asked, News
from segue.wire import envelope
from segue.wire.requests import Cancel, Done, Hold, Install, Move, Order, Refused, Reply, Retry, Send, Yield

if TYPE_CHECKING:
    from segue.runtime.participant import Participant
    from segue.runtime.repeats import Seen
    from segue.runtime.turn import Turn

LONGEST_SLOT = 256


class Orders:
    """Grants requests on behalf of a participant.

    Args:
        host: The participant.
    """

    def __init__(self, host: Participant) -> None:
        self._host = host

    async def read(self, turn: Turn, asked: list[Asked]) -> None:
        """Turn requests into choices; each has its reply when the turn ends."""
        for item in asked:
            item.replies[item.place] = await self._grant(turn, item.request)

    async def _grant(self, turn: Turn, request: Order) -> Reply:
        if isinstance(request, Yield | Install):
            handover = self._host.moving.handover
            try:
                if isinstance(request, Yield):
                    return await handover.give(turn, request)
                return await handover.take(turn, request)
            except ObjectLost as error:
                return Refused(error.message, error.hint, retry=True)
        try:
            view = await self._view(turn, check_run_id(request.run))
        except InvalidInput as error:
            return Refused(error.message, error.hint)
        if view is None:
            return Refused(f"run {request.run} is not known here")
        try:
            seen = await turn.whole.read(view)
            if ENTRY not in view.mine:
                return await self._moved(turn, view, request)
            found = self._decide(turn, view, seen, request)
        except InvalidInput as error:
            return Refused(error.message, error.hint)
        if isinstance(found, str):
            return Done(False, found)
        if isinstance(found, Placed):
            self._host.moving.grant(turn, view, found)
            return Done(True)
        turn.effects.choose(view, (found,))
        if isinstance(found, Reset):
            turn.whole.reopen(view, found.revision)
        return Done(True)

    async def _view(self, turn: Turn, run: str) -> View | None:
        """The run, if it was accepted here."""
        mode: Mode = "orchestrated" if self._host.name == COORDINATOR else "choreographed"
        found = await self._host.insist(partial(self._host.store.load, [_entry(run)]))
        raw = found.get(_entry(run))
        if raw is None:
            return None
        try:
            ref = await self._host.reader.run_of(envelope.decode(raw), mode)
        except LookupError:
            return None
        if holder(ref.plan, mode) != self._host.name:
            return None
        known = accepted(self._host, run, found) or bool(await self._host.placing.runs([ref]))
        return turn.view(ref) if known else None

    async def _moved(self, turn: Turn, view: View, request: Order) -> Reply:
        """Somebody else answers for the run, or will soon."""
        run = view.run
        cells = await self._host.insist(partial(self._host.store.scan, [run.id]))
        _, moving = standing(run.plan, self._host, run.id, cells)
        if moving is None:
            return Refused(f"run {run.id} was moved and is {run.mode} now", retry=True)
        if isinstance(request, Move):
            self._host.moving.go_on(turn, run)
            return Done(False, f"the run is being moved, and will be {run.mode}")
        return Refused(f"run {run.id} is being moved", "try it again when it is there", retry=True)

    def _decide(self, turn: Turn, view: View, seen: Seen, request: Order) -> AnyFact | str:
        state, plan = seen.state, view.run.plan
        if isinstance(request, Cancel):
            if request.reason == "undone" and is_child(request.run):
                return self._undo(turn, view, seen)
            return orders.cancel(plan, state)
        if isinstance(request, Retry):
            if request.revision and request.revision < state.revision:
                return "the run has been retried"
            return orders.retry(plan, state, request.nodes, view.mine)
        if isinstance(request, Move):
            return orders.move(state, newest(seen.facts), view.run.mode, request.mode, request.epoch)
        if isinstance(request, Hold):
            number = max((fact.number for fact in seen.facts if isinstance(fact, Pause)), default=0)
            return orders.hold(state, number, request.paused)
        assert isinstance(request, Send)
        if (
            len(request.slot) > LONGEST_SLOT
            or not f"{request.slot}{request.id}".isprintable()
            or len(request.id) > LONGEST_SLOT
        ):
            raise InvalidInput(f"slots and ids of signals have up to {LONGEST_SLOT} characters that can be printed")
        place = (request.name, request.slot)
        before = next((fact for fact in seen.facts if isinstance(fact, Signal) and fact[:2] == place), None)
        if before is not None and request.id and before.id == request.id:
            return before  # sent again because the answer was lost
        if Key(EXIT) in state.outcomes:
            return "the run has ended"
        if before is not None:
            return "a signal was there before, and the first one counts"
        try:
            value = msgspec.json.decode(request.value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInput(f"the value of signal {request.name!r} is broken: {error}") from None
        return Signal(request.name, request.slot, value, request.id)

    def _undo(self, turn: Turn, view: View, seen: Seen) -> AnyFact | str:
        """Undo a child that completed; its parent asks again until it has heard that this is done."""
        found = orders.undo(view.run.plan, seen.state)
        redrive = int(turn.draft.now.timestamp())
        if found is None:
            turn.draft.undone[_entry(view.run.id)] = redrive
            return "nothing of the run is left"
        known = seen.events.get(view.run.place(found)) if isinstance(found, Stop) else None
        if known is None:
            return found
        again = News(view.run, *known, recorded=True)
        again.redrive = redrive
        turn.draft.publish(again)
        turn.later.append(again)
        return "the run is being undone"


def _entry(run: str) -> CellKey:
    return CellKey(run, ENTRY, "", 1, CellKind.OUTCOME)
