"""`segue schedule`: when flows are started by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from segue import compose
from segue.cli.options import DEFAULTS, Options, execute
from segue.cli.runs import read_input
from segue.cli.screen import clean, clock, json_line, span, table, whole
from segue.config import Config
from segue.config.schema import duration
from segue.errors import ConfigError, InvalidInput
from segue.names import check_name
from segue.plan.graph import Plan
from segue.runtime import scheduler, schedules
from segue.runtime.schedules import ScheduleDeployed
from segue.schedule import timetable
from segue.schedule.overlap import Overlap
from segue.schedule.timetable import CATCH_UP, Cron, Every, Timing, due_after
from segue.wire.schedules import Handled, Progress, ScheduleRecord

if TYPE_CHECKING:
    from segue.cli.screen import Line

State = Literal["active", "paused", "over"]
_SHOWN = 5
"""Due times to come that `show` lists."""


class ScheduleLine(msgspec.Struct, frozen=True):
    """A line of `segue schedule list`: `over`: it is never due any more."""

    schedule: str
    flow: str
    when: str
    state: State
    next: datetime | None
    last: Handled | None


class ScheduleShown(msgspec.Struct, frozen=True):
    """`segue schedule show`: the schedule, due times to come, and what came of the latest ones."""

    schedule: dict[str, Any]
    next: tuple[datetime, ...]
    handled: tuple[Handled, ...]


class DueLine(msgspec.Struct, frozen=True):
    """A line of `segue schedule next`: the run of a due time."""

    schedule: str
    due: datetime
    key: str
    run: str


class ScheduleStarted(msgspec.Struct, frozen=True):
    """`segue schedule run`: the run that was started."""

    schedule: str
    flow: str
    run: str
    key: str


@Parameter(name="*")
@dataclass(frozen=True)
class When:
    """One of `cron`, `every` and `at`, and what belongs to it."""

    cron: Annotated[
        str | None, Parameter(help="Minute, hour, day of month, month, day of week: '0 9 * * mon-fri'.")
    ] = None
    every: Annotated[str | None, Parameter(help="An interval: 30s, 5m, 12h, 1d.")] = None
    at: Annotated[str | None, Parameter(help="Once: 2026-12-24T18:00, or with an offset.")] = None
    timezone: Annotated[str, Parameter(help="Time zone of --cron, and of times without an offset.")] = "UTC"
    anchor: Annotated[
        str | None, Parameter(help="First due time of --every; default: whole multiples since 1970, UTC.")
    ] = None

    def timing(self) -> Timing:
        """The timing.

        Raises:
            ConfigError: Not one of the three is given, or it cannot be read.
            DeclarationError: It is not good.
        """
        if [self.cron, self.every, self.at].count(None) != 2:
            raise ConfigError("one of --cron, --every and --at must be given")
        if self.anchor is not None and self.every is None:
            raise ConfigError("--anchor belongs to --every")
        if self.every is not None:
            return timetable.every(duration(self.every), self._time(self.anchor) if self.anchor else None)
        if self.at is not None:
            return timetable.At(self._time(self.at))
        return timetable.cron(self.cron or "", self.timezone)

    def _time(self, text: str) -> datetime:
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            raise ConfigError(
                f"{text!r} is no time", "write it as 2026-12-24T18:00 or 2026-12-24T18:00+01:00"
            ) from None
        return timetable.at(found, self.timezone).time


@Parameter(name="*")
@dataclass(frozen=True)
class What:
    """What is started, and how."""

    input: Annotated[
        str, Parameter(allow_leading_hyphen=True, help="JSON, or a file that holds it, or - for stdin.")
    ] = "{}"
    due_as: Annotated[str | None, Parameter(help="The parameter that gets the due time.")] = None
    overlap: Annotated[Overlap, Parameter(help="While an earlier run is open.")] = "skip"
    catch_up: Annotated[str, Parameter(help="For how long a due time may be started late.")] = f"{CATCH_UP / 60:g}m"


def listing(*, options: Options = DEFAULTS) -> None:
    """List schedules, with their next and last due times."""
    config, screen = options.load(), options.screen
    known = execute(_known, config)
    now = datetime.now().astimezone()
    found = [_line(record, progress, now) for record, progress in known]
    screen.show(found, lambda: _list_lines(found, now))


def show(name: str, /, *, options: Options = DEFAULTS) -> None:
    """Show a schedule: what it starts, when it is due next, and what came of the latest due times.

    Parameters
    ----------
    name
        Name of a schedule.
    """
    config, screen = options.load(), options.screen
    ((record, progress),) = execute(_known, config, name)
    now = datetime.now().astimezone()
    shown = ScheduleShown(whole(record), tuple(_next(record, now, _SHOWN)), progress.handled)
    screen.show(whole(shown), lambda: _show_lines(record, shown, now))


def upcoming(
    name: str = "",
    /,
    *,
    count: Annotated[int, Parameter(help="How many of each schedule.")] = _SHOWN,
    options: Options = DEFAULTS,
) -> None:
    """List due times to come, soonest first, with the keys that their runs will have.

    Parameters
    ----------
    name
        Name of a schedule; default: all that are not paused.
    """
    config, screen = options.load(), options.screen
    if count < 1:
        raise ConfigError(f"--count {count} is not allowed", "it must be 1 or more")
    known = execute(_known, config, name)
    now = datetime.now().astimezone()
    found = [
        DueLine(record.name, due, run.key, run.id)
        for record, _ in known
        for due in _next(record, now, count)
        for run in [record.run(due, config.namespace)]
    ]
    found.sort(key=lambda line: (line.due, line.schedule))
    screen.show(found, lambda: _next_lines(found, now))


def add(name: str, flow: str, /, *, when: When = When(), what: What = What(), options: Options = DEFAULTS) -> None:
    """Add a schedule by hand; those that an application declares come with `segue deploy`.

    Parameters
    ----------
    name
        Name of the new schedule.
    flow
        Name of a deployed flow.
    """
    config, screen = options.load(), options.screen
    now = datetime.now(UTC)
    record = ScheduleRecord(
        check_name(name, "schedule"),
        flow,
        when.timing(),
        now,
        what.overlap,
        duration(what.catch_up),
        due_as=what.due_as or "",
    )
    if next(due_after(record.timing, now), None) is None:
        raise ConfigError(f"--at {when.at} is over", "write a time to come")
    record = execute(_add, config, record, read_input(what.input))
    line = _line(record, Progress(name), now.astimezone())
    screen.show(line, lambda: [clean(f"added {name}: {flow}, {line.when}"), *_due_text(line.next, now.astimezone())])


def remove(name: str, /, *, options: Options = DEFAULTS) -> None:
    """Remove a schedule; runs under way go on.

    Parameters
    ----------
    name
        Name of a schedule.
    """
    config, screen = options.load(), options.screen
    record: ScheduleRecord = execute(_with_catalog, config, schedules.remove, name)
    note = [f"app {record.app} declares it: the next deploy adds it again"] if record.app else []
    done = ScheduleDeployed(name, record.flow, "removed")
    screen.show(done, lambda: [clean(line) for line in (f"removed {name}", *note)])


def pause(name: str, /, *, options: Options = DEFAULTS) -> None:
    """Pause a schedule: it starts nothing until it is resumed; runs under way go on.

    Parameters
    ----------
    name
        Name of a schedule.
    """
    _set_paused(name, True, options)


def resume(name: str, /, *, options: Options = DEFAULTS) -> None:
    """Resume a schedule; what was due meanwhile is not started any more.

    Parameters
    ----------
    name
        Name of a schedule.
    """
    _set_paused(name, False, options)


def run(name: str, /, *, options: Options = DEFAULTS) -> None:
    """Start a run of a schedule now, paused or not, and whatever is open.

    Parameters
    ----------
    name
        Name of a schedule.
    """
    config, screen = options.load(), options.screen
    record, handled = execute(_run, config, name)
    key = record.run(handled.due, config.namespace).key
    told = ScheduleStarted(name, record.flow, handled.run, key)
    screen.show(told, lambda: [clean(f"run {told.run} of {told.flow}, key {told.key}")])


def schedule_lines(done: Sequence[ScheduleDeployed]) -> list[Line]:
    """Deployed schedules, for people."""
    rows = [(each.schedule, each.flow, each.change) for each in done]
    return [*table(("schedule", "flow", ""), rows)] if rows else []


def words(timing: Timing) -> str:
    """When a schedule is due, for people."""
    if isinstance(timing, Cron):
        return f"{timing.expression} {timing.timezone}"
    if isinstance(timing, Every):
        anchor = "" if timing.anchor == timetable.EPOCH else f" from {timing.anchor.isoformat()}"
        return f"every {_whole(timing.seconds)}{anchor}"
    return f"once, {timing.time.isoformat()}"


def _set_paused(name: str, paused: bool, options: Options) -> None:
    config, screen = options.load(), options.screen
    record: ScheduleRecord = execute(_with_catalog, config, schedules.set_paused, name, paused)
    now = datetime.now().astimezone()
    line = _line(record, Progress(name), now)
    state = "paused" if paused else "resumed"
    screen.show(line, lambda: [clean(f"{state} {name}"), *([] if paused else _due_text(line.next, now))])


async def _known(config: Config, name: str = "") -> list[tuple[ScheduleRecord, Progress]]:
    async with compose.wired(config) as wiring:
        catalog = wiring.catalog
        names = [catalog.schedule(name).name] if name else sorted(catalog.schedules)
        return [(catalog.schedules[each], catalog.progress.get(each, Progress(each))) for each in names]


async def _add(config: Config, record: ScheduleRecord, given: Any) -> ScheduleRecord:
    async with compose.wired(config) as wiring:
        _, plan = await schedules.target(wiring.catalog, record)
        record = msgspec.structs.replace(record, input=_arguments(plan, given, record.due_as))
        await schedules.add(wiring.catalog, record)
        return record


async def _with_catalog(config: Config, change: Any, *args: Any) -> Any:
    async with compose.wired(config) as wiring:
        return await change(wiring.catalog, *args)


async def _run(config: Config, name: str) -> tuple[ScheduleRecord, Handled]:
    async with compose.wired(config) as wiring:
        return await scheduler.start_by_hand(wiring, name)


def _arguments(plan: Plan, given: Any, due_as: str) -> dict[str, Any]:
    """The input as an object of parameters; where there is one besides the due time's, its value stands for itself."""
    names = [param.name for param in plan.inputs if param.name != due_as]
    if isinstance(given, dict) and (len(names) != 1 or list(given) in ([], names)):
        return given
    if len(names) != 1:
        listed = ", ".join(names) or "none"
        raise InvalidInput(f"the input of {plan.flow!r} must be an object of its parameters", f"they are: {listed}")
    return {names[0]: given}


def _next(record: ScheduleRecord, now: datetime, number: int) -> list[datetime]:
    return [] if record.paused else list(islice(due_after(record.timing, max(now, record.since)), number))


def _line(record: ScheduleRecord, progress: Progress, now: datetime) -> ScheduleLine:
    due = next(iter(_next(record, now, 1)), None)
    state: State = "paused" if record.paused else "over" if due is None else "active"
    last = max(progress.handled, key=lambda item: item.due, default=None)
    return ScheduleLine(record.name, record.flow, words(record.timing), state, due, last)


def _list_lines(found: list[ScheduleLine], now: datetime) -> list[Line]:
    if not found:
        return ["no schedule is deployed; declare one in the application, or see `segue schedule add --help`"]
    rows = [
        (
            each.schedule,
            each.flow,
            each.when,
            each.state,
            clock(each.next, now) if each.next else "",
            f"{each.last.what} {clock(each.last.due, now)}" if each.last else "",
        )
        for each in found
    ]
    return [*table(("schedule", "flow", "when", "state", "next", "last"), rows)]


def _show_lines(record: ScheduleRecord, shown: ScheduleShown, now: datetime) -> list[Line]:
    rows = [
        ("flow", record.flow),
        ("when", words(record.timing)),
        ("input", json_line(record.input) + (f", {record.due_as} gets the due time" if record.due_as else "")),
        ("overlap", record.overlap),
        ("catch up", _whole(record.catch_up)),
        ("declared by", f"app {record.app}" if record.app else "hand"),
        ("since", clock(record.since, now)),
        ("next", "paused" if record.paused else ", ".join(clock(due, now) for due in shown.next) or "never"),
    ]
    history = [(clock(item.due, now), item.what, item.run, item.note) for item in reversed(shown.handled)]
    lines: list[Line] = [*table((), rows)]
    return [*lines, "", *table(("due", "", "run", ""), history)] if history else lines


def _next_lines(found: list[DueLine], now: datetime) -> list[Line]:
    rows = [
        (each.schedule, clock(each.due, now), f"in {span((each.due - now).total_seconds())}", each.key)
        for each in found
    ]
    return [*table(("schedule", "due", "", "key"), rows)] if rows else ["nothing is due any more"]


def _due_text(due: datetime | None, now: datetime) -> list[str]:
    return [f"next at {clock(due, now)}, in {span((due - now).total_seconds())}"] if due else ["never due any more"]


def _whole(seconds: float) -> str:
    return span(seconds).replace(".0 s", " s")
