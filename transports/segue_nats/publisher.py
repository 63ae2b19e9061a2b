"""Publishing with acks, pipelined: messages go out back to back, their acks are ticked off as they come.

Every message has a reply subject of its own, so a message sent twice counts once. What is not acknowledged is sent
again under the same `Nats-Msg-Id`: at once when the connection comes back, else after a while. Nothing holds a permit
that a crash could lose: the bound on what is in flight is the number of open questions in the inbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from nats.aio.msg import Msg

from segue.errors import NotPermitted, TransportUnavailable
from segue_nats.connection import LOST, Connection

WINDOW = 4096
"""Messages in flight on a connection."""

ATTEMPT = 3.0
PATIENCE = 12.0
"""Seconds without any ack after which to send again, and to give up."""


class Post(NamedTuple):
    """A message to store."""

    subject: str
    body: bytes
    headers: dict[str, str] | None = None


class Batch:
    """Messages that are stored when all their acks are in.

    Args:
        posts: The messages by their reply subjects.
    """

    def __init__(self, posts: dict[str, Post]) -> None:
        self.open = posts
        self.trouble = ""
        self._refused: NotPermitted | None = None
        self._settled: asyncio.Future[None] | None = None

    def refuse(self, error: NotPermitted | None) -> None:
        """One of them is forbidden."""
        if error is not None:
            self._refused = error
            self._wake()

    def on_reply(self, reply: str, answer: Msg | None) -> None:
        """An ack, a refusal, or the news that the connection was lost."""
        if answer is not None and answer.data and b'"error"' not in answer.data:
            self.open.pop(reply, None)
            if self.open:
                return
        elif answer is None:
            self.trouble = "the connection was lost"
        elif answer.data:
            self.trouble = msgspec.json.decode(answer.data)["error"].get("description", "refused")
        else:
            self.trouble = "no stream takes it at the moment"
        self._wake()

    async def settled(self, timeout: float) -> None:
        """Wait until all are stored, one was refused, or `timeout` seconds have passed.

        Raises:
            NotPermitted: One is forbidden.
        """
        if self.open and not self.trouble and self._refused is None:
            loop = asyncio.get_running_loop()
            self._settled = loop.create_future()
            timer = loop.call_later(timeout, self._wake)
            try:
                await self._settled
            finally:
                timer.cancel()
                self._settled = None
        if self.open and self._refused is not None:
            raise self._refused

    def _wake(self) -> None:
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)


class Publisher:
    """Stores messages in streams.

    Args:
        connection: Where.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._room: list[asyncio.Future[None]] = []

    async def store(self, posts: Sequence[Post]) -> None:
        """Publish, and return when all are acknowledged.

        Raises:
            NotPermitted: The server forbids one of them; the others may be stored.
            TransportUnavailable: Not all were acknowledged, and no ack has come for a while.
        """
        inbox, refusals = self._connection.inbox, self._connection.refusals
        batch = Batch({inbox.subject(): post for post in posts})

        def refuse(refused: str) -> None:
            for subject in {post.subject for post in batch.open.values()}:
                batch.refuse(refusals.of_question(subject, refused))

        try:
            with refusals.watch(refuse):
                await self._store(batch)
        finally:
            inbox.forget(batch.open)

    async def _store(self, batch: Batch) -> None:
        loop = asyncio.get_running_loop()
        posts, progress, pause = len(batch.open), loop.time(), 0.05
        while True:
            before = len(batch.open)
            await self._connection.ready(max(progress + PATIENCE - loop.time(), 0.0))
            await self._send(batch)
            while True:
                await batch.settled(ATTEMPT)
                if not batch.open:
                    return
                moved = len(batch.open) < before
                if moved:
                    before = len(batch.open)
                    progress = loop.time()
                if batch.trouble or not moved:
                    break
            if loop.time() - progress >= PATIENCE:
                why = batch.trouble or "there was no answer"
                raise self._connection.unavailable(
                    f"{len(batch.open)} of {posts} messages were not acknowledged ({why}) by"
                )
            if batch.trouble:
                # The acks of the others come meanwhile.
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)

    async def _send(self, batch: Batch) -> None:
        inbox = self._connection.inbox
        batch.trouble = ""
        try:
            for reply, (subject, body, headers) in tuple(batch.open.items()):
                if len(inbox) >= WINDOW:
                    await inbox.room(WINDOW)
                if reply in batch.open:
                    inbox.expect(reply, batch.on_reply)
                    await self._connection.client.publish(subject, body, reply, headers)
        except TransportUnavailable as error:
            batch.trouble = error.message
        except LOST as error:
            batch.trouble = str(error) or type(error).__name__
