"""When a schedule is due: by a cron expression, in intervals, or once.

Due times are whole seconds in UTC. They follow from the timing alone, so that whoever asks, whenever and from wherever,
finds the same ones.

Cron expressions have five fields and mean what they mean to Debian's cron, in the timing's time zone. When clocks are
set forward, what names its minute and hour (`30 2 * * *`) and falls into the gap is due at the gap's end, once; what
names neither (`*/10 * * * *`) has no due times in the gap. When clocks are set back, the former is due at the first of
the two equal times only, the latter at both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError

from segue.errors import DeclarationError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CRON_FIELDS = 5
CATCH_UP = 600.0
"""Seconds for which a due time may still be started if nobody did in time, unless a schedule says otherwise."""

_MINUTE = timedelta(minutes=1)
_SHIFT = timedelta(hours=3)
"""More than clocks are set back by."""


class Cron(msgspec.Struct, frozen=True, tag="cron"):
    """Due when a clock in `timezone` shows what `expression` says."""

    expression: str
    timezone: str = "UTC"


class Every(msgspec.Struct, frozen=True, tag="every"):
    """Due at `anchor` and every `seconds` after it; local time does not matter."""

    seconds: int
    anchor: datetime = EPOCH


class At(msgspec.Struct, frozen=True, tag="at"):
    """Due once, at `time`."""

    time: datetime


Timing = Cron | Every | At


def cron(expression: str, timezone: str = "UTC") -> Cron:
    """A timing by a cron expression.

    Args:
        expression: Minute, hour, day of month, month and day of week, as in `0 9 * * mon-fri`.
        timezone: Name of a time zone, as in `Europe/Berlin`.

    Raises:
        DeclarationError: The expression is not one, is never due, or the time zone is not known here.
    """
    if len(expression.split()) != CRON_FIELDS:
        raise DeclarationError(
            f"cron expression {expression!r} does not have five fields",
            "write minute, hour, day of month, month and day of week: 0 9 * * mon-fri",
        )
    timing = Cron(" ".join(expression.split()), zone(timezone).key)
    try:
        due = next(due_after(timing, EPOCH), None)
    except CronSimError as error:
        raise DeclarationError(
            f"cron expression {expression!r}: {str(error)[:1].lower()}{str(error)[1:]}",
            "its fields: minute 0-59, hour 0-23, day 1-31, month 1-12 or jan-dec, weekday 0-7 or sun-sat",
        ) from None
    if due is None:
        raise DeclarationError(f"cron expression {expression!r} is never due")
    return timing


def every(seconds: float, anchor: datetime | None = None) -> Every:
    """A timing by an interval.

    Args:
        seconds: Whole seconds from one due time to the next, at least 1.
        anchor: The first due time, with a time zone; without one, all whole multiples of the interval since 1970 in
            UTC: `every=3600` is on the hour.

    Raises:
        DeclarationError: The interval is not a whole number of seconds, or the anchor has no time zone.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds < 1 or seconds != seconds // 1:
        raise DeclarationError(f"an interval must be a whole number of seconds from 1, got {seconds!r}")
    return Every(int(seconds), EPOCH if anchor is None else moment(anchor))


def at(time: datetime, timezone: str = "UTC") -> At:
    """A timing that is due once.

    Args:
        time: When; its fraction of a second is dropped.
        timezone: Time zone of a time that has none.

    Raises:
        DeclarationError: The time zone is not known here.
    """
    return At(moment(time if time.tzinfo else time.replace(tzinfo=zone(timezone))))


def moment(time: datetime) -> datetime:
    """A time as due times are written: in UTC, whole seconds.

    Raises:
        DeclarationError: It has no time zone.
    """
    if time.tzinfo is None:
        raise DeclarationError(
            f"the time {time.isoformat()} has no time zone", "write tzinfo=ZoneInfo('Europe/Berlin')"
        )
    return time.astimezone(UTC).replace(microsecond=0)


def zone(name: str) -> ZoneInfo:
    """A time zone by its name.

    Raises:
        DeclarationError: It is not known here.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise DeclarationError(
            f"time zone {name!r} is not known here",
            "write a name such as Europe/Berlin; a system without time zones needs the package tzdata",
        ) from None


def due_after(timing: Timing, after: datetime) -> Iterator[datetime]:
    """All due times later than `after`, in order; endless unless the timing is over at some time."""
    if isinstance(timing, Cron):
        return _cron_after(timing, after)
    if isinstance(timing, Every):
        return _every_after(timing, after)
    return iter([timing.time] if timing.time > after else [])


def due_times(timing: Timing, after: datetime, until: datetime, limit: int | None = None) -> list[datetime]:
    """Due times later than `after`, up to and with `until`, in order.

    Args:
        timing: When the schedule is due.
        after: With a time zone.
        until: With a time zone.
        limit: How many at most; the first ones.
    """
    return list(islice(takewhile(lambda due: due <= until, due_after(timing, after)), limit))


def _every_after(timing: Every, after: datetime) -> Iterator[datetime]:
    interval = timedelta(seconds=timing.seconds)
    due = timing.anchor + max((after - timing.anchor) // interval + 1, 0) * interval
    while True:
        yield due
        due += interval


def _cron_after(timing: Cron, after: datetime) -> Iterator[datetime]:
    local = zone(timing.timezone)
    start = after.astimezone(local)
    changing = (after - _SHIFT).astimezone(local).utcoffset() != (after + _SHIFT).astimezone(local).utcoffset()
    # Clocks that are set back show times again which are earlier than what they show now.
    shown = CronSim(timing.expression, start.replace(tzinfo=None) - (_SHIFT if changing else timedelta()))
    named = not any(field.startswith("*") for field in timing.expression.split()[:2])
    last = after
    for due in _named(shown, local) if named else _running(shown, local):
        if due > last:
            yield due
            last = due


def _named(shown: Iterator[datetime], local: ZoneInfo) -> Iterator[datetime]:
    """When a clock shows these times for the first time, or would have, but for being set forward."""
    for time in shown:
        due = _first(time, local)
        while not _shows(due, time, local):
            time += _MINUTE
            due = _first(time, local)
        yield due


def _running(shown: Iterator[datetime], local: ZoneInfo) -> Iterator[datetime]:
    """Whenever a clock shows these times, in the order in which it does."""
    again: deque[datetime] = deque()
    for time in shown:
        due = _first(time, local)
        if not _shows(due, time, local):
            continue
        while again and again[0] <= due:
            yield again.popleft()
        yield due
        second = time.replace(tzinfo=local, fold=1).astimezone(UTC)
        if second != due:
            again.append(second)
    yield from again


def _first(time: datetime, local: ZoneInfo) -> datetime:
    return time.replace(tzinfo=local).astimezone(UTC)


def _shows(due: datetime, time: datetime, local: ZoneInfo) -> bool:
    return due.astimezone(local).replace(tzinfo=None) == time
