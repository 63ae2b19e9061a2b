"""What happens to due times while an earlier run of their schedule is open.

A schedule's due times are decided together, all that are due at one moment. So several that were missed overlap each
other, and whoever decides finds the same: the oldest is started, and what comes of the others is up to the policy.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Literal, NamedTuple

Overlap = Literal["skip", "allow", "buffer", "cancel"]
"""skip: nothing is started. allow: it is started beside the open run. buffer: the first one waits for the end of the
open run, the others are skipped. cancel: the open run is cancelled, the last one waits for its end."""


class Verdict(NamedTuple):
    """What is to be done about a due time; `started`: nothing, it has its run."""

    due: datetime
    what: Literal["start", "started", "wait", "skip"]
    why: str = ""


def decide(overlap: Overlap, due: Collection[datetime], started: Collection[datetime], busy: str) -> list[Verdict]:
    """Decide about due times, those that wait included.

    Args:
        overlap: The policy.
        due: The due times.
        started: Due times that have a run, open or ended; also others than those in question.
        busy: What is open, in words; "" if nothing is.

    Returns:
        A verdict on each due time, in order. Unless overlap is allowed, at most one of them starts, and only if nothing
        is open and no later due time has been started.
    """
    left = sorted(set(due) - set(started))
    there = [Verdict(time, "started") for time in due if time in started]
    if overlap == "allow":
        return sorted([*there, *(Verdict(time, "start") for time in left)])
    newest = max(started, default=None)
    late = [time for time in left if newest is not None and time < newest]
    left = left[len(late) :]
    verdicts = [*there, *(Verdict(time, "skip", "a later due time has been started") for time in late)]
    if overlap == "cancel":
        verdicts += [Verdict(time, "skip", "a later due time took its place") for time in left[:-1]]
        left = left[-1:]
    if left and not busy:
        verdicts.append(Verdict(left.pop(0), "start"))
        busy = "a run of an earlier due time starts now"
    if left and overlap in ("buffer", "cancel"):
        verdicts.append(Verdict(left.pop(0), "wait", busy))
        busy = "another due time waits already"
    verdicts += [Verdict(time, "skip", busy) for time in left]
    return sorted(verdicts)
