"""The registry: a stream that keeps the last message of each subject.

Following it is a consumer of one's own that starts with the last messages. Whenever something may have been missed (a
gap in its sequence, a silence, a new connection) it is replaced by a new one, which starts with the last messages
again; what was seen already is left out. What was seen and is not there any more was lost by the server: whoever may
write it puts it back, for services do nothing without their plans.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from nats.aio.msg import Msg

from segue.errors import NotPermitted, PayloadTooLarge, TransportError
from segue.ports.transport import Entry
from segue_nats import api
from segue_nats.connection import Connection
from segue_nats.feed import Feed, running
from segue_nats.publisher import Post, Publisher
from segue_nats.topology import Topology, nanoseconds

log = logging.getLogger("segue.nats")

COMPRESS_FROM = 64 * 1024
LARGEST_VALUE = 64 * 1024 * 1024
"""Compressed values must not unpack to more."""

ENCODING, ZLIB = "Content-Encoding", "deflate"
HEARTBEAT = 2.0
SILENCE = 5.0
ORPHANED = 10.0
"""Seconds after which the broker removes a follower's consumer that nobody listens to."""

PAUSE = 0.5


class NatsRegistry:
    """Last values by key.

    Args:
        connection: Where.
        publisher: Stores entries.
        topology: Knows the stream.
        max_bytes: Largest stored value.
    """

    def __init__(self, connection: Connection, publisher: Publisher, topology: Topology, max_bytes: int) -> None:
        self._connection = connection
        self._publisher = publisher
        self._topology = topology
        self._max_bytes = max_bytes
        self._prefix = topology.registry_subject("")

    async def put(self, key: str, value: bytes) -> None:
        """Set a key; durable when this returns. Values over 64 KiB are compressed.

        Raises:
            PayloadTooLarge: The value does not fit, even compressed.
            TransportUnavailable: It was not acknowledged in time.
        """
        body, headers = value, None
        if len(value) > COMPRESS_FROM:
            body, headers = zlib.compress(value), {ENCODING: ZLIB}
        if len(body) > self._max_bytes or len(value) > LARGEST_VALUE:
            raise PayloadTooLarge(
                f"registry entry {key!r} has {len(body)} bytes as stored, the server takes {self._max_bytes}",
                "raise max_payload in the server's config",
            )
        await self._publisher.store([Post(self._topology.registry_subject(key), body, headers)])

    async def get(self, key: str) -> bytes | None:
        """The last value of a key."""
        try:
            found = await api.call(
                self._connection,
                f"STREAM.MSG.GET.{self._topology.registry}",
                {"last_by_subj": self._topology.registry_subject(key)},
            )
        except api.ApiError as error:
            if error.number == api.MESSAGE_NOT_FOUND:
                return None
            raise
        message = found["message"]
        body = base64.b64decode(message.get("data", ""))
        packed = f"{ENCODING}: {ZLIB}".encode() in base64.b64decode(message.get("hdrs", ""))
        return _unpack(body) if packed else body

    @asynccontextmanager
    async def follow(self) -> AsyncIterator[AsyncIterator[Entry | None]]:
        """Every key's last value, then None, then each change as it happens."""
        feed: Feed[Entry | None] = Feed()
        async with running(self._follow(feed)):
            yield feed

    async def _follow(self, feed: Feed[Entry | None]) -> None:
        follower = _Follower(feed, self._prefix)
        self._connection.on_connected.append(follower.restart)
        try:
            while True:
                try:
                    await self._follow_once(follower)
                except TransportError as error:
                    log.warning("the registry cannot be followed: %s", error.message)
                    await asyncio.sleep(PAUSE)
        finally:
            self._connection.on_connected.remove(follower.restart)

    async def _follow_once(self, follower: _Follower) -> None:
        stream = self._topology.registry
        inbox = self._connection.inbox.subject() + ".follow"
        follower.begin()
        subscription = await self._connection.subscribe(inbox, follower.on_message)
        name = ""
        try:
            pattern = self._topology.registry_subject(">")
            # The name and the filter in the subject let permissions hold whoever reads to just that.
            chosen = secrets.token_hex(10)
            created = await api.call(
                self._connection,
                f"CONSUMER.CREATE.{stream}.{chosen}.{pattern}",
                {"stream_name": stream, "config": _consumer(inbox, pattern) | {"name": chosen}},
            )
            name = created["name"]
            if not created["num_pending"]:
                follower.caught_up()
            await follower.broken()
            await self._put_back(follower.lost())
        except api.ApiError as error:
            if error.number == api.STREAM_NOT_FOUND:
                await self._topology.restore()
            raise
        finally:
            with anyio.move_on_after(1, shield=True):
                await subscription.close()
                if name:
                    await self._connection.publish(f"$JS.API.CONSUMER.DELETE.{stream}.{name}")

    async def _put_back(self, lost: dict[str, bytes]) -> None:
        for key, value in lost.items():
            # Somebody may have been faster, even with a newer value.
            if await self.get(key) is None:
                try:
                    await self.put(key, value)
                    log.warning("the server had lost registry entry %s; it is there again", key)
                except NotPermitted as error:
                    log.warning("the server has lost registry entry %s: %s", key, error.message)


class _Follower:
    """Puts entries into a feed in order, each once, and notices when something is missing."""

    def __init__(self, feed: Feed[Entry | None], prefix: str) -> None:
        self._feed = feed
        self._prefix = len(prefix)
        self._last: dict[str, bytes] = {}
        self._found: set[str] = set()
        self._complete = False
        self._whole = False
        self._sequence = 0
        self._heard = 0.0
        self._broken = asyncio.Event()

    def begin(self) -> None:
        """A new consumer starts."""
        self._found.clear()
        self._whole = False
        self._sequence = 0
        self._heard = asyncio.get_running_loop().time()
        self._broken.clear()

    def restart(self) -> None:
        """Something may have been missed."""
        self._broken.set()

    def caught_up(self) -> None:
        """That was all so far."""
        self._whole = True
        if not self._complete:
            self._complete = True
            self._feed.put(None)
        elif self._last.keys() - self._found:
            self._broken.set()

    def lost(self) -> dict[str, bytes]:
        """What was there once and is not any more; told once."""
        keys = sorted(self._last.keys() - self._found) if self._whole else []
        return {key: self._last.pop(key) for key in keys}

    async def broken(self) -> None:
        """Return when a new consumer is needed."""
        loop = asyncio.get_running_loop()
        while not self._broken.is_set() and loop.time() - self._heard < SILENCE:
            try:
                async with asyncio.timeout(SILENCE):
                    await self._broken.wait()
            except TimeoutError:
                continue

    async def on_message(self, message: Msg) -> None:
        """An entry, or a sign of life."""
        self._heard = asyncio.get_running_loop().time()
        if not message.reply:
            return
        tokens = message.reply.split(".")
        # $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<delivered>.<stream sequence>.<sequence>.<time>.<pending>
        first = 5 if len(tokens) == 9 else 7
        sequence, pending = int(tokens[first + 1]), int(tokens[first + 3])
        if sequence != self._sequence + 1:
            self._broken.set()
            return
        self._sequence = sequence
        key = message.subject[self._prefix :]
        packed = (message.headers or {}).get(ENCODING) == ZLIB
        value = _unpack(message.data) if packed else message.data
        self._found.add(key)
        # Not by number: that of a server that lost its data means something else.
        if self._last.get(key) != value:
            self._last[key] = value
            self._feed.put(Entry(key, value))
        if not pending:
            self.caught_up()


def _consumer(inbox: str, pattern: str) -> dict[str, Any]:
    return {
        "filter_subject": pattern,
        "deliver_subject": inbox,
        "deliver_policy": "last_per_subject",
        "ack_policy": "none",
        "max_deliver": 1,
        "mem_storage": True,
        "num_replicas": 1,
        "idle_heartbeat": nanoseconds(HEARTBEAT),
        "inactive_threshold": nanoseconds(ORPHANED),
    }


def _unpack(body: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    value = unpacker.decompress(body, LARGEST_VALUE)
    if not unpacker.eof:
        raise TransportError("a registry entry is broken or unpacks to more than 64 MiB", "deploy it again")
    return value
