"""What a turn has to publish, put together so that what goes to one subject travels in one message.

Nothing lingers: a batch is what one turn produced. The message id is a hash of the body, so that the broker's window
drops an exact repeat; a redriven event has another body and passes. The hash is keyed with a secret of this process:
ids count for a whole stream, so whoever could foretell one could have the message dropped as a repeat of his own.
"""

from __future__ import annotations

import hashlib
import secrets

from segue.plan.projection import Mode
from segue.ports.transport import Message
from segue.wire.envelope import batch
from segue.wire.said import subject_kind
from segue.wire.subjects import Subjects

BATCH_EVENTS = 256
_SECRET = secrets.token_bytes(32)


class Outbox:
    """Encoded events and calls by subject, in order.

    Args:
        subjects: The namespace's subjects.
        max_bytes: Largest message body.
        author: The participant that publishes.
    """

    def __init__(self, subjects: Subjects, max_bytes: int, author: str) -> None:
        self._author = author
        self._subjects = subjects
        self._max_bytes = max_bytes
        self._events: dict[tuple[Mode, str, str, str], list[bytes]] = {}
        self._calls: dict[tuple[str, str], list[bytes]] = {}

    def event(self, mode: Mode, flow: str, node: str, kind: str, raw: bytes) -> None:
        """Publish an encoded event of a node."""
        self._events.setdefault((mode, flow, *subject_kind(node, kind, self._author)), []).append(raw)

    def drop(self, raw: bytes) -> None:
        """Do not publish an encoded event after all."""
        for events in self._events.values():
            events[:] = [event for event in events if event is not raw]

    def call(self, service: str, step: str, raw: bytes) -> None:
        """Send an encoded call to a service."""
        self._calls.setdefault((service, step), []).append(raw)

    def messages(self) -> list[Message]:
        """Everything, as few messages as the limits allow."""
        found: list[Message] = []
        for place, events in self._events.items():
            if not events:
                continue
            found += self._pack(self._subjects.event(*place), events)
        for target, calls in self._calls.items():
            found += self._pack(self._subjects.command(*target), calls)
        return found

    def _pack(self, subject: str, items: list[bytes]) -> list[Message]:
        packed, start, size = [], 0, 2
        for i, item in enumerate(items):
            if i > start and (i - start >= BATCH_EVENTS or size + len(item) + 1 > self._max_bytes):
                packed.append(_message(subject, items[start:i]))
                start, size = i, 2
            size += len(item) + 1
        packed.append(_message(subject, items[start:]))
        return packed


def _message(subject: str, items: list[bytes]) -> Message:
    body = batch(items)
    return Message(subject, body, hashlib.blake2b(body, digest_size=16, key=_SECRET).hexdigest())
