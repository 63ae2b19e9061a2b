"""What the machine speaks of: outcomes, facts, effects, and the partial state that it works on.

A run's state at a participant is a set of facts that only grows. The machine never sees more of it than `wanted()` asks
for, so everything here is small and immutable, and nothing is ever overwritten.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec

OutcomeKind = Literal["completed", "skipped", "failed", "aborted", "cancelled"]
DEAD: frozenset[str] = frozenset({"failed", "aborted", "cancelled"})
OUTCOMES: tuple[OutcomeKind, ...] = ("completed", "skipped", "failed", "aborted", "cancelled")

ROOT = ""
"""The tag of nodes outside any map or loop."""


class Failure(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """An error as a value: the class name, the message, and where it was raised (for people)."""

    type: str
    message: str
    detail: str = ""


class Cause(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Where a dead path began."""

    node: str
    tag: str = ROOT
    error: Failure | None = None


class Outcome(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The final result of a node: a value (JSON builtins) if completed, causes if failed, aborted or cancelled."""

    kind: OutcomeKind
    value: Any = None
    causes: tuple[Cause, ...] = ()


SKIPPED = Outcome("skipped")


class Key(NamedTuple):
    """A place in a run: node and tag (the path of indices of map items and iterations)."""

    node: str
    tag: str = ROOT


class Fact(NamedTuple):
    """The outcome of a node, final in a revision. The machine's only event so far, and what is recorded."""

    key: Key
    outcome: Outcome
    revision: int = 1


class State(msgspec.Struct, frozen=True):
    """What a participant knows of a run, or the part of it that was asked for. Absent means not known *here*."""

    outcomes: Mapping[Key, Outcome] = {}
    revision: int = 1

    def known(self, node: str, tag: str) -> Outcome | None:
        """Outcome of a node, seen from `tag`."""
        return self.outcomes.get(Key(node, tag))

    def plus(self, fact: Fact) -> State:
        """This state and one more fact; the first copy of a fact stays."""
        if fact.key in self.outcomes:
            return self
        return State({**self.outcomes, fact.key: fact.outcome}, self.revision)


class Record(NamedTuple):
    """Effect: this was decided here; record it by put-if-absent, then tell it to the machine as a fact."""

    fact: Fact


class Invoke(NamedTuple):
    """Effect: call the step of this node with these arguments (JSON builtins), unless its result is recorded."""

    key: Key
    revision: int
    args: dict[str, Any]


class Await(NamedTuple):
    """Effect: this join is incomplete; record the fact as an arrival and count it."""

    key: Key
    revision: int


class Repeat(NamedTuple):
    """Effect: this was decided before; publish the recorded outcome again."""

    key: Key
    revision: int


Effect = Record | Invoke | Await | Repeat
