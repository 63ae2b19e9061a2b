"""The state store port: facts written once, arrivals counted, and the due rows.

A store is opened for one participant ("part"); replicas of a participant open the same part, participants never share
one. Truth is insert-only: a *cell* is written once, by put-if-absent, and never changes. The only mutable state are the
*due* rows: everything that must happen later. A commit is durable (fsynced) when it returns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

import msgspec

from segue.plan.names import ENTRY, EXIT, RUN

LAST = (ENTRY, EXIT, RUN)
"""Nodes whose cells are deleted last: they say that a run began and ended."""


class CellKind(IntEnum):
    """What a cell says; part of its key, so that the kinds never collide.

    OUTCOME: what came of a node; of the exit of a region, or that the region was stopped before it came to it.
    PARKED: the call of a node has a due row, and until its outcome is known nothing else goes on with it.
    NOTICED: there are notices of this run here, so it is looked at as a whole; its node is `run`.
    STOP: a scope is stopped, whatever came of its exit.
    TOKEN: within a stopped scope, a node and all that follows from it is undone.
    UNDONE: the undo of a node came to an end.
    RESET: the run was retried.
    PAUSE: the run is held, or goes on.
    SIGNAL: a signal arrived.
    WAITING: a wait, a sleep or a timer has begun.
    SENT: a call was sent, or never will be.
    END: what came of the exit of a region that was stopped before it came to it.
    PLACED: the run was moved; the revision is the epoch.
    SNAPSHOT: what was handed over when it was; the revision is the epoch, the tag the page.
    CORRECTED: what counts instead of what was recorded here after the run had been moved away.
    MARK: how far the store is; belongs to no run.
    """

    OUTCOME = 1
    PARKED = 2
    NOTICED = 3
    STOP = 4
    TOKEN = 5
    UNDONE = 6
    RESET = 7
    PAUSE = 8
    SIGNAL = 9
    WAITING = 10
    SENT = 11
    END = 12
    PLACED = 13
    SNAPSHOT = 14
    CORRECTED = 15
    MARK = 16


class CellKey(NamedTuple):
    """Identity of a cell. `run` is 32 hex digits (a UUIDv7, so rows of a time lie together)."""

    run: str
    node: str
    tag: str
    revision: int
    kind: CellKind


class Join(NamedTuple):
    """Identity of a tally: the join that a cell counts for."""

    run: str
    node: str
    tag: str
    revision: int


class Cell(NamedTuple):
    """A fact to record, and the joins that it counts for; `unless`: not if there is this cell."""

    key: CellKey
    value: bytes
    joins: tuple[Join, ...] = ()
    unless: CellKey | None = None


class DueKey(NamedTuple):
    """Identity of a due row: one per (run, node, tag)."""

    run: str
    node: str
    tag: str


class Due(NamedTuple):
    """Something to do at `at` (seconds since the epoch).

    `attempt` and `body` belong to the participant; `owner` is who claimed it last.
    """

    key: DueKey
    at: float
    attempt: int
    body: bytes
    owner: str = ""


class Committed(msgspec.Struct, frozen=True):
    """What a commit found.

    Attributes:
        lost: For each cell that was there before: the recorded value, which counts.
        tallies: For each join that a *newly inserted* cell counted for: how many inputs it has now. Concurrent commits
            see different numbers, so exactly one of them sees a join become complete.
        refused: Cells that were not recorded because of the one that they named with `unless`.
    """

    lost: dict[CellKey, bytes]
    tallies: dict[Join, int]
    refused: frozenset[CellKey] = frozenset()


class StateStore(Protocol):
    """One participant's part of a store. Raises `StoreUnavailable` where trying again may help.

    Attributes:
        durable: What was committed outlives the process.
    """

    durable: bool

    async def load(self, keys: Iterable[CellKey]) -> dict[CellKey, bytes]:
        """The recorded values of those keys that exist, as of now (never from a cache)."""
        ...

    async def scan(self, runs: Sequence[str]) -> dict[CellKey, bytes]:
        """All cells of these runs, as of now.

        Of a commit that is under way either none or all of a run's cells are seen.
        """
        ...

    async def commit(
        self, cells: Sequence[Cell] = (), *, due: Sequence[Due] = (), done: Sequence[DueKey] = ()
    ) -> Committed:
        """In one transaction: record cells by put-if-absent and count arrivals, write due rows, delete done ones.

        Cells of a commit that name the same `unless` are all refused or all recorded, but for those that were there
        before; if one is lost to a commit that began when the named cell was there, they are refused. A due row
        replaces one of the same key. A cell that was there before counts for no join. Rows are written in the order of
        their keys, so that concurrent commits do not deadlock. Committing the same again is harmless.
        """
        ...

    async def tally(self, joins: Sequence[Join]) -> dict[Join, int]:
        """How many inputs have arrived at these joins; for redelivered inputs, which count no more."""
        ...

    async def bind(self, flow: str, runs: Sequence[tuple[str, str]]) -> dict[str, str]:
        """Bind business keys of a flow to runs by put-if-absent: (key, run id) in, the bound run id of each key out."""
        ...

    async def find(self, flow: str, keys: Sequence[str]) -> dict[str, str]:
        """The run ids of those keys that are bound."""
        ...

    async def claim(self, now: float, lease: float, limit: int, owner: str) -> list[Due]:
        """Take up to `limit` rows with `at <= now`, oldest first, setting their `at` to `now + lease` and their owner.

        Concurrent claims take different rows.
        """
        ...

    async def runs(self, after: str, before: str, limit: int) -> list[str]:
        """Up to `limit` runs that have cells here and whose ids lie between two others, by id, so the oldest first."""
        ...

    async def purge(self, run: str, limit: int) -> int:
        """Delete up to `limit` rows of a run: cells, those of the nodes `LAST` last, tallies, due rows, its key.

        Returns:
            How many; fewer than `limit`: nothing is left of the run.
        """
        ...

    async def aclose(self) -> None:
        """Close what this adapter opened."""
        ...
