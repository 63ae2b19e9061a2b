"""How many guards go off in a second."""

from __future__ import annotations

from collections import Counter

from segue.ports.store import Due, DueKey
from segue.runtime.pacing import LATE, SPREAD, Pace, spread


def guards(number: int, at: float = 0.0) -> list[Due]:
    return [Due(DueKey(f"{n:032x}", "exit", ""), at, 3, b"") for n in range(number)]


def play(pace: Pace, rows: list[Due], start: float, until: float) -> list[float]:
    """Claim what is due every quarter of a second, 500 rows at a time; when guards went off."""
    waiting, went, now = list(rows), [], start
    while now < until:
        due = sorted((row for row in waiting if row.at <= now), key=lambda row: row.at)[:500]
        ready, later = pace.sort(due, now)
        assert sorted([*ready, *later]) != [] or not due
        taken = {row.key for row in due}
        waiting = [row for row in waiting if row.key not in taken] + later
        assert all(row.attempt == 3 for row in later)
        went += [now] * len(ready)
        now += 0.25
    return went


def test_guards_that_are_due_at_once_go_off_one_by_one() -> None:
    went = play(Pace(100), guards(3000), 1000.0, 1040.0)
    assert len(went) == 3000
    seconds = Counter(int(at) for at in went)
    assert max(seconds.values()) <= 160
    assert min(count for second, count in seconds.items() if 1000 < second < 1029) >= 90


def test_a_few_guards_do_not_wait() -> None:
    pace = Pace(100)
    for second in range(20):
        ready, later = pace.sort(guards(20), 1000.0 + second)
        assert (len(ready), later) == (20, [])


def test_slots_that_passed_unused_are_given_anew() -> None:
    """The process was down meanwhile: all its slots are over."""
    _, later = Pace(100).sort(guards(3000), 1000.0)
    went = play(Pace(100), later, 1000.0 + 30 + 10 * LATE, 1000.0 + 30 + 10 * LATE + 60)
    assert len(went) == len(later)
    assert max(Counter(int(at) for at in went).values()) <= 160


def test_pauses_are_spread() -> None:
    pauses = {spread(f"{n:032x}", 2, 100.0) for n in range(1000)}
    assert len(pauses) == 1000
    assert 100.0 <= min(pauses) < 103.0
    assert 100.0 * (1 + SPREAD) - 3.0 < max(pauses) <= 100.0 * (1 + SPREAD)
    assert spread("a", 1, 10.0) == spread("a", 1, 10.0) != spread("a", 2, 10.0)
