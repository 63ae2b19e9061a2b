"""One member of a group: a standing pull that is renewed before it runs dry.

Messages come by callback into a box, so nothing is asked per message and nothing waits for a round trip. A pull asks
for what is missing to twice the last `receive(limit)`: enough to keep busy, and little enough that nothing lies in the
box until the broker delivers it again. The broker ends a pull with a status, or beats every two seconds while it
stands; after a silence, or a lost connection, what was asked for counts as lost and is asked for again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import anyio
from nats.aio.msg import Msg

from segue.errors import TransportError, TransportUnavailable
from segue.ports.transport import Delivery
from segue_nats.connection import LOST, Connection, Subscription
from segue_nats.dead import letter_post
from segue_nats.publisher import Publisher
from segue_nats.topology import nanoseconds

log = logging.getLogger("segue.nats")

HEARTBEAT = 2.0
SILENCE = 5.0
"""Without a sign of life for so long, the pull is lost."""

EXPIRES = 30.0
PAUSE = 0.5
LARGEST_PULL = 4096
PULL_BYTES = 16 * 1024 * 1024
LEAVE_TIMEOUT = 2.0
SERVED = ("Batch Completed", "Message Size Exceeds MaxBytes")
"""How a pull ends well; any other end means that the consumer may be gone."""

ACK, NAK, TERM = b"+ACK", b"-NAK", b"+TERM"


class PullConsumer:
    """Receives from a durable consumer.

    Args:
        connection: Where.
        publisher: Stores dead letters.
        stream: The stream.
        group: The durable's name.
        dead: Subject of dead letters.
        restore: Creates again what the server lost; whether this group is there.
    """

    def __init__(
        self,
        connection: Connection,
        publisher: Publisher,
        stream: str,
        group: str,
        dead: str,
        restore: Callable[[], Awaitable[bool]],
    ) -> None:
        self._connection = connection
        self._publisher = publisher
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{group}"
        self._origin = f"{stream}/{group}"
        self._dead = dead
        self._restore = restore
        self._inbox = connection.inbox.subject() + ".pull"
        self._subscription: Subscription | None = None
        self._box: deque[Delivery] = deque()
        self._held: set[object] = set()
        self._asked = 0
        self._heard = 0.0
        self._window = 1
        self._missing = False
        self._wake = asyncio.Event()
        self._now = asyncio.get_running_loop().time

    async def join(self) -> None:
        """Start listening; the first `receive` asks."""
        self._subscription = await self._connection.subscribe(self._inbox, self._on_message)
        self._connection.on_connected.append(self._on_connected)

    async def leave(self) -> None:
        """Hand back what is in the box and what was not acknowledged."""
        self._connection.on_connected.remove(self._on_connected)
        with anyio.move_on_after(LEAVE_TIMEOUT, shield=True):
            # Without an inbox the broker drops the pull, so that what is handed back goes to others.
            if self._subscription is not None:
                await self._subscription.close()
            for token in (*self._held, *(delivery.token for delivery in self._box)):
                await self._connection.publish(str(token), NAK)

    async def receive(self, limit: int) -> list[Delivery]:
        """Wait for at least one delivery, then return what is there, at most `limit`.

        Raises:
            TransportUnavailable: The group is gone, and was not declared here.
        """
        self._window = min(2 * limit, LARGEST_PULL)
        box = self._box
        while not box:
            await self._wait()
        # Nothing is awaited once it is out of the box, so that a cancelled receive loses nothing.
        await self._pull(min(limit, len(box)))
        got = [box.popleft() for _ in range(min(limit, len(box)))]
        self._held.update([delivery.token for delivery in got])
        return got

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """These are done."""
        await self._answer(deliveries, ACK)

    async def retry(self, deliveries: Sequence[Delivery], delay: float) -> None:
        """Deliver these again after `delay` seconds."""
        await self._answer(deliveries, NAK + b' {"delay": %d}' % nanoseconds(delay) if delay > 0 else NAK)

    async def discard(self, deliveries: Sequence[Delivery], reason: str) -> None:
        """Store these as dead letters, then end them."""
        posts = []
        for delivery in deliveries:
            origin = f"{self._origin}/{str(delivery.token).split('.')[-4]}"
            posts.append(letter_post(self._dead, origin, delivery.subject, delivery.body, reason, delivery.deliveries))
        await self._publisher.store(posts)
        await self._answer(deliveries, TERM)

    async def _answer(self, deliveries: Sequence[Delivery], verdict: bytes) -> None:
        self._held.difference_update([delivery.token for delivery in deliveries])
        try:
            client = self._connection.client
            for delivery in deliveries:
                await client.publish(str(delivery.token), verdict)
        except (*LOST, TransportUnavailable):
            log.debug("%s: answers were lost with the connection, the messages come again", self._origin)

    async def _wait(self) -> None:
        if self._missing:
            self._missing = False
            await asyncio.sleep(PAUSE)
            try:
                there = await self._restore()
            except TransportError as error:
                log.warning("%s cannot be consumed: %s", self._origin, error.message)
            else:
                if not there:
                    self._missing = True
                    raise TransportUnavailable(f"group {self._origin} is gone", "declare it again")
        if self._now() - self._heard >= SILENCE:
            self._asked = 0
        await self._pull()
        if self._box:
            return
        self._wake.clear()
        timer = asyncio.get_running_loop().call_later(SILENCE, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    async def _pull(self, taken: int = 0) -> None:
        have = self._asked + len(self._box) - taken
        if 2 * have > self._window:
            return
        want = self._window - have
        self._asked += want
        self._heard = self._now()
        request = b'{"batch": %d, "max_bytes": %d, "expires": %d, "idle_heartbeat": %d}' % (
            want,
            PULL_BYTES,
            nanoseconds(EXPIRES),
            nanoseconds(HEARTBEAT),
        )
        await self._connection.publish(self._next, request, self._inbox)

    async def _on_message(self, message: Msg) -> None:
        self._heard = self._now()
        reply = message.reply
        if not reply:
            self._on_status(message.headers or {})
            return
        tokens = reply.split(".")
        deliveries = int(tokens[4] if len(tokens) == 9 else tokens[6])
        self._box.append(Delivery(message.subject, message.data, deliveries, reply))
        self._asked -= 1
        self._wake.set()

    def _on_status(self, headers: dict[str, str]) -> None:
        status = headers.get("Status", "")
        if status == "100":
            return
        left = headers.get("Nats-Pending-Messages")
        if status in ("408", "409") and left is not None:
            self._asked = max(self._asked - int(left), 0)
        else:
            self._asked = 0
        description = headers.get("Description", "")
        if status != "408" and description not in SERVED:
            log.info("%s: %s %s", self._origin, status, description)
            self._missing = True
        self._wake.set()

    def _on_connected(self) -> None:
        self._asked = 0
        self._wake.set()
