"""What a turn is about to write, publish, call and acknowledge; put together by its phases, carried out at its end."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from segue.machine.step import joins
from segue.ports.store import Cell, CellKey, Due, DueKey, Join
from segue.runtime.outbox import Outbox
from segue.runtime.work import Job, Mark, News, RunRef, Ticket
from segue.wire.envelope import Event

if TYPE_CHECKING:
    from segue.runtime.participant import Participant


class Draft:
    """The effects of a turn.

    Attributes:
        now: The time of everything that the turn decides.
        cells: Facts to record, with the news that they come from (a parked call has none).
        due: Due rows to write.
        done: Due rows to delete with the next commit.
        after: Due rows to delete in the next turn, when their effects are published.
        jobs: Calls to make.
        ended: Runs that end here, with the event and its bytes.
        seen: News that were handled.
        held: Deliveries to acknowledge, unless something still waits for them.
        unknown: Deliveries to hand back: their plan is not known yet.
        broken: Deliveries for the dead letters, with the reason.
    """

    def __init__(self, host: Participant) -> None:
        self.now = datetime.now(UTC)
        self.outbox = Outbox(host.subjects, host.transport.capabilities.max_bytes)
        self.cells: dict[CellKey, tuple[Cell, News | None]] = {}
        self.due: dict[DueKey, Due] = {}
        self.done: list[DueKey] = []
        self.after: list[DueKey] = []
        self.jobs: dict[CellKey, Job] = {}
        self.ended: list[tuple[RunRef, Event, bytes]] = []
        self.seen: list[Mark] = []
        self.held: list[Ticket] = []
        self.unknown: list[Ticket] = []
        self.broken: list[tuple[Ticket, str]] = []
        self._host = host

    def keep(self, news: News) -> None:
        """Record a fact, and count it for the joins here that it feeds."""
        run, revision = news.run, news.fact.revision
        counted = joins(run.plan, news.fact.key, self._host.role.mine(run.plan, run.mode))
        fed = tuple([Join(run.id, key.node, key.tag, revision) for key in counted])
        self.cells[news.cell] = Cell(news.cell, news.raw, fed), news

    def publish(self, news: News) -> None:
        """Publish the event of a fact."""
        event = news.event
        self.outbox.event(news.run.mode, event.flow, event.node, event.kind, news.raw)

    def job(self, job: Job) -> None:
        """Make a call, unless it is under way here: then its deliveries wait for it too."""
        running = self._host.running.get(job.cell) or self.jobs.get(job.cell)
        if running is None:
            self.jobs[job.cell] = running = job
            fresh = job.tickets
        elif running.due:
            return  # its due row stands behind it, not the deliveries
        else:
            fresh = tuple(ticket for ticket in job.tickets if ticket not in running.tickets)
            running.tickets += fresh
        for ticket in fresh:
            ticket.holds += 1

    def park(self, job: Job, at: float) -> None:
        """Give a call a due row; until its outcome is known, nothing else goes on with it."""
        self.due[DueKey(job.run.id, *job.key)] = self._host.overdue.row(job, at)
        if not job.due:
            self.cells[job.parking] = Cell(job.parking, b""), None
        job.due = True

    def release(self, tickets: tuple[Ticket, ...]) -> None:
        """Something that deliveries waited for is over."""
        for ticket in tickets:
            ticket.holds -= 1
            self.held.append(ticket)

    async def settle(self) -> None:
        """Acknowledge deliveries that nothing waits for; hand back or discard those that could not be read."""
        ready = [ticket for ticket in dict.fromkeys(self.held) if ticket.holds == 0]
        for consumer in {id(ticket.consumer): ticket.consumer for ticket in ready}.values():
            await consumer.ack([ticket.delivery for ticket in ready if ticket.consumer is consumer])
        for ticket in self.unknown:
            await ticket.consumer.retry([ticket.delivery], 1.0)
        for ticket, reason in self.broken:
            await ticket.consumer.discard([ticket.delivery], reason)
