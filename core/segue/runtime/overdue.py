"""Due rows: everything that must happen later, by one mechanism.

A row is claimed by pushing its time forward, so that a claimer that dies loses nothing. Three things have rows:

- a failed attempt: the next one, at the end of its backoff;
- a call that takes longer than a turn ("parked"): its row backs it, so that no message is held long; it is pushed
  forward while the call runs here, and another replica takes over if it is not;
- an open run, at its home ("guard"): overdue, the run's start is heard again with a new redrive number, and everybody
  who decided something repeats it once, so that whatever a broker lost is found on the way.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING

import anyio
import msgspec

from segue.errors import InvalidInput, SegueError
from segue.plan.graph import ENTRY, EXIT
from segue.plan.projection import COORDINATOR, Mode
from segue.ports.store import CellKey, CellKind, Due, DueKey
from segue.runtime.work import Job, News, Overdue, RunRef
from segue.wire import envelope

if TYPE_CHECKING:
    from segue.runtime.participant import Participant
    from segue.runtime.turn import Turn

log = logging.getLogger("segue.due")

POLL = 0.25
"""Seconds between looks at the due rows."""

LEASE = 15.0
"""Seconds for which a claimed or parked row belongs to its owner."""

PARK_AFTER = 1.0
"""Seconds after which a call is parked."""

GUARD_FIRST, GUARD_LAST = 30.0, 600.0
"""Seconds until an open run's start is repeated for the first time; doubling up to the second figure."""

CLAIM = 500


class DueRows:
    """The due rows of a participant.

    Args:
        host: The participant.
    """

    def __init__(self, host: Participant) -> None:
        self._host = host
        self._next = 0.0
        self._woken = anyio.Event()

    async def watch(self) -> None:
        """Claim rows as they fall due and put them into the inbox, for ever."""
        host = self._host
        while True:
            with anyio.move_on_after(self._pause()):
                await self._woken.wait()
            self._woken = anyio.Event()
            now = time.time()
            if now >= self._next:
                self._next = 0.0
            if host.stopping:
                continue
            try:
                rows = await host.store.claim(now, LEASE, CLAIM, host.replica)
            except SegueError as error:
                log.warning("due rows: %s", error.message)
                continue
            host.put(*(Overdue(row) for row in rows))

    def row(self, job: Job, at: float) -> Due:
        """The row of a job that goes on at `at`."""
        if not self._next or at < self._next:
            self._next = at
            self._woken.set()
        call = job.call(self._host.source, self._host.now())
        return Due(DueKey(job.run.id, *job.key), at, job.attempt, envelope.encode(call), self._host.replica)

    def park(self, turn: Turn) -> None:
        """Give calls that take long a due row, or push it forward; their deliveries need not wait any longer."""
        clock = time.monotonic()
        for job in self._host.running.values():
            if clock - job.since < PARK_AFTER or clock - job.parked_at < LEASE / 3:
                continue
            job.parked_at = clock
            if DueKey(job.run.id, *job.key) in turn.draft.after:
                continue
            turn.draft.park(job, time.time() + LEASE)
            turn.draft.release(job.tickets)
            job.tickets = ()

    async def give_back(self) -> None:
        """Let other replicas go on at once with the parked calls that do not end here."""
        now = time.time()
        rows = [self.row(job, now) for job in self._host.running.values() if job.due]
        try:
            if rows:
                await self._host.store.commit(due=rows)
        except SegueError as error:
            log.warning("due rows: %s", error.message)

    async def read(self, turn: Turn, rows: list[Due]) -> list[News]:
        """Turn claimed rows into jobs, and guards into news of their runs' starts."""
        news = await self._guards(turn, [row for row in rows if row.key.node == EXIT])
        jobs = []
        for row in rows:
            if row.key.node == EXIT:
                continue
            try:
                call = envelope.decode_call(row.body)
                job = self._host.reader.job(call, await self._host.reader.run_of(call, call.mode))
            except (InvalidInput, LookupError) as error:
                log.error("due row of run %s, node %s: %s", row.key.run, row.key.node, error)
                continue
            job.attempt, job.due = row.attempt + 1, True
            if job.cell not in self._host.running:
                jobs.append(job)
        if jobs:
            repeated = await self._host.reader.launch(turn, jobs)
            turn.draft.after += [DueKey(item.run.id, *item.fact.key) for item in repeated]
            news += repeated
        return news

    async def _guards(self, turn: Turn, rows: list[Due]) -> list[News]:
        news: list[News] = []
        if not rows:
            return news
        keys = [CellKey(row.key.run, node, "", 1, CellKind.OUTCOME) for row in rows for node in (ENTRY, EXIT)]
        found = await self._host.insist(partial(self._host.store.load, keys))
        mode: Mode = "orchestrated" if self._host.name == COORDINATOR else "choreographed"
        for row in rows:
            entry = CellKey(row.key.run, ENTRY, "", 1, CellKind.OUTCOME)
            ended = found.get(entry._replace(node=EXIT))
            raw = ended or found.get(entry)
            attempt = row.attempt + 1
            if raw is None:
                turn.draft.after.append(row.key)  # bound, but never accepted
                continue
            event = msgspec.structs.replace(envelope.decode(raw), redrive=attempt)
            try:
                run: RunRef = await self._host.reader.run_of(event, mode)
            except LookupError as error:
                log.error("run %s: %s", row.key.run, error)
                continue
            item = turn.news(run, event, envelope.encode(event))
            if item is not None:
                item.recorded = True
                turn.draft.publish(item)
            if ended is not None or item is None:
                turn.draft.after.append(row.key)  # recorded, but perhaps not published before a crash
                continue
            log.info("run %s of %s is overdue: repeating its start (%d)", run.id, event.flow, attempt)
            news.append(item)
            pause = min(GUARD_FIRST * 2**attempt, GUARD_LAST)
            turn.draft.due[row.key] = Due(row.key, turn.draft.now.timestamp() + pause, attempt, b"")
        return news

    def _pause(self) -> float:
        return max(0.0, min(POLL, self._next - time.time())) if self._next else POLL
