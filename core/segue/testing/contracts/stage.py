"""Where a transport test plays: a fresh namespace, connections to it, and its subjects."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable

import anyio

from segue.ports.transport import Channel, Consumer, Delivery, Group, Transport
from segue.wire.subjects import Subjects

PATIENCE = 15.0
"""Seconds that a test waits for what must come, before it fails."""


class Stage:
    """A namespace of its own and the connections that a test opened to it; `bus` is the first."""

    bus: Transport

    def __init__(self, connect: Callable[[str], Awaitable[Transport]]) -> None:
        self.namespace = f"t{uuid.uuid4().hex[:12]}"
        self._connect = connect
        self._open: list[Transport] = []
        self._subjects = Subjects(self.namespace)

    async def another(self) -> Transport:
        """One more connection."""
        transport = await self._connect(self.namespace)
        self._open.append(transport)
        return transport

    async def close(self) -> None:
        """Close all connections."""
        while self._open:
            await self._open.pop().aclose()

    def event(self, node: str, kind: str = "completed") -> str:
        """The subject of an event, or a pattern."""
        return self._subjects.event("choreographed", "flow", node, kind)

    def command(self, service: str, step: str) -> str:
        """The subject of a command, or a pattern."""
        return self._subjects.command(service, step)

    def request(self, participant: str) -> str:
        """The subject of a request."""
        return self._subjects.requests(participant)

    def dead(self, group: str) -> str:
        """The subject of a group's dead letters."""
        return f"{self.namespace}.dead.{group}"

    async def events(self, name: str, *patterns: str) -> Group:
        """Declare a group of events."""
        return await self._declare("events", name, patterns)

    async def commands(self, name: str, *patterns: str) -> Group:
        """Declare a group of commands."""
        return await self._declare("commands", name, patterns)

    async def _declare(self, channel: Channel, name: str, patterns: tuple[str, ...]) -> Group:
        group = Group(channel, name, patterns)
        await self.bus.declare(group)
        return group


def numbered(count: int) -> list[bytes]:
    """That many different bodies."""
    return [b"%05d" % i for i in range(count)]


async def receive(member: Consumer, limit: int = 100) -> list[Delivery]:
    """Receive, or fail when nothing comes."""
    with anyio.fail_after(PATIENCE):
        return await member.receive(limit)


async def collect(member: Consumer, distinct: int, *, total: int = 0, limit: int = 100) -> set[bytes]:
    """Receive and acknowledge until that many different bodies (and that many deliveries) have come."""
    bodies: list[bytes] = []
    with anyio.fail_after(PATIENCE):
        while len(set(bodies)) < distinct or len(bodies) < total:
            deliveries = await member.receive(limit)
            assert 0 < len(deliveries) <= limit
            bodies += [delivery.body for delivery in deliveries]
            await member.ack(deliveries)
    return set(bodies)


async def silent(member: Consumer, seconds: float = 0.2) -> bool:
    """Whether nothing is delivered for a while."""
    deliveries: list[Delivery] = []
    with anyio.move_on_after(seconds):
        deliveries = await member.receive(10)
    return not deliveries
