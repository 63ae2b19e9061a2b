"""What the event of a fact says, and the fact that an event announces: one is the inverse of the other.

Outcomes speak for their node and go to a subject of their own, `<node>.<kind>`. Notices and signals concern more of a
run than one node, so all participants of a flow hear them; each participant says them on a subject of its own,
`run:notice.<participant>`, so that a broker's permissions tell who says what. `data` by kind:

    started                the run's input by parameter
    completed              the value
    skipped                null
    failed                 a `Failure`; the causes, if it is not the node's own
    aborted, cancelled     the causes
    ended                  an `Ended`
    attempt.failed         a `Retrying`; announces no fact
    stopped                `{"reason"}`; node, tag and revision are the scope's
    undone                 `{"scope", "undone"}`; the revision is the scope's
    compensated            null
    compensation.failed    a `Failure`
    reset                  `{"seeds"}`; the revision is the new one
    paused, resumed        null; the revision is the number
    signalled              `{"value", "id"}`; node and tag are the signal's name and slot
    moving, moved          `{"mode"}`; the revision is the epoch
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeGuard, cast

import msgspec

from segue.errors import InvalidInput
from segue.machine.facts import (
    ROOT,
    SKIPPED,
    AnyFact,
    Cause,
    Fact,
    Failure,
    Key,
    Notice,
    Outcome,
    OutcomeKind,
    Pause,
    Placed,
    Reason,
    Reset,
    Signal,
    Stop,
    Token,
    Undone,
)
from segue.machine.tags import path
from segue.plan.names import ENTRY, EXIT, NOTICE, RUN
from segue.plan.projection import Mode
from segue.wire.envelope import BROKEN, NOTICES, TYPE, Ended, Event, event_id


class Said(NamedTuple):
    """What an event says of a fact.

    Attributes:
        node: The node that it speaks of; `run` for the run itself.
        tag: Its tag; of a signal the slot.
        revision: Revision of the fact; of a pause its number.
        kind: What happened.
        data: Encoded `data` of the event.
        winners: The event's attribute of that name.
        mark: What tells it apart from others of the same node, revision and kind.
    """

    node: str
    tag: str
    revision: int
    kind: str
    data: bytes
    winners: str = ""
    mark: str = ""

    def id(self, run: str) -> str:
        """The id of the event."""
        if self.kind != "signalled":
            kind = f"{self.kind}/{self.mark}" if self.mark else self.kind
            return event_id(run, self.node, self.tag, self.revision, kind)
        slot = self.tag.replace("%", "%25").replace("/", "%2F")
        return event_id(run, self.node, slot, self.revision, f"{self.kind}/{self.mark}")


class _Stopped(msgspec.Struct, frozen=True):
    reason: Reason


class _Token(msgspec.Struct, frozen=True):
    scope: str
    undone: tuple[Key, ...] = ()


class _Reset(msgspec.Struct, frozen=True):
    seeds: tuple[Key, ...]


class _Signal(msgspec.Struct, frozen=True):
    value: Any
    id: str = ""


class _Placed(msgspec.Struct, frozen=True):
    mode: Mode


_NOTICES = frozenset(NOTICES)
_encode = msgspec.json.Encoder().encode
_value = msgspec.json.Decoder().decode
_failure = msgspec.json.Decoder(Failure | None).decode
_error = msgspec.json.Decoder(Failure).decode
_causes = msgspec.json.Decoder(tuple[Cause, ...]).decode
_ended = msgspec.json.Decoder(Ended).decode
_stopped = msgspec.json.Decoder(_Stopped).decode
_token = msgspec.json.Decoder(_Token).decode
_reset = msgspec.json.Decoder(_Reset).decode
_signal = msgspec.json.Decoder(_Signal).decode
_placed = msgspec.json.Decoder(_Placed).decode


def is_notice(fact: AnyFact) -> TypeGuard[Notice]:
    """Whether a run is looked at as a whole where this fact is known."""
    return isinstance(fact, Stop | Token | Undone | Reset | Pause | Placed)


def public_node(node: str) -> str:
    """The name under which a node speaks: the run's gateways speak as `run`."""
    return RUN if node in (ENTRY, EXIT) else node


def subject_kind(node: str, kind: str, author: str) -> tuple[str, str]:
    """What follows the flow in the subject of an event that `author` publishes."""
    return (NOTICE, author) if kind in _NOTICES else (node, kind)


def say(fact: AnyFact) -> Said:
    """What the event of a fact says."""
    if isinstance(fact, Fact):
        return _outcome(fact)
    if isinstance(fact, Stop):
        return Said(fact.scope, fact.tag, fact.revision, "stopped", _encode(_Stopped(fact.reason)))
    if isinstance(fact, Token):
        data = _encode(_Token(fact.scope, fact.undone))
        return Said(*fact.key, fact.revision, "undone", data, mark=fact.scope)
    if isinstance(fact, Undone):
        kind = "compensated" if fact.error is None else "compensation.failed"
        return Said(*fact.key, fact.revision, kind, _encode(fact.error))
    if isinstance(fact, Reset):
        return Said(RUN, ROOT, fact.revision, "reset", _encode(_Reset(fact.seeds)))
    if isinstance(fact, Pause):
        return Said(RUN, ROOT, fact.number, "paused" if fact.number % 2 else "resumed", b"null")
    if isinstance(fact, Placed):
        return Said(RUN, ROOT, fact.epoch, "moved" if fact.done else "moving", _encode(_Placed(fact.mode)))
    return Said(fact.name, fact.slot, 0, "signalled", _encode(_Signal(fact.value, fact.id)), mark=fact.id)


def _outcome(fact: Fact) -> Said:
    (node, tag), outcome, revision = fact
    if node == EXIT:
        status: Any = "failed" if outcome.kind == "aborted" else outcome.kind
        ended = Ended(status, msgspec.Raw(_encode(outcome.value)), outcome.causes)
        return Said(RUN, tag, revision, "ended", _encode(ended))
    if outcome.kind == "completed":
        data = _encode(outcome.value)
        if node == ENTRY:
            return Said(RUN, tag, revision, "started", data)
        return Said(node, tag, revision, "completed", data, ".".join(map(str, outcome.winners)))
    if outcome.kind == "skipped":
        data = b"null"
    elif outcome.kind == "failed" and _is_own(fact):
        data = _encode(outcome.causes[0].error)
    else:
        data = _encode(outcome.causes)
    return Said(node, tag, revision, outcome.kind, data)


def _is_own(fact: Fact) -> bool:
    """Whether a node failed by itself; a race that cannot be won fails with the causes of its branches."""
    causes = fact.outcome.causes
    return len(causes) == 1 and (causes[0].node, causes[0].tag) == fact.key


def fact_of(event: Event) -> AnyFact | None:
    """The fact that an event announces; None if it announces none (a failed attempt).

    Raises:
        InvalidInput: An attribute or `data` has not the shape that the kind promises.
    """
    reader = _READERS.get(event.type)
    if reader is None:
        return None
    try:
        return reader(event)
    except (*BROKEN, ValueError) as error:
        raise InvalidInput(f"event {event.id} has broken data: {error}") from None


def _started(event: Event) -> Fact:
    return Fact(Key(ENTRY, event.tag), Outcome("completed", _value(event.data)), event.revision)


def _completed(event: Event) -> Fact:
    winners = path(event.winners) if event.winners else ()
    return Fact(Key(event.node, event.tag), Outcome("completed", _value(event.data), (), winners), event.revision)


def _skipped(event: Event) -> Fact:
    return Fact(Key(event.node, event.tag), SKIPPED, event.revision)


def _failed(event: Event) -> Fact:
    if bytes(event.data).lstrip()[:1] == b"[":
        return _dead(event)
    cause = Cause(event.node, event.tag, _short(_failure(event.data)))
    return Fact(Key(event.node, event.tag), Outcome("failed", causes=(cause,)), event.revision)


def _dead(event: Event) -> Fact:
    outcome = Outcome(cast("OutcomeKind", event.kind), causes=_causes(event.data))
    return Fact(Key(event.node, event.tag), outcome, event.revision)


def _over(event: Event) -> Fact:
    ended = _ended(event.data)
    kind: OutcomeKind = "aborted" if ended.status == "failed" else ended.status
    return Fact(Key(EXIT, event.tag), Outcome(kind, _value(ended.value), ended.causes), event.revision)


def _undone(event: Event) -> Token:
    token = _token(event.data)
    return Token(Key(event.node, event.tag), token.scope, event.revision, token.undone)


def _undo_failed(event: Event) -> Undone:
    return Undone(Key(event.node, event.tag), event.revision, _short(_error(event.data)))


def _signalled(event: Event) -> Signal:
    signal = _signal(event.data)
    return Signal(event.node, event.tag, signal.value, signal.id)


def _short(error: Failure | None) -> Failure | None:
    """Without what only people read."""
    return msgspec.structs.replace(error, detail="") if error is not None and error.detail else error


_READERS: dict[str, Callable[[Event], AnyFact]] = {
    TYPE + "started": _started,
    TYPE + "completed": _completed,
    TYPE + "skipped": _skipped,
    TYPE + "failed": _failed,
    TYPE + "aborted": _dead,
    TYPE + "cancelled": _dead,
    TYPE + "ended": _over,
    TYPE + "stopped": lambda event: Stop(event.node, event.tag, event.revision, _stopped(event.data).reason),
    TYPE + "undone": _undone,
    TYPE + "compensated": lambda event: Undone(Key(event.node, event.tag), event.revision),
    TYPE + "compensation.failed": _undo_failed,
    TYPE + "reset": lambda event: Reset(event.revision, _reset(event.data).seeds),
    TYPE + "paused": lambda event: Pause(event.revision),
    TYPE + "resumed": lambda event: Pause(event.revision),
    TYPE + "signalled": _signalled,
    TYPE + "moving": lambda event: Placed(event.revision, _placed(event.data).mode),
    TYPE + "moved": lambda event: Placed(event.revision, _placed(event.data).mode, True),
}
