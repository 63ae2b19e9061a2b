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
from typing import Any, Literal

import msgspec

from segue.errors import InvalidInput
from segue.machine.facts import ROOT, Cause, Fact, Failure, Key, Outcome, OutcomeKind
from segue.plan.graph import ENTRY, EXIT, RUN
from segue.plan.projection import Mode

SPEC = "1.0"
"""The version of CloudEvents that is spoken here."""

TYPE = "segue."
"""Types are this and the kind: started, completed, skipped, failed, aborted, cancelled, ended, attempt.failed."""

CALL = "segue.call"

_KINDS = {
    TYPE + kind: kind for kind in ("started", "ended", "attempt.failed", "completed", "skipped", "failed", "aborted")
}


class Event(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename={"run": "correlationid"}):
    """A published fact about a run.

    `kind` is the last part of `type`; `node` is `run` for the run itself. `began` is when the attempt that led to the
    outcome began; `redrive` above 0 says that the event was published before. `data` by kind: started: the input by
    parameter; completed: the value; failed: a `Failure`; aborted, cancelled: the causes; ended: an `Ended`;
    attempt.failed: a `Retrying`.
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
    """An attempt failed and another one follows at `next`."""

    error: Failure
    next: datetime
    of: int


class Call(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename={"run": "correlationid"}):
    """A command to one service: execute this node's step, or publish its recorded result again.

    A CloudEvent too; `data` holds the arguments by name, `inputs` the attempts (node, tag, number) that they came from.
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


def event_id(run: str, node: str, tag: str, revision: int, kind: str) -> str:
    """The identity of an event: equal events have equal ids, so additive consumers can drop repeats."""
    return f"{run}/{node}/{tag}/{revision}/{kind}"


_BROKEN = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding raises: bad UTF-8 and deep nesting are no errors of msgspec's own."""

_encode = msgspec.json.Encoder().encode
_events = msgspec.json.Decoder(list[msgspec.Raw])
_event = msgspec.json.Decoder(Event)
_call = msgspec.json.Decoder(Call)
_causes = msgspec.json.Decoder(tuple[Cause, ...])
_ended = msgspec.json.Decoder(Ended)


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
    except _BROKEN as error:
        raise InvalidInput(f"not a CloudEvents batch: {error}") from None


def decode(encoded: bytes | msgspec.Raw) -> Event:
    """One event from JSON.

    Raises:
        InvalidInput: Not an event of Segue.
    """
    try:
        return _event.decode(encoded)
    except _BROKEN as error:
        raise InvalidInput(f"not an event of Segue: {error}") from None


def decode_call(encoded: bytes | msgspec.Raw) -> Call:
    """One call from JSON.

    Raises:
        InvalidInput: Not a call of Segue.
    """
    try:
        return _call.decode(encoded)
    except _BROKEN as error:
        raise InvalidInput(f"not a call of Segue: {error}") from None


def decode_ended(event: Event) -> Ended:
    """How a run ended, from its `ended` event.

    Raises:
        InvalidInput: Not an `ended` event.
    """
    try:
        return _ended.decode(event.data)
    except _BROKEN as error:
        raise InvalidInput(f"event {event.id} has broken data: {error}") from None


def public_node(node: str) -> str:
    """The name under which a node speaks: the run's gateways speak as `run`."""
    return RUN if node in (ENTRY, EXIT) else node


def kind_of(node: str, outcome: Outcome) -> str:
    """The kind of event that announces an outcome."""
    return "started" if node == ENTRY else "ended" if node == EXIT else outcome.kind


def data_of(node: str, outcome: Outcome) -> bytes:
    """What an event says of an outcome."""
    if node == EXIT:
        status: Any = "failed" if outcome.kind == "aborted" else outcome.kind
        return _encode(Ended(status, msgspec.Raw(_encode(outcome.value)), outcome.causes))
    if outcome.kind == "completed":
        return _encode(outcome.value)
    if outcome.kind == "skipped":
        return b"null"
    if outcome.kind == "failed":
        return _encode(outcome.causes[0].error if outcome.causes else None)
    return _encode(outcome.causes)


def fact_of(event: Event) -> Fact | None:
    """The fact that an event announces; None if it announces none (a failed attempt).

    Raises:
        InvalidInput: `data` has not the shape that the kind promises.
    """
    kind = event.kind
    key = Key(event.node, event.tag)
    try:
        if kind == "started":
            outcome = Outcome("completed", msgspec.json.decode(event.data))
            key = Key(ENTRY, event.tag)
        elif kind == "completed":
            outcome = Outcome("completed", msgspec.json.decode(event.data))
        elif kind == "skipped":
            outcome = Outcome("skipped")
        elif kind == "failed":
            error = msgspec.json.decode(event.data, type=Failure | None)
            short = Failure(error.type, error.message) if error is not None else None
            outcome = Outcome("failed", causes=(Cause(event.node, event.tag, short),))
        elif kind in ("aborted", "cancelled"):
            dead: OutcomeKind = "aborted" if kind == "aborted" else "cancelled"
            outcome = Outcome(dead, causes=_causes.decode(event.data))
        elif kind == "ended":
            ended = _ended.decode(event.data)
            shown: OutcomeKind = "aborted" if ended.status == "failed" else ended.status
            outcome = Outcome(shown, msgspec.json.decode(ended.value), ended.causes)
            key = Key(EXIT, event.tag)
        else:
            return None
    except _BROKEN as error:
        raise InvalidInput(f"event {event.id} has broken data: {error}") from None
    return Fact(key, outcome, event.revision)
