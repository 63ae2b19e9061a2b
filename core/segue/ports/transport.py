"""The transport port: durable publishing, competing consumers, request and reply, and a small registry.

Subjects are tokens joined by dots; patterns use `*` for one token and a final `>` for one or more (the grammar of NATS;
adapters of other brokers translate it). Nothing here is needed for correctness beyond what is said: acknowledgements,
locks and dedup windows of a broker only save work.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, NamedTuple, Protocol

import msgspec

Channel = Literal["events", "commands"]
"""Events stay for a while and go to every group that listens; commands go to one group and are gone when done."""


class Message(NamedTuple):
    """What is published. `id` lets the broker drop repeats for a while; equal messages have equal ids."""

    subject: str
    body: bytes
    id: str = ""


class Delivery(NamedTuple):
    """A message on its way to one member of a group.

    `deliveries` counts from 1; `token` is the adapter's own.
    """

    subject: str
    body: bytes
    deliveries: int
    token: object


class Group(msgspec.Struct, frozen=True):
    """A durable group of competing consumers on one channel.

    A group is known by (channel, name). Its patterns may overlap with those of other groups on `events`, not on
    `commands`, and not with each other.
    """

    channel: Channel
    name: str
    patterns: tuple[str, ...]


class Backlog(msgspec.Struct, frozen=True):
    """What a group has not finished: `waiting` to be delivered, `delivered` but not acknowledged."""

    waiting: int
    delivered: int


class Capabilities(msgspec.Struct, frozen=True):
    """What an adapter can do.

    Attributes:
        durable: Messages outlive the broker's process.
        max_bytes: Largest body; larger ones are refused with `PayloadTooLarge`.
        redelivery: Seconds after which an unacknowledged delivery comes again.
    """

    durable: bool
    max_bytes: int
    redelivery: float


class Consumer(Protocol):
    """One member of a group."""

    async def receive(self, limit: int) -> list[Delivery]:
        """Wait for at least one delivery, then return what is there, at most `limit`. Never lingers for more.

        Cancelling it loses nothing: what was not returned is delivered to somebody.

        Raises:
            TransportUnavailable: The broker lost the group; declare it again, and go on.
        """
        ...

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """These are done. A lost ack means a redelivery."""
        ...

    async def retry(self, deliveries: Sequence[Delivery], delay: float) -> None:
        """Deliver these again, not before `delay` seconds from now."""
        ...

    async def discard(self, deliveries: Sequence[Delivery], reason: str) -> None:
        """Move these to the dead letters, with the reason, and never deliver them again."""
        ...


class Entry(NamedTuple):
    """A registry entry."""

    key: str
    value: bytes


class Registry(Protocol):
    """Small shared documents (plans, flow records), the last value of each key; durable where the transport is.

    Keys are tokens joined by dots, like subjects.
    """

    async def put(self, key: str, value: bytes) -> None:
        """Set a key; durable when this returns."""
        ...

    async def get(self, key: str) -> bytes | None:
        """The last value of a key."""
        ...

    def follow(self) -> AbstractAsyncContextManager[AsyncIterator[Entry | None]]:
        """Every key's last value, then None ("that was all so far"), then each change as it happens.

        Changes of one key arrive in order; an older value may be left out. Survives reconnects.
        """
        ...


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that a group will not handle.

    Attributes:
        id: The adapter's own name for it; letters and digits.
        group: Who did not handle it.
        subject: Where it was published; "" if the broker does not have the message any more.
        body: What it says.
        reason: Why it was not handled.
        deliveries: How often the group had it.
        time: When it became a dead letter; seconds since the epoch.
    """

    id: str
    group: str
    subject: str
    body: bytes
    reason: str
    deliveries: int
    time: float


class DeadLetters(Protocol):
    """What groups discarded, and what the broker gave up to deliver; kept for a long while, or until it is removed."""

    async def page(self, limit: int, after: str = "") -> list[DeadLetter]:
        """At most `limit` letters, oldest first, beginning after the one with this id, which may be gone."""
        ...

    async def get(self, id: str) -> DeadLetter | None:
        """One letter; None if there is none of this id."""
        ...

    async def requeue(self, id: str) -> bool:
        """Publish a letter's message again, then remove the letter; False if there is none of this id.

        Its group gets the message as a new one, and so does every other group that listens to the subject.

        Raises:
            TransportError: The message is not there any more; the letter stays.
        """
        ...

    async def discard(self, id: str) -> bool:
        """Remove a letter for good; False if there is none of this id."""
        ...


class Transport(Protocol):
    """A connection to a broker. Adapters raise `TransportUnavailable` where trying again may help."""

    capabilities: Capabilities
    registry: Registry
    dead: DeadLetters

    async def declare(self, group: Group) -> None:
        """Create a group, or set its patterns, keeping its position.

        Messages published after this returns reach the group, whether a member runs or not.
        """
        ...

    async def publish(self, messages: Sequence[Message]) -> None:
        """Store messages. All are stored when this returns; if it raises, any of them may be.

        Subjects decide the channel: `<ns>.do.>` are commands, the rest are events.

        Raises:
            PayloadTooLarge: One is larger than `capabilities.max_bytes`; none was published.
            TransportUnavailable: Not all were acknowledged in time; publish them again.
        """
        ...

    def consume(self, channel: Channel, name: str) -> AbstractAsyncContextManager[Consumer]:
        """Join a declared group as one member. Leaving hands back what was delivered and not acknowledged."""
        ...

    async def request(self, subject: str, body: bytes, timeout: float) -> bytes:
        """Ask whoever responds on a subject; one of several answers. Not durable.

        Raises:
            TransportUnavailable: Nobody responds there, or not within `timeout` seconds.
        """
        ...

    def respond(self, subject: str, handler: Callable[[bytes], Awaitable[bytes]]) -> AbstractAsyncContextManager[None]:
        """Answer requests on a subject, sharing them with other responders; requests are handled concurrently."""
        ...

    def listen(self, patterns: Sequence[str]) -> AbstractAsyncContextManager[AsyncIterator[Message]]:
        """Copies of the messages published from now on, best effort: what is missed is gone."""
        ...

    async def backlog(self, channel: Channel, name: str) -> Backlog | None:
        """What a group has not finished; None if the group is not declared."""
        ...

    async def aclose(self) -> None:
        """Close what this adapter opened."""
        ...


def matches(pattern: str, subject: str) -> bool:
    """Whether a subject fits a pattern."""
    want, have = pattern.split("."), subject.split(".")
    for i, token in enumerate(want):
        if token == ">":
            return len(have) > i
        if i >= len(have) or token not in ("*", have[i]):
            return False
    return len(want) == len(have)
