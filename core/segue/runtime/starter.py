"""Starts on their way: those of one tick travel together, and are asked again while a retry may help."""

from __future__ import annotations

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from segue.errors import InvalidInput, SegueError, TransportUnavailable
from segue.plan.projection import holder
from segue.runtime.serving import Wiring
from segue.wire import requests
from segue.wire.requests import Refused, Reply, Start

TIMEOUT = 30.0
"""Seconds for which a start is tried."""

ATTEMPT = 5.0
"""Seconds after which an unanswered start is sent again."""

BATCH = 256


class _Pending:
    __slots__ = ("deadline", "done", "error", "home", "reply", "start")

    def __init__(self, start: Start) -> None:
        self.start = start
        self.home = ""
        self.deadline = anyio.current_time() + TIMEOUT
        self.reply: Reply | None = None
        self.error: SegueError | None = None
        self.done = anyio.Event()


class Starter:
    """Sends starts to the homes of their flows.

    Args:
        wiring: Transport, catalog and subjects.
        tasks: Where sending runs.
    """

    def __init__(self, wiring: Wiring, tasks: TaskGroup) -> None:
        self._wiring = wiring
        self._tasks = tasks
        self._queue: list[_Pending] = []

    async def send(self, start: Start) -> tuple[str, Reply]:
        """Send a start to its flow's home and wait for the reply: who answered, and what.

        Raises:
            UnknownFlow: The flow is not deployed any more.
            TransportUnavailable: The home did not answer in time; the run may exist.
        """
        pending = _Pending(start)
        self._put([pending])
        await pending.done.wait()
        if pending.error is not None:
            raise pending.error
        assert pending.reply is not None
        return pending.home, pending.reply

    def _put(self, group: list[_Pending]) -> None:
        if group and not self._queue:
            self._tasks.start_soon(self._flush)
        self._queue += group

    async def _flush(self) -> None:
        await anyio.lowlevel.checkpoint()
        queue, self._queue = self._queue, []
        homes: dict[str, list[_Pending]] = {}
        for pending in queue:
            try:
                pending.home = await self._home(pending.start.flow)
            except SegueError as error:
                pending.error = error
                pending.done.set()
            else:
                homes.setdefault(pending.home, []).append(pending)
        for home, group in homes.items():
            for part in self._parts(group):
                self._tasks.start_soon(self._ask, home, part)

    async def _home(self, flow: str) -> str:
        record = self._wiring.catalog.flow(flow)
        plan = await self._wiring.catalog.plan(record.plan)
        if plan is None:
            raise TransportUnavailable(f"plan {record.plan} of flow {flow!r} is not in the registry")
        return holder(plan, record.mode)

    def _parts(self, group: list[_Pending]) -> list[list[_Pending]]:
        limit = self._wiring.transport.capabilities.max_bytes
        parts: list[list[_Pending]] = [[]]
        size = 0
        for pending in group:
            weight = len(bytes(pending.start.input)) + len(pending.start.key.encode()) + 512
            if parts[-1] and (len(parts[-1]) >= BATCH or size + weight > limit):
                parts.append([])
                size = 0
            parts[-1].append(pending)
            size += weight
        return parts

    async def _ask(self, home: str, group: list[_Pending]) -> None:
        """Ask until everybody has an answer; whose flow has another home by now goes there."""
        subject = self._wiring.subjects.requests(home)
        error: SegueError = TransportUnavailable(f"{home} did not accept the start in time", "start it again")
        pause = 0.05
        with anyio.CancelScope(deadline=min(pending.deadline for pending in group)):
            while group:
                body = requests.encode([pending.start for pending in group])
                try:
                    answer = await self._wiring.transport.request(subject, body, ATTEMPT)
                    group = _settle(group, requests.decode_replies(answer), home)
                except TransportUnavailable as failure:
                    error = failure
                except SegueError as failure:
                    error = failure
                    break
                if group:
                    await anyio.sleep(pause)
                    pause = min(pause * 2, 1.0)
                    moved = [pending for pending in group if await self._moved(pending)]
                    self._put(moved)
                    group = [pending for pending in group if pending not in moved]
        for pending in group:
            pending.error = error if pending.reply is None else None
            pending.done.set()

    async def _moved(self, pending: _Pending) -> bool:
        try:
            return await self._home(pending.start.flow) != pending.home
        except SegueError:
            return False


def _settle(group: list[_Pending], replies: list[Reply], home: str) -> list[_Pending]:
    """Hand out replies; what a retry may cure stays."""
    if len(replies) != len(group):
        raise InvalidInput(f"{home} answered {len(group)} starts with {len(replies)} replies")
    again = []
    for pending, reply in zip(group, replies, strict=True):
        pending.reply = reply
        if isinstance(reply, Refused) and reply.retry:
            again.append(pending)
        else:
            pending.done.set()
    return again
