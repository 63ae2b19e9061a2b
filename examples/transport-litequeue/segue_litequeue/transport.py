"""The port: publishing adds a row per group, taking it is a lease until `due`, acknowledging deletes it.

A delivery is known by its message and its count, so an acknowledgement that comes after the message was taken again
does nothing. A message stays until no group has it to do and the window is over.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial

import anyio
from segue.errors import PayloadTooLarge, TransportError
from segue.ports.transport import (
    Backlog,
    Capabilities,
    Channel,
    DeadLetter,
    DeadLetters,
    Delivery,
    Entry,
    Group,
    Message,
    Registry,
    matches,
)

from segue_litequeue.file import Feed, QueueFile
from segue_litequeue.requests import request, responding

MAX_BYTES = 1 << 20
WINDOW = 120.0
"""Seconds for which messages stay that no group has to do: for listeners, and to drop repeats."""


class LiteTransport:
    """A connection to a queue file.

    Args:
        file: The open file; closed by `aclose`.
        namespace: First token of all subjects.
        redelivery: Seconds that a lease lasts.
    """

    def __init__(self, file: QueueFile, namespace: str, redelivery: float) -> None:
        self.capabilities = Capabilities(durable=True, max_bytes=MAX_BYTES, redelivery=redelivery)
        self.registry: Registry = LiteRegistry(file, namespace)
        self.dead: DeadLetters = LiteDeadLetters(self, file)
        self._file = file
        self.namespace = namespace
        self._prune_at = 0.0

    async def declare(self, group: Group) -> None:
        """Create a group or set its patterns; what it has to do stays."""
        sql = """INSERT INTO queue (stream, name, patterns) VALUES (?, ?, ?)
                 ON CONFLICT (stream, name) DO UPDATE SET patterns = excluded.patterns"""
        patterns = " ".join(group.patterns)
        await self._file.execute(sql, self._stream(group.channel), group.name, patterns, durable=True)

    async def publish(self, messages: Sequence[Message]) -> None:
        """Store messages, all or none."""
        for message in messages:
            if len(message.body) > MAX_BYTES:
                size = f"a message of {len(message.body)} bytes to {message.subject}"
                raise PayloadTooLarge(f"{size} is over the limit of {MAX_BYTES}", "send a reference to the data")
        if messages:
            await self._file.transact(partial(self.store, messages), durable=True, rings=True)

    @asynccontextmanager
    async def consume(self, channel: Channel, name: str) -> AsyncIterator[LiteConsumer]:
        """Join a declared group.

        Raises:
            TransportError: The group is not declared.
        """
        queue = await self._queue(channel, name)
        if queue is None:
            raise TransportError(f"group {name!r} is not declared on {channel}", "declare it before consuming")
        member = LiteConsumer(self, self._file, queue, name)
        try:
            yield member
        finally:
            # If the file is out of reach, the leases end by themselves.
            with anyio.CancelScope(shield=True), suppress(TransportError):
                await member.leave()

    async def request(self, subject: str, body: bytes, timeout: float) -> bytes:
        """Ask the responder that was asked longest ago."""
        return await request(self._file, subject, body, timeout)

    def respond(self, subject: str, handler: Callable[[bytes], Awaitable[bytes]]) -> AbstractAsyncContextManager[None]:
        """Answer requests; on leaving, finish those that have begun."""
        return responding(self._file, subject, handler)

    @asynccontextmanager
    async def listen(self, patterns: Sequence[str]) -> AsyncIterator[AsyncIterator[Message]]:
        """Read on from the last message; the file knows nothing of it."""
        [[last]] = await self._file.execute("SELECT coalesce(max(seq), 0) FROM message")

        async def fetch() -> list[Message]:
            nonlocal last
            sql = "SELECT seq, subject, body, id FROM message WHERE seq > ? ORDER BY seq"
            rows = await self._file.execute(sql, last)
            last = max((row[0] for row in rows), default=last)
            return [Message(subject, body, id or "") for _, subject, body, id in rows if _fits(patterns, subject)]

        yield Feed(self._file, fetch)

    async def backlog(self, channel: Channel, name: str) -> Backlog | None:
        """What a group has not finished."""
        queue = await self._queue(channel, name)
        if queue is None:
            return None
        sql = "SELECT count(*), count(CASE WHEN due > ? THEN member END) FROM delivery WHERE queue = ?"
        [[undone, leased]] = await self._file.execute(sql, time.time(), queue)
        return Backlog(undone - leased, leased)

    async def aclose(self) -> None:
        """Close the file."""
        await self._file.aclose()

    def store(self, messages: Sequence[Message], connection: sqlite3.Connection) -> None:
        """Store messages for all groups that they concern, within a transaction."""
        now, routes = time.time(), dict[str, list[int]]()
        for subject, body, id in messages:
            stream = self._stream("commands" if subject.startswith(f"{self.namespace}.do.") else "events")
            row = (stream, id or None, subject, body, now)
            sql = "INSERT OR IGNORE INTO message (stream, id, subject, body, time) VALUES (?, ?, ?, ?, ?)"
            added = connection.execute(sql, row)
            if added.rowcount == 0:
                continue  # A repeat.
            if subject not in routes:
                queues = connection.execute("SELECT queue, patterns FROM queue WHERE stream = ?", (stream,))
                routes[subject] = [queue for queue, patterns in queues if _fits(patterns.split(), subject)]
            deliveries = [(queue, added.lastrowid, now) for queue in routes[subject]]
            connection.executemany("INSERT INTO delivery (queue, seq, due) VALUES (?, ?, ?)", deliveries)
        if now >= self._prune_at:
            self._prune_at = now + WINDOW / 10
            undone = "SELECT 1 FROM delivery WHERE delivery.seq = message.seq"
            connection.execute(f"DELETE FROM message WHERE time < ? AND NOT EXISTS ({undone})", (now - WINDOW,))

    def _stream(self, channel: Channel) -> str:
        return f"{self.namespace}-{channel}"

    async def _queue(self, channel: Channel, name: str) -> int | None:
        sql = "SELECT queue FROM queue WHERE stream = ? AND name = ?"
        found = await self._file.execute(sql, self._stream(channel), name)
        return int(found[0][0]) if found else None


class LiteConsumer:
    """One member of a group.

    Args:
        transport: Whose.
        file: The open file.
        queue: The group's number.
        name: Its name.
    """

    def __init__(self, transport: LiteTransport, file: QueueFile, queue: int, name: str) -> None:
        self._transport = transport
        self._file = file
        self._queue = queue
        self._name = name
        self._member = uuid.uuid4().hex

    async def receive(self, limit: int) -> list[Delivery]:
        """Look whether something is due, which locks nobody out; only then take it."""
        while True:
            rings = self._file.rings
            [[due]] = await self._file.execute("SELECT min(due) FROM delivery WHERE queue = ?", self._queue)
            if due is not None and due <= time.time():
                found = await self._file.transact(partial(self._take, limit))
                if found:
                    return found
            else:
                await self._file.changed(rings, None if due is None else due - time.time())

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """These are done."""
        await self._each("DELETE FROM delivery", deliveries)

    async def retry(self, deliveries: Sequence[Delivery], delay: float) -> None:
        """Deliver these again after `delay` seconds."""
        await self._each("UPDATE delivery SET member = NULL, due = ?", deliveries, time.time() + delay, rings=True)

    async def discard(self, deliveries: Sequence[Delivery], reason: str) -> None:
        """Move these to the dead letters."""

        def work(connection: sqlite3.Connection) -> None:
            mine = [delivery for delivery in deliveries if self._on(connection, "DELETE FROM delivery", delivery)]
            namespace, now = self._transport.namespace, time.time()
            sql = """INSERT INTO dead_letter (namespace, name, subject, body, reason, deliveries, time)
                     VALUES (?, ?, ?, ?, ?, ?, ?)"""
            rows = [(namespace, self._name, d.subject, d.body, reason, d.deliveries, now) for d in mine]
            connection.executemany(sql, rows)
            subject = f"{namespace}.dead.{self._name}"
            self._transport.store([Message(subject, delivery.body) for delivery in mine], connection)

        await self._file.transact(work, durable=True, rings=True)

    async def leave(self) -> None:
        """Hand back what is not done."""
        sql = "UPDATE delivery SET member = NULL, due = 0 WHERE queue = ? AND member = ?"
        await self._file.execute(sql, self._queue, self._member, rings=True)

    def _take(self, limit: int, connection: sqlite3.Connection) -> list[Delivery]:
        now = time.time()
        sql = """SELECT subject, body, deliveries + 1, seq FROM delivery JOIN message USING (seq)
                 WHERE queue = ? AND due <= ? ORDER BY due, seq LIMIT ?"""
        found = [Delivery(*row) for row in connection.execute(sql, (self._queue, now, limit))]
        sql = "UPDATE delivery SET deliveries = deliveries + 1, due = ?, member = ? WHERE queue = ? AND seq = ?"
        until = now + self._transport.capabilities.redelivery
        connection.executemany(sql, [(until, self._member, self._queue, delivery.token) for delivery in found])
        return found

    async def _each(self, sql: str, deliveries: Sequence[Delivery], *values: object, rings: bool = False) -> None:
        def work(connection: sqlite3.Connection) -> None:
            for delivery in deliveries:
                self._on(connection, sql, delivery, *values)

        await self._file.transact(work, rings=rings)

    def _on(self, connection: sqlite3.Connection, sql: str, delivery: Delivery, *values: object) -> bool:
        """Run a statement on one delivery, unless it was delivered again since; returns whether it was not."""
        row = (*values, self._queue, delivery.token, delivery.deliveries)
        return connection.execute(f"{sql} WHERE queue = ? AND seq = ? AND deliveries = ?", row).rowcount > 0


class LiteDeadLetters:
    """What groups discarded."""

    _LETTER = "SELECT letter, name, subject, body, reason, deliveries, time FROM dead_letter WHERE namespace = ?"

    def __init__(self, transport: LiteTransport, file: QueueFile) -> None:
        self._transport = transport
        self._file = file

    async def page(self, limit: int, after: str = "") -> list[DeadLetter]:
        """Letters, oldest first."""
        sql = f"{self._LETTER} AND letter > ? ORDER BY letter LIMIT ?"
        rows = await self._file.execute(sql, self._transport.namespace, after or 0, limit)
        return [DeadLetter(str(number), *rest) for number, *rest in rows]

    async def get(self, id: str) -> DeadLetter | None:
        """One letter."""
        rows = await self._file.execute(f"{self._LETTER} AND letter = ?", self._transport.namespace, id)
        return next((DeadLetter(str(number), *rest) for number, *rest in rows), None)

    async def requeue(self, id: str) -> bool:
        """Store the message again and remove the letter, both or neither."""
        return await self._remove(id, again=True)

    async def discard(self, id: str) -> bool:
        """Remove a letter for good."""
        return await self._remove(id, again=False)

    async def _remove(self, id: str, again: bool) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            sql = "DELETE FROM dead_letter WHERE namespace = ? AND letter = ? RETURNING subject, body"
            found = [Message(*row) for row in connection.execute(sql, (self._transport.namespace, id))]
            if again:
                self._transport.store(found, connection)
            return bool(found)

        return await self._file.transact(work, durable=True, rings=again)


class LiteRegistry:
    """Small shared documents."""

    def __init__(self, file: QueueFile, namespace: str) -> None:
        self._file = file
        self._namespace = namespace

    async def put(self, key: str, value: bytes) -> None:
        """Set a key."""
        sql = "INSERT INTO registry (namespace, key, value) VALUES (?, ?, ?)"
        await self._file.execute(sql, self._namespace, key, value, durable=True, rings=True)

    async def get(self, key: str) -> bytes | None:
        """The last value of a key."""
        sql = "SELECT value FROM registry WHERE namespace = ? AND key = ?"
        found = await self._file.execute(sql, self._namespace, key)
        return bytes(found[0][0]) if found else None

    @asynccontextmanager
    async def follow(self) -> AsyncIterator[AsyncIterator[Entry | None]]:
        """Every entry, None, then each change."""
        last = -1

        async def fetch() -> list[Entry | None]:
            nonlocal last
            sql = "SELECT version, key, value FROM registry WHERE namespace = ? AND version > ? ORDER BY version"
            rows = await self._file.execute(sql, self._namespace, last)
            caught_up: list[None] = [None] if last < 0 else []
            last = max((row[0] for row in rows), default=max(last, 0))
            return [*(Entry(key, value) for _, key, value in rows), *caught_up]

        yield Feed(self._file, fetch)


def _fits(patterns: Sequence[str], subject: str) -> bool:
    return any(matches(pattern, subject) for pattern in patterns)
