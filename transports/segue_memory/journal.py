"""The reference journal: the history of all runs, in dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from segue.ports.journal import JournalEntry, RunQuery, RunRecord
from segue_memory.shared import parse, shared

DAWN = datetime.min.replace(tzinfo=UTC)


class MemoryJournal:
    """The journal of a name."""

    def __init__(self) -> None:
        self._runs: dict[str, RunRecord] = {}
        self._entries: dict[str, dict[str, JournalEntry]] = {}
        self._plans: dict[str, bytes] = {}

    async def append(
        self, entries: Sequence[JournalEntry], runs: Sequence[RunRecord], plans: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        """Add entries, merge runs, keep plans."""
        for entry in entries:
            self._entries.setdefault(entry.run, {}).setdefault(entry.id, entry)
        for run in runs:
            self._runs[run.run] = self._runs.get(run.run, run).plus(run)
        for plan, body in plans:
            self._plans.setdefault(plan, body)

    async def runs(self, query: RunQuery) -> list[RunRecord]:
        """Runs that fit, newest first."""

        def fits(run: RunRecord) -> bool:
            return (
                (not query.flow or run.flow == query.flow)
                and (not query.status or run.status == query.status)
                and (query.text in run.key or query.text in run.run)
            )

        return self._newest(fits, query.limit)

    async def find(self, text: str, limit: int = 10) -> list[RunRecord]:
        """Runs whose id or key is `text`, or else contains it."""
        exact = self._newest(lambda run: text in (run.run, run.key), limit)
        return exact or self._newest(lambda run: text in run.key or text in run.run, limit)

    async def history(self, run: str) -> list[JournalEntry]:
        """All entries of a run, by time."""
        entries: Iterable[JournalEntry] = self._entries.get(run, {}).values()
        return sorted(entries, key=lambda entry: (entry.time, entry.id))

    async def plan(self, plan: str) -> bytes | None:
        """The JSON of a plan."""
        return self._plans.get(plan)

    async def oldest(self, after: str, before: str, limit: int) -> list[RunRecord]:
        """Runs between two ids, the oldest first."""
        return [self._runs[run] for run in sorted(run for run in self._runs if after < run < before)[:limit]]

    async def purge(self, run: str, limit: int) -> int:
        """Delete up to `limit` entries of a run, and with the last one the run."""
        entries = self._entries.get(run, {})
        some = list(entries)[:limit]
        for name in some:
            del entries[name]
        if len(some) < limit:
            self._entries.pop(run, None)
            self._runs.pop(run, None)
        return len(some)

    async def aclose(self) -> None:
        """Nothing to close; the history stays."""

    def _newest(self, fits: Callable[[RunRecord], bool], limit: int) -> list[RunRecord]:
        found = [run for run in self._runs.values() if fits(run)]
        found.sort(key=lambda run: run.started or run.ended or DAWN, reverse=True)
        return found[:limit]


async def open_journal(url: str) -> MemoryJournal:
    """Open the journal of a name."""
    name, _ = parse(url)
    return shared("journal", name, "", MemoryJournal)
