"""The broker of a simulation: groups that compete for messages, requests, a registry; it delays, repeats and loses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias

from segue.errors import PayloadTooLarge, TransportUnavailable
from segue.ports.transport import Capabilities, Channel, Delivery, Group, Message
from segue.testing.sim.ops import Ask, Op

if TYPE_CHECKING:
    from segue.testing.sim.world import World

CAPABILITIES = Capabilities(durable=True, max_bytes=1_000_000, redelivery=5.0)

WINDOW = 120.0
"""Seconds for which an exact repeat of a message is dropped."""

Answer = Callable[[Any, BaseException | None], None]


_Words: TypeAlias = dict[str, "_Words"]


class _Item:
    __slots__ = ("body", "deliveries", "subject")

    def __init__(self, subject: str, body: bytes, deliveries: int = 0) -> None:
        self.subject = subject
        self.body = body
        self.deliveries = deliveries


class Queue:
    """A group's messages: on their way, ready while nobody is there, or with a member.

    Args:
        world: Whose members take them.
        group: Who listens to what.
    """

    def __init__(self, world: World, group: Group) -> None:
        self.group = group
        self.ready: list[_Item] = []
        self.taken: dict[int, _Item] = {}
        self.consumer = SimConsumer(self)
        self._world = world
        self._tokens = count()
        self._words: _Words = {}
        for pattern in group.patterns:
            words = self._words
            for word in pattern.split("."):
                words = words.setdefault(word, {})
            words[""] = {}

    def hears(self, subject: str) -> bool:
        """Whether one of the group's patterns fits; there are thousands of them."""
        found = [self._words]
        for word in subject.split("."):
            if any(">" in words for words in found):
                return True
            found = [words[part] for words in found for part in (word, "*") if part in words]
        return any("" in words for words in found)

    def put(self, message: Message) -> None:
        """Send a message on its way: it may come late, twice or never."""
        dice = self._world.dice
        if dice.happens("losses", dice.faults.losses):
            return
        self._later(_Item(message.subject, message.body), dice.travel())
        if dice.happens("duplicates", dice.faults.duplicates):
            self._later(_Item(message.subject, message.body, dice.rng.randrange(2)), dice.travel() * 2)

    def hand_out(self) -> None:
        """Give what is ready to members."""
        items, self.ready = self.ready, []
        for item in items:
            self._offer(item)

    def receipt(self, deliveries: Sequence[Delivery], delay: float | None) -> None:
        """A member is done with deliveries, or wants them again after a delay."""
        for delivery in deliveries:
            item = self.taken.pop(delivery.token, None)  # type: ignore[call-overload]
            if item is not None and delay is not None:
                self._later(item, delay)

    def discard(self, deliveries: Sequence[Delivery], reason: str) -> None:
        """A member cannot do anything with deliveries."""
        self.receipt(deliveries, None)
        self._world.log.wrong += [f"{delivery.subject} was discarded: {reason}" for delivery in deliveries]

    def _later(self, item: _Item, delay: float) -> None:
        self._world.timeline.after(delay, self._offer, item)

    def _offer(self, item: _Item) -> None:
        member = self._world.member(self.group.name)
        if member is None:
            self.ready.append(item)
            return
        item.deliveries += 1
        token = next(self._tokens)
        self.taken[token] = item
        member.deliver(Delivery(item.subject, item.body, item.deliveries, token), self.consumer)
        self._world.timeline.after(CAPABILITIES.redelivery, self._expire, token)

    def _expire(self, token: int) -> None:
        item = self.taken.pop(token, None)
        if item is not None:
            self._offer(item)


class SimConsumer:
    """How a member says what it has done with deliveries.

    Args:
        queue: The group's queue.
    """

    __slots__ = ("queue",)

    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """See `Consumer.ack`."""
        await Op("receipt", lambda: self.queue.receipt(deliveries, None))

    async def retry(self, deliveries: Sequence[Delivery], delay: float) -> None:
        """See `Consumer.retry`."""
        await Op("receipt", lambda: self.queue.receipt(deliveries, delay))

    async def discard(self, deliveries: Sequence[Delivery], reason: str) -> None:
        """See `Consumer.discard`."""
        await Op("receipt", lambda: self.queue.discard(deliveries, reason))


class SimRegistry:
    """What is deployed.

    Args:
        entries: Documents by key.
    """

    def __init__(self, entries: dict[str, bytes]) -> None:
        self._entries = entries

    async def get(self, key: str) -> bytes | None:
        """See `Registry.get`."""
        found: bytes | None = await Op("publish", lambda: self._entries.get(key))
        return found


class SimBroker:
    """Groups and responders.

    Args:
        world: The simulation.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._queues: dict[tuple[Channel, str], Queue] = {}
        self._routes: dict[str, list[Queue]] = {}
        self._seen: dict[tuple[bool, str], float] = {}
        self._commands = f"{world.subjects.namespace}.do."

    def declare(self, group: Group) -> None:
        """Make a group."""
        self._queues[group.channel, group.name] = Queue(self._world, group)

    def queues(self, name: str) -> list[Queue]:
        """The queues of a participant."""
        return [queue for (_, owner), queue in self._queues.items() if owner == name]

    def publish(self, messages: Sequence[Message]) -> None:
        """Store messages, except repeats, and send them on their way."""
        now = self._world.timeline.now
        for message in messages:
            key = (message.subject.startswith(self._commands), message.id)
            if message.id and self._seen.get(key, -WINDOW) > now - WINDOW:
                continue
            self._seen[key] = now
            self._world.log.message(message)
            for queue in self._route(message.subject):
                queue.put(message)

    def request(self, subject: str, body: bytes, timeout: float, answer: Answer) -> None:
        """Let somebody answer, or nobody."""
        world, settled = self._world, False

        def settle(value: Any, error: BaseException | None) -> None:
            nonlocal settled
            if not settled:
                settled = True
                answer(value, error)

        def reply(value: bytes) -> None:
            if not world.dice.happens("losses", world.dice.faults.losses):
                world.timeline.after(world.dice.travel(), settle, value, None)

        def arrive() -> None:
            member = world.member(subject.rsplit(".", 1)[1])
            if member is None:
                settle(None, TransportUnavailable(f"nobody responds on {subject}"))
            else:
                member.ask(subject, body, reply)

        world.timeline.after(timeout, settle, None, TransportUnavailable(f"no answer on {subject}"))
        if not world.dice.happens("losses", world.dice.faults.losses):
            world.timeline.after(world.dice.travel(), arrive)

    def _route(self, subject: str) -> list[Queue]:
        found = self._routes.get(subject)
        if found is None:
            channel: Channel = "commands" if subject.startswith(self._commands) else "events"
            found = self._routes[subject] = [
                queue for queue in self._queues.values() if queue.group.channel == channel and queue.hears(subject)
            ]
        return found


class SimTransport:
    """The broker as participants use it in a turn: what they receive is put into their inboxes.

    Args:
        broker: The broker.
        registry: What is deployed.
    """

    def __init__(self, broker: SimBroker, registry: SimRegistry) -> None:
        self.capabilities = CAPABILITIES
        self.registry = registry
        self._broker = broker

    async def publish(self, messages: Sequence[Message]) -> None:
        """See `Transport.publish`."""
        for message in messages:
            if len(message.body) > self.capabilities.max_bytes:
                raise PayloadTooLarge(f"a message on {message.subject} has {len(message.body):,} bytes")
        broker = self._broker
        some = messages[: len(messages) // 2]
        await Op("publish", lambda: broker.publish(messages), lambda: broker.publish(some))

    async def request(self, subject: str, body: bytes, timeout: float) -> bytes:
        """See `Transport.request`."""
        found: bytes = await Ask(lambda answer: self._broker.request(subject, body, timeout, answer))
        return found
