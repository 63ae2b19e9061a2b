"""Other replicas of a participant, at work on the same runs in the same moment: who goes on.

Two replicas may derive one gateway from different inputs. Whoever recorded it goes on; the other one neither says it
nor calls what follows, since the deliveries that the first one still holds stand behind it. And a run may get its
first notice while a turn decides as if it had none: the store refuses these decisions, and the run is looked at as a
whole. If it was moved away meanwhile, nothing of the turn is said or done: this is where the fence of `placing` stands.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING

from segue.machine.facts import Fact, Undone
from segue.plan.graph import RUN
from segue.ports.store import Cell, CellKey, CellKind, Committed, Join
from segue.runtime.placing import Overtaken
from segue.runtime.view import View
from segue.runtime.work import Job, News
from segue.wire import envelope

if TYPE_CHECKING:
    from segue.runtime.turn import Turn

NEVER = b"never"
"""In the place of the mark of a call that was sent: it has not begun and is cancelled, so it never will be."""

Written = dict[CellKey, tuple[Cell, News | None]]


class Rivals:
    """What others decided during a turn.

    Args:
        turn: The turn.

    Attributes:
        plain: Choices that rest on decisions which the store may refuse.
    """

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._host = turn.host
        self._draft = turn.draft
        self._ceded: set[CellKey] = set()
        self._refused: set[CellKey] = set()
        self._woken: set[str] = set()
        self.plain: list[News] = []

    def jobs(self) -> list[Job]:
        """The calls of this turn, without those that somebody else makes."""
        jobs = self._draft.jobs
        if self._ceded or self._refused:
            for job in list(jobs.values()):
                if self._cedes(job):
                    self._draft.drop(job)
        return list(jobs.values())

    def _cedes(self, job: Job) -> bool:
        view = self._turn.views.get(job.run.id)
        if view is None or job.due:
            return False
        sources = view.sources(job.key)
        cells = {job.run.cell(source, job.revision) for source in sources}
        if not cells.isdisjoint(self._refused):
            return True
        if view.noticed or cells.isdisjoint(self._ceded):
            return False
        return len(sources) < 2 or Join(job.run.id, *job.key, job.revision) not in self._turn.complete

    async def found(self, written: Written, result: Committed) -> None:
        """A commit is through: what others had recorded is not said here, and counts instead."""
        for key, (cell, news) in written.items():
            if news is None:
                continue
            if key in result.refused:
                self._refused.add(key)
                self._woken.add(key.run)
                self._draft.take_back(news)
                # What follows from it is found again, with the notices in view.
                self._draft.naps = [nap for nap in self._draft.naps if nap[0].id != key.run]
                dropped = [choice for choice in self.plain if choice.run.id == key.run]
                self._turn.choices = [choice for choice in self._turn.choices if choice not in dropped]
                self._turn.whole.wake(self._turn.view(news.run))
                continue
            if isinstance(news.fact, Fact | Undone):
                self._draft.forget(news.run, news.fact)
            if key in result.lost and not news.event.attempt and not self.recount(cell, news, result.lost):
                self._ceded.add(key)
            if result.lost.get(key, news.raw) != news.raw and news.decided:
                await self._lost(news, result.lost[key])

    def recount(self, cell: Cell, news: News | None, lost: dict[CellKey, bytes]) -> bool:
        """Whether a fact that was there before may not have led on; else whoever has just recorded it is at it."""
        if cell.key not in lost:
            return False
        return news is None or news.repeated or self._turn.again or lost[cell.key] == cell.value

    async def _lost(self, news: News, raw: bytes) -> None:
        """A decision that somebody else has recorded; one of them may have died before it said so."""
        self._draft.take_back(news)
        found = await self._turn.news(news.run, envelope.decode(raw), raw)
        if found is None:
            return
        found.recorded, found.redrive = True, news.redrive
        if not isinstance(found.fact, Fact):
            self._turn.later.append(found)
        elif (news.repeated or self._turn.again) and self._turn.effects.said(self._turn.view(news.run), found.fact):
            self._draft.publish(found)

    async def overtaken(self) -> bool:
        """Find runs that got their first notice elsewhere in this turn; False if there are none.

        A run is noticed before it is moved, so one load of one cell of each run tells both.

        Raises:
            Overtaken: A run was moved away, and what was decided here is neither to be said nor done.
        """
        woken, self._woken = self._woken, set()
        await self.recheck(woken)
        asked: dict[CellKey, View] = {}
        acted = dict(self._turn.acted)
        for job in self._draft.jobs.values():
            view = self._turn.views.get(job.run.id)
            if view is not None and view.noticed is False:
                asked[job.run.noticed] = view
            elif self._host.role.mine(job.run.plan, job.run.mode):
                acted.setdefault(job.run.id, job.run.epoch)
        fence = [CellKey(run, RUN, "", epoch + 1, CellKind.PLACED) for run, epoch in acted.items()]
        cells = [*asked, *fence]
        there = await self._host.insist(partial(self._host.store.load, cells)) if cells else {}
        away = sorted(cell.run for cell in there if cell.kind == CellKind.PLACED)
        if away:
            raise Overtaken(f"{self._host.name}: run {', '.join(away)} was moved meanwhile")
        for cell in there:
            self._turn.whole.wake(asked[cell])
        await self.recheck({cell.run for cell in there})
        return bool(there)

    async def recheck(self, runs: Collection[str]) -> None:
        """Calls of runs that have just got their first notice begin, unless they have been given up.

        Whoever records a first notice marks the calls that it sees to be ready as begun. It may not have seen what
        this turn recorded, or this turn may have stood still for long; so they are marked here too.
        """
        jobs = [job for job in self.jobs() if job.run.id in runs and not job.undo]
        if not jobs:
            return
        for job in jobs:
            self._draft.mark(job.sending)
        lost = await self._turn.commit()
        over = await self._host.insist(partial(self._host.store.load, [job.cell for job in jobs]))
        for job in jobs:
            if lost.get(job.sending) == NEVER or job.cell in over:
                self._draft.drop(job)
