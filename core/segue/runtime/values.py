"""Values on their way: small ones travel in the message, large ones wait in the object store, and a reference travels.

An event or call whose data is large is written without it: `dataref` names what was put away (the attribute that
CloudEvents has for this). So what is recorded, published and parked stays small, whatever steps return. The machine
never sees a reference: whoever makes a fact of an event opens it first.

What is put away is in the object store before anything that refers to it is recorded or published (`flush`).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

import msgspec

from segue.config import LimitsConfig
from segue.errors import InvalidInput, ObjectLost, PayloadTooLarge
from segue.ports.objects import ObjectStore, digest
from segue.wire import envelope
from segue.wire.envelope import Call, Ended, Event
from segue.wire.requests import Send, Start

ENVELOPE_ROOM = 4_096
"""Bytes of a message that are kept for the envelope."""

SCHEME = "sha256:"

CACHE = 32 * 1024 * 1024
"""Bytes of objects that a process keeps at hand."""

M = TypeVar("M", Event, Call)
R = TypeVar("R", bound=Start | Send)
_NULL = msgspec.Raw(b"null")


class Values:
    """Puts large values away and gets them back.

    Args:
        objects: Where they go; None keeps every value in its message.
        max_event: Bytes that an event or call may have.
        limits: How large values may be.
    """

    def __init__(self, objects: ObjectStore | None, max_event: int, limits: LimitsConfig | None = None) -> None:
        self.limits = limits or LimitsConfig()
        self.max_event = max_event
        self._objects = objects
        self._inline = min(self.limits.inline, max_event)
        self.largest = self.limits.value if objects is not None else min(self.limits.value, max_event)
        self.pending: dict[tuple[str, str], bytes] = {}
        self._cache: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._cached = 0

    # What is written.

    def encode(self, message: M) -> tuple[M, bytes]:
        """A message as it is recorded and sent, and its bytes; data that is large is put away with the next `flush`."""
        raw = envelope.encode(message)
        if len(raw) <= self._inline or self._objects is None:
            return message, raw
        body = bytes(message.data)
        if not self._inline < len(body) <= self.largest:
            return message, raw
        name = self._put(message.run, body)
        message = msgspec.structs.replace(message, data=_shown(message), dataref=SCHEME + name)
        return message, envelope.encode(message)

    async def enclose(self, request: R, body: bytes, what: str) -> R:
        """A request that brings a value, or its reference; then it is in the object store.

        Raises:
            PayloadTooLarge: It is larger than values may be; the message says `what` is.
            StoreUnavailable: The object store does not take it.
        """
        if len(body) > self.largest:
            raise self.too_large(what, len(body))
        if self._objects is not None and len(body) > self._inline:
            name = digest(body)
            await self._objects.put(request.run, name, body)
            return msgspec.structs.replace(request, dataref=SCHEME + name)
        field = "input" if isinstance(request, Start) else "value"
        return msgspec.structs.replace(request, **{field: msgspec.Raw(body)})

    def too_large(self, what: str, size: int) -> PayloadTooLarge:
        """The error about a value that is larger than values may be."""
        if self._objects is None and size <= self.limits.value:
            return PayloadTooLarge(
                f"{what} has {size:,} bytes; the transport takes {self.largest:,}, and there is no object store",
                'name one in segue.toml: [objects] url = "file:///shared/folder" or "nats://..."',
            )
        return PayloadTooLarge(
            f"{what} has {size:,} bytes; limits.value allows {self.largest:,}",
            "keep it elsewhere and hand on where it is, or raise limits.value",
        )

    async def flush(self) -> None:
        """Store what was put away.

        Raises:
            StoreUnavailable: The object store does not take it; it is kept for the next time.
        """
        assert self._objects is not None
        for place, body in tuple(self.pending.items()):
            await self._objects.put(*place, body)
            self._keep(place, body)
            self.pending.pop(place, None)

    async def forget(self, run: str) -> None:
        """Delete the objects of a run."""
        if self._objects is not None:
            await self._objects.delete([run])

    # What is read.

    async def open(self, message: M) -> M:
        """A message with its data.

        Raises:
            ObjectLost: Its data is not in the object store.
            StoreUnavailable: The object store does not answer.
        """
        if not message.dataref:
            return message
        return msgspec.structs.replace(message, data=msgspec.Raw(await self._get(message.run, message.dataref)))

    async def disclose(self, request: R) -> R:
        """A request with its value; raises as `open` does."""
        if not request.dataref:
            return request
        body = msgspec.Raw(await self._get(request.run, request.dataref))
        field = "input" if isinstance(request, Start) else "value"
        return msgspec.structs.replace(request, dataref="", **{field: body})

    async def _get(self, run: str, reference: str) -> bytes:
        name = reference.removeprefix(SCHEME)
        place = run, name
        body = self.pending.get(place) or self._cache.get(place)
        if body is not None:
            if place in self._cache:
                self._cache.move_to_end(place)
            return body
        if not reference.startswith(SCHEME) or len(name) != 64:
            raise InvalidInput(f"{reference!r} is no reference to a value", f"references are {SCHEME}<64 hex digits>")
        if self._objects is None:
            raise ObjectLost(
                f"a value of run {run} is in an object store, and none is configured here", "set [objects] url"
            )
        body = await self._objects.get(run, name)
        if body is None or digest(body) != name:
            what = "is not in the object store" if body is None else "is damaged in the object store"
            raise ObjectLost(
                f"value {name} of run {run} {what}",
                "bring it back from a backup; is this the object store that the others use?",
            )
        self._keep(place, body)
        return body

    def _put(self, run: str, body: bytes) -> str:
        name = digest(body)
        if (run, name) not in self._cache:
            self.pending[run, name] = body
        return name

    def _keep(self, place: tuple[str, str], body: bytes) -> None:
        if place in self._cache or len(body) > CACHE:
            return
        self._cache[place] = body
        self._cached += len(body)
        while self._cached > CACHE:
            _, dropped = self._cache.popitem(last=False)
            self._cached -= len(dropped)


def _shown(message: Event | Call) -> msgspec.Raw:
    """What stays of data that is put away: of an end its status and first cause, which lists of runs show."""
    if not isinstance(message, Event) or message.kind != "ended":
        return _NULL
    ended = envelope.decode_ended(message)
    return msgspec.Raw(msgspec.json.encode(Ended(ended.status, causes=ended.causes[:1])))
