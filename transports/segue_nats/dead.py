"""Dead letters: the messages of a stream, which say in their headers where they come from."""

from __future__ import annotations

import base64
import hashlib
import secrets
from datetime import datetime
from typing import Any

from segue.errors import TransportError
from segue.ports.transport import DeadLetter
from segue_nats import api
from segue_nats.connection import Connection
from segue_nats.publisher import Post, Publisher
from segue_nats.topology import Topology

REASON, SUBJECT, DELIVERIES = "Segue-Reason", "Segue-Subject", "Segue-Deliveries"
MSG_ID = "Nats-Msg-Id"
LARGEST_REASON = 1000
_LAST = 2**63
_SECRET = secrets.token_bytes(32)


def letter_post(place: str, origin: str, subject: str, body: bytes, reason: str, deliveries: int) -> Post:
    """The dead letter of a message.

    Args:
        place: Subject of the group's dead letters.
        origin: Stream, group and sequence: what makes a letter the same when it is sent twice.
        subject: Where the message was published.
        body: What it says.
        reason: Why it was not handled; its line breaks would be those of the headers.
        deliveries: How often the group had it.
    """
    headers = {
        # Nobody must foretell it: a message with a known id is dropped, whoever published it.
        MSG_ID: hashlib.blake2b(origin.encode(), digest_size=16, key=_SECRET).hexdigest(),
        REASON: " ".join(reason.split())[:LARGEST_REASON],
        SUBJECT: subject,
        DELIVERIES: str(deliveries),
    }
    return Post(place, body, headers)


class NatsDeadLetters:
    """The letters of a namespace; their ids are sequence numbers of the stream.

    Args:
        connection: Where.
        publisher: Stores what is requeued.
        topology: Knows the stream.
    """

    def __init__(self, connection: Connection, publisher: Publisher, topology: Topology) -> None:
        self._connection = connection
        self._publisher = publisher
        self._stream = topology.dead
        self._prefix = topology.dead_subject("")

    async def page(self, limit: int, after: str = "") -> list[DeadLetter]:
        """Letters, oldest first."""
        found: list[DeadLetter] = []
        sequence = int(after or 0)
        while len(found) < limit:
            letter = await self._get({"seq": sequence + 1, "next_by_subj": f"{self._prefix}>"})
            if letter is None:
                break
            found.append(letter)
            sequence = int(letter.id)
        return found

    async def get(self, id: str) -> DeadLetter | None:
        """One letter."""
        sequence = int(id) if id.isdecimal() else 0
        return await self._get({"seq": sequence}) if 0 < sequence < _LAST else None

    async def requeue(self, id: str) -> bool:
        """Publish a letter's message again, then remove the letter."""
        letter = await self.get(id)
        if letter is None:
            return False
        if not letter.subject:
            raise TransportError(
                f"dead letter {id} has no message any more: {letter.reason}",
                "discard it",
            )
        # If the letter cannot be removed, and is requeued again soon, the broker drops the repeat.
        await self._publisher.store([Post(letter.subject, letter.body, {MSG_ID: f"{self._stream}/{letter.id}"})])
        return await self.discard(id)

    async def discard(self, id: str) -> bool:
        """Remove a letter for good; the server overwrites it."""
        if await self.get(id) is None:
            return False
        try:
            await api.call(self._connection, f"STREAM.MSG.DELETE.{self._stream}", {"seq": int(id)})
        except api.ApiError:
            if await self.get(id) is None:
                return False  # somebody else was faster
            raise
        return True

    async def _get(self, which: dict[str, Any]) -> DeadLetter | None:
        message = await stored(self._connection, self._stream, which)
        if message is None:
            return None
        headers = _headers(message)
        return DeadLetter(
            str(message["seq"]),
            message["subject"].removeprefix(self._prefix),
            headers.get(SUBJECT, ""),
            body_of(message),
            headers.get(REASON, ""),
            int(headers.get(DELIVERIES, "0")),
            datetime.fromisoformat(message["time"]).timestamp(),
        )


async def stored(connection: Connection, stream: str, which: dict[str, Any]) -> dict[str, Any] | None:
    """A stored message as the API tells it; None if there is none."""
    try:
        found: dict[str, Any] = (await api.call(connection, f"STREAM.MSG.GET.{stream}", which))["message"]
    except api.ApiError as error:
        if error.number == api.MESSAGE_NOT_FOUND:
            return None
        raise
    return found


def body_of(message: dict[str, Any]) -> bytes:
    """The body of a stored message."""
    return base64.b64decode(message.get("data", ""))


def _headers(message: dict[str, Any]) -> dict[str, str]:
    lines = base64.b64decode(message.get("hdrs", "")).decode(errors="replace").split("\r\n")[1:]
    return {name: value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}
