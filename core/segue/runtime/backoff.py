"""Calls that wait for their next attempt: whether it begins is one cell, and a withdrawal may take it first (R11).

An attempt that fails and will be repeated leaves a mark. From then on the next one has a slot, put-if-absent: whoever
begins it takes the slot, and so does a replica that heard meanwhile that the call is not needed. A call is declared
cancelled at once if its slot went to the withdrawal: nothing of it runs anywhere, nor will. The failed attempt and the
withdrawal look for each other after each has recorded itself, so whoever of them is second finds the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from segue.ports.store import Cell, CellKey, CellKind
from segue.runtime.work import Job

if TYPE_CHECKING:
    from segue.runtime.participant import Participant
    from segue.runtime.turn import Turn

_FAILED, _ATTEMPT, _GIVEN_UP = ":failed.", ":attempt.", b"withdrawn"


def withdrawn(job: Job) -> CellKey:
    """Where it is recorded that a call is not needed any more."""
    return job.run.mark(f"{job.key.node}:withdrawn", job.key.tag, job.revision, CellKind.SENT)


def failed(job: Job) -> CellKey:
    """Where it is recorded that an attempt failed, and that another one follows."""
    return _numbered(job, _FAILED, job.attempt)


def _numbered(job: Job, what: str, number: int) -> CellKey:
    return job.run.mark(f"{job.key.node}{what}{number}", job.key.tag, job.revision, CellKind.SENT)


async def begin(host: Participant, jobs: Sequence[Job]) -> list[Job]:
    """Take the slots of attempts that follow failed ones.

    Args:
        host: The participant.
        jobs: Calls whose backoff is over, with the number of the attempt.

    Returns:
        Those that were withdrawn, and are not to begin.
    """
    if not jobs:
        return []
    slots = {_numbered(job, _ATTEMPT, job.attempt): job for job in jobs}
    lost = (await host.insist(partial(host.store.commit, [Cell(slot, b"") for slot in slots]))).lost
    there = await host.insist(partial(host.store.load, [withdrawn(job) for job in jobs]))
    return [job for slot, job in slots.items() if lost.get(slot) == _GIVEN_UP or withdrawn(job) in there]


async def failing(turn: Turn, jobs: Sequence[Job]) -> None:
    """Calls whose attempts have just failed: those that were withdrawn meanwhile, or should be, are given up."""
    if jobs:
        await turn.commit()
        views = [view for job in jobs if (view := turn.view(job.run)).mine]
        await turn.loads.notices(views)
        for view in views:
            if view.noticed:
                turn.whole.wake(view)
        there = await turn.host.insist(partial(turn.host.store.load, [withdrawn(job) for job in jobs]))
        await relieve(turn, [job for job in jobs if withdrawn(job) in there])


async def relieve(turn: Turn, jobs: Sequence[Job]) -> None:
    """Withdrawn calls: those that wait for their next attempt are declared cancelled."""
    if not jobs:
        return
    await turn.commit()
    host = turn.host
    cells = await host.insist(partial(host.store.scan, list({job.run.id for job in jobs})))
    slots: dict[CellKey, Job] = {}
    for job in jobs:
        last = _last(job, cells)
        if last:
            slots[_numbered(job, _ATTEMPT, last + 1)] = job
    if not slots:
        return
    lost = (await host.insist(partial(host.store.commit, [Cell(slot, _GIVEN_UP) for slot in slots]))).lost
    for slot, job in slots.items():
        if lost.get(slot, _GIVEN_UP) == _GIVEN_UP and job.cell not in cells:
            turn.effects.give_up(job)
            turn.draft.after.append(job.row)


def _last(job: Job, cells: Iterable[CellKey]) -> int:
    """The number of the last attempt that failed and is to be repeated; 0 if none is."""
    prefix, place = f"{job.key.node}{_FAILED}", (job.run.id, job.key.tag, job.revision)
    numbers = [
        int(cell.node.removeprefix(prefix))
        for cell in cells
        if cell.node.startswith(prefix) and (cell.run, cell.tag, cell.revision) == place
    ]
    return max(numbers, default=0)
