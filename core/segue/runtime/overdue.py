"""Due rows: everything that must happen later, by one mechanism.

A row is claimed by pushing its time forward, so that a claimer that dies loses nothing. These have rows:

- a failed attempt: the next one, at the end of its backoff;
- a call that takes longer than a turn ("parked"): its row backs it, so that no message is held long; it is pushed
  forward while the call runs here, and another replica takes over if it is not;
- a call that was delivered again and has no result (`suspects`): whoever made it may have died of it;
- a node that waits for time, or for a signal and not for ever (`naps`);
- a run of another flow that a node stands for: its start is repeated now and then, until its end is heard;
- a run that is being moved, at who has granted it (`moving`);
- an open run, at its home ("guard"): overdue, the run's start is heard again with a new redrive number, and everybody
  who decided something repeats it once, so that whatever a broker lost is found on the way.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import anyio
import msgspec

from segue.errors import InvalidInput, ObjectLost, SegueError, TransportUnavailable
from segue.machine.facts import Placed
from segue.plan.graph import ENTRY, EXIT, RUN
from segue.plan.projection import COORDINATOR, Mode
from segue.ports.store import CellKey, CellKind, Due
from segue.runtime import backoff
from segue.runtime.pacing import Pace, spread
from segue.runtime.placing import placement, standing, truth
from segue.runtime.work import Job, News, Overdue, RunRef
from segue.wire import envelope
from segue.wire.envelope import Call

if TYPE_CHECKING:
    from segue.runtime.participant import Participant
    from segue.runtime.turn import Turn

log = logging.getLogger("segue.due")

RETRY = "segue.retry"
"""The type of the call in the row of an attempt that follows a failed one."""

POLL = 0.25
"""Seconds between looks at the due rows."""

LEASE = 15.0
"""Seconds for which a claimed or parked row belongs to its owner."""

SURVIVED = 600.0
"""Seconds after which a call that runs is not what kills its process, if that dies."""

PARK_AFTER = 1.0
"""Seconds after which a call is parked."""

GUARD_FIRST, GUARD_LAST = 30.0, 600.0
"""Seconds until an open run's start is repeated for the first time; doubling up to the second figure."""

CLAIM = 500
"""Rows that are claimed at a time."""

MORE = 0.05
"""Seconds until the next claim, if there were so many."""


def newest_end(cells: Mapping[CellKey, bytes]) -> bytes | None:
    """The end of a run's newest revision, among its cells; None if that has not ended."""
    revision = max((cell.revision for cell in cells if cell.kind == CellKind.RESET), default=1)
    ends = [raw for cell, raw in cells.items() if cell.node == EXIT and cell.revision == revision]
    return next((raw for raw in ends if envelope.decode(raw).kind == "ended"), None)


class DueRows:
    """The due rows of a participant.

    Args:
        host: The participant.
    """

    def __init__(self, host: Participant) -> None:
        self._host = host
        self._pace = Pace(host.values.limits.guards)
        self._next = 0.0
        self._woken = anyio.Event()

    async def watch(self) -> None:
        """Claim rows as they fall due, for ever."""
        while True:
            with anyio.move_on_after(self._pause()):
                await self._woken.wait()
            self._woken = anyio.Event()
            if not self._host.stopping:
                await self.claim()

    async def claim(self) -> None:
        """Claim the rows that are due and put them into the inbox."""
        host = self._host
        now = self._time()
        if now >= self._next:
            self._next = 0.0
        try:
            rows = await host.store.claim(now, LEASE, CLAIM, host.replica)
        except SegueError as error:
            log.warning("due rows: %s", error.message)
            return
        host.put(*(Overdue(row) for row in rows))
        if len(rows) == CLAIM:
            self.expect(now + MORE)

    def row(self, job: Job, at: float, again: bool = False, begun: bool = True) -> Due:
        """The row of a job that goes on at `at`.

        Args:
            job: The job.
            at: When somebody may claim it.
            again: Nothing runs until then: it is the next attempt.
            begun: Whether the job's attempt is lost if somebody claims the row.
        """
        begun = begun and job.attempt > 0
        survived = job.started and self._host.clock() - job.started >= SURVIVED
        self.expect(at)
        call = job.call(self._host.source, self._host.now())
        call = msgspec.structs.replace(call, lost=0 if again or survived else job.lost + begun)
        if again:
            call = msgspec.structs.replace(call, type=RETRY)
        if job.born:
            call = msgspec.structs.replace(call, time=datetime.fromtimestamp(job.born, UTC))
        return Due(job.row, at, job.attempt, self._host.values.encode(call)[1], self._host.replica)

    def expect(self, at: float) -> None:
        """A row will be due at `at`."""
        if not self._next or at < self._next:
            self._next = at
            self._woken.set()

    def park(self, turn: Turn) -> None:
        """Give calls that take long a due row, or push it forward; their deliveries need not wait any longer."""
        clock = self._host.clock()
        for job in self._host.running.values():
            if clock - job.started < PARK_AFTER or clock - job.parked_at < LEASE / 3:
                continue
            job.parked_at = clock
            if job.row in turn.draft.after:
                continue
            turn.draft.park(job, self._time() + LEASE)
            turn.draft.release(job.tickets)
            job.tickets = ()

    async def give_back(self) -> None:
        """Let other replicas go on at once with the parked calls that do not end here, which is not their fault."""
        now = self._time()
        rows = [self.row(job, now, begun=False) for job in self._host.running.values() if job.due]
        rows += self._host.suspects.rows(now)
        try:
            if rows:
                if self._host.values.pending:
                    await self._host.values.flush()
                await self._host.store.commit(due=rows)
        except SegueError as error:
            log.warning("due rows: %s", error.message)

    async def read(self, turn: Turn, rows: list[Due]) -> list[News]:
        """Turn claimed rows into jobs, and guards into news of their runs' starts."""
        guards, later = self._pace.sort([row for row in rows if row.key.node == EXIT], turn.draft.now.timestamp())
        turn.draft.due |= {row.key: row for row in later}
        news = await self._guards(turn, guards)
        jobs: list[Job] = []
        again: list[Job] = []
        for row, call, run in await self._calls(rows):
            node = run.plan.index.nodes[call.node]
            decided = node.id in self._host.role.mine(run.plan, run.mode)
            try:
                if node.kind not in ("step", "flow"):
                    await turn.naps.fired(row, run, call)
                    continue
                if node.kind == "flow" and not (decided and run.owns(row.key)):
                    turn.draft.after.append(row.key)  # it was moved, and has another row
                    continue
                job = self._host.reader.job(call, run)
            except (ObjectLost, TransportUnavailable) as error:
                log.warning("due row of run %s: %s; it comes again", row.key.run, error.message)
                continue
            except InvalidInput as error:
                log.error("due row of run %s, node %s: %s", row.key.run, row.key.node, error)
                continue
            job.attempt, job.due, job.born = row.attempt + 1, True, call.time.timestamp()
            job.lost = call.lost
            if job.cell in self._host.running:
                continue
            if call.type != RETRY and run.plan.index.nodes[call.node].kind == "step":
                self._host.suspects.wait(job)
                continue
            jobs.append(job)
            if call.type == RETRY and not job.undo:
                again.append(job)
        given_up = await backoff.begin(self._host, again)
        jobs = [job for job in jobs if job not in given_up]
        jobs += self._host.suspects.ready()
        for job in given_up:
            turn.effects.give_up(job)
            turn.draft.after.append(job.row)
        if jobs:
            repeated = await self._host.reader.launch(turn, jobs)
            there = {item.cell for item in repeated}
            turn.draft.after += [job.row for job in jobs if job.cell in there]
            news += repeated
            self._begin(turn, jobs)
        return news

    async def _calls(self, rows: list[Due]) -> list[tuple[Due, Call, RunRef]]:
        """The calls in rows, with their runs as they are placed now; runs that are being moved are gone on with."""
        found: list[tuple[Due, Call, RunRef]] = []
        for row in rows:
            if row.key.node == RUN:
                self._host.spawn(self._host.moving.drive, row)
            if row.key.node in (EXIT, RUN):
                continue
            try:
                call = await self._host.opened(envelope.decode_call(row.body))
                run = await self._host.reader.run_of(call, call.mode)
                found.append((row, call, run))
            except (ObjectLost, TransportUnavailable) as error:
                log.warning("due row of run %s: %s; it comes again", row.key.run, error.message)
            except (InvalidInput, LookupError) as error:
                log.error("due row of run %s, node %s: %s", row.key.run, row.key.node, error)
        placed = await self._host.placing.runs([run for _, _, run in found])
        return [(row, call, placed.get(run.id, run)) for row, call, run in found]

    def _begin(self, turn: Turn, jobs: list[Job]) -> None:
        """Record attempts before they begin; runs of other flows are asked for less and less often."""
        for job in jobs:
            if job.cell in turn.draft.jobs:
                kind = job.run.plan.index.nodes[job.key.node].kind
                pause = LEASE if kind == "step" else min(LEASE * 2.0**job.attempt, GUARD_LAST)
                turn.draft.due[job.row] = self.row(job, turn.draft.now.timestamp() + pause)
                job.parked_at = self._host.clock()

    async def _guards(self, turn: Turn, rows: list[Due]) -> list[News]:
        news: list[News] = []
        if not rows:
            return news
        keys = [CellKey(row.key.run, node, "", 1, CellKind.OUTCOME) for row in rows for node in (ENTRY, EXIT)]
        keys += [CellKey(row.key.run, RUN, "", 0, CellKind.NOTICED) for row in rows]
        found = await self._host.insist(partial(self._host.store.load, keys))
        mode: Mode = "orchestrated" if self._host.name == COORDINATOR else "choreographed"
        for row in rows:
            entry = CellKey(row.key.run, ENTRY, "", 1, CellKind.OUTCOME)
            ended = found.get(entry._replace(node=EXIT))
            now: Placed | None = None
            cells: Mapping[CellKey, bytes] = {}
            noticed = CellKey(row.key.run, RUN, "", 0, CellKind.NOTICED) in found
            if noticed:
                cells = truth(await self._host.insist(partial(self._host.store.scan, [row.key.run])))
                ended, now = newest_end(cells), placement(cells)
            raw = ended or found.get(entry)
            attempt = row.attempt + 1
            if raw is None:
                turn.draft.after.append(row.key)  # bound, but never accepted
                continue
            event = envelope.decode(raw)
            try:
                run: RunRef = await self._host.reader.run_of(event, mode)
            except TransportUnavailable as error:
                log.warning("the guard of run %s: %s; it comes again", row.key.run, error.message)
                continue
            except LookupError as error:
                log.error("run %s: %s", row.key.run, error)
                continue
            if now is not None:
                run = run._replace(mode=now.mode, epoch=now.epoch)
            if ENTRY not in self._host.role.mine(run.plan, run.mode):
                self._moved(turn, row, run, cells)
                continue
            if not run.owns(row.key):
                turn.draft.after.append(row.key)
                continue
            item = await turn.news(run, event, raw)
            if item is not None:
                item.recorded, item.redrive = True, attempt
                turn.draft.publish(item)
            if ended is not None and not noticed:
                await self._repeat(turn, run, attempt)
            if ended is not None or item is None:
                turn.draft.after.append(row.key)  # recorded, but perhaps not published before a crash
                if item is not None and noticed:
                    turn.whole.wake(turn.view(run))
                    news.append(item)
                continue
            log.info("run %s of %s is overdue: repeating its start (%d)", run.id, event.flow, attempt)
            news.append(item)
            pause = spread(run.id, attempt, min(GUARD_FIRST * 2 ** min(attempt, 10), GUARD_LAST))
            turn.draft.due[row.key] = Due(row.key, turn.draft.now.timestamp() + pause, attempt, b"")
        return news

    def _moved(self, turn: Turn, row: Due, run: RunRef, cells: Mapping[CellKey, bytes]) -> None:
        """The guard of a run that was moved from here: until it has got there, the guard sees to it that it does."""
        _, moving = standing(run.plan, self._host, run.id, cells)
        if moving is None:
            turn.draft.after.append(row.key)
        else:
            self._host.moving.go_on(turn, run)
            turn.draft.due[row.key] = row._replace(at=turn.draft.now.timestamp() + GUARD_FIRST)

    async def _repeat(self, turn: Turn, run: RunRef, redrive: int) -> None:
        """Publish what was recorded here of a run that has ended: nothing else will, if a crash came in between."""
        host = self._host
        emits = host.role.emits(run.plan, run.mode)
        for cell, raw in (await host.insist(partial(host.store.scan, [run.id]))).items():
            if cell.kind != CellKind.OUTCOME or cell.node == EXIT:
                continue
            event = envelope.decode(raw)
            # What has attempts was executed, and is published whoever listens.
            if event.source == host.source and (event.attempt > 0 or event.node in emits):
                item = await turn.news(run, event, raw)
                if item is not None:
                    item.redrive = redrive
                    turn.draft.publish(item)

    def _pause(self) -> float:
        return max(0.0, min(POLL, self._next - self._time())) if self._next else POLL

    def _time(self) -> float:
        return self._host.now().timestamp()
