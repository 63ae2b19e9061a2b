"""The journal on SQL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, case, or_, select

from segue.ports.journal import STAGES, JournalEntry, RunQuery, RunRecord, status_of
from segue_sql.database import connect_to
from segue_sql.lane import Lane
from segue_sql.link import Link
from segue_sql.migrations import migrate
from segue_sql.purge import Purge, purge_history
from segue_sql.schema import event, plan, run
from segue_sql.statements import EVENTS, PLANS, RUNS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_status = case(
    (and_(run.c.status == "running", run.c.moves % 2 == 1), "moving"),
    (and_(run.c.status == "running", run.c.pauses % 2 == 1), "paused"),
    else_=run.c.status,
)


class _Append(NamedTuple):
    entries: Sequence[JournalEntry]
    runs: Sequence[RunRecord]
    plans: Sequence[tuple[str, bytes]]


async def open_journal(url: str) -> SqlJournal:
    """Open a journal.

    Args:
        url: `sqlite:///path` or `postgresql://...`.

    Raises:
        PluginError: The URL is malformed, or a driver is not installed.
        StoreError: The tables are newer than this code, or this is no database.
        StoreUnavailable: The database cannot be reached.
    """
    lane: Lane[_Append | Purge] = Lane(connect_to(url), _apply)
    try:
        await lane.read(migrate)
    except BaseException:
        await lane.aclose()
        raise
    return SqlJournal(lane)


class SqlJournal:
    """The history of all runs."""

    def __init__(self, lane: Lane[_Append | Purge]) -> None:
        self._lane = lane

    async def append(
        self, entries: Sequence[JournalEntry], runs: Sequence[RunRecord], plans: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        """Add entries, merge what is known of runs, keep plans."""
        if entries or runs or plans:
            await self._lane.write(_Append(entries, runs, plans))

    async def runs(self, query: RunQuery) -> list[RunRecord]:
        """Runs that fit, newest first."""
        chosen = _newest(query.limit)
        if query.flow:
            chosen = chosen.where(run.c.flow == query.flow)
        if query.status:
            chosen = chosen.where(_status == query.status)
        if query.text:
            chosen = chosen.where(_contains(query.text))
        return await self._lane.read(partial(_records, query=chosen))

    async def find(self, text: str, limit: int = 10) -> list[RunRecord]:
        """Runs whose id or key is `text`, or else contains it."""
        exact = _newest(limit).where(or_(run.c.run == text, run.c.key == text))
        if found := await self._lane.read(partial(_records, query=exact)):
            return found
        return await self._lane.read(partial(_records, query=_newest(limit).where(_contains(text))))

    async def history(self, run: str) -> list[JournalEntry]:
        """All entries of a run, by time."""
        return await self._lane.read(partial(_history, run=run))

    async def plan(self, plan: str) -> bytes | None:
        """The JSON of a plan."""
        return await self._lane.read(partial(_plan, hash_=plan))

    async def oldest(self, after: str, before: str, limit: int) -> list[RunRecord]:
        """Runs between two ids, the oldest first."""
        chosen = select(run).where(run.c.run > after, run.c.run < before).order_by(run.c.run).limit(limit)
        return await self._lane.read(partial(_records, query=chosen))

    async def purge(self, run: str, limit: int) -> int:
        """Delete up to `limit` entries of a run, and with the last one the run."""
        deleted: int = await self._lane.write(Purge(run, limit))
        return deleted

    async def aclose(self) -> None:
        """Disconnect, when all calls are through."""
        await self._lane.aclose()


def _newest(limit: int) -> Select[Any]:
    return select(run).order_by(run.c.at.desc(), run.c.run.desc()).limit(limit)


def _contains(text: str) -> ColumnElement[bool]:
    return or_(run.c.key.contains(text, autoescape=True), run.c.run.contains(text, autoescape=True))


def _records(link: Link, query: Select[Any]) -> list[RunRecord]:
    return [
        RunRecord(
            run=row.run,
            flow=row.flow,
            plan=row.plan,
            mode=row.mode,
            key=row.key,
            started=_instant(row.started),
            ended=_instant(row.ended),
            status=status_of(row.status, row.pauses, row.moves),
            error=row.error,
            revision=row.stage // STAGES,
            pauses=row.pauses,
            moves=row.moves,
        )
        for row in link.core.execute(query)
    ]


def _history(link: Link, run: str) -> list[JournalEntry]:
    chosen = select(event).where(event.c.run == run).order_by(event.c.time, event.c.id)
    return [
        JournalEntry(row.id, row.run, row.node, row.kind, _EPOCH + row.time * _MICROSECOND, row.body)
        for row in link.core.execute(chosen)
    ]


def _plan(link: Link, hash_: str) -> bytes | None:
    found: bytes | None = link.core.execute(select(plan.c.body).where(plan.c.hash == hash_)).scalar()
    return found


def _apply(link: Link, writes: Sequence[_Append | Purge]) -> list[int | None]:
    _append(link, [write for write in writes if isinstance(write, _Append)])
    return [purge_history(link, [write])[0] if isinstance(write, Purge) else None for write in writes]


def _append(link: Link, appends: Sequence[_Append]) -> None:
    entries = {(entry.run, entry.id): entry for append in appends for entry in append.entries}
    link.execute(
        EVENTS,
        [
            (run, id_, *entry[2:4], _microseconds(entry.time), entry.body)
            for (run, id_), entry in sorted(entries.items())
        ],
    )
    for records in _rounds(record for append in appends for record in append.runs):
        link.execute(RUNS, [_run_row(record) for record in records])
    plans = {hash_: body for append in appends for hash_, body in append.plans}
    link.execute(PLANS, sorted(plans.items()))


def _rounds(records: Iterable[RunRecord]) -> list[list[RunRecord]]:
    """Records in rounds, each sorted and with no run twice: a statement can change a row only once."""
    rounds: list[dict[str, RunRecord]] = []
    seen: dict[str, int] = {}
    for record in records:
        number = seen[record.run] = seen.get(record.run, -1) + 1
        if number == len(rounds):
            rounds.append({})
        rounds[number][record.run] = record
    return [[record for _, record in sorted(found.items())] for found in rounds]


def _run_row(record: RunRecord) -> tuple[object, ...]:
    started = None if record.started is None else _microseconds(record.started)
    ended = None if record.ended is None else _microseconds(record.ended)
    shown = started if started is not None else ended or 0
    return (
        record.run,
        record.flow,
        record.plan,
        record.mode,
        record.key,
        started,
        ended,
        status_of(record.status, 0, 0),
        record.error,
        shown,
        record.stage,
        record.pauses,
        record.moves,
    )


def _microseconds(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


def _instant(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else _EPOCH + microseconds * _MICROSECOND
