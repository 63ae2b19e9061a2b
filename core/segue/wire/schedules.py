"""Registry documents of schedules: what is started when, and what came of the due times so far.

The record of a schedule is written by who deploys, adds, pauses or removes it. Its progress is written by schedulers:
each adds what it did to what is there. That helps the next one and tells people; that a due time is started once does
not rest on it, but on the run's key and id, which follow from the due time.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal, NamedTuple

import msgspec

from segue.errors import InvalidInput
from segue.schedule.overlap import Overlap
from segue.schedule.timetable import CATCH_UP, EPOCH, Timing

SCHEDULE, PROGRESS = "schedule", "progress"
LISTED = 20
"""How many of the latest due times a schedule's progress tells about."""


class ScheduleRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A schedule.

    Attributes:
        name: Its name.
        flow: The flow that it starts.
        timing: When it is due.
        since: Due times up to this one do not count: when it was added, changed or resumed.
        overlap: What happens while an earlier run is open.
        catch_up: Seconds for which a due time may still be started, if nobody did in time.
        input: Arguments of the flow by parameter.
        due_as: The parameter that gets the due time; "": none.
        app: The application that declares it; "": somebody added it by hand.
        paused: Nothing is started.
    """

    name: str
    flow: str
    timing: Timing
    since: datetime
    overlap: Overlap = "skip"
    catch_up: float = CATCH_UP
    input: dict[str, Any] = {}
    due_as: str = ""
    app: str = ""
    paused: bool = False

    def arguments(self, due: datetime) -> dict[str, Any]:
        """The input of the run of a due time, by parameter."""
        return self.input | ({self.due_as: stamp(due)} if self.due_as else {})

    def run(self, due: datetime, namespace: str) -> Run:
        """The run of a due time: the same whoever asks, so that starting it again changes nothing."""
        key = f"{self.name}@{stamp(due)}"
        noise = int.from_bytes(sha256(f"{namespace}/{self.flow}/{key}".encode()).digest()[:10], "big")
        fraction, tail = noise >> 64 & 0xFFF, noise & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000
        milliseconds = int(due.timestamp()) * 1000
        return Run(f"{milliseconds:012x}7{fraction:03x}{tail:016x}", key)


class Run(NamedTuple):
    """Id (a UUIDv7 of the due time) and business key of a due time's run."""

    id: str
    key: str


What = Literal["missed", "skipped", "waiting", "dropped", "failed", "started", "manual"]
_FIRM: dict[What, int] = {
    "missed": 0,
    "skipped": 0,
    "waiting": 1,
    "dropped": 2,
    "failed": 2,
    "started": 3,
    "manual": 3,
}


class Handled(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of a due time.

    Attributes:
        due: The due time; of several that were missed together, the last one.
        what: `missed`: no scheduler was there in time. `skipped`: an earlier run was open. `waiting`: for the end of
            that run. `dropped`: it waited, in vain. `failed`: it cannot be started. `started`. `manual`: by hand, at
            this time.
        note: Why.
        run: Id of its run.
        home: Who decides the end of the run.
        count: How many due times were missed.
    """

    due: datetime
    what: What
    note: str = ""
    run: str = ""
    home: str = ""
    count: int = 1


class Progress(msgspec.Struct, frozen=True):
    """What came of a schedule's latest due times, in order."""

    schedule: str
    handled: tuple[Handled, ...] = ()

    @property
    def until(self) -> datetime:
        """The last due time that was handled."""
        return max((item.due for item in self.handled if item.what != "manual"), default=EPOCH)

    @property
    def last(self) -> Handled | None:
        """The last one that was started."""
        return next((item for item in reversed(self.handled) if item.run), None)

    def waiting(self, since: datetime) -> datetime | None:
        """The due time that waits for the end of a run."""
        return next((item.due for item in reversed(self.handled) if item.what == "waiting" and item.due > since), None)

    def latest(self, number: int) -> tuple[Handled, ...]:
        """The latest due times, so many with a run and so many without one."""
        there = [item for item in self.handled if item.run]
        others = [item for item in self.handled if not item.run]
        return (*there[-number:], *others[-number:])

    def add(self, handled: Iterable[Handled]) -> Progress:
        """With what else was done. Where two disagree about a due time, what cannot be taken back counts."""
        found = {(item.due, item.what == "manual"): item for item in self.handled}
        for item in handled:
            key = (item.due, item.what == "manual")
            if key not in found or _FIRM[found[key].what] < _FIRM[item.what]:
                found[key] = item
        ordered = [found[key] for key in sorted(found)]
        kept = {*ordered[-LISTED:], *[item for item in ordered if item.run][-1:]}
        kept.update([item for item in ordered if item.what == "waiting"][-1:])
        return Progress(self.schedule, tuple(item for item in ordered if item in kept))


def stamp(due: datetime) -> str:
    """A due time as it is written in keys and inputs: `2026-11-23T09:00:00Z`."""
    return due.strftime("%Y-%m-%dT%H:%M:%SZ")


_schedule = msgspec.json.Decoder(ScheduleRecord)
_progress = msgspec.json.Decoder(Progress)
_encode = msgspec.json.Encoder(order="deterministic").encode


def encode(record: ScheduleRecord | Progress) -> bytes:
    """A record as JSON."""
    return _encode(record)


def decode_schedule(body: bytes) -> ScheduleRecord:
    """A schedule from JSON.

    Raises:
        InvalidInput: Not a schedule.
    """
    try:
        return _schedule.decode(body)
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"not a schedule: {error}") from None


def decode_progress(body: bytes) -> Progress:
    """A schedule's progress from JSON.

    Raises:
        InvalidInput: Not the progress of a schedule.
    """
    try:
        return _progress.decode(body)
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"not the progress of a schedule: {error}") from None
