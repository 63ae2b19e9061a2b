"""The scheduler: starts runs when schedules are due. Any number of them may run.

Each acts on its own, at the moment something is due, and nobody is elected: the run of a due time has a key and an id
that follow from the due time, so that the home makes one run of all their starts. What came of a due time is added to
the schedule's progress in the registry. That saves work, and tells people; should it be lost, or written by two, due
times are gone through again, as far back as the schedule catches up, and those that have a run get no second one.

Overlap is decided by asking: the homes say which runs of the schedule there are and which are open, and unless overlap
is allowed, a run is started only by who was just told that none is open. What two schedulers are told may differ: one
may skip what the other starts, which then counts. Two runs can overlap only if a scheduler that is late by a whole
interval starts its due time at the moment at which another one starts the next.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import anyio
import msgspec
from anyio.abc import TaskGroup

from segue.errors import NotAccepted, SegueError, TransportUnavailable
from segue.plan.projection import COORDINATOR, MODES, holder
from segue.runtime.ends import Ends
from segue.runtime.input import bind
from segue.runtime.schedules import target
from segue.runtime.serving import Wiring
from segue.runtime.starter import Starter
from segue.runtime.tasks import task_group
from segue.schedule.overlap import Verdict, decide
from segue.schedule.timetable import due_after, due_times
from segue.wire import requests
from segue.wire.requests import Accepted, Answer, Ask, Cancel, Refused, Reply, Request, Start
from segue.wire.schedules import Handled, Progress, ScheduleRecord, stamp

log = logging.getLogger("segue.scheduler")

LEAST_CATCH_UP = 10.0
"""Seconds by which a start may always be late."""

LOOK_BACK = 3
"""How many of the latest due times with a run, and without one, are asked for: somebody else may have started them."""

TOGETHER = 100
"""How many due times are decided at a time."""

COUNTED = 1_000
"""How many missed due times are counted."""

NAP = 30.0
"""Seconds after which a sleeper looks at the clock, which may have been set."""

ANSWER = 5.0
"""Seconds in which a home answers."""

PAUSE = 0.5
"""Seconds until the next attempt after a failure; doubling, up to ten times as long."""

COALESCE = 0.05
"""Seconds in which changes of schedules gather."""

LAST = datetime.max.replace(tzinfo=UTC)


class Counts:
    """What a scheduler did since it started; several of them may count the start of the same run."""

    __slots__ = ("failed", "missed", "skipped", "started")

    def __init__(self) -> None:
        self.started = self.skipped = self.missed = self.failed = 0


class Seen(NamedTuple):
    """A run of a schedule: its due time (or when it was started by hand), and whether it is open."""

    due: datetime
    run: str
    home: str
    open: bool
    manual: bool


class Scheduler:
    """Starts runs when schedules are due.

    Args:
        wiring: Transport, catalog and the rest.
    """

    def __init__(self, wiring: Wiring) -> None:
        self.counts = Counts()
        self._wiring = wiring
        self._done: dict[str, Progress] = {}

    @asynccontextmanager
    async def scheduling(self) -> AsyncIterator[Scheduler]:
        """Start what is due while the context is open. A start under way on leaving may or may not have happened."""
        async with task_group() as tasks:
            tasks.start_soon(self._follow, tasks)
            try:
                yield self
            finally:
                tasks.cancel_scope.cancel()

    async def _follow(self, tasks: TaskGroup) -> None:
        """Have a keeper for each schedule that is not paused; a changed one gets a new keeper."""
        starter, ends = Starter(self._wiring, tasks), Ends(self._wiring, tasks)
        kept: dict[str, tuple[ScheduleRecord, anyio.CancelScope]] = {}
        catalog = self._wiring.catalog
        while True:
            wanted = {name: record for name, record in catalog.schedules.items() if not record.paused}
            for name, (record, scope) in list(kept.items()):
                if wanted.get(name) != record:
                    scope.cancel()
                    del kept[name]
            for name in wanted.keys() - kept.keys():
                keeper = _Keeper(self._wiring, starter, ends, wanted[name], self.counts, self._done)
                kept[name] = wanted[name], keeper.scope
                tasks.start_soon(keeper.keep)
            await catalog.changed()
            await anyio.sleep(COALESCE)


class _Keeper:
    """Keeps one schedule; `done` is what this process knows to be done, by schedule."""

    def __init__(
        self,
        wiring: Wiring,
        starter: Starter,
        ends: Ends,
        record: ScheduleRecord,
        counts: Counts,
        done: dict[str, Progress],
    ) -> None:
        self.scope = anyio.CancelScope()
        self._wiring = wiring
        self._starter = starter
        self._ends = ends
        self._record = record
        self._counts = counts
        self._done = done
        self._busy: Seen | None = None

    async def keep(self) -> None:
        """Start what is due, until cancelled."""
        pause = PAUSE
        with self.scope:
            while True:
                try:
                    await self._rest(await self._look())
                    pause = PAUSE
                    continue
                except SegueError as error:
                    log.warning("schedule %s: %s; trying again in %g s", self._record.name, error.message, pause)
                except Exception:
                    log.exception("schedule %s: a look at it failed; trying again in %g s", self._record.name, pause)
                await anyio.sleep(pause)
                pause = min(pause * 2, 10 * PAUSE)

    @property
    def _progress(self) -> Progress:
        """What is done, as far as is known here."""
        name = self._record.name
        known = self._wiring.catalog.progress.get(name, Progress(name))
        return known.add(self._done[name].handled) if name in self._done else known

    async def _look(self) -> float:
        """Handle what is due now; the seconds until there is something to do."""
        record, now = self._record, datetime.now(UTC)
        since = max(record.since, self._progress.until)
        horizon = now - timedelta(seconds=max(record.catch_up, LEAST_CATCH_UP))
        if since < horizon:
            missed = due_times(record.timing, since, horizon, COUNTED)
            if missed:
                await self._miss(missed, horizon)
            since = horizon
        due = due_times(record.timing, since, now, TOGETHER)
        waiting = self._progress.waiting(record.since)
        self._busy = None
        if due or waiting:
            await self._handle(sorted({*due, *([waiting] if waiting else [])}), waiting)
            if self._busy is None and self._progress.waiting(record.since):
                return 0  # what it waits for was started just now
        after = due[-1] if len(due) == TOGETHER else now
        following = next(due_after(record.timing, after), None)
        return NAP if following is None else min((following - datetime.now(UTC)).total_seconds(), NAP)

    async def _rest(self, seconds: float) -> None:
        """Sleep, or until the run ends that a due time waits for."""
        with anyio.move_on_after(max(seconds, 0)):
            if self._busy is None:
                await anyio.sleep_forever()
                return
            await self._ends.listen(self._record.flow)
            end = self._ends.of(self._busy.run)
            end.homes = (self._busy.home,)
            await self._ends.wait(end, True)

    async def _miss(self, missed: list[datetime], horizon: datetime) -> None:
        """Say of due times that it is too late for them."""
        record = self._record
        last = missed[-1] if len(missed) < COUNTED else horizon.replace(microsecond=0)
        number = f"{len(missed):,}{' or more' if len(missed) == COUNTED else ''}"
        note = f"{number} since {stamp(missed[0])}" if len(missed) > 1 else "nobody started it in time"
        log.warning("schedule %s: missed %s, up to %s: nobody started them in time", record.name, number, stamp(last))
        self._counts.missed += len(missed)
        await self._note([Handled(last, "missed", note, count=len(missed))])

    async def _handle(self, due: list[datetime], waiting: datetime | None) -> None:
        seen: list[Seen] = []
        if self._record.overlap != "allow":
            seen = await self._seen(due)
            settled = {item.due for item in self._progress.handled if item.what not in ("waiting", "manual")}
            due = [time for time in due if time not in settled]  # somebody else was quicker
        busy = max((run for run in seen if run.open), default=None)
        words = f"the run of {stamp(busy.due)} is open" if busy else ""
        there = {run.due: run for run in seen if not run.manual}
        verdicts = decide(self._record.overlap, due, there.keys(), words)
        starts = [verdict.due for verdict in verdicts if verdict.what == "start"]
        done = [self._settled(verdict, there, waiting) for verdict in verdicts if verdict.what != "start"]
        try:
            if any(verdict.what == "wait" for verdict in verdicts):
                self._busy = busy
                if self._record.overlap == "cancel":
                    await self._cancel([run for run in seen if run.open])
            await self._start(starts, done)
        finally:
            # Who comes next goes on behind the last one that is done.
            open_ends = set(starts) - {item.due for item in done}
            with anyio.CancelScope(shield=True), anyio.move_on_after(ANSWER):
                await self._note([item for item in done if item.due < min(open_ends, default=LAST)])

    def _settled(self, verdict: Verdict, there: dict[datetime, Seen], waiting: datetime | None) -> Handled:
        """What came of a due time that is not started now."""
        name, due = self._record.name, verdict.due
        if verdict.what == "started":
            return Handled(due, "started", run=there[due].run, home=there[due].home)
        if verdict.what == "wait":
            if due != waiting:
                log.info("schedule %s: %s waits: %s", name, stamp(due), verdict.why)
            return Handled(due, "waiting", verdict.why)
        log.info("schedule %s: %s is skipped: %s", name, stamp(due), verdict.why)
        self._counts.skipped += 1
        return Handled(due, "dropped" if due == waiting else "skipped", verdict.why)

    async def _start(self, due: list[datetime], done: list[Handled]) -> None:
        """Start the runs of due times, together; those that are settled are added to `done`.

        Raises:
            TransportUnavailable: A home did not accept a start in time.
        """
        errors: list[SegueError] = []

        async def one(time: datetime) -> None:
            try:
                done.append(await start_due(self._wiring, self._starter, self._record, time))
                self._counts.started += 1
            except SegueError as error:
                if error.retryable:
                    errors.append(error)
                    return
                log.warning("schedule %s: %s cannot be started: %s", self._record.name, stamp(time), error.message)
                self._counts.failed += 1
                done.append(Handled(time, "failed", error.message))

        async with task_group() as tasks:
            for time in due:
                tasks.start_soon(one, time)
        if errors:
            raise errors[0]

    async def _note(self, done: list[Handled]) -> None:
        """Add to the progress; what cannot be written now is written the next time."""
        if not done:
            return
        name = self._record.name
        self._done[name] = self._done.get(name, Progress(name)).add(done)
        try:
            self._done[name] = await self._wiring.catalog.report(self._done[name])
        except SegueError as error:
            log.warning("schedule %s: its progress cannot be written: %s", name, error.message)

    async def _seen(self, due: list[datetime]) -> list[Seen]:
        """The runs of the schedule's latest due times and of these, as their homes know them.

        Raises:
            TransportUnavailable: A home does not answer.
        """
        record, namespace = self._record, self._wiring.subjects.namespace
        homes = await self._homes()
        asked: dict[str, set[tuple[datetime, str, bool]]] = defaultdict(set)
        handled = self._progress.latest(LOOK_BACK)
        for item in handled:
            if item.run:
                asked[item.home].add((item.due, item.run, item.what == "manual"))
        for time in {*due, *(item.due for item in handled if not item.run)}:
            for home in homes:
                asked[home].add((time, record.run(time, namespace).id, False))
        found: list[Seen] = []
        started = {item.run for item in handled if item.run}
        moved: dict[str, set[tuple[datetime, str, bool]]] = defaultdict(set)
        _, plan = await target(self._wiring.catalog, record)
        for home, runs in asked.items():
            for unknown in await self._known(home, runs, home in homes, found):
                if unknown[1] in started:
                    moved[holder(plan, "choreographed" if home == COORDINATOR else "orchestrated")].add(unknown)
        for home, runs in moved.items():
            await self._known(home, runs, False, found)
        return found

    async def _known(
        self, home: str, runs: set[tuple[datetime, str, bool]], must: bool, found: list[Seen]
    ) -> list[tuple[datetime, str, bool]]:
        """Find those that a home knows; the others."""
        questions = sorted(runs)
        try:
            replies = await self._ask(home, [Ask(run) for _, run, _ in questions])
        except TransportUnavailable as error:
            if must:
                raise
            log.warning("schedule %s: cannot ask %s for earlier runs: %s", self._record.name, home, error.message)
            return []
        unknown = []
        for (time, run, manual), reply in zip(questions, replies, strict=True):
            if isinstance(reply, Answer) and reply.known:
                found.append(Seen(time, run, home, bytes(reply.ended) == b"null", manual))
            else:
                unknown.append((time, run, manual))
        return unknown

    async def _homes(self) -> set[str]:
        """Where runs of the flow may be: at its home; for a while after a change of mode, at the other one too."""
        flow, plan = await target(self._wiring.catalog, self._record)
        lately = timedelta(seconds=flow.key_lifetime)
        both = flow.changed is not None and datetime.now(UTC) - flow.changed < lately
        return {holder(plan, mode) for mode in (MODES if both else (flow.mode,))}

    async def _cancel(self, runs: list[Seen]) -> None:
        for run in runs:
            (reply,) = await self._ask(run.home, [Cancel(run.run)])
            if isinstance(reply, Refused):
                log.warning("schedule %s: run %s cannot be cancelled: %s", self._record.name, run.run, reply.reason)

    async def _ask(self, home: str, questions: list[Request]) -> list[Reply]:
        subject = self._wiring.subjects.requests(home)
        answer = await self._wiring.transport.request(subject, requests.encode(questions), ANSWER)
        replies = requests.decode_replies(answer)
        again = [reply for reply in replies if isinstance(reply, Refused) and reply.retry]
        if again or len(replies) != len(questions):
            raise TransportUnavailable(again[0].reason if again else f"{home} left questions without answer")
        return replies


async def start_due(wiring: Wiring, starter: Starter, record: ScheduleRecord, due: datetime) -> Handled:
    """Start the run of a due time; starting it again changes nothing.

    Raises:
        UnknownFlow: The flow is not deployed any more.
        InvalidInput: The schedule's input does not fit the flow any more.
        NotAccepted: The home refused.
        TransportUnavailable: The home did not accept it in time.
    """
    flow, plan = await target(wiring.catalog, record)
    values = bind(None, plan, (), record.arguments(due))
    run = record.run(due, wiring.subjects.namespace)
    start = Start(record.flow, run.id, msgspec.Raw(msgspec.json.encode(values)), run.key, flow.plan, flow.mode)
    home, reply = await starter.send(start)
    if not isinstance(reply, Accepted):
        found = reply if isinstance(reply, Refused) else Refused(f"{home} answered with {type(reply).__name__}")
        raise (TransportUnavailable if found.retry else NotAccepted)(found.reason, found.hint)
    home = holder(plan, "choreographed" if reply.mode == "choreographed" else "orchestrated")
    return Handled(due, "started", run=reply.run, home=home)


async def start_by_hand(wiring: Wiring, name: str) -> tuple[ScheduleRecord, Handled]:
    """Start a run of a schedule now, as if it were due, paused or not, and whatever is open.

    Raises:
        UnknownSchedule: There is none of this name.
        SegueError: It could not be started.
    """
    record = wiring.catalog.schedule(name)
    async with task_group() as tasks:
        now = datetime.now(UTC).replace(microsecond=0)
        handled = await start_due(wiring, Starter(wiring, tasks), record, now)
    handled = msgspec.structs.replace(handled, what="manual")
    await wiring.catalog.report(Progress(name, (handled,)))
    return record, handled
