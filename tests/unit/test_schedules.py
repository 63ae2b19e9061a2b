"""Schedules as they are declared and recorded, and what is decided while a run is open."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue import App, Schedule, Service, flow
from segue.errors import DeclarationError, InvalidInput
from segue.runtime.ids import check_key, check_run_id
from segue.schedule.overlap import decide
from segue.schedule.timetable import At, Cron, Every
from segue.wire import schedules
from segue.wire.schedules import LISTED, Handled, Progress, ScheduleRecord

NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)
desk = Service("desk")


class Line(msgspec.Struct):
    name: str
    price: int = 0


@desk.step
async def write(at: datetime, lines: list[Line], note: str) -> str:
    return f"{at} {lines} {note}"


@flow
def report(at: datetime, lines: list[Line], note: str = "") -> str:
    return write(at, lines, note)


@flow
def other(at: datetime, lines: list[Line], note: str = "") -> str:
    return write(at, lines, note)


def minute(n: int) -> datetime:
    return NOW + timedelta(minutes=n)


def schedule(**more: Any) -> Schedule:
    given = {"flow": report, "every": 60, "input": {"lines": []}, "due_as": "at"} | more
    return Schedule(given.pop("flow"), **{name: value for name, value in given.items() if value is not None})


class TestDeclaration:
    def test_timings(self) -> None:
        assert schedule().timing == Every(60)
        assert schedule(every=timedelta(hours=1)).timing == Every(3600)
        assert schedule(every=None, cron="0 9 * * *", timezone="Asia/Tokyo").timing == Cron("0 9 * * *", "Asia/Tokyo")
        assert schedule(every=None, at=datetime(2026, 7, 1, 9), timezone="Asia/Tokyo").timing == At(
            datetime(2026, 7, 1, tzinfo=UTC)
        )

    def test_it_has_the_name_of_its_flow(self) -> None:
        assert schedule().name == "report"
        app = App("shop", [report], [desk], [schedule(), schedule(name="hourly", every=3600)])
        assert list(app.schedules) == ["report", "hourly"]

    def test_the_input_travels_as_json(self) -> None:
        assert schedule(input={"lines": [Line("tea", 3)]}).arguments == {"lines": [{"name": "tea", "price": 3}]}

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"every": None}, "one of cron, every and at must be given"),
            ({"cron": "0 9 * * *"}, "one of cron, every and at must be given"),
            ({"every": 0.5}, "whole number of seconds"),
            ({"every": None, "cron": "0 25 * * *"}, "bad hour"),
            ({"every": None, "cron": "0 5 * * *", "timezone": "Berlin"}, "time zone 'Berlin' is not known"),
            ({"every": None, "cron": "0 5 * * *", "anchor": NOW}, "an anchor belongs to every"),
            ({"anchor": datetime(2026, 1, 1)}, "has no time zone"),
            ({"overlap": "queue"}, "overlap='queue' is not supported"),
            ({"catch_up": -1}, "catch_up must be"),
            ({"name": "Every day"}, "schedule name 'Every day' is not allowed"),
            ({"flow": write}, "a schedule starts a flow"),
            ({"input": {}}, "argument 'lines' is missing"),
            ({"input": {"lines": [], "more": 1}}, "no parameter 'more'"),
            ({"input": {"lines": [{"price": 1}]}}, "lines"),
            ({"input": {"lines": [object()]}}, "lines"),
            ({"due_as": None}, "argument 'at' is missing"),
            ({"due_as": "lines", "input": {"at": NOW}}, "lines"),
            ({"due_as": "when"}, "no parameter 'when'"),
            ({"input": {"lines": [], "at": NOW}}, "gets the due time"),
        ],
    )
    def test_mistakes_are_found_at_once(self, given: dict[str, Any], message: str) -> None:
        with pytest.raises(DeclarationError, match=message) as caught:
            schedule(**given)
        assert "test_schedules.py:" in caught.value.message

    def test_an_app_lists_the_flows_of_its_schedules(self) -> None:
        with pytest.raises(DeclarationError, match="a schedule of flow 'report', which it does not list"):
            App("shop", [other], [desk], [schedule()])

    def test_an_app_has_no_two_schedules_of_a_name(self) -> None:
        with pytest.raises(DeclarationError, match="two schedules named 'report'"):
            App("shop", [report], [desk], [schedule(), schedule(every=5)])


RECORD = ScheduleRecord("nightly", "report", Every(60), NOW, input={"lines": []}, due_as="at")


class TestRun:
    def test_the_key_says_schedule_and_due_time(self) -> None:
        run = RECORD.run(NOW, "segue")
        assert run.key == "nightly@2026-11-23T09:00:00Z"
        assert check_key(run.key) == run.key

    def test_the_id_is_a_uuid7_of_the_due_time(self) -> None:
        run = RECORD.run(NOW, "segue").id
        assert check_run_id(run) == run
        assert int(run[:12], 16) == NOW.timestamp() * 1000
        assert run[16] in "89ab"

    def test_all_who_ask_find_the_same(self) -> None:
        again = schedules.decode_schedule(schedules.encode(RECORD))
        assert again == RECORD
        assert again.run(NOW, "segue") == RECORD.run(NOW, "segue")
        paused = msgspec.structs.replace(RECORD, paused=True, overlap="allow", timing=Every(30), since=minute(1))
        assert paused.run(NOW, "segue") == RECORD.run(NOW, "segue")

    def test_no_two_runs_share_an_id(self) -> None:
        names = [msgspec.structs.replace(RECORD, name=name, flow=flow) for name in "ab" for flow in "cd"]
        runs = {each.run(minute(n), space).id for each in names for n in range(50) for space in ("x", "y")}
        assert len(runs) == 4 * 50 * 2

    def test_the_due_time_is_an_argument(self) -> None:
        assert RECORD.arguments(NOW) == {"lines": [], "at": "2026-11-23T09:00:00Z"}
        assert RECORD.input == {"lines": []}

    def test_what_is_no_record_is_refused(self) -> None:
        with pytest.raises(InvalidInput, match="not a schedule"):
            schedules.decode_schedule(b"{}")
        with pytest.raises(InvalidInput, match="not the progress"):
            schedules.decode_progress(b"[]")


def verdicts(*args: Any) -> str:
    """The verdicts by their first letters; `S` has its run already."""
    return "".join("S" if verdict.what == "started" else verdict.what[1] for verdict in decide(*args))


START, THERE, WAIT, SKIP = "t", "S", "a", "k"


class TestOverlap:
    @pytest.mark.parametrize(
        ("overlap", "busy", "expected"),
        [
            ("skip", "", START + SKIP + SKIP),
            ("skip", "x", SKIP + SKIP + SKIP),
            ("allow", "", START + START + START),
            ("allow", "x", START + START + START),
            ("buffer", "", START + WAIT + SKIP),
            ("buffer", "x", WAIT + SKIP + SKIP),
            ("cancel", "", SKIP + SKIP + START),
            ("cancel", "x", SKIP + SKIP + WAIT),
        ],
    )
    def test_three_at_once(self, overlap: str, busy: str, expected: str) -> None:
        assert verdicts(overlap, [minute(n) for n in range(3)], [], busy) == expected

    def test_what_has_its_run_is_not_started_again(self) -> None:
        due = [minute(n) for n in range(3)]
        for overlap in ("skip", "buffer", "cancel"):
            assert verdicts(overlap, due, due, "") == 3 * THERE
        assert verdicts("allow", due, due[1:2], "") == START + THERE + START

    def test_nothing_is_started_behind_a_later_one(self) -> None:
        for overlap in ("skip", "buffer", "cancel"):
            assert verdicts(overlap, [minute(0), minute(2)], [minute(1)], "") == SKIP + START
            assert verdicts(overlap, [minute(0)], [minute(7)], "") == SKIP

    @given(
        st.sampled_from(["skip", "buffer", "cancel"]),
        st.sets(st.integers(0, 9)),
        st.sets(st.integers(0, 9)),
        st.sampled_from(["", "the run of 8:00 is open"]),
    )
    def test_at_most_one_starts_and_only_if_nothing_is_open(
        self, overlap: Any, due: set[int], started: set[int], busy: str
    ) -> None:
        found = decide(overlap, [minute(n) for n in due], [minute(n) for n in started], busy)
        assert [verdict.due for verdict in found] == [minute(n) for n in sorted(due)]
        assert sum(verdict.what == "start" for verdict in found) <= (0 if busy else 1)
        assert sum(verdict.what == "wait" for verdict in found) <= (0 if overlap == "skip" else 1)
        for verdict in found:
            assert (verdict.what == "started") == (verdict.due in {minute(n) for n in started})
            assert verdict.why or verdict.what in ("start", "started")


class TestProgress:
    def test_it_goes_on_behind_the_last_due_time(self) -> None:
        progress = Progress("x").add([Handled(minute(2), "skipped"), Handled(minute(1), "started", run="r")])
        assert progress.until == minute(2)
        assert progress.last == Handled(minute(1), "started", run="r")
        assert Progress("x").add([Handled(minute(9), "manual", run="m")]).until < NOW

    def test_what_cannot_be_taken_back_counts_in_any_order(self) -> None:
        told = [
            Handled(NOW, "skipped"),
            Handled(NOW, "waiting"),
            Handled(NOW, "dropped"),
            Handled(NOW, "started", run="r"),
        ]
        for size in range(1, 5):
            for some in permutations(told, size):
                (kept,) = Progress("x").add(some[:1]).add(some[1:]).handled
                assert kept.what == max(some, key=told.index).what

    def test_adding_again_changes_nothing(self) -> None:
        progress = Progress("x").add([Handled(minute(n), "started", run=f"r{n}") for n in range(LISTED + 5)])
        assert len(progress.handled) == LISTED
        assert progress.add(progress.handled) == progress
        assert schedules.decode_progress(schedules.encode(progress)) == progress

    def test_the_last_run_and_what_waits_are_not_forgotten(self) -> None:
        progress = Progress("x").add([Handled(minute(0), "started", run="r"), Handled(minute(1), "waiting")])
        progress = progress.add([Handled(minute(n), "skipped") for n in range(2, 100)])
        assert progress.last == Handled(minute(0), "started", run="r")
        assert progress.waiting(NOW) == minute(1)
        assert progress.waiting(minute(1)) is None
        assert len(progress.handled) == LISTED + 2
