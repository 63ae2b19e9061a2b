"""The ends of runs that somebody awaits.

They are heard on the flow's `ended` subject, which is subscribed to before the first start. That is best effort, so the
homes of runs that are awaited for long are asked, now and then, many runs at a time. A run that is retried ends again,
under the next revision; what counts is the end of the newest revision that is known here.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from weakref import WeakValueDictionary

import anyio
from anyio.abc import TaskGroup

from segue.errors import InvalidInput, SegueError
from segue.ports.transport import Message
from segue.runtime.serving import Wiring
from segue.wire import envelope, requests
from segue.wire.envelope import Ended, Event
from segue.wire.requests import Answer, Ask

log = logging.getLogger("segue.client")

ASK_FIRST, ASK_LAST = 2.0, 30.0
"""Seconds until the home is asked for an awaited end; doubling up to the second figure."""

BATCH = 256


class End:
    """The end of a run that somebody may want to know; kept as long as somebody holds the run.

    Attributes:
        run: The run's id.
        homes: Who may know it.
        others: Who may know it once it was moved.
        revision: The newest revision that is known.
        ended: The event that says how that revision ended, once it has.
    """

    __slots__ = ("__weakref__", "ask_at", "ended", "heard", "homes", "others", "pause", "revision", "run", "waiters")

    def __init__(self, run: str) -> None:
        self.run = run
        self.homes: tuple[str, ...] = ()
        self.others: tuple[str, ...] = ()
        self.revision = 1
        self.heard = anyio.Event()
        self.ended: Event | None = None
        self.waiters = 0
        self.pause = ASK_FIRST
        self.ask_at = anyio.current_time() + ASK_FIRST

    def set(self, ended: Event) -> None:
        """A revision has ended."""
        if ended.revision >= self.revision:
            self.revision = ended.revision
            self.ended = ended
            self.heard.set()

    def expect(self, revision: int) -> None:
        """The run goes on under this revision, and will end again."""
        if revision > self.revision:
            self.revision = revision
            if self.heard.is_set():
                self.ended = None
                self.heard = anyio.Event()


class _Ear:
    """Listening to the ends of a flow's runs; `error` set: it could not be."""

    def __init__(self) -> None:
        self.ready = anyio.Event()
        self.error: SegueError | None = None


class Ends:
    """Hears, asks for and keeps the ends of runs.

    Args:
        wiring: Transport and subjects.
        tasks: Where listening and asking run.
    """

    def __init__(self, wiring: Wiring, tasks: TaskGroup) -> None:
        self._wiring = wiring
        self._tasks = tasks
        self._ends: WeakValueDictionary[str, End] = WeakValueDictionary()
        self._ears: dict[str, _Ear] = {}
        self._awaited: dict[str, End] = {}
        self._sweeping = False

    def of(self, run: str) -> End:
        """Where the end of a run will be known."""
        end = self._ends.get(run)
        if end is None:
            end = self._ends[run] = End(run)
        return end

    async def listen(self, flow: str) -> None:
        """Hear the ends of a flow's runs from now on.

        Raises:
            TransportError: The transport cannot listen.
        """
        ear = self._ears.get(flow)
        if ear is None:
            ear = self._ears[flow] = _Ear()
            # Not in the caller's task: that may be cancelled, and others wait for this.
            self._tasks.start_soon(self._hear, flow, ear)
        if not ear.ready.is_set():
            await ear.ready.wait()
        if ear.error is not None:
            raise ear.error

    async def wait(self, end: End, ask: bool) -> Ended:
        """Wait for an end.

        Args:
            end: What `of` gave, with its homes.
            ask: Ask the home at once, because the run may have ended before anybody listened.

        Raises:
            ObjectLost: How it ended is too large for a message, and not in the object store any more.
        """
        if end.ended is None and (ask or end.ask_at <= anyio.current_time()):
            end.ask_at = anyio.current_time() + end.pause
            asked: tuple[str, ...] = ()
            while end.ended is None and end.homes != asked:  # the first one may say that it was moved
                asked = end.homes
                for home in asked:
                    await self._ask(home, [end])
        while end.ended is None:
            end.waiters += 1
            self._awaited[end.run] = end
            if not self._sweeping:
                self._sweeping = True
                self._tasks.start_soon(self._sweep)
            try:
                await end.heard.wait()
            finally:
                end.waiters -= 1
                if not end.waiters:
                    self._awaited.pop(end.run, None)
        return envelope.decode_ended(await self._wiring.values.open(end.ended))

    async def _sweep(self) -> None:
        """Ask for what is awaited for long, until nothing is."""
        while self._awaited:
            await anyio.sleep(ASK_FIRST / 2)
            now = anyio.current_time()
            homes: dict[str, list[End]] = defaultdict(list)
            for end in self._awaited.values():
                if end.ask_at <= now:
                    end.pause = min(end.pause * 2, ASK_LAST)
                    end.ask_at = now + end.pause
                    for home in end.homes:
                        homes[home].append(end)
            for home, ends in homes.items():
                for i in range(0, len(ends), BATCH):
                    await self._ask(home, ends[i : i + BATCH])
        self._sweeping = False

    async def _ask(self, home: str, ends: list[End]) -> None:
        body = requests.encode([Ask(end.run) for end in ends])
        try:
            answer = await self._wiring.transport.request(self._wiring.subjects.requests(home), body, ASK_FIRST)
            for end, reply in zip(ends, requests.decode_replies(answer), strict=False):
                if isinstance(reply, Answer) and bytes(reply.ended) != b"null":
                    end.set(envelope.decode(reply.ended))
                elif isinstance(reply, Answer) and not reply.known and end.others:
                    end.homes = end.others
        except SegueError as error:
            log.info("cannot ask %s for ends: %s", home, error.message)

    async def _hear(self, flow: str, ear: _Ear) -> None:
        try:
            async with self._wiring.transport.listen([self._wiring.subjects.ended(flow)]) as messages:
                ear.ready.set()
                async for message in messages:
                    self._ended(message)
        except SegueError as error:
            log.warning("cannot listen to the ends of %s: %s", flow, error.message)
            ear.error = error
        del self._ears[flow]
        ear.ready.set()

    def _ended(self, message: Message) -> None:
        if not self._ends:
            return
        try:
            for raw in envelope.split(message.body):
                event = envelope.decode(raw)
                end = self._ends.get(event.run)
                subjects = self._wiring.subjects
                said = subjects.event(subjects.mode(message.subject), event.flow, event.node, event.kind)
                if end is not None and said == message.subject:
                    end.set(event)
        except InvalidInput as error:
            log.warning("unreadable message on %s: %s", message.subject, error.message)
