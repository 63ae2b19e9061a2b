"""What the broker gave up to deliver becomes a dead letter.

The broker says so once, in an advisory, which a stream keeps. Whoever consumes anything here also takes care of these:
one durable consumer shares them out. The message itself still lies in its stream; it is copied into a dead letter.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from segue.errors import TransportError
from segue.ports.transport import Delivery
from segue_nats import api
from segue_nats.connection import Connection
from segue_nats.consumer import TERM, PullConsumer
from segue_nats.dead import body_of, letter_post, stored
from segue_nats.publisher import Publisher
from segue_nats.topology import Topology, nanoseconds

log = logging.getLogger("segue.nats")

NAME = "undertaker"
AT_A_TIME = 64
PAUSE = 30.0
"""Seconds until it is tried again, if it does not work: it may not be allowed here, and others do it."""

ACK_WAIT = 30.0


class Advisory(msgspec.Struct, frozen=True):
    """The broker's note that it delivers a message to a consumer no more."""

    stream: str
    consumer: str
    stream_seq: int
    deliveries: int


class Undertaker:
    """Turns advisories into dead letters.

    Args:
        connection: Where.
        publisher: Stores dead letters.
        topology: Knows the streams.
    """

    def __init__(self, connection: Connection, publisher: Publisher, topology: Topology) -> None:
        self._connection = connection
        self._publisher = publisher
        self._topology = topology

    async def work(self) -> None:
        """Take advisories as they come, for ever."""
        while True:
            try:
                await self._consume()
            except TransportError as error:
                log.warning("messages that were given up cannot be buried: %s", error.message)
            await asyncio.sleep(PAUSE)

    async def _consume(self) -> None:
        await self._declare()
        topology = self._topology
        place = topology.dead_subject(NAME)
        consumer = PullConsumer(self._connection, self._publisher, topology.advisories, NAME, place, self._declare)
        await consumer.join()
        try:
            while True:
                deliveries = await consumer.receive(AT_A_TIME)
                for delivery in deliveries:
                    await self._bury(delivery)
                await consumer.ack(deliveries)
        finally:
            await consumer.leave()

    async def _declare(self) -> bool:
        """Create the consumer, if it is missing; not everybody may create streams."""
        stream = self._topology.advisories
        config = {"durable_name": NAME, "ack_policy": "explicit", "ack_wait": nanoseconds(ACK_WAIT)}
        await api.call(self._connection, f"CONSUMER.CREATE.{stream}.{NAME}", {"stream_name": stream, "config": config})
        return True

    async def _bury(self, delivery: Delivery) -> None:
        try:
            advisory = msgspec.json.decode(delivery.body, type=Advisory)
        except msgspec.MsgspecError as error:
            log.error("an advisory of the broker cannot be read: %s", error)
            return
        stream, group, sequence = advisory.stream, advisory.consumer, advisory.stream_seq
        message = await stored(self._connection, stream, {"seq": sequence})
        reason = f"delivered {advisory.deliveries} times and never acknowledged; the broker gave up"
        if message is None:
            reason += f", and message {sequence} of stream {stream} is gone by now"
        subject, body = (message["subject"], body_of(message)) if message else ("", b"")
        place, origin = self._topology.dead_subject(group), f"{stream}/{group}/{sequence}"
        await self._publisher.store([letter_post(place, origin, subject, body, reason, advisory.deliveries)])
        log.error("message %d of stream %s (%s) is a dead letter of %s: %s", sequence, stream, subject, group, reason)
        # A queue of work keeps what nobody has done; this ends it. The last four numbers do not matter to the server.
        await self._connection.publish(f"$JS.ACK.{stream}.{group}.1.{sequence}.{sequence}.0.0", TERM)
