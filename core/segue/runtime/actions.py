"""What people and programs do to a live run: signal, cancel, pause, resume, move, retry. The run's home grants it.

Asked again, as after a lost answer, each of these changes nothing more: signals carry ids, a stop is set once, a move
names the mode, and a retry the revision whose end it saw. While a run is being moved, nobody grants anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import msgspec

from segue.errors import InvalidInput, NotAccepted, TransportUnavailable, UnknownRun
from segue.plan.graph import Plan
from segue.plan.projection import Mode
from segue.runtime.ends import Ends
from segue.runtime.ids import check_key, new_run_id
from segue.runtime.input import signal_slot, signal_value
from segue.runtime.locate import Located, Locator, ask
from segue.runtime.serving import Wiring
from segue.runtime.starter import ATTEMPT, TIMEOUT
from segue.wire.requests import Cancel, Done, Hold, Move, Refused, Request, Retry, Send

SETTLED = 2.0
"""Seconds for which a move is waited for; then it is told who has not got the run yet."""


class Actions:
    """Changes live runs.

    Args:
        wiring: Transport, catalog and subjects.
        ends: Told of a retry, because the run will end again.
    """

    def __init__(self, wiring: Wiring, ends: Ends) -> None:
        self._wiring = wiring
        self._ends = ends
        self.locator = Locator(wiring)

    async def signal(self, run: Located, signal: Send, match: Any, value: Any) -> Done:
        """Send a signal; its slot holds the tag, its value is still to be encoded.

        Raises:
            InvalidInput: The flow waits for no such signal, or the value does not fit.
            PayloadTooLarge: The value is larger than values may be.
        """
        encoded = msgspec.json.encode(signal_value(run.plan, signal.name, value))
        values = self._wiring.values
        slot = check_key(signal_slot(run.plan, signal.name, match, signal.slot))
        send = Send(run.run, signal.name, slot=slot, id=signal.id or new_run_id())
        send = await values.enclose(send, encoded, f"the value of signal {signal.name!r}")
        return await self._do(run, send)

    async def cancel(self, run: Located) -> Done:
        """Stop a run and undo what it did."""
        return await self._do(run, Cancel(run.run))

    async def hold(self, run: Located, paused: bool) -> Done:
        """Pause a run, or let it go on."""
        return await self._do(run, Hold(run.run, paused))

    async def move(self, run: Located, mode: Mode) -> Done:
        """Let a run be decided in the other mode, and wait a little until everybody has it."""
        done = await self._do(run, Move(run.run, mode, run.epoch))
        if not done.changed:
            return done
        waits: tuple[str, ...] = ()
        with anyio.move_on_after(SETTLED):
            while (found := await self.locator.run(run.run, run.plan.flow)).moving is not None:
                waits = found.waits
                await anyio.sleep(0.05)
            return done
        return Done(True, f"it has not got there yet: it waits for {', '.join(waits) or run.home}")

    async def retry(self, run: Located, nodes: Sequence[str]) -> Done:
        """Decide anew what an ended run failed at, and these nodes.

        Raises:
            InvalidInput: There is no such node.
        """
        _check_nodes(run.plan, nodes)
        revision = run.ended.revision if run.ended is not None else 0
        done = await self._do(run, Retry(run.run, tuple(nodes), revision))
        if revision and not done.changed:
            # It may have been retried meanwhile, by this very request if its answer was lost.
            newest = (await self.locator.run(run.run, run.plan.flow)).ended
            if newest is not None and newest.revision == revision:
                return done
        if revision:
            self._ends.of(run.run).expect(revision + 1)
        return done

    async def _do(self, run: Located, request: Request) -> Done:
        """Ask the home until it answers."""
        pause, deadline = 0.05, anyio.current_time() + TIMEOUT
        error = TransportUnavailable(f"{run.home} did not answer in time", "try it again")
        while anyio.current_time() < deadline:
            try:
                [reply] = await ask(self._wiring, run.home, [request], ATTEMPT)
            except TransportUnavailable as failure:
                error = failure
            else:
                if isinstance(reply, Done):
                    return reply
                if not isinstance(reply, Refused):
                    raise NotAccepted(f"{run.home} answered with {type(reply).__name__}")
                if not reply.retry:
                    raise NotAccepted(reply.reason, reply.hint)
                error = TransportUnavailable(reply.reason, reply.hint)
                run = await self._again(run)
            await anyio.sleep(pause)
            pause = min(pause * 2, 1.0)
        raise error

    async def _again(self, run: Located) -> Located:
        """Where a run is now: it may have been moved."""
        try:
            return await self.locator.run(run.run, run.plan.flow)
        except (UnknownRun, TransportUnavailable):
            return run


def _check_nodes(plan: Plan, nodes: Sequence[str]) -> None:
    for name in (text.partition("/")[0] for text in nodes):
        if name not in plan.index.nodes:
            known = ", ".join(node.id for node in plan.nodes if ":" not in node.id and "." not in node.id)
            raise InvalidInput(f"flow {plan.flow!r} has no node {name!r}", f"its nodes: {known}")
