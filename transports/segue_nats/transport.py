"""The transport port over NATS JetStream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import anyio
from nats.aio.msg import Msg

from segue.errors import PayloadTooLarge, TransportError, TransportUnavailable
from segue.ports.transport import Backlog, Capabilities, Channel, DeadLetters, Group, Message, Registry
from segue_nats.connection import INBOX, LOST, Connection, NobodyResponds
from segue_nats.consumer import PullConsumer
from segue_nats.dead import MSG_ID, NatsDeadLetters
from segue_nats.feed import Feed
from segue_nats.options import Options, parse
from segue_nats.publisher import Post, Publisher
from segue_nats.registry import NatsRegistry
from segue_nats.topology import Topology
from segue_nats.undertaker import Undertaker

log = logging.getLogger("segue.nats")

HEADROOM = 4096
"""Of the server's max_payload, for headers."""

ERROR = "Nats-Service-Error"
FINISH = 5.0
"""Seconds for requests under way when a responder leaves."""


async def open_transport(url: str, namespace: str) -> NatsTransport:
    """Connect and create the streams that are missing.

    Args:
        url: `nats://` or `tls://`, see `segue_nats.options.parse`.
        namespace: First token of all subjects; `[A-Za-z0-9_-]`.

    Raises:
        ConfigError: The URL or the namespace is bad.
        TransportUnavailable: No server can be reached.
        NotPermitted: The user may not look at the streams, or they are not there and it may not make them.
        TransportError: The server cannot do what is needed.
    """
    options = parse(url)
    connection = Connection(options)
    topology = Topology(connection, namespace, options)
    await connection.open()
    try:
        await topology.ensure()
    except BaseException:
        await connection.close()
        raise
    return NatsTransport(connection, topology, options)


class NatsTransport:
    """A connection to NATS in one namespace.

    Args:
        connection: Connected.
        topology: With its streams in place.
        options: What the URL says.
    """

    def __init__(self, connection: Connection, topology: Topology, options: Options) -> None:
        max_bytes = connection.client.max_payload - HEADROOM
        self.capabilities = Capabilities(durable=True, max_bytes=max_bytes, redelivery=options.redelivery)
        self._connection = connection
        self._topology = topology
        self._publisher = Publisher(connection)
        self.registry: Registry = NatsRegistry(connection, self._publisher, topology, max_bytes)
        self.dead: DeadLetters = NatsDeadLetters(connection, self._publisher, topology)
        self._restoring: asyncio.Task[None] | None = None
        self._burying: asyncio.Task[None] | None = None
        connection.on_connected.append(self._on_connected)

    async def declare(self, group: Group) -> None:
        """Create a group, or set its patterns, keeping its position."""
        await self._topology.declare(group)

    async def publish(self, messages: Sequence[Message]) -> None:
        """Store messages; all are stored when this returns."""
        if not messages:
            return
        limit = self.capabilities.max_bytes
        for message in messages:
            if len(message.body) > limit:
                raise PayloadTooLarge(
                    f"a message on {message.subject} has {len(message.body)} bytes, the server takes {limit}",
                    "pass large values by reference, or raise max_payload in the server's config",
                )
        await self._publisher.store(
            [Post(subject, body, {MSG_ID: id} if id else None) for subject, body, id in messages]
        )

    @asynccontextmanager
    async def consume(self, channel: Channel, name: str) -> AsyncIterator[PullConsumer]:
        """Join a declared group as one member."""
        if await self._topology.backlog(channel, name) is None:
            raise TransportError(f"group {name!r} is not declared on {channel}", "declare it first")
        topology = self._topology
        if self._burying is None:
            self._burying = asyncio.create_task(Undertaker(self._connection, self._publisher, topology).work())
        consumer = PullConsumer(
            self._connection,
            self._publisher,
            topology.stream(channel),
            name,
            topology.dead_subject(name),
            partial(topology.restore, channel, name),
        )
        await consumer.join()
        try:
            yield consumer
        finally:
            await consumer.leave()

    async def request(self, subject: str, body: bytes, timeout: float) -> bytes:
        """Ask whoever responds; asked again while nobody is there."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        pause = 0.02
        while True:
            left = deadline - loop.time()
            await self._connection.ready(left)
            try:
                answer = await self._connection.request(subject, body, left)
                break
            except NobodyResponds:
                if loop.time() + pause >= deadline:
                    raise TransportUnavailable(
                        f"nobody responds on {subject}", "is the service running, and connected to the same server?"
                    ) from None
                await asyncio.sleep(pause)
                pause = min(pause * 2, 0.5)
        failed = (answer.headers or {}).get(ERROR)
        if failed is not None:
            raise TransportUnavailable(f"the responder on {subject} failed: {failed}", "see its log")
        return answer.data

    @asynccontextmanager
    async def respond(self, subject: str, handler: Callable[[bytes], Awaitable[bytes]]) -> AsyncIterator[None]:
        """Answer requests, sharing them with other responders."""
        tasks: set[asyncio.Task[None]] = set()

        async def on_request(message: Msg) -> None:
            if not message.reply.startswith(f"{INBOX}."):
                # Else whoever may ask us could have us speak on any subject that we may speak on.
                log.warning("a request on %s wants its answer on %s and gets none", subject, message.reply or "nothing")
                return
            task = asyncio.create_task(self._answer(message, handler))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        subscription = await self._connection.subscribe(subject, on_request, queue=subject)
        try:
            await self._connection.sync()
            self._connection.refusals.check(subject)
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await subscription.close()
                if tasks:
                    await asyncio.wait(tasks, timeout=FINISH)
                for task in tuple(tasks):
                    task.cancel()

    @asynccontextmanager
    async def listen(self, patterns: Sequence[str]) -> AsyncIterator[AsyncIterator[Message]]:
        """Copies of the messages published from now on, best effort."""
        feed: Feed[Message] = Feed()

        async def on_message(message: Msg) -> None:
            feed.put(Message(message.subject, message.data, (message.headers or {}).get(MSG_ID, "")))

        async with AsyncExitStack() as stack:
            for pattern in patterns:
                subscription = await self._connection.subscribe(pattern, on_message)
                stack.push_async_callback(subscription.close)
            await self._connection.sync()
            for pattern in patterns:
                self._connection.refusals.check(pattern)
            yield feed

    async def backlog(self, channel: Channel, name: str) -> Backlog | None:
        """What a group has not finished; None if the group is not declared."""
        return await self._topology.backlog(channel, name)

    async def aclose(self) -> None:
        """Send what is unsent and disconnect."""
        if self._restoring is not None:
            self._restoring.cancel()
        if self._burying is not None:
            self._burying.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([self._burying])
        await self._connection.close()

    async def _answer(self, message: Msg, handler: Callable[[bytes], Awaitable[bytes]]) -> None:
        headers = None
        try:
            body = await handler(message.data)
        except Exception as error:
            log.exception("answering %s failed", message.subject)
            body, headers = b"", {ERROR: f"{type(error).__name__}: {error}"[:1000]}
        try:
            await self._connection.client.publish(message.reply, body, headers=headers)
        except (*LOST, TransportUnavailable):
            log.debug("an answer on %s was lost with the connection", message.subject)

    def _on_connected(self) -> None:
        if self._restoring is None or self._restoring.done():
            self._restoring = asyncio.create_task(self._restore())

    async def _restore(self) -> None:
        try:
            await self._topology.restore()
        except TransportError as error:
            log.warning("streams and consumers could not be checked after reconnecting: %s", error.message)
