"""Forgetting runs that are long over: rows, keys and large values at participants, history in the journal.

What a participant recorded stays after a run's end for as long as a message of it may be heard again: else a late
repetition would run steps anew. Run ids tell their age, so the oldest are looked at first. Only a run's home knows that
it is over, so the others ask it, many runs at a time; homes forget a day later, so that they still know. A run that no
home knows was forgotten there, or never begun; that counts only if all who may be a home have answered.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

import anyio
import anyio.lowlevel

from segue.errors import InvalidInput, SegueError
from segue.plan.graph import ENTRY
from segue.plan.projection import COORDINATOR
from segue.ports.journal import Journal
from segue.ports.store import CellKey, CellKind
from segue.runtime.ids import earliest_run_id
from segue.wire import envelope, requests
from segue.wire.requests import Answer, Ask, Purge, Purged, Refused

if TYPE_CHECKING:
    from segue.runtime.participant import Participant

log = logging.getLogger("segue.purge")

DAY = 86400.0

FIRST, EVERY = 60.0, 3600.0
"""Seconds until a process looks for old runs for the first time, and between two times."""

RUNS, ROWS = 100, 2_000
"""Runs that are looked at together, and rows that are deleted in one transaction."""

PATIENCE = 2.0
"""Seconds to wait for another participant's answer."""

State = Literal["over", "open", "young", "unsure"]


class Found(NamedTuple):
    """What is known of an old run: its flow if it has a home that knows it."""

    state: State
    flow: str = ""
    home: bool = False


class Purger:
    """Forgets old runs at a participant.

    Args:
        host: The participant.
    """

    def __init__(self, host: Participant) -> None:
        self._host = host
        self.keep = 0.0

    async def watch(self) -> None:
        """Look for old runs now and then, for ever, if they are not kept for ever."""
        if not self.keep:
            return
        await anyio.sleep(FIRST)
        while True:
            try:
                found = await self.sweep(Purge(self.keep))
                while found.after:
                    found = await self.sweep(Purge(self.keep, after=found.after))
            except SegueError as error:
                log.warning("%s: old runs are kept for now: %s", self._host.name, error.message)
            await anyio.sleep(EVERY)

    async def sweep(self, request: Purge) -> Purged:
        """Look at some old runs, and forget those that are over.

        Raises:
            InvalidInput: Runs are kept longer than that here.
            StoreUnavailable: The store or the object store does not answer.
        """
        if not math.isfinite(request.before) or request.before < max(self.keep, 0.001):
            raise InvalidInput(
                f"{self._host.name} keeps runs for {in_words(self.keep)} after their end (retention.state)",
                "what is heard again after its run was forgotten is taken for new: keep runs longer than events",
            )
        now = self._host.now().timestamp()
        bound = earliest_run_id(now - request.before)
        runs = await self._host.store.runs(request.after, bound, RUNS)
        known = await self._look(runs, now - request.before, min(DAY, request.before))
        states: Counter[State] = Counter()
        rows = 0
        for run in runs:
            state, flow, home = known[run]
            if request.flow and flow != request.flow:
                continue
            states[state] += 1
            if state == "over" and not request.dry:
                rows += await self._forget(run, home)
        after = runs[-1] if len(runs) == RUNS else ""
        return Purged(states["over"], rows, states["open"] + states["young"], states["unsure"], after)

    async def _forget(self, run: str, home: bool) -> int:
        if home:
            await self._host.values.forget(run)
        count = 0
        while (deleted := await self._host.store.purge(run, ROWS)) == ROWS:
            count += deleted
            await anyio.lowlevel.checkpoint()
        return count + deleted

    async def _look(self, runs: list[str], ended: float, margin: float) -> dict[str, Found]:
        """What is known of old runs; `ended` is when they must have ended, at home earlier by the margin."""
        host = self._host
        entries = await host.store.load([CellKey(run, ENTRY, "", 1, CellKind.OUTCOME) for run in runs])
        found: dict[str, Found] = {}
        for cell, raw in entries.items():
            if await host.catalog.plan(envelope.decode(raw).plan) is None:
                found[cell.run] = Found("unsure")  # whose home this is cannot be told
        for run in runs:
            reply = await host.reception.answer(Ask(run)) if run not in found else Answer(False)
            if isinstance(reply, Answer) and reply.known:
                found[run] = _judge(reply, ended - margin, True)
            elif isinstance(reply, Refused):
                found[run] = Found("unsure")
        rest = [run for run in runs if run not in found]
        silent = False
        for other in sorted({COORDINATOR, *host.catalog.services} - {host.name}):
            rest = [run for run in rest if run not in found]
            if not rest:
                break
            replies = await self._ask(other, rest)
            silent = silent or len(replies) != len(rest)
            for run, answer in zip(rest, replies, strict=False):
                if isinstance(answer, Answer) and answer.known:
                    found[run] = _judge(answer, ended, False)
                silent = silent or not isinstance(answer, Answer)
        return {run: found.get(run) or Found("unsure" if silent else "over") for run in runs}

    async def _ask(self, other: str, runs: Iterable[str]) -> list[requests.Reply]:
        subject = self._host.subjects.questions(other)
        body = requests.encode([Ask(run) for run in runs])
        try:
            return requests.decode_replies(await self._host.transport.request(subject, body, PATIENCE))
        except SegueError:
            return []


def _judge(answer: Answer, ended: float, home: bool) -> Found:
    if bytes(answer.ended) == b"null":
        return Found("open")
    event = envelope.decode(answer.ended)
    return Found("over" if event.time.timestamp() < ended else "young", event.flow, home)


def in_words(seconds: float) -> str:
    """A time for people: in days, if it is that long."""
    return f"{seconds / DAY:g} d" if seconds >= DAY else f"{seconds:g} s"


async def purge_journal(journal: Journal, before: float, flow: str = "", dry: bool = False) -> Purged:
    """Forget the history of runs that ended before a time (seconds since the epoch).

    Args:
        journal: The history.
        before: When they must have ended.
        flow: Only runs of this flow.
        dry: Change nothing, and only count.
    """
    after, over, rows, still = "", 0, 0, 0
    while True:
        runs = await journal.oldest(after, earliest_run_id(before), RUNS)
        for run in runs:
            if flow and run.flow != flow:
                continue
            if run.ended is None or run.ended.timestamp() >= before:
                still += 1
                continue
            over += 1
            deleted = ROWS if not dry else 0
            while deleted == ROWS:
                deleted = await journal.purge(run.run, ROWS)
                rows += deleted
        if len(runs) < RUNS:
            return Purged(over, rows, still)
        after = runs[-1].run
