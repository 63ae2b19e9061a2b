"""Registry documents: what is deployed, in which mode, and what the services offer."""

from __future__ import annotations

from datetime import datetime

import msgspec

from segue.errors import InvalidInput
from segue.plan.graph import Contract
from segue.plan.projection import Mode


class FlowRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The truth about a flow: the plan that new runs take, and their mode.

    `changed` is when the mode changed last: for a while after it, keys are looked for at the other placement too.
    """

    flow: str
    plan: str
    mode: Mode
    changed: datetime | None = None
    key_lifetime: float = 7 * 86400.0


class ServiceRecord(msgspec.Struct, frozen=True):
    """What a service offers, written by its replicas when they start; the schemas bring their types as `$defs`."""

    service: str
    contracts: tuple[Contract, ...]


class StoreRecord(msgspec.Struct, frozen=True):
    """How far the store of a participant is known to have been.

    `store` tells it from other stores; marks in it are numbered, and it had the mark `number`.
    """

    participant: str
    store: str
    number: int


PLAN, FLOW, SERVICE, STORE = "plan", "flow", "service", "store"
_flow = msgspec.json.Decoder(FlowRecord)
_service = msgspec.json.Decoder(ServiceRecord)
_store = msgspec.json.Decoder(StoreRecord)
_encode = msgspec.json.Encoder(order="deterministic").encode


def encode(record: FlowRecord | ServiceRecord | StoreRecord) -> bytes:
    """A record as JSON."""
    return _encode(record)


def decode_flow(body: bytes) -> FlowRecord:
    """A flow record from JSON.

    Raises:
        InvalidInput: Not a flow record.
    """
    try:
        return _flow.decode(body)
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"not a flow record: {error}") from None


def decode_service(body: bytes) -> ServiceRecord:
    """A service record from JSON.

    Raises:
        InvalidInput: Not a service record.
    """
    try:
        return _service.decode(body)
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"not a service record: {error}") from None


def decode_store(body: bytes) -> StoreRecord:
    """A store record from JSON.

    Raises:
        InvalidInput: Not a store record.
    """
    try:
        return _store.decode(body)
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"not a store record: {error}") from None
