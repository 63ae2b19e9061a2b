"""Which of the calls that may have killed their process begin, and beside which others."""

from __future__ import annotations

from typing import Any, cast

import pytest

from segue.machine.facts import Key
from segue.ports.store import Due
from segue.runtime import overdue
from segue.runtime.participant import Participant
from segue.runtime.suspects import ALONE, FIRST, LOST, SECOND, Suspects
from segue.runtime.work import Job, RunRef


class Host:
    """As much of a participant as its suspects know."""

    def __init__(self) -> None:
        self.running: dict[Any, Job] = {}
        self.stopping = False
        self.time = 1_000.0
        self.overdue = self
        self.suspects = Suspects(cast(Participant, self))

    def clock(self) -> float:
        return self.time

    def row(self, job: Job, at: float, begun: bool = True) -> Due:
        return Due(job.row, at, job.lost + begun, b"")

    def claim(self, count: int, lost: int, first: int = 0) -> None:
        """Calls whose last attempts were lost."""
        for n in range(first, first + count):
            job = Job(RunRef("r", cast(Any, None), "orchestrated", ""), Key("n", f"{lost}.{n}"), 1, {}, (), ())
            job.lost, job.due = lost, True
            self.suspects.wait(job)

    def begin(self) -> list[int]:
        """What begins now: how often each was lost."""
        found = self.suspects.ready()
        self.running |= {job.cell: job for job in found}
        return [job.lost for job in found]

    def end(self) -> None:
        """All that runs is over."""
        self.running.clear()


@pytest.mark.parametrize(("lost", "width"), [(0, FIRST.width), (1, FIRST.width), (2, SECOND.width), (3, 1), (4, 1)])
def test_the_more_attempts_were_lost_the_fewer_run_side_by_side(lost: int, width: int) -> None:
    assert LOST == 5
    host = Host()
    host.claim(2 * width + 1, lost)
    for expected in (width, width, 1, 0):
        assert host.begin() == [lost] * expected
        assert host.begin() == []
        host.end()


def test_who_runs_alone_has_nobody_beside_it() -> None:
    host = Host()
    host.claim(3, 4)
    host.claim(2, 1)
    assert host.begin() == [1, 1], "those that are less suspect come first"
    host.end()
    assert host.begin() == [4]
    host.claim(2, 1, first=10)
    assert host.begin() == []
    host.end()
    assert host.begin() == [1, 1]


@pytest.mark.parametrize(("lost", "seconds"), [(0, FIRST.seconds), (2, SECOND.seconds), (4, ALONE.seconds)])
def test_a_long_call_holds_up_the_others_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch, lost: int, seconds: float
) -> None:
    monkeypatch.setattr(overdue, "LEASE", 1_000.0)
    host = Host()
    host.claim(65, lost)
    first = host.begin()
    host.time += seconds - 0.1
    assert host.begin() == []
    host.time += 0.2
    assert len(host.begin()) == min(len(first), 65 - len(first))


def test_what_waits_for_long_is_left_to_its_row() -> None:
    host = Host()
    host.claim(2, 4)
    assert host.begin() == [4]
    host.time += overdue.LEASE
    host.end()
    assert host.begin() == []
    assert host.suspects.rows(5.0) == []


def test_nothing_begins_while_the_process_stops_and_no_attempt_is_counted() -> None:
    host = Host()
    host.claim(2, 3)
    host.stopping = True
    assert host.begin() == []
    assert [(row.at, row.attempt) for row in host.suspects.rows(5.0)] == [(5.0, 0), (5.0, 0)]
