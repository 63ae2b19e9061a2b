"""Participants of a simulation: their stores, their queues, and replicas that forget when they are killed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from typing import Literal, NamedTuple

from segue.machine.facts import Fact, Invoke, Key, Outcome

Turn = Generator[str, None, None]
"""A turn, cut into named micro-steps."""


class Violation(AssertionError):
    """An invariant of the loop does not hold."""


class Message(NamedTuple):
    """A start, a fact that is heard, or a command."""

    content: Fact | Invoke | None
    redrive: int


class Item(NamedTuple):
    """A fact on its way through a turn. `tallies` is what its commit counted if this turn recorded it."""

    fact: Fact
    redrive: int
    state: Literal["heard", "recorded", "known"]
    tallies: dict[Key, int]


class Part:
    """A participant: its store, its queue, its replicas."""

    def __init__(
        self, name: str, mine: frozenset[str], hears: frozenset[str], emits: frozenset[str], replicas: int
    ) -> None:
        self.name, self.mine, self.hears, self.emits = name, mine, hears, emits
        self.cells: dict[Key, Outcome] = {}
        self.tallies: Counter[Key] = Counter()
        self.queue: list[Message] = []
        self.slow: list[Message] = []
        self.heard: set[Key] = set()
        self.replicas = [Replica(self) for _ in range(replicas)]

    def commit(self, fact: Fact, joins: list[Key]) -> dict[Key, int] | None:
        """Record a fact and count it; the tallies, or None if it was there before."""
        if fact.key in self.cells:
            return None
        self.cells[fact.key] = fact.outcome
        self.tallies.update(joins)
        return {join: self.tallies[join] for join in joins}


class Replica:
    """A process: one turn at a time, the messages it has not acknowledged, and a memory that dies with it."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.turn: Turn | None = None
        self.held: list[Message] = []
        self.told: set[tuple[Key, int]] = set()
