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
    """A run in the list. Facts merge in any order: `started` and `ended` may become known one before the other."""

    run: str
    flow: str
    plan: str
    mode: str
    key: str = ""
    started: datetime | None = None
    ended: datetime | None = None
    status: str = "running"
    error: str = ""


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

    async def aclose(self) -> None:
        """Close what this adapter opened."""
        ...
