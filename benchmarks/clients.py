"""Two ways to write services over nats-py by hand, with the same guarantees.

Plain is what its documentation shows: fetch a batch, publish the outputs pipelined with a message id, acknowledge the
inputs when the outputs are stored. Lean goes below the documented calls: a standing pull that feeds a callback, and one
counter for the acknowledgements of a whole batch instead of a future for each message.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import nats
from nats.js.api import AckPolicy, ConsumerConfig, StorageType, StreamConfig

STREAM = "flows"
FETCH = 200
PATIENCE = 3600.0
"""Seconds of a fetch. A fetch that times out may leave a request behind, which takes a message away from the next one
and stalls it; so none should while other systems have their turns."""
STANDING = 1000
MAX_PENDING = 20_000
OUTSTANDING = 4_000
Style = Literal["plain", "lean"]


class Output(NamedTuple):
    """A message to be stored; the id makes storing it twice harmless."""

    subject: str
    body: bytes
    id: str


class Publisher(Protocol):
    """Stores messages."""

    async def store(self, outputs: Sequence[Output]) -> None:
        """Publish, and return when the broker has stored all of them."""


async def connect(url: str) -> Any:
    """A connection that may buffer as much as a burst needs."""
    return await nats.connect(url, pending_size=16 * 1024 * 1024)


async def create(connection: Any, durables: dict[str, list[str]]) -> None:
    """Create the stream, on file, and its durable consumers by what they listen to."""
    stream = connection.jetstream()
    await stream.add_stream(StreamConfig(name=STREAM, subjects=["f.>"], storage=StorageType.FILE, duplicate_window=120))
    for durable, subjects in durables.items():
        config = ConsumerConfig(
            durable_name=durable,
            filter_subjects=subjects,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=30,
            max_ack_pending=MAX_PENDING,
        )
        await stream.add_consumer(STREAM, config)


async def publisher(connection: Any, style: Style) -> Publisher:
    """A publisher of a style."""
    if style == "plain":
        return PlainPublisher(connection)
    found = LeanPublisher(connection)
    await found.start()
    return found


def batches(connection: Any, style: Style, durable: str) -> AsyncIterator[list[Any]]:
    """What a durable consumer gets, in batches, for ever."""
    return _fetched(connection, durable) if style == "plain" else _standing(connection, durable)


async def acknowledge(connection: Any, messages: Sequence[Any]) -> None:
    """Say that messages are done."""
    for message in messages:
        await connection.publish(message.reply, b"+ACK")


class PlainPublisher:
    """Stores with `publish_async`."""

    def __init__(self, connection: Any) -> None:
        self._stream = connection.jetstream(publish_async_max_pending=OUTSTANDING)

    async def store(self, outputs: Sequence[Output]) -> None:
        """Publish, and return when the broker has stored all of them."""
        stored = [
            await self._stream.publish_async(output.subject, output.body, headers={"Nats-Msg-Id": output.id})
            for output in outputs
        ]
        await asyncio.gather(*stored)


class LeanPublisher:
    """Stores with one reply subject for each batch, and counts what comes back on it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._inbox: str = connection.new_inbox()
        self._missing: dict[str, int] = {}
        self._stored: dict[str, asyncio.Future[None]] = {}
        self._last = 0

    async def start(self) -> None:
        """Listen for acknowledgements."""
        await self._connection.subscribe(
            f"{self._inbox}.*", cb=self._acknowledged, pending_msgs_limit=-1, pending_bytes_limit=-1
        )

    async def store(self, outputs: Sequence[Output]) -> None:
        """Publish, and return when the broker has stored all of them."""
        if not outputs:
            return
        self._last += 1
        reply = f"{self._inbox}.{self._last}"
        self._missing[reply] = len(outputs)
        stored = self._stored[reply] = asyncio.get_running_loop().create_future()
        for output in outputs:
            await self._connection.publish(output.subject, output.body, reply, {"Nats-Msg-Id": output.id})
        try:
            await stored
        finally:
            del self._missing[reply], self._stored[reply]

    async def _acknowledged(self, message: Any) -> None:
        reply = message.subject
        if reply not in self._missing:
            return
        if b'"error"' in message.data:
            self._stored[reply].set_exception(RuntimeError(message.data.decode()))
            return
        self._missing[reply] -= 1
        if self._missing[reply] == 0:
            self._stored[reply].set_result(None)


async def _fetched(connection: Any, durable: str) -> AsyncIterator[list[Any]]:
    pull = await connection.jetstream().pull_subscribe_bind(durable, STREAM)
    while True:
        yield await pull.fetch(FETCH, timeout=PATIENCE)


async def _standing(connection: Any, durable: str) -> AsyncIterator[list[Any]]:
    inbox, arrived = connection.new_inbox(), asyncio.Event()
    messages: list[Any] = []
    request = json.dumps({"batch": STANDING, "expires": 30 * 10**9}).encode()
    expected = 0

    async def take(message: Any) -> None:
        nonlocal expected
        if message.data:
            messages.append(message)
        else:
            # A status without a body: the pull is over.
            expected = 0
        arrived.set()

    await connection.subscribe(inbox, cb=take, pending_msgs_limit=-1, pending_bytes_limit=-1)
    while True:
        if expected <= STANDING // 2:
            await connection.publish(f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{durable}", request, inbox)
            expected += STANDING
        await arrived.wait()
        arrived.clear()
        if messages:
            taken, messages[:] = messages[:], []
            expected -= len(taken)
            yield taken
