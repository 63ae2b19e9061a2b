"""Several commits as one batch: every caller is told what it would have been told alone."""

from __future__ import annotations

import random

from segue.ports.store import Cell, CellKey, CellKind, Committed, Due, DueKey, Join
from segue_sql.batch import Batch, Commit

RUN = "0" * 32


def key(node: str) -> CellKey:
    return CellKey(RUN, node, "", 1, CellKind.OUTCOME)


def due(node: str, at: float) -> Due:
    return Due(DueKey(RUN, node, ""), at, 0, b"")


def answers(batch: Batch, there: dict[CellKey, bytes], before: dict[Join, int]) -> list[Committed]:
    after = {join: before.get(join, 0) + n for join, n in batch.arrivals(there)}
    return batch.answers(after)


def test_rows_are_sorted_and_the_first_copy_of_a_cell_is_written() -> None:
    batch = Batch(
        [Commit([Cell(key("b"), b"1"), Cell(key("a"), b"1")], (), ()), Commit([Cell(key("a"), b"2")], (), ())]
    )
    assert batch.cells == [Cell(key("a"), b"1"), Cell(key("b"), b"1")]
    assert answers(batch, {}, {}) == [Committed({}, {}), Committed({key("a"): b"1"}, {})]


def test_the_last_word_on_a_due_row_counts() -> None:
    commits = [
        Commit((), [due("b", 1), due("a", 1), due("c", 1)], ()),
        Commit((), [due("b", 2)], [due("a", 0).key]),
        Commit((), [due("d", 3)], [due("c", 0).key]),
        Commit((), [due("c", 4)], ()),
    ]
    batch = Batch(commits)
    assert batch.due == [due("b", 2), due("c", 4), due("d", 3)]
    assert batch.done == [due("a", 0).key]


def test_callers_see_what_they_would_have_seen_one_after_the_other() -> None:
    chance = random.Random(7)
    joins = [Join(RUN, f"j{i}", "", 1) for i in range(3)]
    for _ in range(300):
        there = {key(f"n{i}"): b"old" for i in chance.sample(range(8), 2)}
        before = {join: chance.randrange(3) for join in joins}
        commits = [
            Commit([_cell(chance, caller, joins) for _ in range(chance.randrange(5))], (), ()) for caller in range(4)
        ]
        recorded, tallies, expected = dict(there), dict(before), []
        for commit in commits:
            lost, counted = {}, set()
            for cell in commit.cells:
                if cell.key in recorded:
                    lost[cell.key] = recorded[cell.key]
                    continue
                recorded[cell.key] = cell.value
                for join in cell.joins:
                    tallies[join] += 1
                    counted.add(join)
            expected.append(Committed(lost, {join: tallies[join] for join in counted}))
        assert answers(Batch(commits), there, before) == expected


def _cell(chance: random.Random, caller: int, joins: list[Join]) -> Cell:
    chosen = chance.sample(joins, chance.randrange(len(joins) + 1))
    return Cell(key(f"n{chance.randrange(8)}"), b"%d" % caller, tuple(chosen))
