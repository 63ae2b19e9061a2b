"""The state store on SQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from segue.errors import StoreUnavailable
from segue.ports.store import Cell, CellKey, CellKind, Committed, Due, DueKey, Join
from segue_sql import schema
from segue_sql.batch import Batch, Commit
from segue_sql.database import connect_to
from segue_sql.lane import Lane
from segue_sql.link import Link, Row, Take
from segue_sql.migrations import migrate
from segue_sql.purge import Purge, purge, walk
from segue_sql.statements import StoreStatements


class _Bind(NamedTuple):
    flow: str
    runs: Sequence[tuple[str, str]]


_Write = Commit | _Bind | Purge | Take


async def open_store(url: str, part: str) -> SqlStore:
    """Open a participant's part of a store.

    Args:
        url: `sqlite:///path`, where `{part}` stands for the participant, or `postgresql://...`.
        part: The participant.

    Raises:
        PluginError: The URL is malformed, or a driver is not installed.
        StoreError: The tables are newer than this code, or this is no database.
        StoreUnavailable: The database cannot be reached.
    """
    store = SqlStore(Lane(connect_to(url, part), lambda link, writes: store._apply(link, writes)))
    try:
        await store._open(part)
    except BaseException:
        await store.aclose()
        raise
    return store


class SqlStore:
    """A participant's part of a store."""

    durable = True

    def __init__(self, lane: Lane[_Write]) -> None:
        self._lane = lane
        self._sql = StoreStatements(0)

    async def _open(self, part: str) -> None:
        self._sql = StoreStatements(await self._lane.read(partial(_enter, part=part)))

    async def load(self, keys: Iterable[CellKey]) -> dict[CellKey, bytes]:
        """The recorded values of those keys that exist."""
        wanted = list(dict.fromkeys(keys))
        if not wanted:
            return {}
        return await self._lane.read(partial(self._load, keys=wanted))

    async def scan(self, runs: Sequence[str]) -> dict[CellKey, bytes]:
        """All cells of these runs."""
        wanted = list(dict.fromkeys(runs))
        if not wanted:
            return {}
        return await self._lane.read(partial(self._scan, runs=wanted))

    async def commit(
        self, cells: Sequence[Cell] = (), *, due: Sequence[Due] = (), done: Sequence[DueKey] = ()
    ) -> Committed:
        """Record cells, count arrivals, write and delete due rows; in one transaction, shared with other callers."""
        if not (cells or due or done):
            return Committed({}, {})
        found: Committed = await self._lane.write(Commit(cells, due, done))
        return found

    async def tally(self, joins: Sequence[Join]) -> dict[Join, int]:
        """How many inputs have arrived."""
        if not joins:
            return {}
        return await self._lane.read(partial(self._tally, joins=joins))

    async def bind(self, flow: str, runs: Sequence[tuple[str, str]]) -> dict[str, str]:
        """Bind business keys to run ids, unless they are bound."""
        if not runs:
            return {}
        bound: dict[str, str] = await self._lane.write(_Bind(flow, runs))
        return bound

    async def find(self, flow: str, keys: Sequence[str]) -> dict[str, str]:
        """The run ids of those keys that are bound."""
        if not keys:
            return {}
        found = await self._lane.read(partial(self._find, keys=[(flow, key) for key in keys]))
        return {key: run for (_, key), run in found.items()}

    async def claim(self, now: float, lease: float, limit: int, owner: str) -> list[Due]:
        """Take overdue rows, oldest first."""
        take = Take(_milliseconds(now), _milliseconds(now + lease), limit, owner)
        # Most polls find nothing; those must not take the write lock.
        if not await self._lane.read(lambda link: link.overdue(self._sql.part, take.now)):
            return []
        claimed: list[Due] = await self._lane.write(take)
        return claimed

    async def runs(self, after: str, before: str, limit: int) -> list[str]:
        """Runs between two ids, the oldest first."""
        return await self._lane.read(lambda link: walk(link, self._sql.part, after, before, limit))

    async def purge(self, run: str, limit: int) -> int:
        """Delete up to `limit` rows of a run, those that say that it began and ended last."""
        deleted: int = await self._lane.write(Purge(run, limit))
        return deleted

    async def aclose(self) -> None:
        """Disconnect, when all calls are through."""
        await self._lane.aclose()

    def _load(self, link: Link, keys: Sequence[CellKey]) -> dict[CellKey, bytes]:
        run = link.run
        rows = [(run(key.run), key.node, key.tag, key.revision, int(key.kind)) for key in keys]
        return {keys[i]: value for i, value in link.lookup(self._sql.load, rows).items()}

    def _scan(self, link: Link, runs: Sequence[str]) -> dict[CellKey, bytes]:
        return {
            CellKey(run, node, tag, revision, CellKind(kind)): value
            for run, node, tag, revision, kind, value in link.scan(self._sql.part, runs)
        }

    def _tally(self, link: Link, joins: Sequence[Join]) -> dict[Join, int]:
        rows = [(link.run(run), node, tag, revision) for run, node, tag, revision in joins]
        return {joins[i]: n for i, n in link.lookup(self._sql.tally, rows).items()}

    def _find(self, link: Link, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
        return {keys[i]: run for i, run in link.lookup(self._sql.find, keys).items()}

    def _apply(self, link: Link, writes: Sequence[_Write]) -> list[Any]:
        """All writes, in an order of tables that is the same for everybody; claims last, since they wait for nobody."""
        kinds: defaultdict[type, list[int]] = defaultdict(list)
        for i, write in enumerate(writes):
            kinds[type(write)].append(i)
        answers: list[Any] = [None] * len(writes)
        for kind, apply in ((Commit, self._commit), (_Bind, self._bind), (Purge, self._purge), (Take, self._claim)):
            places = kinds[kind]
            if places:
                for i, answer in zip(places, apply(link, [writes[i] for i in places]), strict=True):
                    answers[i] = answer
        return answers

    def _commit(self, link: Link, commits: Sequence[Any]) -> list[Committed]:
        guards = list({cell.unless: None for commit in commits for cell in commit.cells if cell.unless is not None})
        there = self._load(link, guards)
        batch, run = Batch(commits, there.keys()), link.run
        found = link.insert_cells(
            self._sql,
            [(run(key[0]), key[1], key[2], key[3], int(key[4]), value) for key, value, *_ in batch.cells],
        )
        if found and guards and self._load(link, guards).keys() - there.keys() - {cell.key for cell in batch.cells}:
            raise StoreUnavailable("what refuses cells of a commit came during it; it is tried again")
        arrivals = batch.arrivals({batch.cells[i].key: value for i, value in found.items()})
        tallies: dict[Join, int] = {}
        if arrivals:
            after = link.count(self._sql, [(run(join[0]), *join[1:], n) for join, n in arrivals])
            tallies = {arrivals[i][0]: n for i, n in after.items()}
        if batch.due or batch.done:
            done = [(run(key.run), key.node, key.tag) for key in batch.done]
            link.change_due(self._sql, [_due_row(link, due) for due in batch.due], done)
        return batch.answers(tallies, self._load(link, batch.refused))

    def _bind(self, link: Link, binds: Sequence[Any]) -> list[dict[str, str]]:
        wanted: dict[tuple[str, str], str] = {}
        for bind in binds:
            for key, run in bind.runs:
                wanted.setdefault((bind.flow, key), run)
        keys = sorted(wanted)
        link.execute(self._sql.bind, [(*key, link.run(wanted[key])) for key in keys])
        bound = self._find(link, keys)
        return [{key: bound[bind.flow, key] for key, _ in bind.runs} for bind in binds]

    def _purge(self, link: Link, purges: Sequence[Any]) -> list[int]:
        return purge(link, self._sql.part, purges)

    def _claim(self, link: Link, takes: Sequence[Any]) -> list[list[Due]]:
        return [link.claim(self._sql, take) for take in takes]


def _due_row(link: Link, due: Due) -> Row:
    key = due.key
    return link.run(key.run), key.node, key.tag, _milliseconds(due.at), due.owner, due.attempt, due.body


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _enter(link: Link, part: str) -> int:
    """The number of a participant, given at its first opening."""
    migrate(link)
    table, core = schema.part, link.core
    number = select(table.c.id).where(table.c.name == part)
    found: int | None = core.execute(number).scalar()
    if found is None:
        dialect = postgresql if core.dialect.name == "postgresql" else sqlite
        core.execute(dialect.insert(table).values(name=part).on_conflict_do_nothing())
        found = core.execute(number).scalar_one()
    return found
