"""Several commits as one batch, and what each of their callers is told.

The batch has the effect of the commits one after the other: the first copy of a cell is recorded, and the last word on
a due row counts. Its rows are sorted by their keys, so that batches of several processes do not block each other in a
ring.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from segue.ports.store import Cell, CellKey, Committed, Due, DueKey, Join


class Commit(NamedTuple):
    """The arguments of `StateStore.commit`."""

    cells: Sequence[Cell]
    due: Sequence[Due]
    done: Sequence[DueKey]


class Batch:
    """Commits merged into one.

    Args:
        commits: The commits.
        there: Cells that refuse those which name them.

    Attributes:
        cells: What to insert.
        refused: What not to insert.
        due: Due rows to write.
        done: Due rows to delete.
    """

    def __init__(self, commits: Sequence[Commit], there: Collection[CellKey] = ()) -> None:
        self._commits = [_allowed(commit, there) for commit in commits] if there else commits
        self._all = commits
        self._first: dict[CellKey, Cell] = {}
        last: dict[DueKey, Due | None] = {}
        for commit in self._commits:
            for cell in commit.cells:
                self._first.setdefault(cell.key, cell)
            for due in commit.due:
                last[due.key] = due
            for key in commit.done:
                last[key] = None
        self.cells = [self._first[key] for key in sorted(self._first)]
        self.due = [due for _, due in sorted(last.items()) if due is not None] if last else []
        self.done = sorted(key for key, due in last.items() if due is None)
        self.refused = sorted({key for keys in self._refusals() for key in keys}) if there else []
        self._lost: list[dict[CellKey, bytes]] = []
        self._counts: list[dict[Join, int]] = []

    def arrivals(self, there: Mapping[CellKey, bytes]) -> list[tuple[Join, int]]:
        """How many inputs each join gains.

        Args:
            there: The cells that were there before, with their recorded values.
        """
        total: dict[Join, int] = {}
        new = self._first.keys() - there.keys() if there else set(self._first)
        for commit in self._commits:
            lost, count = dict[CellKey, bytes](), dict[Join, int]()
            for cell in commit.cells:
                if cell.key in new:
                    new.discard(cell.key)
                    for join in cell.joins:
                        count[join] = count.get(join, 0) + 1
                        total[join] = total.get(join, 0) + 1
                elif cell.key in there:
                    lost[cell.key] = there[cell.key]
                else:
                    lost[cell.key] = self._first[cell.key].value
            self._lost.append(lost)
            self._counts.append(count)
        return sorted(total.items())

    def answers(self, tallies: Mapping[Join, int], known: Mapping[CellKey, bytes] | None = None) -> list[Committed]:
        """What each commit found, in their order.

        Args:
            tallies: The tallies after the batch. Each commit is told the tally after itself.
            known: The recorded values of refused cells that were there before, if there are any.
        """
        known = known or {}
        left, found = dict(tallies), list[Committed]()
        told = zip(self._lost, self._counts, self._refusals(), strict=True)
        for lost, count, refused in reversed(list(told)):
            lost |= {key: known[key] for key in refused if key in known}
            found.append(Committed(lost, {join: left[join] for join in count}, refused - known.keys()))
            for join, n in count.items():
                left[join] -= n
        return found[::-1]

    def _refusals(self) -> Iterator[frozenset[CellKey]]:
        for whole, commit in zip(self._all, self._commits, strict=True):
            if whole is commit:
                yield frozenset()
            else:
                yield frozenset(cell.key for cell in whole.cells) - {cell.key for cell in commit.cells}


def _allowed(commit: Commit, there: Collection[CellKey]) -> Commit:
    return commit._replace(cells=[cell for cell in commit.cells if cell.unless not in there])
