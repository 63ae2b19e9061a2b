"""The port: publishing fans out to a row per group, taking one is a lease, acknowledging deletes it."""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import anyio

from segue.errors import PayloadTooLarge, TransportError, TransportUnavailable
from segue.ports.transport import Backlog, Capabilities, Channel, Delivery, Entry, Group, Message, Registry, matches
from segue_litequeue import requests
from segue_litequeue.file import Feed, QueueFile, transaction

MAX_BYTES = 1 << 20
WINDOW = 120.0
"""Seconds for which messages that all have done are kept: for listeners, and to know repeats by their id."""


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
        self._file = file
        self._namespace = namespace
        self._prune_at = 0.0

    async def declare(self, group: Group) -> None:
        """Create a group or set its patterns; what waits for it stays."""
        row = (self._stream(group.channel), group.name, " ".join(group.patterns))

        def work(connection: sqlite3.Connection) -> None:
            with transaction(connection, durable=True):
                connection.execute(
                    "INSERT INTO queue (stream, name, patterns) VALUES (?, ?, ?)"
                    " ON CONFLICT DO UPDATE SET patterns = excluded.patterns",
                    row,
                )

        await self._file.run(work)

    async def publish(self, messages: Sequence[Message]) -> None:
        """Store messages, all or none."""
        for message in messages:
            if len(message.body) > MAX_BYTES:
                raise PayloadTooLarge(
                    f"a message of {len(message.body)} bytes to {message.subject} is over the limit of {MAX_BYTES}",
                    "send less, or a reference to the data",
                )
        if messages:
            await self._file.run(partial(self._publish, messages), rings=True)

    @asynccontextmanager
    async def consume(self, channel: Channel, name: str) -> AsyncIterator[LiteConsumer]:
        """Join a declared group.

        Raises:
            TransportError: The group is not declared.
        """
        queue = await self._queue(channel, name)
        if queue is None:
            raise TransportError(f"group {name!r} is not declared on {channel}", "declare it before consuming")
        member = LiteConsumer(self, self._file, queue)
        try:
            yield member
        finally:
            # If the file cannot be reached, the leases end by themselves.
            with anyio.CancelScope(shield=True), suppress(TransportUnavailable):
                await member.leave()

    async def request(self, subject: str, body: bytes, timeout: float) -> bytes:
        """Ask the responder that was asked longest ago."""
        return await requests.request(self._file, subject, body, timeout)

    @asynccontextmanager
    async def respond(self, subject: str, handler: Callable[[bytes], Awaitable[bytes]]) -> AsyncIterator[None]:
        """Answer requests; on leaving, finish those that have begun."""
        async with requests.respond(self._file, subject, handler):
            yield

    @asynccontextmanager
    async def listen(self, patterns: Sequence[str]) -> AsyncIterator[AsyncIterator[Message]]:
        """Read on from the last message, alone and without a trace in the file."""
        query = "SELECT seq, subject, body, id FROM message WHERE seq > ? ORDER BY seq LIMIT 500"
        [[last]] = await self._file.run(lambda c: c.execute("SELECT coalesce(max(seq), 0) FROM message").fetchall())

        async def fetch() -> list[Message]:
            nonlocal last
            found: list[Message] = []
            rows = [None]
            while rows and not found:
                rows = await self._file.run(lambda c: c.execute(query, (last,)).fetchall())
                for last, subject, body, number in rows:  # noqa: B020
                    if _fits(patterns, subject):
                        found.append(Message(subject, body, number or ""))
            return found

        yield Feed(self._file, fetch)

    async def backlog(self, channel: Channel, name: str) -> Backlog | None:
        """What a group has not finished."""
        queue = await self._queue(channel, name)
        if queue is None:
            return None
        query = "SELECT count(*), total(member IS NOT NULL AND due > ?) FROM delivery WHERE queue = ?"
        every, leased = await self._file.run(lambda c: c.execute(query, (time.time(), queue)).fetchone())
        return Backlog(every - int(leased), int(leased))

    async def aclose(self) -> None:
        """Close the file."""
        await self._file.aclose()

    def store(self, connection: sqlite3.Connection, messages: Sequence[Message]) -> None:
        """Store messages for every group that they concern, within the caller's transaction."""
        now, routes = time.time(), dict[str, list[int]]()
        for message in messages:
            subject = message.subject
            stream = self._stream("commands" if subject.startswith(f"{self._namespace}.do.") else "events")
            stored = connection.execute(
                "INSERT OR IGNORE INTO message (stream, id, subject, body, time) VALUES (?, ?, ?, ?, ?)",
                (stream, message.id or None, subject, message.body, now),
            )
            if stored.rowcount == 0:
                continue
            if subject not in routes:
                queues = connection.execute("SELECT queue, patterns FROM queue WHERE stream = ?", (stream,))
                routes[subject] = [queue for queue, patterns in queues if _fits(patterns.split(), subject)]
            connection.executemany(
                "INSERT INTO delivery (queue, seq, due) VALUES (?, ?, ?)",
                [(queue, stored.lastrowid, now) for queue in routes[subject]],
            )

    def _publish(self, messages: Sequence[Message], connection: sqlite3.Connection) -> None:
        now = time.time()
        with transaction(connection, durable=True):
            self.store(connection, messages)
            if now >= self._prune_at:
                self._prune_at = now + WINDOW / 10
                undone = "SELECT 1 FROM delivery WHERE delivery.seq = message.seq"
                connection.execute(f"DELETE FROM message WHERE time < ? AND NOT EXISTS ({undone})", (now - WINDOW,))

    async def _queue(self, channel: Channel, name: str) -> int | None:
        query, row = "SELECT queue FROM queue WHERE stream = ? AND name = ?", (self._stream(channel), name)
        found = await self._file.run(lambda c: c.execute(query, row).fetchone())
        return None if found is None else int(found[0])

    def _stream(self, channel: Channel) -> str:
        return f"{self._namespace}-{channel}"
