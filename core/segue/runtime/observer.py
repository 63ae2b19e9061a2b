"""The observer: writes the journal from the event stream, the same in both modes.

It is never in the way: runs go on when it is down, and it catches up. Appending is idempotent and in any order, so
redeliveries and repeats change nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import msgspec

from segue.errors import InvalidInput, SegueError
from segue.machine.facts import Pause, Placed, Stop
from segue.plan.names import RUN
from segue.ports.journal import Journal, JournalEntry, RunRecord
from segue.ports.transport import Consumer, Delivery, Group
from segue.runtime.purge import EVERY, FIRST, purge_journal
from segue.runtime.serving import Wiring
from segue.runtime.tasks import task_group
from segue.wire import envelope
from segue.wire.envelope import Event
from segue.wire.rights import check_place
from segue.wire.said import fact_of
from segue.wire.subjects import OBSERVER

log = logging.getLogger("segue.observer")

BATCH_MESSAGES = 500


class Observer:
    """Writes the journal.

    Args:
        wiring: Transport, catalog and the rest.
        journal: Where the history goes.
    """

    def __init__(self, wiring: Wiring, journal: Journal) -> None:
        self._wiring = wiring
        self._journal = journal
        self._plans: set[str] = set()
        self.written = 0

    @asynccontextmanager
    async def observing(self) -> AsyncIterator[Observer]:
        """Observe while the context is open."""
        subjects = self._wiring.subjects
        await self._wiring.transport.declare(Group("events", OBSERVER, subjects.events_of(OBSERVER)))
        async with (
            task_group() as tasks,
            self._wiring.transport.consume("events", OBSERVER) as consumer,
        ):
            tasks.start_soon(self._observe, consumer)
            tasks.start_soon(self._purge)
            try:
                yield self
            finally:
                tasks.cancel_scope.cancel()

    async def _purge(self) -> None:
        """Forget old history now and then, if it is not kept for ever."""
        keep = self._wiring.retention.journal
        while keep:
            await anyio.sleep(FIRST)
            try:
                await purge_journal(self._journal, time.time() - keep)
            except SegueError as error:
                log.warning("old history is kept for now: %s", error.message)
            await anyio.sleep(EVERY)

    async def _observe(self, consumer: Consumer) -> None:
        while True:
            deliveries = await consumer.receive(BATCH_MESSAGES)
            with anyio.CancelScope(shield=True):
                try:
                    await self._take(consumer, deliveries)
                except SegueError as error:
                    log.warning("deliveries were not acknowledged and come again: %s", error.message)

    async def _take(self, consumer: Consumer, deliveries: Sequence[Delivery]) -> None:
        entries: list[JournalEntry] = []
        runs: list[RunRecord] = []
        plans: set[str] = set()
        readable: list[Delivery] = []
        for delivery in deliveries:
            try:
                mode = self._wiring.subjects.mode(delivery.subject)
                events = [(envelope.decode(raw), bytes(raw)) for raw in envelope.split(delivery.body)]
                for event, _ in events:
                    await self._check(event, delivery.subject)
                for event, body in events:
                    entries.append(JournalEntry(event.id, event.run, event.node, event.kind, event.time, body))
                    plans.add(event.plan)
                    record = _run_record(event, mode)
                    if record is not None:
                        runs.append(record)
                readable.append(delivery)
            except InvalidInput as error:
                log.error("unreadable event on %s: %s", delivery.subject, error.message)
                await consumer.discard([delivery], error.message)
        try:
            fresh = await self._fresh(plans)
            await self._journal.append(entries, runs, fresh)
        except SegueError as error:
            log.warning("the journal cannot be written: %s", error.message)
            await consumer.retry(readable, 1.0)
            await anyio.sleep(0.5)
            return
        self._plans.update(name for name, _ in fresh)
        self.written += len(entries)
        await consumer.ack(readable)

    async def _check(self, event: Event, subject: str) -> None:
        check_place(self._wiring.subjects, await self._wiring.catalog.plan(event.plan), event, subject)

    async def _fresh(self, plans: set[str]) -> list[tuple[str, bytes]]:
        """Plans that the journal may not have yet: history stays readable without the registry."""
        found = []
        for name in plans - self._plans:
            plan = await self._wiring.catalog.plan(name)
            if plan is not None:
                found.append((name, plan.json))
        return found


def _run_record(event: Event, mode: str) -> RunRecord | None:
    """What an event says of its run as a whole, if anything."""
    if event.node != RUN:
        return None
    record = RunRecord(event.run, event.flow, event.plan, mode, event.key)
    replace = msgspec.structs.replace
    if event.kind == "started":
        return replace(record, started=event.time)
    if event.kind == "ended":
        ended = envelope.decode_ended(event)
        error = next((f"{cause.node}: {cause.error.message}" for cause in ended.causes if cause.error), "")
        return replace(record, ended=event.time, status=ended.status, error=error, revision=event.revision)
    if event.kind == "reset":
        return replace(record, revision=event.revision)
    fact = fact_of(event)
    if isinstance(fact, Stop) and fact.scope == RUN:
        status = "cancelling" if fact.reason == "cancelled" else "compensating"
        return replace(record, status=status, revision=fact.revision)
    if isinstance(fact, Pause):
        return replace(record, pauses=fact.number)
    if isinstance(fact, Placed):
        # The number of its epoch is 2 when a run is moved for the first time.
        return replace(record, mode=fact.mode, moves=2 * (fact.epoch - 1) - (not fact.done))
    return None
