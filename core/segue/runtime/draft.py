"""What a turn is about to write, publish, call and acknowledge; put together by its phases, carried out at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segue.machine.facts import Fact, Key, Listen, Sleep, Undone
from segue.machine.step import joins
from segue.plan.names import EXIT, TIMER, watching
from segue.ports.store import Cell, CellKey, CellKind, Due, DueKey, Join
from segue.runtime.backoff import failed
from segue.runtime.outbox import Outbox
from segue.runtime.overdue import LEASE, PARK_AFTER
from segue.runtime.saying import said_again
from segue.runtime.sizes import counter
from segue.runtime.tickets import Ticket
from segue.runtime.work import Job, Mark, News, RunRef, undoing
from segue.wire import envelope, requests
from segue.wire.requests import Nap

if TYPE_CHECKING:
    from segue.runtime.participant import Participant


class Draft:
    """The effects of a turn.

    Attributes:
        me: This replica, as the value of marks.
        now: The time of everything that the turn decides.
        cells: Facts to record, with the news that they come from (a mark has none).
        due: Due rows to write.
        done: Due rows to delete with the next commit.
        after: Due rows to delete in the next turn, when their effects are published.
        jobs: Calls to make.
        naps: Nodes that wait for time or a signal, and have just begun to.
        ended: Ends of runs that are decided here.
        undone: Entries of completed runs that are undone, which their parents hear of, with a redrive.
        seen: News that were handled.
        held: Deliveries to acknowledge, unless something still waits for them.
        unknown: Deliveries to hand back: their plan is not known yet.
        broken: Deliveries for the dead letters, with the reason.
    """

    def __init__(self, host: Participant) -> None:
        self.now = host.now()
        self.outbox = Outbox(host.subjects, host.transport.capabilities.max_bytes, host.name)
        self.cells: dict[CellKey, tuple[Cell, News | None]] = {}
        self.due: dict[DueKey, Due] = {}
        self.done: list[DueKey] = []
        self.after: list[DueKey] = []
        self.jobs: dict[CellKey, Job] = {}
        self.naps: list[tuple[RunRef, Sleep | Listen]] = []
        self.ended: list[News] = []
        self.undone: dict[CellKey, int] = {}
        self.seen: list[Mark] = []
        self.held: list[Ticket] = []
        self.unknown: list[Ticket] = []
        self.broken: list[tuple[Ticket, str]] = []
        self._host = host
        self.me = host.replica.encode()

    def keep(self, news: News, plain: bool = False) -> None:
        """Record a fact, and count it for the joins here that it feeds.

        Args:
            news: The fact.
            plain: It was decided as if there were no notices of its run; if there are, it does not count.
        """
        run, fact = news.run, news.fact
        fed: tuple[Join, ...] = ()
        if isinstance(fact, Fact):
            counted = joins(run.plan, fact.key, self._host.role.mine(run.plan, run.mode))
            fed = tuple([Join(run.id, key.node, key.tag, fact.revision) for key in counted])
            if fact.key.tag:
                fed = (*fed, counter(run.id))
        self.cells[news.cell] = Cell(news.cell, news.raw, fed, run.noticed if plain else None), news

    def mark(self, cell: CellKey, value: bytes | None = None) -> None:
        """Record something that is said by being there; by default with the name of this replica."""
        self.cells[cell] = Cell(cell, self.me if value is None else value), None

    def publish(self, news: News) -> None:
        """Publish the event of a fact, under its redrive."""
        event, news.said = said_again(news.event, news.raw, news.redrive)
        self.outbox.event(news.run.mode, event.flow, event.node, event.kind, news.said)

    def take_back(self, news: News) -> None:
        """Do not say what was decided: somebody else has decided at the same time."""
        self.outbox.drop(news.said)
        if news in self.ended:
            self.ended.remove(news)
            self.after.remove(news.run.guard(news.event.revision))

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

    def drop(self, job: Job) -> None:
        """Do not make a call after all."""
        del self.jobs[job.cell]
        self.release(job.tickets)

    def back(self, jobs: list[Job]) -> bool:
        """Give calls a due row that need one from the start; False if there are none.

        Runs of other flows are started now, and asked for later. What was delivered again may have killed its process:
        its row counts its attempts before they begin. What a redrive finds open may just be under way in another
        replica, and not for long enough to have a row: it is called a little later, if it has no result then. And what
        follows from a row or a request has no delivery behind it.
        """
        now, found = self.now.timestamp(), False
        for job in jobs:
            if job.due:
                continue
            if job.run.plan.index.nodes[job.key.node].kind == "flow":
                self.park(job, now + LEASE)
            elif self._host.role.executes and (job.redrive or job.redelivered):
                self.drop(job)
                job.attempt = 0
                self.park(job, now if job.redelivered else now + 2 * PARK_AFTER)
            elif self._host.role.executes and job.bare:
                self.park(job, now + LEASE)
            else:
                continue
            found = True
        return found

    def park(self, job: Job, at: float, again: bool = False) -> None:
        """Give a call a due row; until its outcome is known, nothing else goes on with it.

        Args:
            job: The call.
            at: When the row is due.
            again: Nothing runs until then: it is the next attempt.
        """
        self.due[job.row] = self._host.overdue.row(job, at, again)
        if again and not job.undo:
            self.mark(failed(job))
        if not job.due:
            self.mark(job.parking)
        job.due = True

    def forget(self, run: RunRef, fact: Fact | Undone) -> None:
        """The outcome of a node is known: what it waited for, or what watched its time, need not be looked at again."""
        index = run.plan.index
        node = index.nodes[fact.key.node]
        if isinstance(fact, Undone):
            if node.kind == "flow":
                self.after.append(run.row(Key(undoing(node.id), fact.key.tag), fact.revision))
        elif node.kind == "flow" or (node.kind == "wait" and node.timeout):
            self.after.append(run.row(fact.key, fact.revision))
        elif node.kind == "close" and index.construct(node).timeout:
            self.after.append(run.row(Key(watching(node.id), fact.key.tag), fact.revision))
        elif node.id == EXIT and run.plan.deadline:
            self.after.append(run.row(Key(TIMER), fact.revision))

    def nap(self, run: RunRef, effect: Sleep | Listen) -> None:
        """A node waits for time, or for a signal and perhaps time: give it a due row, and say that it waits."""
        key, revision = effect.key, effect.revision
        at: float | None
        if isinstance(effect, Sleep):
            at = effect.until if effect.until is not None else self.now.timestamp() + effect.seconds
        else:
            at = self.now.timestamp() + effect.timeout if effect.timeout else None
        slot = effect.slot if isinstance(effect, Listen) else ""
        self.wait(run, Nap(*key, revision, slot, at))

    def wait(self, run: RunRef, nap: Nap) -> None:
        """Say that a node waits, and give it a due row if that is not for ever."""
        key = Key(nap.node, nap.tag)
        self.mark(run.mark(*key, nap.revision, CellKind.WAITING), requests.encode_nap(nap))
        if nap.until is not None:
            row = run.row(key, nap.revision)
            body = envelope.encode(Job(run, key, nap.revision, {}, (), ()).call(self._host.source, self.now))
            self.due[row] = Due(row, nap.until, 0, body, self._host.replica)
            self._host.overdue.expect(nap.until)

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
