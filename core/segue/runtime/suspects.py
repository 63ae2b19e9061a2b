"""Calls that may have killed the process that made them: what was lost without a result begins anew, few at a time.

A redelivered call has no count of its own, so it gets a due row before it is made again; the row counts the attempts,
each before it begins. Whoever claims a row whose attempt was lost cannot know whether this call killed the process, a
neighbour did, or somebody pulled the plug. So the more attempts were lost, the fewer such calls run side by side: an
innocent call is soon apart from the guilty one, and the guilty one soon alone. Others go on meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from segue.ports.store import CellKey, Due
from segue.runtime import overdue
from segue.runtime.work import Job

if TYPE_CHECKING:
    from segue.runtime.participant import Participant

LOST = 5
"""Attempts in a row that may be lost with their process, if the step's retry policy does not grant more."""


class Lane(NamedTuple):
    """How many suspects run side by side, and for how many seconds each of them counts."""

    width: int
    seconds: float


FIRST, SECOND, ALONE = Lane(64, 1.0), Lane(8, 5.0), Lane(1, 60.0)


def lane(lost: int) -> Lane:
    """The lane after so many lost attempts: the last two run alone."""
    if lost >= LOST - 2:
        return ALONE
    return SECOND if lost == LOST - 3 else FIRST


class Suspects:
    """The suspects of a participant.

    Args:
        host: The participant.
    """

    def __init__(self, host: Participant) -> None:
        self._host = host
        self._waiting: dict[CellKey, tuple[Job, float]] = {}
        self._begun: dict[CellKey, tuple[Job, float]] = {}

    def wait(self, job: Job) -> None:
        """A lost call was claimed; it waits here for less than its lease, then its row falls due again."""
        self._waiting[job.cell] = job, self._host.clock() + overdue.LEASE * 2 / 3

    def ready(self) -> list[Job]:
        """Those that may begin now; the others wait."""
        host, now = self._host, self._host.clock()
        if host.stopping or not self._waiting:
            return []
        begun = self._begun.items()
        self._begun = {cell: (job, until) for cell, (job, until) in begun if cell in host.running and until > now}
        width = min((lane(job.lost).width for job, _ in self._begun.values()), default=FIRST.width)
        found = []
        for cell, (job, fresh) in sorted(self._waiting.items(), key=lambda item: item[1][0].lost):
            own = lane(job.lost)
            if fresh <= now or cell in host.running:
                del self._waiting[cell]
            elif len(self._begun) < min(width, own.width):
                del self._waiting[cell]
                self._begun[cell] = job, now + own.seconds
                width = min(width, own.width)
                found.append(job)
        return found

    def rows(self, at: float) -> list[Due]:
        """The rows of those that wait, due at `at`: their attempts did not begin."""
        waiting = [job for job, _ in self._waiting.values()]
        return [self._host.overdue.row(job, at, begun=False)._replace(attempt=job.attempt - 1) for job in waiting]
