"""A participant's part of a store: what `ports.store` promises, as operations that take time and may fail."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from itertools import count

from segue.ports.store import LAST, Cell, CellKey, Committed, Due, DueKey, Join
from segue.testing.sim.ops import Op


class Rows:
    """What a participant's replicas share.

    Args:
        written: Called with each cell that is recorded.

    Attributes:
        cells: Recorded values by run and key, in the order of their writing.
        due: The due rows.
    """

    def __init__(self, written: Callable[[CellKey, bytes], None]) -> None:
        self.cells: dict[str, dict[CellKey, bytes]] = {}
        self.tallies: dict[Join, int] = {}
        self.due: dict[DueKey, Due] = {}
        self.bound: dict[tuple[str, str], str] = {}
        self._queue: list[tuple[float, int, Due]] = []
        self._number = count()
        self._written = written

    def get(self, key: CellKey) -> bytes | None:
        """The recorded value of a cell."""
        return self.cells.get(key.run, {}).get(key)

    def load(self, keys: Iterable[CellKey]) -> dict[CellKey, bytes]:
        """See `StateStore.load`."""
        return {key: value for key in keys if (value := self.get(key)) is not None}

    def scan(self, runs: Sequence[str]) -> dict[CellKey, bytes]:
        """See `StateStore.scan`."""
        return {key: value for run in runs for key, value in self.cells.get(run, {}).items()}

    def commit(self, cells: Sequence[Cell], due: Sequence[Due], done: Sequence[DueKey]) -> Committed:
        """See `StateStore.commit`."""
        lost: dict[CellKey, bytes] = {}
        touched: dict[Join, None] = {}
        refused = set[CellKey]()
        named = {cell.unless for cell in cells if cell.unless is not None}
        guards = {key for key in named if key in self.cells.get(key.run, {})}
        for cell in cells:
            there = self.cells.setdefault(cell.key.run, {})
            if cell.key in there:
                lost[cell.key] = there[cell.key]
                continue
            if cell.unless in guards:
                refused.add(cell.key)
                continue
            there[cell.key] = cell.value
            self._written(cell.key, cell.value)
            for join in cell.joins:
                self.tallies[join] = self.tallies.get(join, 0) + 1
                touched[join] = None
        for row in due:
            self._write(row)
        for key in done:
            self.due.pop(key, None)
        return Committed(lost, {join: self.tallies[join] for join in touched}, frozenset(refused))

    def tally(self, joins: Sequence[Join]) -> dict[Join, int]:
        """See `StateStore.tally`."""
        return {join: self.tallies[join] for join in sorted(joins) if join in self.tallies}

    def bind(self, flow: str, runs: Sequence[tuple[str, str]]) -> dict[str, str]:
        """See `StateStore.bind`."""
        return {key: self.bound.setdefault((flow, key), run) for key, run in runs}

    def find(self, flow: str, keys: Sequence[str]) -> dict[str, str]:
        """See `StateStore.find`."""
        return {key: self.bound[flow, key] for key in keys if (flow, key) in self.bound}

    def claim(self, now: float, lease: float, limit: int, owner: str) -> list[Due]:
        """See `StateStore.claim`."""
        claimed: list[Due] = []
        while len(claimed) < limit and (at := self.earliest()) is not None and at <= now:
            claimed.append(heapq.heappop(self._queue)[2]._replace(at=now + lease, owner=owner))
            del self.due[claimed[-1].key]
        for row in claimed:
            self._write(row)
        return claimed

    def runs(self, after: str, before: str, limit: int) -> list[str]:
        """See `StateStore.runs`."""
        return sorted(run for run, cells in self.cells.items() if cells and after < run < before)[:limit]

    def purge(self, run: str, limit: int) -> int:
        """See `StateStore.purge`."""
        cells = self.cells.get(run, {})
        some = [key for key in cells if key.node not in LAST][:limit]
        for key in some:
            del cells[key]
        if len(some) < limit:
            self.cells.pop(run, None)
            self.tallies = {join: count for join, count in self.tallies.items() if join.run != run}
            self.due = {key: row for key, row in self.due.items() if key.run != run}
            self.bound = {key: bound for key, bound in self.bound.items() if bound != run}
        return len(some)

    def earliest(self) -> float | None:
        """When the next row falls due."""
        queue = self._queue
        while queue and self.due.get(queue[0][2].key) is not queue[0][2]:
            heapq.heappop(queue)
        return queue[0][0] if queue else None

    def _write(self, row: Due) -> None:
        self.due[row.key] = row
        heapq.heappush(self._queue, (row.at, next(self._number), row))


class SimStore:
    """The store as the replicas of one participant see it.

    Args:
        rows: What they share.
    """

    durable = True

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    async def load(self, keys: Iterable[CellKey]) -> dict[CellKey, bytes]:
        """See `StateStore.load`."""
        asked = list(keys)
        found: dict[CellKey, bytes] = await Op("read", lambda: self._rows.load(asked))
        return found

    async def scan(self, runs: Sequence[str]) -> dict[CellKey, bytes]:
        """See `StateStore.scan`."""
        found: dict[CellKey, bytes] = await Op("read", lambda: self._rows.scan(runs))
        return found

    async def commit(
        self, cells: Sequence[Cell] = (), *, due: Sequence[Due] = (), done: Sequence[DueKey] = ()
    ) -> Committed:
        """See `StateStore.commit`."""
        found: Committed = await Op("write", lambda: self._rows.commit(cells, due, done))
        return found

    async def tally(self, joins: Sequence[Join]) -> dict[Join, int]:
        """See `StateStore.tally`."""
        found: dict[Join, int] = await Op("read", lambda: self._rows.tally(joins))
        return found

    async def bind(self, flow: str, runs: Sequence[tuple[str, str]]) -> dict[str, str]:
        """See `StateStore.bind`."""
        found: dict[str, str] = await Op("write", lambda: self._rows.bind(flow, runs))
        return found

    async def find(self, flow: str, keys: Sequence[str]) -> dict[str, str]:
        """See `StateStore.find`."""
        found: dict[str, str] = await Op("read", lambda: self._rows.find(flow, keys))
        return found

    async def claim(self, now: float, lease: float, limit: int, owner: str) -> list[Due]:
        """See `StateStore.claim`."""
        found: list[Due] = await Op("write", lambda: self._rows.claim(now, lease, limit, owner))
        return found

    async def runs(self, after: str, before: str, limit: int) -> list[str]:
        """See `StateStore.runs`."""
        found: list[str] = await Op("read", lambda: self._rows.runs(after, before, limit))
        return found

    async def purge(self, run: str, limit: int) -> int:
        """See `StateStore.purge`."""
        found: int = await Op("write", lambda: self._rows.purge(run, limit))
        return found

    async def aclose(self) -> None:
        """Nothing to close."""
