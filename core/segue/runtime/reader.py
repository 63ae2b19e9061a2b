"""Reads deliveries: events become news of facts, calls become jobs, or the repetition of a recorded result."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from segue.errors import InvalidInput, ObjectLost, TransportUnavailable
from segue.machine.facts import Fact, Key
from segue.plan.graph import Node
from segue.plan.projection import Mode
from segue.ports.tracing import Place
from segue.runtime import backoff
from segue.runtime.backoff import withdrawn
from segue.runtime.tickets import Ticket
from segue.runtime.work import Arrived, Job, News, RunRef
from segue.wire import envelope
from segue.wire.envelope import Call
from segue.wire.rights import check_place
from segue.wire.said import fact_of

if TYPE_CHECKING:
    from segue.runtime.participant import Participant
    from segue.runtime.turn import Turn

log = logging.getLogger("segue.reader")

SETTLED = 3.0
"""Seconds after which a call that is under way at some replica has a due row; what has none by then is called again."""


class Reader:
    """Reads what was delivered to a participant.

    Args:
        host: The participant.
    """

    def __init__(self, host: Participant) -> None:
        self._host = host

    async def read(self, turn: Turn, arrived: list[Arrived]) -> list[News]:
        """Turn deliveries into news and jobs; what cannot be read goes to the dead letters, neighbours stay."""
        news: list[News] = []
        jobs: list[Job] = []
        for ticket in (item.ticket for item in arrived):
            trouble = await self._read(turn, ticket, news, jobs)
            if trouble is None:
                turn.draft.held.append(ticket)
            elif isinstance(trouble, InvalidInput):
                log.error("unreadable message on %s: %s", ticket.delivery.subject, trouble.message)
                turn.draft.broken.append((ticket, trouble.message))
            else:
                log.warning("message on %s handed back: %s", ticket.delivery.subject, trouble)
                turn.draft.unknown.append(ticket)
        if jobs:
            news += await self.launch(turn, jobs)
        return news

    async def _read(self, turn: Turn, ticket: Ticket, news: list[News], jobs: list[Job]) -> Exception | None:
        """Read one message; what is wrong with one of its events does not hold up the others."""
        delivery = ticket.delivery
        commands = delivery.subject.startswith(self._host.commands_prefix)
        try:
            parts = envelope.split(delivery.body)
        except InvalidInput as error:
            return error
        trouble: Exception | None = None
        for raw in parts:
            try:
                if commands:
                    call = await self._host.opened(envelope.decode_call(raw))
                    jobs.append(self.job(call, await self.run_of(call, call.mode), (ticket,)))
                elif (item := await self._event(turn, bytes(raw), ticket)) is not None:
                    news.append(item)
            except (InvalidInput, LookupError, ObjectLost, TransportUnavailable) as error:
                trouble = error
        return trouble

    def _withdraw(self, turn: Turn, job: Job, parked: bool) -> None:
        """A call is not needed any more; if it neither runs nor has a due row for long, it is declared cancelled."""
        turn.draft.mark(withdrawn(job))
        self._host.role.withdraw(turn, job)
        if job.redrive and not parked and job.cell not in self._host.running:
            turn.effects.give_up(job)

    async def launch(self, turn: Turn, jobs: list[Job]) -> list[News]:
        """Make calls, except those whose result is recorded: it is published again."""
        cells = [cell for job in jobs for cell in (job.cell, job.parking)]
        found = await self._host.insist(partial(self._host.store.load, cells))
        news, waiting = [], []
        for job in jobs:
            raw = found.get(job.cell)
            if raw is None:
                parked = job.parking in found and not job.due
                if job.withdrawn:
                    self._withdraw(turn, job, parked)
                    waiting += [job] if parked and job.cell not in self._host.running else []
                elif job.perhaps and not parked and job.cell not in self._host.running:
                    job.perhaps, job.attempt = False, 0
                    again = turn.draft.now.timestamp() + SETTLED
                    turn.draft.due[job.row] = self._host.overdue.row(job, again, again=True)
                elif not parked:
                    turn.draft.job(job)
                continue
            item = await turn.news(job.run, envelope.decode(raw), raw, job.tickets)
            if item is not None:
                item.recorded, item.redrive = True, job.redrive
                turn.draft.publish(item)
                news.append(item)
        await backoff.relieve(turn, waiting)
        return news

    def job(self, call: Call, run: RunRef, tickets: tuple[Ticket, ...] = ()) -> Job:
        """The job that a call asks for.

        Raises:
            InvalidInput: The plan has no such node, or it is not a step of this service.
        """
        node = run.plan.index.nodes.get(call.node)
        if node is None or not self._executes(node):
            raise InvalidInput(f"{call.flow}/{call.node} is no step of {self._host.name}")
        try:
            args = msgspec.json.decode(call.data, type=dict)
        except msgspec.MsgspecError as error:
            raise InvalidInput(f"call {call.id} has broken arguments: {error}") from None
        inputs = tuple(Place(*place) for place in call.inputs)
        job = Job(run, Key(call.node, call.tag), call.revision, args, inputs, tickets)
        job.redrive, job.since = call.redrive, call.since
        job.undo, job.withdrawn, job.perhaps = call.undo, call.withdraw, call.perhaps
        return job

    def _executes(self, node: Node) -> bool:
        return node.kind == "flow" or (node.kind == "step" and node.owner == self._host.name)

    async def run_of(self, message: Call | envelope.Event, mode: str) -> RunRef:
        """The run that a message belongs to.

        Raises:
            LookupError: Its plan is not known here and not in the registry.
        """
        plan = self._host.catalog.plans.get(message.plan) or await self._host.catalog.plan(message.plan)
        if plan is None:
            raise LookupError(f"plan {message.plan} of flow {message.flow} is not in the registry")
        placed: Mode = "choreographed" if mode == "choreographed" else "orchestrated"
        epoch = message.epoch if isinstance(message, Call) else 1
        return RunRef(message.run, plan, placed, message.key, epoch)

    async def _event(self, turn: Turn, raw: bytes, ticket: Ticket) -> News | None:
        event = envelope.decode(raw)
        if event.source == self._host.source:
            return None  # decided here, and recorded before it was published
        subject = ticket.delivery.subject
        run = await self.run_of(event, self._host.subjects.mode(subject))
        check_place(self._host.subjects, run.plan, event, subject)
        fact = fact_of(await self._host.opened(event))
        if fact is None or (isinstance(fact, Fact) and fact.key.node not in run.plan.index.nodes):
            return None
        news = News(run, fact, event, raw, (ticket,))
        if news.mark not in self._host.seen or not isinstance(fact, Fact):
            return news
        # Handled by this process before; if calls that follow from it are still under way, this delivery waits too.
        for down in run.plan.index.downs[fact.key.node]:
            job = self._host.running.get(run.cell(Key(down, fact.key.tag), fact.revision))
            if job is not None:
                turn.draft.job(Job(run, job.key, job.revision, job.args, job.inputs, (ticket,)))
        return None
