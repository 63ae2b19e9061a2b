"""The loop of a participant: coordinator and services run the same one.

An actor: deliveries, requests, finished calls and due rows go into one inbox; turns take what is there, in batches, one
turn after the other. Batches form by themselves: while a turn commits and publishes, the next one's inputs gather.
Any number of replicas may run; nobody elects a leader.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import anyio
from anyio.abc import TaskGroup

from segue.errors import SegueError
from segue.hooks import plugins
from segue.ports.store import CellKey, DueKey, StateStore
from segue.ports.tracing import NoTracing, RunSpan, Tracing
from segue.ports.transport import Channel, Transport
from segue.runtime.catalog import Catalog
from segue.runtime.overdue import DueRows
from segue.runtime.reader import Reader
from segue.runtime.reception import Reception
from segue.runtime.roles import Role
from segue.runtime.tasks import task_group
from segue.runtime.turn import Turn
from segue.runtime.work import Arrived, Input, Job, Mark, Returned, RunRef, Starting, Tick, Ticket
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

ENVELOPE_ROOM = 4_096
"""Bytes of a message that are kept for the envelope."""


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
        self.max_event = transport.capabilities.max_bytes - ENVELOPE_ROOM
        self.running: dict[CellKey, Job] = {}
        self.done: list[DueKey] = []
        self.seen = Seen()
        self.counts = Counts()
        self.reader = Reader(self)
        self.reception = Reception(self)
        self.overdue = DueRows(self)
        self._inbox: list[Input] = []
        self.stopping = False
        self._intake: list[anyio.CancelScope] = []
        self._quiet = anyio.Event()
        self._filled = anyio.Event()
        self._drained = anyio.Event()
        self._observed = bool(plugins().hook.segue_run_ended.get_hookimpls())

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[TaskGroup]:
        """Take part. On leaving, running calls get a grace period; what is left is handed back to other replicas."""
        requests = self.subjects.requests(self.name)
        async with task_group() as tasks:
            tasks.start_soon(self._turns)
            async with self.transport.respond(requests, self.reception.handle), task_group() as intake:
                for channel in self.role.channels:
                    intake.start_soon(self._receive, channel)
                intake.start_soon(self.overdue.watch)
                intake.start_soon(self._tick)
                try:
                    yield tasks
                finally:
                    self.stopping = True
                    for scope in self._intake:
                        scope.cancel()
                    with anyio.move_on_after(GRACE, shield=True):
                        await self._drain()
                    intake.cancel_scope.cancel()
            tasks.cancel_scope.cancel()

    def put(self, *inputs: Input) -> None:
        """Give inputs to the next turn."""
        if inputs:
            self._inbox.extend(inputs)
            self._filled.set()

    def now(self) -> datetime:
        """The time, for events."""
        return datetime.now(UTC)

    async def insist(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Do something that may be done twice until it works: stores and brokers come back."""
        pause = 0.1
        while True:
            try:
                return await operation()
            except SegueError as error:
                if not error.retryable:
                    raise
                log.warning("%s: %s; trying again in %.1f s", self.name, error.message, pause)
            await anyio.sleep(pause)
            pause = min(pause * 2, 5.0)

    def report(self, run: RunRef, event: Event) -> None:
        """A run has ended here: its root span, and the hook."""
        if isinstance(self.tracing, NoTracing) and not self._observed:
            return
        ended = envelope.decode_ended(event)
        error = "; ".join(f"{cause.node}: {cause.error.message}" for cause in ended.causes if cause.error)
        started = int(run.id[:12], 16) / 1000
        span = RunSpan(run.id, event.flow, run.key, run.mode, ended.status, error, started, event.time.timestamp(), "")
        self.tracing.run(span)
        if self._observed:
            plugins().hook.segue_run_ended(flow=event.flow, run=run.id, key=run.key, status=ended.status)

    async def _turns(self) -> None:
        while True:
            if not self._inbox:
                self._filled = anyio.Event()
                await self._filled.wait()
            batch, self._inbox = self._inbox, []
            self._drained.set()
            try:
                await Turn(self).run(batch)
            except Exception:
                log.exception("%s: a turn failed; its inputs are handed back", self.name)
                await self._hand_back(batch)
            if self.stopping and not self.running and not self._inbox:
                self._quiet.set()

    async def _hand_back(self, batch: Iterable[Input]) -> None:
        for item in batch:
            if isinstance(item, Starting):
                item.replies[item.place] = Refused("the start failed; see the log of the home", retry=True)
                item.done.set()
            tickets: tuple[Ticket, ...] = ()
            if isinstance(item, Arrived):
                tickets = (item.ticket,)
            elif isinstance(item, Returned):
                tickets = item.job.tickets
            for ticket in tickets:
                try:
                    await ticket.consumer.retry([ticket.delivery], 1.0)
                except SegueError as error:
                    log.warning("%s: %s", self.name, error.message)

    async def _receive(self, channel: Channel) -> None:
        while await self.transport.backlog(channel, self.name) is None:
            # Deploying declares the group; until then nothing is addressed to this participant.
            with anyio.move_on_after(5.0):
                await self.catalog.changed()
        async with self.transport.consume(channel, self.name) as consumer:
            with anyio.CancelScope() as scope:
                self._intake.append(scope)
                while not self.stopping:
                    deliveries = await self.insist(partial(consumer.receive, TURN_MESSAGES))
                    self.put(*(Arrived(Ticket(delivery, consumer)) for delivery in deliveries))
                    while len(self._inbox) > INBOX_LIMIT:
                        self._drained = anyio.Event()
                        await self._drained.wait()
            # Leaving hands back what is not acknowledged: stay until what was taken is done.
            await anyio.sleep_forever()

    async def _tick(self) -> None:
        while True:
            await anyio.sleep(1.0)
            if self.running or self.done:
                self.put(Tick())

    async def _drain(self) -> None:
        self.put(Tick())
        await self._quiet.wait()


class Counts:
    """What a participant did since it started, for progress lines."""

    __slots__ = ("calls", "ended", "events", "started")

    def __init__(self) -> None:
        self.events = self.calls = self.started = self.ended = 0


class Seen:
    """Facts that this process has handled, with their redrive number: two generations, so that memory stays bounded.

    Only saves work: a fact that was forgotten is looked up in the store.
    """

    SIZE = 50_000

    def __init__(self) -> None:
        self._young: set[Mark] = set()
        self._old: set[Mark] = set()

    def __contains__(self, fact: Mark) -> bool:
        return fact in self._young or fact in self._old

    def add(self, facts: Iterable[Mark]) -> None:
        """Remember facts."""
        self._young.update(facts)
        if len(self._young) > self.SIZE:
            self._old, self._young = self._young, set()
