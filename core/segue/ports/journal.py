"""The journal port: the history of all runs, written by the observer, read by everybody who asks where an order is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

import msgspec


class JournalEntry(NamedTuple):
    """One event of a run. `body` is the encoded event; `id` makes appending idempotent."""

    id: str
    run: str
    node: str
    kind: str
    time: datetime
    body: bytes


class RunRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A run in the list, or what one event says of it; what events say is merged, in any order.

    Attributes:
        run: Its id.
        flow: Its flow.
        plan: Its plan's hash.
        mode: The mode that it runs in.
        key: Its business key, or "".
        started: When it was accepted.
        ended: When its newest revision ended.
        status: `running`, `paused`, `moving` (to its mode), `cancelling` or `compensating` (it is stopped, and not yet
            at its end), `completed`, `failed` or `cancelled`; of the newest revision.
        error: Why it failed.
        revision: 1, and one more for each retry.
        pauses: How often it was held or went on again; odd: it is held.
        moves: How often it began to be moved to the other mode, or had been; odd: it is being moved.
    """

    run: str
    flow: str
    plan: str
    mode: str
    key: str = ""
    started: datetime | None = None
    ended: datetime | None = None
    status: str = "running"
    error: str = ""
    revision: int = 1
    pauses: int = 0
    moves: int = 0

    @property
    def stage(self) -> int:
        """How far the run is: of two records the one with the greater stage says what its status is."""
        return STAGES * self.revision + _STAGE.get(self.status, STAGES - 1)

    def plus(self, other: RunRecord) -> RunRecord:
        """What this record and another one of the same run say together."""
        later = other if other.stage > self.stage else self
        pauses, moves = max(self.pauses, other.pauses), max(self.moves, other.moves)
        placed = other if other.moves > self.moves else self
        return RunRecord(
            run=self.run,
            flow=self.flow or other.flow,
            plan=self.plan or other.plan,
            mode=placed.mode or other.mode,
            key=self.key or other.key,
            started=self.started or other.started,
            ended=later.ended,
            status=status_of(later.status, pauses, moves),
            error=later.error,
            revision=later.revision,
            pauses=pauses,
            moves=moves,
        )


STAGES = 3
"""Stages of a revision: it runs, it is stopped, it has ended."""
_STAGE = {"running": 0, "paused": 0, "moving": 0, "cancelling": 1, "compensating": 1}


def status_of(status: str, pauses: int, moves: int) -> str:
    """The status of a run that was held and let go, and moved, so often."""
    if status not in ("running", "paused", "moving"):
        return status
    if moves % 2:
        return "moving"
    return "paused" if pauses % 2 else "running"


class RunQuery(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which runs to list, newest first. `text` is a fragment of a key or id."""

    flow: str = ""
    status: str = ""
    text: str = ""
    limit: int = 50


class Journal(Protocol):
    """The history. Appending the same entries again, in any order, changes nothing."""

    async def append(
        self, entries: Sequence[JournalEntry], runs: Sequence[RunRecord], plans: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        """Add entries, merge what they say of their runs, and keep the plans (hash, JSON) that they belong to."""
        ...

    async def runs(self, query: RunQuery) -> list[RunRecord]:
        """Runs that fit, newest first."""
        ...

    async def find(self, text: str, limit: int = 10) -> list[RunRecord]:
        """Runs whose id or key is `text`; if there is none, runs whose id or key contains it."""
        ...

    async def history(self, run: str) -> list[JournalEntry]:
        """All entries of a run, by time."""
        ...

    async def plan(self, plan: str) -> bytes | None:
        """The JSON of a plan."""
        ...

    async def oldest(self, after: str, before: str, limit: int) -> list[RunRecord]:
        """Up to `limit` runs whose ids lie between two others, by id, so the oldest first."""
        ...

    async def purge(self, run: str, limit: int) -> int:
        """Delete up to `limit` entries of a run, and with the last one the run.

        Returns:
            How many; fewer than `limit`: nothing is left of the run.
        """
        ...

    async def aclose(self) -> None:
        """Close what this adapter opened."""
        ...
