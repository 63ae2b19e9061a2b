"""Subflows: a node of one run is a run of another flow, with its own plan, mode and history.

Whoever decides that the node runs starts the child, and asks again until its home has accepted it; the child's id
follows from the node, so it is one run. When it ends, its home publishes what came of the parent's node, just as a
service publishes what came of its step. A due row at the parent repeats the start now and then, which makes the home
of a child that has ended say so again. Cancelling goes down the same way, and so does undoing a child that completed:
its home stops it, and says that the parent's node is undone when nothing of it is left.
"""

from __future__ import annotations

import logging
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from segue.errors import PayloadTooLarge, SegueError, UnknownFlow
from segue.machine.facts import Cause, Fact, Failure, Key, Outcome, Reason, Undone
from segue.plan.graph import ENTRY
from segue.plan.projection import holder
from segue.ports.store import CellKey, CellKind
from segue.runtime.ids import child_run_id, is_child
from segue.runtime.saying import Origin, announced, said_again
from segue.runtime.work import Job, Returned, RunRef
from segue.wire import envelope, requests
from segue.wire.envelope import Ended, Event, Parent
from segue.wire.requests import Accepted, Cancel, Refused, Start
from segue.wire.said import say

if TYPE_CHECKING:
    from segue.runtime.participant import Participant
    from segue.runtime.turn import Turn

log = logging.getLogger("segue.families")

DEEPEST = 32
"""How deep runs may be nested: recursion ends with a failure."""

PATIENCE = 5.0
"""Seconds to wait for the home of a child."""


class Families:
    """Parents and children, on behalf of a participant.

    Args:
        host: The participant.
    """

    def __init__(self, host: Participant) -> None:
        self._host = host

    async def start(self, job: Job) -> None:
        """Start the run that a node stands for; its end will be heard, or what went wrong for good."""
        failed = await self._start(job)
        if failed is not None:
            self._host.put(failed)

    async def _start(self, job: Job) -> Returned | None:
        host, run = self._host, job.run
        node = run.plan.index.nodes[job.key.node]
        began = host.now()
        try:
            above = await self._parent_of(run)
            depth = (above.depth if above is not None else 0) + 1
            if depth > DEEPEST:
                return _failed(job, began, "RecursionCap", f"runs are nested more than {DEEPEST} deep")
            place = Parent(
                run.id, run.plan.flow, job.key.node, run.plan.hash, run.mode, job.key.tag, job.revision, run.key, depth
            )
            child = child_run_id(run.id, job.key.node, job.key.tag, job.revision)
            start = Start(node.step, child, parent=place)
            body = msgspec.json.encode(job.args)
            start = await host.values.enclose(start, body, f"the input of {node.step}")
            reply = await self._ask(node.step, start)
        except (UnknownFlow, PayloadTooLarge) as error:
            return _failed(job, began, type(error).__name__, error.message)
        except SegueError as error:
            log.warning("%s: starting %s for run %s: %s", host.name, node.step, run.id, error.message)
            return None
        if isinstance(reply, Refused) and not reply.retry:
            return _failed(job, began, "StartRefused", reply.reason)
        if not isinstance(reply, Accepted):
            log.info("%s: starting %s for run %s: %s", host.name, node.step, run.id, reply)
        return None

    async def cancel(self, job: Job) -> None:
        """Cancel the run that a node stands for.

        Asked again, it is started first: whoever was to start it may have died before.
        """
        if job.redrive:
            await self.start(job)
        await self._stop(job, "cancelled")

    async def undo(self, job: Job) -> None:
        """Undo the run that a node stands for, and that completed; that it is undone will be heard."""
        await self._stop(job, "undone")

    async def _stop(self, job: Job, reason: Reason) -> None:
        """Ask whoever may be the child's home, until one of them knows it; a due row or a redrive asks again."""
        node, run = job.run.plan.index.nodes[job.key.node], job.run.id
        request = Cancel(child_run_id(run, job.key.node, job.key.tag, job.revision), reason)
        trouble = ""
        try:
            for home in await self._homes(node.step):
                try:
                    reply = await self._request(home, request)
                except SegueError as error:
                    trouble += f"; {home}: {error.message}"
                    continue
                if not isinstance(reply, Refused):
                    return
                trouble += f"; {home}: {reply.reason}"
        except SegueError as error:
            trouble = f"; {error.message}"
        log.warning("%s: %s of run %s is to be %s%s", self._host.name, node.step, run, reason, trouble)

    async def over(self, turn: Turn) -> None:
        """Tell the parents of the runs that end, or are undone, in a turn."""
        ended = {end.run.cell(Key(ENTRY)): end.event for end in turn.draft.ended if is_child(end.run.id)}
        undone = {cell: redrive for cell, redrive in turn.draft.undone.items() if is_child(cell.run)}
        if not ended and not undone:
            return
        entries = await self._host.insist(partial(self._host.store.load, [*ended, *undone]))
        for cell, end in ended.items():
            await self.tell(turn, envelope.decode(entries[cell]), end)
        for cell, redrive in undone.items():
            entry = envelope.decode(entries[cell])
            parent = envelope.decode_parent(entry)
            if parent is not None:
                self._say(turn, parent, entry.run, Undone(Key(parent.node, parent.tag), parent.revision), redrive)

    async def tell(self, turn: Turn, entry: Event, end: Event) -> None:
        """Publish what came of a parent's node, if a run is a subflow."""
        parent = envelope.decode_parent(entry)
        if parent is None:
            return
        outcome = _outcome(parent, entry.flow, envelope.decode_ended(await self._host.opened(end)))
        self._say(turn, parent, end.run, Fact(Key(parent.node, parent.tag), outcome, parent.revision), end.redrive)

    def _say(self, turn: Turn, parent: Parent, child: str, fact: Fact | Undone, redrive: int) -> None:
        said, of = say(fact), Origin(parent.run, parent.plan, parent.flow, parent.key)
        event = announced(of, said, f"{self._host.source}/{child}", turn.draft.now, said.id(parent.run))
        _, raw = said_again(*self._host.values.encode(event), redrive)
        turn.draft.outbox.event(parent.mode, parent.flow, parent.node, event.kind, raw)

    async def _parent_of(self, run: RunRef) -> Parent | None:
        if not is_child(run.id):
            return None
        cell = CellKey(run.id, ENTRY, "", 1, CellKind.OUTCOME)
        raw = (await self._host.store.load([cell])).get(cell)
        return None if raw is None else envelope.decode_parent(envelope.decode(raw))

    async def _homes(self, flow: str) -> list[str]:
        catalog = self._host.catalog
        record = catalog.flows.get(flow) or await catalog.refresh(flow)
        plan = await catalog.plan(record.plan)
        if plan is None:
            raise UnknownFlow(f"plan {record.plan} of flow {flow!r} is not in the registry yet")
        first = holder(plan, record.mode)
        others = (holder(plan, "orchestrated"), holder(plan, "choreographed"))
        return [first, *(home for home in others if home != first)]

    async def _ask(self, flow: str, start: Start) -> requests.Reply:
        homes = await self._homes(flow)
        return await self._request(homes[0], start)

    async def _request(self, home: str, request: requests.Request) -> requests.Reply:
        subject = self._host.subjects.requests(home)
        answer = await self._host.transport.request(subject, requests.encode([request]), PATIENCE)
        return requests.decode_replies(answer)[0]


def _failed(job: Job, began: datetime, kind: str, message: str) -> Returned:
    return Returned(job, "failed", msgspec.json.encode(Failure(kind, message)), began)


def _outcome(parent: Parent, flow: str, ended: Ended) -> Outcome:
    """What the end of a child is to its parent."""
    if ended.status == "completed":
        return Outcome("completed", msgspec.json.decode(ended.value))
    if ended.status == "cancelled":
        return Outcome("cancelled", causes=(Cause(parent.node, parent.tag),))
    first = next((cause.error for cause in ended.causes if cause.error is not None), None)
    error = first or Failure("RunFailed", f"flow {flow} failed")
    names = tuple(dict.fromkeys((*error.bases, "RunFailed")))
    shown = Failure(error.type, f"{flow}: {error.message}", bases=names, value=error.value)
    return Outcome("failed", causes=(Cause(parent.node, parent.tag, shown),))
