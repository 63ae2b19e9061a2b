"""The envelope: CloudEvents 1.0 in structured JSON, one event or a batch to a broker message.

Extension attributes carry what Segue needs to place an event: the run (`correlationid`, from the CloudEvents
correlation extension), plan, flow, node, tag, revision, epoch. `data` is the plain value that a step returned, so a
listener outside Segue reads `charge.completed` without knowing anything else. An event is recorded, sent again and
joined as these bytes: there is no second format in the stores.

The vectors in `tests/vectors/` show every kind; a service in another language can be checked against them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

import msgspec

from segue.errors import InvalidInput
from segue.machine.facts import ROOT, Cause, Failure
from segue.plan.projection import Mode

SPEC = "1.0"
"""The version of CloudEvents that is spoken here."""

TYPE = "segue."
"""Types are this and the kind."""

NOTICES = (
    "stopped",
    "undone",
    "compensated",
    "compensation.failed",
    "reset",
    "paused",
    "resumed",
    "signalled",
    "moving",
    "moved",
)
"""Kinds of events that concern more than one node of a run: all its participants hear them."""

ATTEMPT_FAILED = "attempt.failed"
"""The kind of event that announces no fact."""

CALL = "segue.call"

OUTCOMES = ("started", "completed", "skipped", "failed", "aborted", "cancelled", "ended")
_KINDS = {TYPE + kind: kind for kind in (*OUTCOMES, *NOTICES, ATTEMPT_FAILED)}


class Event(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename={"run": "correlationid"}):
    """A published fact about a run.

    `kind` is the last part of `type`; `node` is `run` for the run itself. `began` is when the attempt that led to the
    outcome began; `redrive` above 0 says that the event was published before; `winners` are the positions of the
    branches that won a race, as in "0.2"; `parent` says of a `started` event which node of another run it is for, as
    the JSON of a `Parent`; `dataref` names `data` that is too large to travel, as `sha256:<digest>` among the run's
    objects. What `data` is by kind: see `segue.wire.said`.
    """

    id: str
    source: str
    type: str
    subject: str
    time: datetime
    run: str
    plan: str
    flow: str
    node: str
    specversion: str
    data: msgspec.Raw = msgspec.Raw(b"null")
    tag: str = ROOT
    revision: int = 1
    epoch: int = 1
    attempt: int = 0
    began: datetime | None = None
    key: str = ""
    causationid: str = ""
    traceparent: str = ""
    redrive: int = 0
    winners: str = ""
    parent: str = ""
    dataref: str = ""

    @property
    def kind(self) -> str:
        """What happened: `completed`, `attempt.failed` ..."""
        return _KINDS.get(self.type) or self.type.removeprefix(TYPE)


class Ended(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """How a run ended: its value, or the causes of its failure in plan order."""

    status: Literal["completed", "failed", "cancelled"]
    value: msgspec.Raw = msgspec.Raw(b"null")
    causes: tuple[Cause, ...] = ()


class Retrying(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """An attempt failed and another one follows at `next`; `undo`: an attempt to undo the step."""

    error: Failure
    next: datetime
    of: int
    undo: bool = False


class Parent(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The node that a run is the subflow of: its run and place; `depth` counts how deep runs are nested, from 1."""

    run: str
    flow: str
    node: str
    plan: str
    mode: Mode
    tag: str = ROOT
    revision: int = 1
    key: str = ""
    depth: int = 1


class Call(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename={"run": "correlationid"}):
    """A command to one service: execute this node's step, or publish its recorded result again.

    A CloudEvent too; `data` holds the arguments by name, `inputs` the attempts (node, tag, number) that they came from.
    `undo`: undo the step instead; `data` holds these `args`, and the `result`. `withdraw`: the call is not needed.
    `since`: the revision since which the node was never undone; the idempotency key has it, `revision` is the result's.
    `perhaps`: it may have been made before the run was moved, so it is made only if nothing comes of it for a while.
    `dataref`: as of an event.
    `lost`: how many attempts in a row, the one that may be under way included, have no result; in due rows only.
    """

    id: str
    source: str
    subject: str
    time: datetime
    run: str
    plan: str
    flow: str
    node: str
    step: str
    data: msgspec.Raw
    type: str
    specversion: str
    mode: Mode = "orchestrated"
    inputs: tuple[tuple[str, str, int], ...] = ()
    tag: str = ROOT
    revision: int = 1
    epoch: int = 1
    key: str = ""
    causationid: str = ""
    traceparent: str = ""
    redrive: int = 0
    undo: bool = False
    since: int = 1
    withdraw: bool = False
    perhaps: bool = False
    dataref: str = ""
    lost: int = 0


def event_id(run: str, node: str, tag: str, revision: int, kind: str) -> str:
    """The identity of an event: equal events have equal ids, so additive consumers can drop repeats."""
    return f"{run}/{node}/{tag}/{revision}/{kind}"


BROKEN = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding raises: bad UTF-8 and deep nesting are no errors of msgspec's own."""

_encode = msgspec.json.Encoder().encode
_events = msgspec.json.Decoder(list[msgspec.Raw])
_event = msgspec.json.Decoder(Event)
_call = msgspec.json.Decoder(Call)
_ended = msgspec.json.Decoder(Ended)
_parent = msgspec.json.Decoder(Parent)


def encode(message: Event | Call) -> bytes:
    """One event or call as JSON."""
    return _encode(message)


def batch(encoded: Iterable[bytes | msgspec.Raw]) -> bytes:
    """Encoded events as a CloudEvents JSON batch."""
    return b"[" + b",".join(bytes(item) for item in encoded) + b"]"


def split(body: bytes) -> list[msgspec.Raw]:
    """The encoded events of a message: a batch, or a single event."""
    if body[:1] == b"{":
        return [msgspec.Raw(body)]
    try:
        return _events.decode(body)
    except BROKEN as error:
        raise InvalidInput(f"not a CloudEvents batch: {error}") from None


def decode(encoded: bytes | msgspec.Raw) -> Event:
    """One event from JSON.

    Raises:
        InvalidInput: Not an event of Segue.
    """
    try:
        return _event.decode(encoded)
    except BROKEN as error:
        raise InvalidInput(f"not an event of Segue: {error}") from None


def decode_call(encoded: bytes | msgspec.Raw) -> Call:
    """One call from JSON.

    Raises:
        InvalidInput: Not a call of Segue.
    """
    try:
        return _call.decode(encoded)
    except BROKEN as error:
        raise InvalidInput(f"not a call of Segue: {error}") from None


def decode_ended(event: Event) -> Ended:
    """How a run ended, from its `ended` event.

    Raises:
        InvalidInput: Not an `ended` event.
    """
    try:
        return _ended.decode(event.data)
    except BROKEN as error:
        raise InvalidInput(f"event {event.id} has broken data: {error}") from None


def encode_parent(parent: Parent) -> str:
    """What `Event.parent` says of a parent."""
    return _encode(parent).decode()


def decode_parent(event: Event) -> Parent | None:
    """The node that a run is the subflow of, from its `started` event.

    Raises:
        InvalidInput: The attribute is broken.
    """
    if not event.parent:
        return None
    try:
        return _parent.decode(event.parent)
    except BROKEN as error:
        raise InvalidInput(f"event {event.id} has a broken parent: {error}") from None
