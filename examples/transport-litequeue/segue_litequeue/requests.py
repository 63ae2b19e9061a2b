"""Request and reply: a request is a row that is given to one responder, who writes the answer into it.

Responders sign a list, and show now and then that they are alive; the requests go round. If the one that was chosen has
just died, the request fails when its time is over, and the caller asks again.
"""

from __future__ import annotations

import logging
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import anyio
from anyio.abc import TaskGroup
from segue.errors import TransportError, TransportUnavailable

from segue_litequeue.file import QueueFile

log = logging.getLogger("segue.litequeue")
Handler = Callable[[bytes], Awaitable[bytes]]
ALIVE = 3.0
"""Seconds that a responder is believed to be there after its last sign of life; it gives three in that time."""


async def request(file: QueueFile, subject: str, body: bytes, timeout: float) -> bytes:
    """Ask the responder whose turn it is.

    Raises:
        TransportUnavailable: Nobody responds there, it failed, or it did not answer within `timeout` seconds.
    """

    def ask(connection: sqlite3.Connection) -> int | None:
        now = time.time()
        sql = "SELECT responder FROM responder WHERE subject = ? AND seen > ? ORDER BY turn LIMIT 1"
        chosen = connection.execute(sql, (subject, now - ALIVE)).fetchone()
        if chosen is None:
            return None
        sql = "INSERT INTO request (responder, body, expires) VALUES (?, ?, ?)"
        number = connection.execute(sql, (*chosen, body, now + timeout)).lastrowid
        connection.execute("UPDATE responder SET turn = ? WHERE responder = ?", (number, *chosen))
        return number

    number = await file.transact(ask, rings=True)
    if number is None:
        raise TransportUnavailable(f"nobody responds on {subject}", "is the participant running?")
    try:
        with anyio.move_on_after(timeout):
            while True:
                rings = file.rings
                [[answer, error]] = await file.execute("SELECT answer, error FROM request WHERE request = ?", number)
                if error is not None:
                    raise TransportUnavailable(f"the responder on {subject} failed: {error}", "see its log")
                if answer is not None:
                    return bytes(answer)
                await file.changed(rings)
    finally:
        with anyio.CancelScope(shield=True), suppress(TransportError):
            await file.execute("DELETE FROM request WHERE request = ?", number)
    raise TransportUnavailable(f"no answer on {subject} within {timeout:g} s")


@asynccontextmanager
async def responding(file: QueueFile, subject: str, handler: Handler) -> AsyncIterator[None]:
    """Answer requests while the context is open; then finish those that have begun."""
    async with anyio.create_task_group() as answering, anyio.create_task_group() as serving:
        responder = Responder(file, subject, handler, answering)
        await responder.sign()
        serving.start_soon(responder.serve)
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True), suppress(TransportError):
                await responder.leave()
            serving.cancel_scope.cancel()


class Responder:
    """One of those who answer on a subject.

    Args:
        file: The open file.
        subject: Where.
        handler: Makes an answer.
        answering: Runs a task per request.
    """

    def __init__(self, file: QueueFile, subject: str, handler: Handler, answering: TaskGroup) -> None:
        self._file = file
        self._subject = subject
        self._handler = handler
        self._answering = answering
        self._me = uuid.uuid4().hex
        self._last = 0

    async def sign(self) -> None:
        """Show that this responder is alive; tidy up after those who no longer are."""

        def work(connection: sqlite3.Connection) -> None:
            now = time.time()
            sql = """INSERT INTO responder (responder, subject, seen) VALUES (?, ?, ?)
                     ON CONFLICT (responder) DO UPDATE SET seen = excluded.seen"""
            connection.execute(sql, (self._me, self._subject, now))
            connection.execute("DELETE FROM responder WHERE seen < ?", (now - 10 * ALIVE,))
            connection.execute("DELETE FROM request WHERE expires < ?", (now - 10 * ALIVE,))

        await self._file.transact(work)

    async def serve(self) -> None:
        """Take requests until cancelled."""
        while True:
            until = anyio.current_time() + ALIVE / 3
            while (left := until - anyio.current_time()) > 0:
                rings = self._file.rings
                await self._take()
                await self._file.changed(rings, left)
            await self.sign()

    async def leave(self) -> None:
        """Get no more requests; take those that were given before."""
        await self._file.execute("DELETE FROM responder WHERE responder = ?", self._me)
        await self._take()

    async def _take(self) -> None:
        sql = "SELECT request, body FROM request WHERE responder = ? AND request > ? ORDER BY request"
        for number, body in await self._file.execute(sql, self._me, self._last):
            self._last = number
            self._answering.start_soon(self._answer, number, body)

    async def _answer(self, number: int, body: bytes) -> None:
        answer = error = None
        try:
            answer = await self._handler(body)
        except Exception as failure:
            log.exception("a request on %s failed", self._subject)
            error = repr(failure)
        sql = "UPDATE request SET answer = ?, error = ? WHERE request = ?"
        with suppress(TransportError):
            await self._file.execute(sql, answer, error, number, rings=True)
