"""The transport port on a shared `Broker`: every method is one synchronous step on it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
from anyio.lowlevel import checkpoint

from segue.errors import TransportUnavailable
from segue.ports.transport import Backlog, Channel, DeadLetter, DeadLetters, Delivery, Entry, Group, Message, Registry
from segue_memory.broker import Broker, Feed, Responder
from segue_memory.queue import Queue
from segue_memory.shared import parse, shared


class MemoryConsumer:
    """One member of a group."""

    def __init__(self, broker: Broker, queue: Queue) -> None:
        self._broker = broker
        self._queue = queue

    async def receive(self, limit: int) -> list[Delivery]:
        """Wait for at least one delivery, then return what is there."""
        await checkpoint()
        while True:
            now = anyio.current_time()
            found = self._queue.take(limit, self, now)
            if found:
                return found
            await self._queue.changed(now)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """These are done."""
        self._queue.ack(deliveries)

    async def retry(self, deliveries: Sequence[Delivery], delay: float) -> None:
        """Deliver these again after `delay` seconds."""
        self._queue.retry(deliveries, anyio.current_time() + delay)

    async def discard(self, deliveries: Sequence[Delivery], reason: str) -> None:
        """Move these to the dead letters."""
        self._broker.bury(self._queue.name, self._queue.done(deliveries), reason, anyio.current_time())


class MemoryRegistry:
    """Small shared documents."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def put(self, key: str, value: bytes) -> None:
        """Set a key."""
        self._broker.put(Entry(key, value))

    async def get(self, key: str) -> bytes | None:
        """The last value of a key."""
        return self._broker.registry.get(key)

    @asynccontextmanager
    async def follow(self) -> AsyncIterator[AsyncIterator[Entry | None]]:
        """Every entry, None, then each change."""
        known = [Entry(key, value) for key, value in self._broker.registry.items()]
        feed: Feed[Entry | None] = Feed([*known, None])
        self._broker.followers.append(feed)
        try:
            yield feed
        finally:
            self._broker.followers.remove(feed)


class MemoryDeadLetters:
    """What groups discarded; the oldest ones go when there are too many."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def page(self, limit: int, after: str = "") -> list[DeadLetter]:
        """Letters, oldest first."""
        first = int(after or 0)
        return [letter for number, letter in self._broker.dead.items() if number > first][:limit]

    async def get(self, id: str) -> DeadLetter | None:
        """One letter."""
        return self._broker.dead.get(int(id)) if id.isdecimal() else None

    async def requeue(self, id: str) -> bool:
        """Publish a letter's message again, then remove the letter."""
        letter = await self.get(id)
        if letter is not None:
            self._broker.publish([Message(letter.subject, letter.body)], anyio.current_time())
        return await self.discard(id)

    async def discard(self, id: str) -> bool:
        """Remove a letter for good."""
        return id.isdecimal() and self._broker.dead.pop(int(id), None) is not None


class MemoryTransport:
    """A connection to the broker of a name.

    Args:
        broker: What all connections of that name and namespace share.
    """

    def __init__(self, broker: Broker) -> None:
        self.capabilities = broker.capabilities
        self.registry: Registry = MemoryRegistry(broker)
        self.dead: DeadLetters = MemoryDeadLetters(broker)
        self._broker: Broker | None = broker

    async def declare(self, group: Group) -> None:
        """Create a group, or set its patterns."""
        self._connected().declare(group)

    async def publish(self, messages: Sequence[Message]) -> None:
        """Store messages."""
        await checkpoint()
        self._connected().publish(messages, anyio.current_time())

    @asynccontextmanager
    async def consume(self, channel: Channel, name: str) -> AsyncIterator[MemoryConsumer]:
        """Join a declared group.

        Raises:
            TransportError: The group is not declared.
        """
        broker = self._connected()
        queue = broker.require(channel, name)
        member = MemoryConsumer(broker, queue)
        try:
            yield member
        finally:
            queue.leave(member)

    async def request(self, subject: str, body: bytes, timeout: float) -> bytes:
        """Ask one of those who respond."""
        responder = self._connected().responder(subject)
        if responder is None:
            raise TransportUnavailable(f"nobody responds on {subject}", "is the participant running?")
        task = responder.answer(body)
        done, _ = await asyncio.wait({task}, timeout=timeout)
        if not done:
            raise TransportUnavailable(f"no answer on {subject} within {timeout:g} s")
        if task.cancelled():
            raise TransportUnavailable(f"the responder on {subject} left before it answered")
        error = task.exception()
        if error is not None:
            raise TransportUnavailable(f"the responder on {subject} failed: {error!r}") from error
        return task.result()

    @asynccontextmanager
    async def respond(self, subject: str, handler: Callable[[bytes], Awaitable[bytes]]) -> AsyncIterator[None]:
        """Answer requests; on leaving, finish those that have begun."""
        responder = Responder(handler)
        responders = self._connected().responders.setdefault(subject, deque())
        responders.append(responder)
        try:
            yield
        finally:
            responders.remove(responder)
            try:
                if responder.tasks:
                    await asyncio.wait(responder.tasks)
            finally:
                for task in responder.tasks:
                    task.cancel()

    @asynccontextmanager
    async def listen(self, patterns: Sequence[str]) -> AsyncIterator[AsyncIterator[Message]]:
        """Copies of the messages published from now on."""
        broker = self._connected()
        feed = broker.listen(patterns)
        try:
            yield feed
        finally:
            broker.unlisten(feed)

    async def backlog(self, channel: Channel, name: str) -> Backlog | None:
        """What a group has not finished."""
        queue = self._connected().queue(channel, name)
        return None if queue is None else queue.backlog(anyio.current_time())

    async def aclose(self) -> None:
        """Close this connection; the broker stays."""
        self._broker = None

    def _connected(self) -> Broker:
        if self._broker is None:
            raise TransportUnavailable("this connection is closed", "open another one")
        return self._broker


async def open_transport(url: str, namespace: str) -> MemoryTransport:
    """Connect to the broker of a name; the first who does decides its options."""
    name, options = parse(url)
    return MemoryTransport(shared("broker", name, namespace, lambda: Broker(namespace, options)))
