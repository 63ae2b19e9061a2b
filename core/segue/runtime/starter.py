"""Starts on their way: those of one tick travel together, and are asked again while a retry may help."""

from __future__ import annotations

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from segue.errors import InvalidInput, SegueError, TransportUnavailable
from segue.runtime.serving import Wiring
from segue.wire import requests
from segue.wire.requests import Refused, Reply, Start

TIMEOUT = 30.0
"""Seconds for which a start is tried."""

BATCH = 256


class _Pending:
    __slots__ = ("done", "error", "home", "reply", "start")

    def __init__(self, home: str, start: Start) -> None:
        self.home = home
        self.start = start
        self.reply: Reply | None = None
        self.error: SegueError | None = None
        self.done = anyio.Event()


class Starter:
    """Sends starts to the homes of their flows.

    Args:
        wiring: Transport and subjects.
        tasks: Where sending runs.
    """

    def __init__(self, wiring: Wiring, tasks: TaskGroup) -> None:
        self._wiring = wiring
        self._tasks = tasks
        self._queue: list[_Pending] = []

    async def send(self, home: str, start: Start) -> Reply:
        """Send a start and wait for the reply.

        Raises:
            TransportUnavailable: The home did not answer in time; the run may exist.
        """
        pending = _Pending(home, start)
        self._queue.append(pending)
        if len(self._queue) == 1:
            self._tasks.start_soon(self._flush)
        await pending.done.wait()
        if pending.error is not None:
            raise pending.error
        assert pending.reply is not None
        return pending.reply

    async def _flush(self) -> None:
        await anyio.lowlevel.checkpoint()
        queue, self._queue = self._queue, []
        homes: dict[str, list[_Pending]] = {}
        for pending in queue:
            homes.setdefault(pending.home, []).append(pending)
        for home, group in homes.items():
            for part in self._parts(group):
                self._tasks.start_soon(self._ask, home, part)

    def _parts(self, group: list[_Pending]) -> list[list[_Pending]]:
        limit = self._wiring.transport.capabilities.max_bytes
        parts: list[list[_Pending]] = [[]]
        size = 0
        for pending in group:
            weight = len(bytes(pending.start.input)) + 512
            if parts[-1] and (len(parts[-1]) >= BATCH or size + weight > limit):
                parts.append([])
                size = 0
            parts[-1].append(pending)
            size += weight
        return parts

    async def _ask(self, home: str, group: list[_Pending]) -> None:
        subject = self._wiring.subjects.requests(home)
        error: SegueError = TransportUnavailable(f"{home} did not accept the start in time", "start it again")
        pause = 0.1
        try:
            with anyio.move_on_after(TIMEOUT):
                while group:
                    body = requests.encode([pending.start for pending in group])
                    answer = await self._wiring.transport.request(subject, body, TIMEOUT)
                    group = _settle(group, requests.decode_replies(answer), home)
                    if group:
                        await anyio.sleep(pause)
                        pause = min(pause * 2, 2.0)
        except SegueError as failure:
            error = failure
        for pending in group:
            pending.error = error if pending.reply is None else None
            pending.done.set()


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
