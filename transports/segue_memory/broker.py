"""The broker that all connections of a name and namespace share: routing, dead letters, the registry, responders."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import count
from typing import Generic, NamedTuple, TypeVar

import anyio

from segue.errors import PayloadTooLarge, TransportError
from segue.ports.transport import Capabilities, Channel, DeadLetter, Entry, Group, Message
from segue_memory.queue import Item, Patterns, Queue, Shake
from segue_memory.shared import Options

REMEMBERED = 100_000
"""How many message ids of a channel are remembered at most."""
KEPT = 10_000
"""How many dead letters are kept, and how many messages wait for a slow listener."""

T = TypeVar("T")


class Feed(Generic[T]):
    """Things that one reader has yet to see."""

    def __init__(self, items: Iterable[T] = (), limit: int | None = None) -> None:
        self._items = deque(items, limit)
        self._changed = anyio.Event()

    def put(self, item: T) -> None:
        """Add one, in place of the oldest if there are too many."""
        self._items.append(item)
        self._changed.set()

    def __aiter__(self) -> Feed[T]:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            self._changed = anyio.Event()
            await self._changed.wait()
        return self._items.popleft()


class Responder:
    """Answers requests in tasks of its own, so that neither side's cancellation reaches the other."""

    def __init__(self, handler: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._handler = handler
        self._context = contextvars.copy_context()
        self.tasks: set[asyncio.Task[bytes]] = set()

    def answer(self, body: bytes) -> asyncio.Task[bytes]:
        """Begin to answer."""
        task = self._context.copy().run(asyncio.get_running_loop().create_task, self._run(body))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def _run(self, body: bytes) -> bytes:
        return await self._handler(body)


class Route(NamedTuple):
    """Who gets the messages of a subject."""

    queues: tuple[Queue, ...]
    feeds: tuple[Feed[Message], ...]


class Broker:
    """Everything between the connections of one namespace."""

    def __init__(self, namespace: str, options: Options) -> None:
        self.namespace = namespace
        self.capabilities = Capabilities(durable=False, max_bytes=1 << 20, redelivery=options.redelivery)
        self.dead: dict[int, DeadLetter] = {}
        self.registry: dict[str, bytes] = {}
        self.followers: list[Feed[Entry | None]] = []
        self.responders: dict[str, deque[Responder]] = {}
        self._options = options
        self._commands = f"{namespace}.do."
        self._queues: dict[tuple[Channel, str], Queue] = {}
        self._listeners: dict[Feed[Message], Patterns] = {}
        self._routes: dict[str, Route] = {}
        self._unclaimed: list[Item] = []
        self._seen: dict[tuple[bool, str], float] = {}
        self._buried = count(1)

    def declare(self, group: Group) -> None:
        """Create a group or set its patterns; it gets the commands that nobody has claimed yet."""
        queue = self._queues.get((group.channel, group.name))
        if queue is None:
            seed = self._options.seed
            shake = None if seed is None else Shake(f"{seed}/{group.channel}/{group.name}")
            queue = self._queues[group.channel, group.name] = Queue(group, self._options.redelivery, shake)
        else:
            queue.patterns = Patterns(group.patterns)
        self._routes.clear()
        if group.channel == "commands":
            unclaimed, self._unclaimed = self._unclaimed, []
            for item in unclaimed:
                if queue.patterns.fit(item.subject):
                    queue.put(item)
                else:
                    self._unclaimed.append(item)
            queue.wake()

    def queue(self, channel: Channel, name: str) -> Queue | None:
        """A declared group."""
        return self._queues.get((channel, name))

    def publish(self, messages: Sequence[Message], now: float) -> None:
        """Hand messages to groups and listeners."""
        limit = self.capabilities.max_bytes
        for message in messages:
            if len(message.body) > limit:
                raise PayloadTooLarge(
                    f"a message of {len(message.body)} bytes to {message.subject} is over the limit of {limit}",
                    "send less, or a reference to the data",
                )
        touched: set[Queue] = set()
        for message in messages:
            if message.id and self._repeated(message, now):
                continue
            subject = message.subject
            route = self._routes.get(subject) or self._route(subject)
            for queue in route.queues:
                queue.put(Item(subject, message.body))
            touched.update(route.queues)
            for feed in route.feeds:
                feed.put(message)
            if not route.queues and subject.startswith(self._commands):
                self._unclaimed.append(Item(subject, message.body))
        for queue in touched:
            queue.wake()

    def bury(self, group: str, items: Iterable[Item], reason: str, now: float) -> None:
        """Keep dead letters, and tell who listens to them."""
        for item in items:
            number = next(self._buried)
            self.dead[number] = DeadLetter(
                str(number), group, item.subject, item.body, reason, item.deliveries, time.time()
            )
            if len(self.dead) > KEPT:
                del self.dead[next(iter(self.dead))]
            self.publish([Message(f"{self.namespace}.dead.{group}", item.body)], now)

    def listen(self, patterns: Sequence[str]) -> Feed[Message]:
        """A feed of the messages that fit, until `unlisten`."""
        feed: Feed[Message] = Feed(limit=KEPT)
        self._listeners[feed] = Patterns(patterns)
        self._routes.clear()
        return feed

    def unlisten(self, feed: Feed[Message]) -> None:
        """End a feed."""
        del self._listeners[feed]
        self._routes.clear()

    def put(self, entry: Entry) -> None:
        """Set a key of the registry and tell the followers."""
        self.registry[entry.key] = entry.value
        for feed in self.followers:
            feed.put(entry)

    def responder(self, subject: str) -> Responder | None:
        """Who answers next."""
        responders = self.responders.get(subject)
        if not responders:
            return None
        responders.rotate(-1)
        return responders[-1]

    def require(self, channel: Channel, name: str) -> Queue:
        """A declared group, or an error."""
        queue = self.queue(channel, name)
        if queue is None:
            raise TransportError(f"group {name!r} is not declared on {channel}", "declare it before consuming")
        return queue

    def _route(self, subject: str) -> Route:
        channel: Channel = "commands" if subject.startswith(self._commands) else "events"
        queues = [queue for key, queue in self._queues.items() if key[0] == channel and queue.patterns.fit(subject)]
        feeds = [feed for feed, patterns in self._listeners.items() if patterns.fit(subject)]
        if channel == "commands":
            del queues[1:]
        route = self._routes[subject] = Route(tuple(queues), tuple(feeds))
        return route

    def _repeated(self, message: Message, now: float) -> bool:
        """Whether this id was published within the window; each channel has its own."""
        seen, oldest = self._seen, now - self._options.window
        while seen:
            key = next(iter(seen))
            if seen[key] > oldest and len(seen) < REMEMBERED:
                break
            del seen[key]
        key = (message.subject.startswith(self._commands), message.id)
        if key in seen:
            return True
        seen[key] = now
        return False
