"""When schedules are due: compared with a clock that is watched minute by minute, on days when clocks change."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from segue.errors import DeclarationError
from segue.schedule.timetable import EPOCH, Timing, at, cron, due_after, due_times, every

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
CHANGES = (
    ("Europe/Berlin", datetime(2026, 3, 29, 1, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 10, 25, 1, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 3, 8, 7, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 11, 1, 6, tzinfo=UTC)),
    ("Africa/Cairo", datetime(2026, 4, 23, 22, tzinfo=UTC)),  # at midnight
    ("Africa/Cairo", datetime(2026, 10, 29, 21, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, tzinfo=UTC)),  # by half an hour
    ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
    ("Antarctica/Troll", datetime(2026, 3, 29, 1, tzinfo=UTC)),  # by two hours
    ("Antarctica/Troll", datetime(2026, 10, 25, 1, tzinfo=UTC)),
    ("Asia/Kolkata", datetime(2026, 3, 29, 1, tzinfo=UTC)),  # never
)

Field = tuple[str, Callable[[int], bool]]


def fields(low: int, high: int) -> st.SearchStrategy[Field]:
    """Fields of an expression, as text and as what they mean."""
    value = st.integers(low, high)
    return st.one_of(
        st.just(("*", lambda n: True)),
        st.integers(2, 30).map(lambda step: (f"*/{step}", lambda n: (n - low) % step == 0)),
        st.sets(value, min_size=1, max_size=3).map(
            lambda found: (",".join(map(str, sorted(found))), lambda n: n in found)
        ),
        st.tuples(value, value).map(
            lambda pair: (f"{min(pair)}-{max(pair)}", lambda n: min(pair) <= n <= max(pair)),
        ),
    )


def watched(
    zone: str, minute: Field, hour: Field, day: Callable[[int], bool], since: datetime, until: datetime
) -> set[datetime]:
    """What a person would write down who watches a clock from `since` to `until` and knows the rules of cron."""
    local = ZoneInfo(zone)
    ticks = [since + n * MINUTE for n in range(int((until - since) / MINUTE) + 1)]
    shown = [(tick, tick.astimezone(local).replace(tzinfo=None)) for tick in ticks]

    def fits(time: datetime) -> bool:
        return minute[1](time.minute) and hour[1](time.hour) and day(time.day)

    if minute[0].startswith("*") or hour[0].startswith("*"):
        return {tick for tick, time in shown if fits(time)}
    found, seen, last = set(), set(), shown[0][1]
    for tick, time in shown:
        for n in range(1, int((time - last) / MINUTE)):  # the gap, when clocks are set forward
            if fits(last + n * MINUTE) and last + n * MINUTE not in seen:
                found.add(tick)
        if fits(time) and time not in seen:
            found.add(tick)
        seen.add(time)
        last = time
    return found


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(CHANGES),
    fields(0, 59),
    st.one_of(fields(0, 23), fields(0, 4)),
    st.one_of(st.just(("*", lambda n: True)), fields(1, 31)),
)
@example(CHANGES[0], ("30", lambda n: n == 30), ("2", lambda n: n == 2), ("*", lambda n: True))
@example(CHANGES[1], ("30", lambda n: n == 30), ("2", lambda n: n == 2), ("*", lambda n: True))
@example(CHANGES[4], ("0,30", lambda n: n in (0, 30)), ("0,1", lambda n: n in (0, 1)), ("*", lambda n: True))
def test_a_cron_expression_is_due_when_the_clock_says_so(
    change: tuple[str, datetime], minute: Field, hour: Field, day: Field
) -> None:
    zone, moment = change
    since, until = moment - 2 * DAY, moment + 2 * DAY
    try:
        timing = cron(f"{minute[0]} {hour[0]} {day[0]} * *", zone)
    except DeclarationError:
        pytest.fail("every expression of this kind is due at some time")
    due = due_times(timing, since, until)
    assert due == sorted(set(due))
    # What began to be shown before anybody watched is none of their business.
    begun = since + timedelta(hours=4)
    expected = watched(zone, minute, hour, day[1], since, until)
    assert [time for time in due if time > begun] == sorted(time for time in expected if time > begun)


TIMINGS = st.one_of(
    st.tuples(fields(0, 59), st.one_of(fields(0, 23), fields(0, 4))).map(
        lambda pair: lambda zone: cron(f"{pair[0][0]} {pair[1][0]} * * *", zone)
    ),
    st.tuples(st.integers(61, 100_000), st.integers(-(10**6), 10**6)).map(
        lambda pair: lambda zone: every(pair[0], CHANGES[0][1] + timedelta(seconds=pair[1]))
    ),
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(CHANGES), TIMINGS, st.lists(st.integers(-130_000, 130_000), max_size=5))
def test_whoever_asks_whenever_finds_the_same_due_times(
    change: tuple[str, datetime], make: Callable[[str], Timing], stops: list[int]
) -> None:
    """However a span is cut, each due time is in one part: none is found twice, none is missed."""
    zone, moment = change
    timing = make(zone)
    cuts = [moment + timedelta(seconds=stop) for stop in (-150_000, *sorted(stops), 150_000)]
    parts = [due_times(timing, after, until) for after, until in pairwise(cuts)]
    assert [due for part in parts for due in part] == due_times(timing, cuts[0], cuts[-1])


def local(timing: Timing, zone: str, after: str, number: int) -> list[str]:
    found = islice(due_after(timing, datetime.fromisoformat(after)), number)
    return [due.astimezone(ZoneInfo(zone)).strftime("%m-%d %H:%M %z") for due in found]


@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        # Set forward: what names its time is due at the end of the gap; what runs on leaves the gap out.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["03-29 03:00 +0200", "03-30 02:30 +0200"]),
        ("0,30 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00Z", ["03-29 03:00 +0200", "03-29 03:30 +0200"]),
        ("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:29Z", ["03-29 01:30 +0100", "03-29 03:00 +0200"]),
        ("*/30 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["03-30 02:00 +0200", "03-30 02:30 +0200"]),
        ("30 2 * * *", "America/New_York", "2026-03-07T12:00Z", ["03-08 03:00 -0400", "03-09 02:30 -0400"]),
        # Set back: what names its time is due once; what runs on is due in both hours.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", ["10-25 02:30 +0200", "10-26 02:30 +0100"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:45Z", ["10-26 02:30 +0100", "10-27 02:30 +0100"]),
        ("30 * * * *", "Europe/Berlin", "2026-10-25T00:00Z", ["10-25 02:30 +0200", "10-25 02:30 +0100"]),
        ("30 1 * * *", "America/New_York", "2026-10-31T12:00Z", ["11-01 01:30 -0400", "11-02 01:30 -0500"]),
        # Days.
        ("0 9 * * mon-fri", "Europe/Berlin", "2026-11-20T12:00Z", ["11-23 09:00 +0100", "11-24 09:00 +0100"]),
        ("0 0 L * *", "UTC", "2026-01-31T12:00Z", ["02-28 00:00 +0000", "03-31 00:00 +0000"]),
        ("0 0 1 * 0", "UTC", "2026-02-01T12:00Z", ["02-08 00:00 +0000", "02-15 00:00 +0000"]),
    ],
)
def test_cron_examples(expression: str, zone: str, after: str, expected: list[str]) -> None:
    assert local(cron(expression, zone), zone, after.replace("Z", "+00:00"), 2) == expected


def test_leap_days() -> None:
    due = islice(due_after(cron("0 12 29 2 *"), datetime(2095, 1, 1, tzinfo=UTC)), 3)
    assert [time.year for time in due] == [2096, 2104, 2108]
    days = due_times(cron("0 0 * 2 *"), datetime(2028, 1, 1, tzinfo=UTC), datetime(2028, 12, 1, tzinfo=UTC))
    assert len(days) == 29


def test_intervals_start_at_their_anchor() -> None:
    anchor = datetime(2026, 3, 1, 0, 0, 10, tzinfo=UTC)
    timing = every(45, anchor)
    assert due_times(timing, anchor - DAY, anchor + timedelta(seconds=90)) == [
        anchor,
        anchor + timedelta(seconds=45),
        anchor + timedelta(seconds=90),
    ]
    assert due_times(timing, anchor, anchor + timedelta(seconds=44)) == []


def test_intervals_without_anchor_are_multiples() -> None:
    (due,) = islice(due_after(every(3600), datetime(2026, 5, 1, 12, 34, 56, tzinfo=UTC)), 1)
    assert due == datetime(2026, 5, 1, 13, tzinfo=UTC)
    assert next(due_after(every(7), EPOCH)) == EPOCH + timedelta(seconds=7)


def test_once_is_once() -> None:
    timing = at(datetime(2026, 12, 24, 18, 0, 0, 999), "Europe/Berlin")
    due = datetime(2026, 12, 24, 17, tzinfo=UTC)
    assert list(due_after(timing, due - timedelta(seconds=1))) == [due]
    assert list(due_after(timing, due)) == []


def test_a_limit_takes_the_first() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert due_times(every(1), now, now + DAY, 3) == [now + timedelta(seconds=n) for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cron("* * * *"), "does not have five fields"),
        (lambda: cron("*/10 * * * * *"), "does not have five fields"),
        (lambda: cron("60 * * * *"), "bad minute"),
        (lambda: cron("0 0 30 2 *"), "bad day-of-month"),
        (lambda: cron("0 0 */20 * 1L"), "is never due"),
        (lambda: cron("0 0 * * *", "Mars/Olympus"), "time zone 'Mars/Olympus' is not known"),
        (lambda: cron("0 0 * * *", "Europe"), "time zone 'Europe' is not known"),
        (lambda: cron("0 0 * * *", "../etc/passwd"), "is not known"),
        (lambda: every(0), "whole number of seconds"),
        (lambda: every(1.5), "whole number of seconds"),
        (lambda: every(True), "whole number of seconds"),
        (lambda: every(float("nan")), "whole number of seconds"),
        (lambda: every(float("inf")), "whole number of seconds"),
        (lambda: every(60, datetime(2026, 1, 1)), "has no time zone"),
        (lambda: at(datetime(2026, 1, 1), "Nowhere"), "is not known"),
    ],
)
def test_bad_timings(make: Callable[[], Timing], message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        make()
