"""The reference store: what every other store must do, in dictionaries. Each method is one step, hence atomic."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import count

from anyio.lowlevel import checkpoint

from segue.ports.store import LAST, Cell, CellKey, Committed, Due, DueKey, Join
from segue_memory.shared import parse, shared

Written = tuple[float, int, Due]


class Part:
    """One participant's rows, its cells by run.

    `queue` holds due rows as they were written; those that `due` does not hold are stale.
    """

    def __init__(self) -> None:
        self.cells: defaultdict[str, dict[CellKey, bytes]] = defaultdict(dict)
        self.tallies: dict[Join, int] = {}
        self.due: dict[DueKey, Written] = {}
        self.queue: list[Written] = []
        self.written = count()
        self.bound: dict[tuple[str, str], str] = {}

    def write(self, due: Due) -> None:
        """Add or replace a due row."""
        row = self.due[due.key] = (due.at, next(self.written), due)
        heapq.heappush(self.queue, row)


class MemoryStore:
    """A participant's part of the store of a name."""

    durable = False

    def __init__(self, part: Part) -> None:
        self._part = part

    async def load(self, keys: Iterable[CellKey]) -> dict[CellKey, bytes]:
        """The recorded values of those keys that exist."""
        cells, found = self._part.cells, dict[CellKey, bytes]()
        for key in keys:
            value = cells[key.run].get(key) if key.run in cells else None
            if value is not None:
                found[key] = value
        return found

    async def scan(self, runs: Sequence[str]) -> dict[CellKey, bytes]:
        """All cells of these runs."""
        cells = self._part.cells
        return {key: value for run in runs if run in cells for key, value in cells[run].items()}

    async def commit(
        self, cells: Sequence[Cell] = (), *, due: Sequence[Due] = (), done: Sequence[DueKey] = ()
    ) -> Committed:
        """Record cells by put-if-absent and count arrivals, write due rows, delete done ones."""
        await checkpoint()
        part, lost, touched = self._part, dict[CellKey, bytes](), set[Join]()
        refused = set[CellKey]()
        named = {cell.unless for cell in cells if cell.unless is not None}
        guards = {key for key in named if key in part.cells.get(key.run, {})}
        for cell in cells:
            there = part.cells[cell.key.run]
            if cell.key in there:
                lost[cell.key] = there[cell.key]
                continue
            if cell.unless in guards:
                refused.add(cell.key)
                continue
            there[cell.key] = cell.value
            for join in cell.joins:
                part.tallies[join] = part.tallies.get(join, 0) + 1
            touched.update(cell.joins)
        for row in due:
            part.write(row)
        for key in done:
            part.due.pop(key, None)
        return Committed(lost, {join: part.tallies[join] for join in touched}, frozenset(refused))

    async def tally(self, joins: Sequence[Join]) -> dict[Join, int]:
        """How many inputs have arrived at these joins."""
        tallies = self._part.tallies
        return {join: tallies[join] for join in joins if join in tallies}

    async def bind(self, flow: str, runs: Sequence[tuple[str, str]]) -> dict[str, str]:
        """Bind business keys to run ids by put-if-absent."""
        await checkpoint()
        return {key: self._part.bound.setdefault((flow, key), run) for key, run in runs}

    async def find(self, flow: str, keys: Sequence[str]) -> dict[str, str]:
        """The run ids of those keys that are bound."""
        bound = self._part.bound
        return {key: bound[flow, key] for key in keys if (flow, key) in bound}

    async def claim(self, now: float, lease: float, limit: int, owner: str) -> list[Due]:
        """Take up to `limit` rows that are due, oldest first, for the time of the lease."""
        await checkpoint()
        part, claimed = self._part, list[Due]()
        while part.queue and part.queue[0][0] <= now and len(claimed) < limit:
            row = heapq.heappop(part.queue)
            due = row[2]
            if part.due.get(due.key) is row:
                claimed.append(due._replace(at=now + lease, owner=owner))
        for due in claimed:
            part.write(due)
        return claimed

    async def runs(self, after: str, before: str, limit: int) -> list[str]:
        """Runs between two ids, the oldest first."""
        return sorted(run for run, cells in self._part.cells.items() if cells and after < run < before)[:limit]

    async def purge(self, run: str, limit: int) -> int:
        """Delete up to `limit` rows of a run, those that say that it began and ended last."""
        await checkpoint()
        part, cells = self._part, self._part.cells.get(run, {})
        some = [key for key in cells if key.node not in LAST][:limit]
        for key in some:
            del cells[key]
        if len(some) == limit:
            return limit
        part.cells.pop(run, None)
        part.tallies = {join: count for join, count in part.tallies.items() if join.run != run}
        part.due = {key: row for key, row in part.due.items() if key.run != run}
        part.bound = {key: bound for key, bound in part.bound.items() if bound != run}
        return len(some)

    async def aclose(self) -> None:
        """Nothing to close; the rows stay."""


async def open_store(url: str, part: str) -> MemoryStore:
    """Open a part of the store of a name."""
    name, _ = parse(url)
    return MemoryStore(shared("store", name, part, Part))
