"""Schedules: when a flow is started by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime, timedelta
from typing import Any, get_args

import msgspec

from segue.errors import DeclarationError, InvalidInput
from segue.model.flow import Flow
from segue.model.site import here
from segue.names import check_name
from segue.schedule import timetable
from segue.schedule.overlap import Overlap
from segue.schedule.timetable import CATCH_UP, EPOCH, Timing


@dataclass(frozen=True)
class Schedule:
    """When a flow is started by itself: `Schedule(report, cron="0 9 * * mon-fri", timezone="Europe/Berlin")`.

    One of `cron`, `every` and `at` says when. Each due time has one run, with the key `<name>@2026-11-23T08:00:00Z`,
    whatever key the flow declares.

    Attributes:
        flow: The flow.
        cron: Minute, hour, day of month, month and day of week; what happens when clocks change is said in
            `segue.schedule.timetable`.
        every: Whole seconds from one due time to the next.
        at: The only due time.
        timezone: Time zone of `cron`, and of an `at` without one.
        anchor: First due time of `every`, with a time zone; without it, all whole multiples since 1970 in UTC.
        input: Arguments of the flow, by parameter.
        due_as: The parameter that gets the due time, a `datetime` or a `str`.
        overlap: While an earlier run is open: "skip" starts nothing, "allow" starts beside it, "buffer" lets one due
            time wait for its end, "cancel" cancels it and waits for its end.
        catch_up: Seconds for which a due time may still be started if nobody did in time; 10 are always granted.
        name: Its name; by default the flow's.

    Raises:
        DeclarationError: A value is bad, or the input does not fit the flow.
    """

    flow: Flow[..., Any]
    _: KW_ONLY
    cron: str = ""
    every: float | timedelta | None = None
    at: datetime | None = None
    timezone: str = "UTC"
    anchor: datetime | None = None
    input: Mapping[str, Any] = field(default_factory=dict)
    due_as: str = ""
    overlap: Overlap = "skip"
    catch_up: float | timedelta = CATCH_UP
    name: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.flow, Flow):
            raise DeclarationError(f"{here()}: a schedule starts a flow, not {self.flow!r}")
        object.__setattr__(self, "name", check_name(self.name or self.flow.name, "schedule", here()))
        self._check_policy()
        try:
            _ = self.timing
            self._check_input()
        except (DeclarationError, InvalidInput) as error:
            raise DeclarationError(f"{here()}: schedule {self.name!r}: {error.message}", error.hint) from None

    @property
    def timing(self) -> Timing:
        """When it is due."""
        given = [name for name in ("cron", "every", "at") if getattr(self, name) not in ("", None)]
        if len(given) != 1:
            raise DeclarationError("one of cron, every and at must be given", f"given: {', '.join(given) or 'none'}")
        if self.anchor is not None and self.every is None:
            raise DeclarationError("an anchor belongs to every")
        if self.every is not None:
            return timetable.every(_seconds(self.every), self.anchor)
        if self.at is not None:
            return timetable.at(self.at, self.timezone)
        return timetable.cron(self.cron, self.timezone)

    @property
    def patience(self) -> float:
        """`catch_up` in seconds."""
        return _seconds(self.catch_up)

    @property
    def arguments(self) -> dict[str, Any]:
        """`input` as JSON builtins."""
        found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self.input))
        return found

    def _check_policy(self) -> None:
        if self.overlap not in get_args(Overlap):
            raise DeclarationError(
                f"{here()}: schedule {self.name!r}: overlap={self.overlap!r} is not supported",
                f"the policies: {', '.join(get_args(Overlap))}",
            )
        patience = _seconds(self.catch_up)
        if isinstance(patience, bool) or not isinstance(patience, int | float) or not 0 <= patience < math.inf:
            raise DeclarationError(
                f"{here()}: schedule {self.name!r}: catch_up must be a number of seconds from 0, got {self.catch_up!r}"
            )

    def _check_input(self) -> None:
        if self.due_as in self.input:
            raise InvalidInput(f"{self.due_as!r} gets the due time and must not be in the input")
        due = {self.due_as: EPOCH.isoformat()} if self.due_as else {}
        self.flow.encode_input({**self.input, **due})


def _seconds(duration: float | timedelta) -> float:
    return duration.total_seconds() if isinstance(duration, timedelta) else duration
