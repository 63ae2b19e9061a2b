"""The loop of a participant: coordinator and services run the same one.

An actor: deliveries, requests, finished calls and due rows go into one inbox; turns take what is there, in batches, one
turn after the other. Batches form by themselves: while a turn commits and publishes, the next one's inputs gather.
Any number of replicas may run; nobody elects a leader.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from math import inf
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskGroup

from segue.errors import ObjectLost, SegueError, TransportUnavailable
from segue.hooks import plugins
from segue.machine.facts import Fact, Key
from segue.plan.graph import ENTRY
from segue.ports.store import CellKey, DueKey, StateStore
from segue.ports.tracing import NoTracing, RunSpan, Tracing
from segue.ports.transport import Channel, Consumer, Delivery, Transport
from segue.runtime import deploy
from segue.runtime.catalog import Catalog
from segue.runtime.families import Families
from segue.runtime.lately import Lately
from segue.runtime.moving import Moving
from segue.runtime.orders import Orders
from segue.runtime.overdue import DueRows
from segue.runtime.placing import Overtaken, Placing
from segue.runtime.purge import Purger
from segue.runtime.reader import Reader
from segue.runtime.reception import Reception
from segue.runtime.roles import Role
from segue.runtime.sizes import Sizes
from segue.runtime.suspects import Suspects
from segue.runtime.tasks import task_group
from segue.runtime.tickets import Ticket
from segue.runtime.turn import Turn
from segue.runtime.values import ENVELOPE_ROOM, M, Values
from segue.runtime.work import Arrived, Asked, Input, Job, Mark, Returned, RunRef, Starting, Tick
from segue.wire import envelope
from segue.wire.envelope import Event
from segue.wire.requests import Refused
from segue.wire.subjects import Subjects

log = logging.getLogger("segue.participant")
T = TypeVar("T")

TURN_MESSAGES = 256
"""Messages that a receiver takes at a time; each may carry many events."""

INBOX_LIMIT = 2_000
"""Inputs waiting for a turn before receivers pause."""

GRACE = 10.0
"""Seconds that running calls have to finish when a participant stops; what does not is handed back."""

SEEN, FACTS = 50_000, 4_000
"""How many facts this process remembers to have handled, and how many values of facts that feed joins here."""

POISONOUS = 5
"""Deliveries after which a message whose turn always fails goes to the dead letters; any other has turns of its own."""


class Participant:
    """Holds machines: the coordinator or a service.

    Args:
        name: The service's name, or `coordinator`.
        role: What it decides and what invoking means.
        transport: Where messages come from and go to.
        store: This participant's part of a store.
        catalog: What is deployed; must be following.
        subjects: The namespace's subjects.
        tracing: Where spans go.
        values: Where large values go; by default they may not be larger than a message.
    """

    def __init__(
        self,
        name: str,
        role: Role,
        transport: Transport,
        store: StateStore,
        catalog: Catalog,
        subjects: Subjects,
        tracing: Tracing | None = None,
        values: Values | None = None,
    ) -> None:
        self.name = name
        self.role = role
        self.transport = transport
        self.store = store
        self.catalog = catalog
        self.subjects = subjects
        self.tracing: Tracing = tracing or NoTracing()
        self.replica = f"{name}@{socket.gethostname()}:{os.getpid()}"
        self.source = f"/{subjects.namespace}/{name}"
        self.commands_prefix = f"{subjects.namespace}.do."
        self.values = values or Values(None, transport.capabilities.max_bytes - ENVELOPE_ROOM)
        self.sizes = Sizes(self.values.limits)
        self.running: dict[CellKey, Job] = {}
        self.done: list[DueKey] = []
        self.seen: Lately[Mark, None] = Lately(SEEN)
        self.facts: Lately[CellKey, tuple[Fact, Event, bytes]] = Lately(FACTS)
        self.counts = Counts()
        self.noticed: Lately[str, bool] = Lately(FACTS)
        self.moved: Lately[str, None] = Lately(FACTS)
        self.placing = Placing(self)
        self.moving = Moving(self)
        self.reader = Reader(self)
        self.orders = Orders(self)
        self.families = Families(self)
        self.reception = Reception(self)
        self.overdue = DueRows(self)
        self.purger = Purger(self)
        self.suspects = Suspects(self)
        self._inbox: list[Input] = []
        self._tasks: TaskGroup | None = None
        self.stopping = False
        self._intake: list[anyio.CancelScope] = []
        self._quiet = anyio.Event()
        self._filled = anyio.Event()
        self._drained = anyio.Event()
        self._observed = bool(plugins().hook.segue_run_ended.get_hookimpls())

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[TaskGroup]:
        """Take part. On leaving, running calls get a grace period; what is left is handed back to other replicas."""
        subjects, name, reception = self.subjects, self.name, self.reception
        async with task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._turns)
            async with (
                self.transport.respond(subjects.requests(name), reception.handle),
                self.transport.respond(subjects.questions(name), reception.question),
                self.transport.respond(subjects.handovers(name), reception.handover),
                task_group() as intake,
            ):
                for channel in self.role.channels:
                    intake.start_soon(self._receive, channel)
                intake.start_soon(self.overdue.watch)
                intake.start_soon(self._tick)
                intake.start_soon(self.purger.watch)
                try:
                    yield tasks
                finally:
                    self.stopping = True
                    for scope in self._intake:
                        scope.cancel()
                    if anyio.current_effective_deadline() > -inf:  # else turns and calls are cancelled too
                        with anyio.move_on_after(GRACE, shield=True):
                            await self._drain()
                    with anyio.move_on_after(1.0, shield=True):
                        await self.overdue.give_back()
                    intake.cancel_scope.cancel()
            tasks.cancel_scope.cancel()

    def put(self, *inputs: Input) -> None:
        """Give inputs to the next turn."""
        if inputs:
            self._inbox.extend(inputs)
            self._filled.set()

    def spawn(self, work: Callable[[T], Coroutine[Any, Any, None]], item: T) -> None:
        """Do something about a call, or a run, beside the turns."""
        if self._tasks is not None:
            self._tasks.start_soon(work, item)

    def now(self) -> datetime:
        """The time, for events."""
        return datetime.now(UTC)

    def clock(self) -> float:
        """Seconds since some moment; only differences mean anything."""
        return time.monotonic()

    def event(self) -> anyio.Event:
        """Something to wait for."""
        return anyio.Event()

    async def pause(self, seconds: float) -> None:
        """Wait before something is tried again."""
        await anyio.sleep(seconds)

    async def insist(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Do something that may be done twice until it works: stores and brokers come back."""
        pause = 0.1
        while True:
            try:
                return await operation()
            except SegueError as error:
                if not error.retryable or isinstance(error, ObjectLost):
                    raise  # what is lost concerns one run, and the others must not wait for it
                log.warning("%s: %s; trying again in %.1f s", self.name, error.message, pause)
            await self.pause(pause)
            pause = min(pause * 2, 5.0)

    async def opened(self, message: M) -> M:
        """A message with its data, which may have to come from the object store.

        Raises:
            ObjectLost: It is not there.
        """
        return await self.insist(partial(self.values.open, message)) if message.dataref else message

    async def flush(self) -> None:
        """Store large values, before anything refers to them."""
        if self.values.pending:
            await self.insist(self.values.flush)

    async def report(self, ended: list[tuple[RunRef, Event]]) -> None:
        """Runs have ended here: their root spans, and the hook."""
        traced = not isinstance(self.tracing, NoTracing)
        if not ended or not (traced or self._observed):
            return
        entries = await self._entries([run for run, _ in ended]) if traced else {}
        for run, event in ended:
            found = envelope.decode_ended(event)
            if traced:
                error = "; ".join(f"{cause.node}: {cause.error.message}" for cause in found.causes if cause.error)
                started, over = int(run.id[:12], 16) / 1000, event.time.timestamp()
                caller = entries[run.id].traceparent if run.id in entries else ""
                self.tracing.run(
                    RunSpan(
                        run.id,
                        event.flow,
                        run.key,
                        run.mode,
                        found.status,
                        error,
                        started,
                        over,
                        caller,
                        event.revision,
                    )
                )
            if self._observed:
                try:
                    plugins().hook.segue_run_ended(flow=event.flow, run=run.id, key=run.key, status=found.status)
                except Exception:
                    log.exception("a plugin failed in segue_run_ended")

    async def _entries(self, runs: Iterable[RunRef]) -> dict[str, Event]:
        """The `started` events of runs; tracing must not hold up anything, so those that cannot be had are left out."""
        try:
            found = await self.store.load([run.cell(Key(ENTRY)) for run in runs])
        except SegueError as error:
            log.warning("%s: %s; spans do without their callers", self.name, error.message)
            return {}
        return {key.run: envelope.decode(raw) for key, raw in found.items()}

    async def _turns(self) -> None:
        while True:
            if not self._inbox:
                self._filled = anyio.Event()
                await self._filled.wait()
            await self.turn()
            if self.stopping and not self.running and not self._inbox:
                self._quiet.set()

    async def turn(self) -> None:
        """Take what is in the inbox through one turn."""
        inbox, self._inbox = self._inbox, []
        self._drained.set()
        batch = [item for item in inbox if not _worn(item)]
        apart = [item for item in inbox if _worn(item)] if len(batch) < len(inbox) else []
        try:
            await Turn(self).run(batch)
        except Overtaken as found:
            log.info("%s; the inputs of the turn are taken one by one", found)
            apart = [*batch, *apart]
        except Exception:
            log.exception("%s: a turn failed; its inputs are taken one by one", self.name)
            apart = [*batch, *apart]
        for item in apart:
            await self._alone(item)

    async def _alone(self, item: Input) -> None:
        """Take one input in a turn of its own, so that whatever is wrong with it holds up nobody."""
        try:
            await Turn(self, again=True).run([item])
        except Exception as error:
            log.warning("%s: handed back after %s: %s", self.name, type(error).__name__, error)
            await self._hand_back(item, f"{type(error).__name__}: {error}", isinstance(error, ObjectLost))

    async def _hand_back(self, item: Input, reason: str, lost: bool) -> None:
        """Let others try; `lost`: a value is not there, and may come back."""
        tickets: tuple[Ticket, ...] = ()
        if isinstance(item, Asked):
            item.replies[item.place] = Refused("the request failed; see the log of the home", retry=True)
            item.done.set()
        elif isinstance(item, Starting):
            item.replies[item.place] = Refused("the start failed; see the log of the home", retry=True)
            item.done.set()
        elif isinstance(item, Arrived):
            tickets = (item.ticket,)
        elif isinstance(item, Returned):
            tickets = item.job.tickets
        for ticket in tickets:
            try:
                if isinstance(item, Arrived) and ticket.delivery.deliveries >= POISONOUS and not lost:
                    await ticket.consumer.discard([ticket.delivery], reason)
                else:
                    await ticket.consumer.retry([ticket.delivery], 1.0)
            except SegueError as error:
                log.warning("%s: %s", self.name, error.message)

    async def _receive(self, channel: Channel) -> None:
        while True:
            try:
                await self._consume(channel)
            except SegueError as error:
                if not error.retryable:
                    raise
                log.warning("%s: %s; joining again", self.name, error.message)
            await anyio.sleep(1.0)

    async def _consume(self, channel: Channel) -> None:
        while await self.transport.backlog(channel, self.name) is None:
            if any(self.name in plan.index.services for plan in self.catalog.plans.values()):
                # Deploying does this too; but the broker may have lost it since.
                await deploy.declare(self.transport, self.subjects, [self.name])
                continue
            with anyio.move_on_after(5.0):
                await self.catalog.changed()
        async with self.transport.consume(channel, self.name) as consumer:
            with anyio.CancelScope() as scope:
                self._intake.append(scope)
                while not self.stopping:
                    deliveries = await self.insist(partial(self._take, channel, consumer))
                    self.put(*(Arrived(Ticket(delivery, consumer)) for delivery in deliveries))
                    while len(self._inbox) > INBOX_LIMIT:
                        self._drained = anyio.Event()
                        await self._drained.wait()
            # Leaving hands back what is not acknowledged: stay until what was taken is done.
            await anyio.sleep_forever()

    async def _take(self, channel: Channel, consumer: Consumer) -> list[Delivery]:
        """Receive; a group that the broker lost is declared again, for whoever deployed it may be gone."""
        try:
            return await consumer.receive(TURN_MESSAGES)
        except TransportUnavailable:
            if self.role.executes and await self.transport.backlog(channel, self.name) is None:
                await deploy.declare(self.transport, self.subjects, [self.name])
            raise

    async def _tick(self) -> None:
        while True:
            await anyio.sleep(1.0)
            if self.running or self.done:
                self.put(Tick())

    async def _drain(self) -> None:
        self.put(Tick())
        await self._quiet.wait()
        if self.done:
            await self.insist(partial(self.store.commit, done=self.done))


def _worn(item: Input) -> bool:
    """Whether a message was delivered so often that it may kill this process, in nobody's turn but its own."""
    return isinstance(item, Arrived) and item.ticket.delivery.deliveries > POISONOUS


class Counts:
    """What a participant did since it started, for progress lines."""

    __slots__ = ("calls", "ended", "events", "started")

    def __init__(self) -> None:
        self.events = self.calls = self.started = self.ended = 0
