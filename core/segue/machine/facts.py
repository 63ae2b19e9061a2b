"""What the machine speaks of: outcomes, facts, effects, and the partial state that it works on.

A run's state at a participant is a set of facts that only grows. The machine never sees more of it than `wanted()` asks
for, so everything here is small and immutable, and nothing is ever overwritten.

Most runs know one kind of fact only, the outcome of a node. The others are *notices*: stops, undo tokens, resets,
pauses and placements. A run that has notices at a participant is looked at as a whole there (`machine.whole`), since a
notice concerns everything that is still open.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import msgspec

from segue.plan.projection import Mode

OutcomeKind = Literal["completed", "skipped", "failed", "aborted", "cancelled"]
DEAD: frozenset[str] = frozenset({"failed", "aborted", "cancelled"})
OUTCOMES: tuple[OutcomeKind, ...] = ("completed", "skipped", "failed", "aborted", "cancelled")

ROOT = ""
"""The tag of nodes outside any map or loop."""


class Failure(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """An error as a value.

    Attributes:
        type: The class name.
        message: What happened.
        detail: Where it was raised, for people.
        bases: Names of the classes that it also is, without Exception.
        value: What `raise_` gave along.
    """

    type: str
    message: str
    detail: str = ""
    bases: tuple[str, ...] = ()
    value: Any = None


class Cause(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Where a dead path began."""

    node: str
    tag: str = ROOT
    error: Failure | None = None


class Outcome(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The final result of a node: a value (JSON builtins) if completed, causes if failed, aborted or cancelled.

    `winners`: of the `close` of a race, the positions of the branches that won.
    """

    kind: OutcomeKind
    value: Any = None
    causes: tuple[Cause, ...] = ()
    winners: tuple[int, ...] = ()


SKIPPED = Outcome("skipped")


class Key(NamedTuple):
    """A place in a run: node and tag (the path of indices of map items and iterations)."""

    node: str
    tag: str = ROOT


class Fact(NamedTuple):
    """The outcome of a node, final in a revision."""

    key: Key
    outcome: Outcome
    revision: int = 1


Reason = Literal["cancelled", "failed", "deadline", "undone", "lost", "caught", "timeout"]
"""Why a scope is stopped: a person or a parent run, an uncaught failure, the run's deadline, a parent run that undoes
this one after it completed; a race was won by others, an attempt undoes its failed body, an attempt's time is over."""


class Stop(NamedTuple):
    """A scope (region and tag) is stopped: nothing starts in it any more, and what it completed is undone.

    `revision` is that of the exit of the scope. `revision` and scope make it unique.
    """

    scope: str
    tag: str
    revision: int
    reason: Reason


class Token(NamedTuple):
    """Within a stopped scope, a node and all that follows from it is undone, or there was nothing to undo.

    `undone`: the nodes that were undone because of the run's stop, for a later retry.
    """

    key: Key
    scope: str
    revision: int
    undone: tuple[Key, ...] = ()


class Undone(NamedTuple):
    """A completed node was undone; with an error: its attempts are used up, and somebody must look at it."""

    key: Key
    revision: int
    error: Failure | None = None


class Reset(NamedTuple):
    """A retry of a run that had ended: everything reachable from the seeds is decided anew under this revision."""

    revision: int
    seeds: tuple[Key, ...]


class Pause(NamedTuple):
    """The run is held (odd numbers) or goes on (even ones): nothing starts while it is held."""

    number: int


class Placed(NamedTuple):
    """From this epoch on the run is decided in this mode (R13); the newest one that is known counts.

    `done`: everybody concerned has it.
    """

    epoch: int
    mode: Mode
    done: bool = False


class Signal(NamedTuple):
    """A signal for a wait; the first one counts. `slot` tells waits of one name apart: their match value or tag."""

    name: str
    slot: str
    value: Any
    id: str = ""


Notice = Stop | Token | Undone | Reset | Pause | Placed
AnyFact = Fact | Notice | Signal


NOTHING: Mapping[Any, Any] = MappingProxyType({})
"""One for all states: a dictionary as a default would be made anew for each of them."""


class State(msgspec.Struct, frozen=True):
    """What a participant knows of a run, or the part of it that was asked for. Absent means not known *here*.

    Attributes:
        outcomes: Outcomes by place; of a revised run those that count (see `machine.revisions.effective`).
        revision: The run's revision.
        counts: Inputs that have arrived at joins, as far as they were asked for.
        whole: Whether this is everything that the participant knows of the run; needed as soon as it has notices.
        stops: Reason by (scope, tag, revision).
        tokens: What was undone because of the run, by (place, scope, revision).
        undone: Undone places with their revision, and the error of an undo that failed.
        resets: Seeds of revision 2, 3 and so on.
        paused: Whether the run is held.
        started: Calls that may have begun, with their revision: they are not declared cancelled.
        signals: Values by (name, slot).
    """

    outcomes: Mapping[Key, Outcome] = NOTHING
    revision: int = 1
    counts: Mapping[Key, int] = NOTHING
    whole: bool = False
    stops: Mapping[tuple[str, str, int], Reason] = NOTHING
    tokens: Mapping[tuple[Key, str, int], tuple[Key, ...]] = NOTHING
    undone: Mapping[tuple[Key, int], Failure | None] = NOTHING
    resets: tuple[tuple[Key, ...], ...] = ()
    paused: bool = False
    started: frozenset[tuple[Key, int]] = frozenset()
    signals: Mapping[tuple[str, str], Any] = NOTHING

    def known(self, node: str, tag: str) -> Outcome | None:
        """Outcome of a node, seen from `tag`."""
        return self.outcomes.get(Key(node, tag))

    def plus(self, fact: Fact) -> State:
        """This state and one more fact; the first copy of a fact stays."""
        if fact.key in self.outcomes:
            return self
        return msgspec.structs.replace(self, outcomes={**self.outcomes, fact.key: fact.outcome})


class Record(NamedTuple):
    """Effect: this follows from what is known; record it by put-if-absent, and go on with it."""

    fact: Fact | Token


class Choose(NamedTuple):
    """Effect: these rest on what is *not* known, or on time; record them first, and go on with what is recorded."""

    facts: tuple[AnyFact, ...]


class Invoke(NamedTuple):
    """Effect: call the step of this node with these arguments (JSON builtins), unless its result is recorded.

    For a `flow` node: start the child run.
    """

    key: Key
    revision: int
    args: dict[str, Any]


class Undo(NamedTuple):
    """Effect: undo the step of this node, given its arguments and what it returned, unless that is recorded.

    For a `flow` node: undo the child run.
    """

    key: Key
    revision: int
    args: dict[str, Any]
    result: Any


class Withdraw(NamedTuple):
    """Effect: a call that was sent is not needed any more; its service may declare it cancelled, if nothing runs.

    `args`: None if what it rests on is not known here any more.
    """

    key: Key
    revision: int
    args: dict[str, Any] | None = None


class Sleep(NamedTuple):
    """Effect: look at this node again, as due, after some seconds or at a time (seconds since the epoch)."""

    key: Key
    revision: int
    seconds: float = 0.0
    until: float | None = None


class Listen(NamedTuple):
    """Effect: this wait is open for a signal; with a timeout it is also due after so many seconds."""

    key: Key
    revision: int
    name: str
    slot: str
    timeout: float


class Await(NamedTuple):
    """Effect: an input is missing; record the fact as an arrival and count it."""

    key: Key
    revision: int


class Repeat(NamedTuple):
    """Effect: this was decided before; publish the recorded outcome again."""

    key: Key
    revision: int


Effect = Record | Choose | Invoke | Undo | Withdraw | Sleep | Listen | Await | Repeat
