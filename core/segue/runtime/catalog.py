"""The catalog: this process's copy of the registry, kept up to date by following it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from segue.errors import SegueError, UnknownFlow, UnknownSchedule
from segue.plan import graph
from segue.plan.graph import Plan
from segue.ports.transport import Entry, Registry
from segue.runtime.tasks import task_group
from segue.wire import records, schedules
from segue.wire.records import FlowRecord, ServiceRecord, StoreRecord
from segue.wire.schedules import Progress, ScheduleRecord

log = logging.getLogger("segue.catalog")

REMOVED = b""
"""The value of an entry that is no more: a registry keeps the last value of each key."""


class Catalog:
    """What is deployed.

    Attributes:
        flows: Flow records by name.
        services: Service records by name.
        stores: How far the stores of participants were, by participant.
        plans: Plans by hash.
        schedules: Schedules by name.
        progress: What came of their due times, by name of the schedule.
    """

    def __init__(self, registry: Registry) -> None:
        self.flows: dict[str, FlowRecord] = {}
        self.services: dict[str, ServiceRecord] = {}
        self.stores: dict[str, StoreRecord] = {}
        self.plans: dict[str, Plan] = {}
        self.schedules: dict[str, ScheduleRecord] = {}
        self.progress: dict[str, Progress] = {}
        self._registry = registry
        self._changed = anyio.Event()
        self._fresh = anyio.Event()

    @asynccontextmanager
    async def following(self) -> AsyncIterator[Catalog]:
        """Follow the registry; when this is entered, all that was deployed so far is known."""
        async with task_group() as tasks:
            tasks.start_soon(self._follow)
            await self._fresh.wait()
            try:
                yield self
            finally:
                tasks.cancel_scope.cancel()

    async def changed(self) -> None:
        """Wait for the next change."""
        await self._changed.wait()

    def flow(self, name: str) -> FlowRecord:
        """The record of a flow.

        Raises:
            UnknownFlow: Nobody deployed it.
        """
        if name not in self.flows:
            known = ", ".join(sorted(self.flows)) or "none"
            raise UnknownFlow(f"flow {name!r} is not deployed", f"deployed flows: {known}; see `segue deploy`")
        return self.flows[name]

    async def refresh(self, name: str) -> FlowRecord:
        """The record of a flow as it is in the registry now: following it lags a little behind.

        Raises:
            UnknownFlow: Nobody deployed it.
        """
        found = await self._registry.get(f"{records.FLOW}.{name}")
        if found is not None:
            self._take(Entry(f"{records.FLOW}.{name}", found))
        return self.flow(name)

    async def plan(self, plan: str) -> Plan | None:
        """A plan by its hash: the copy here, else from the registry; None if nobody published it."""
        if plan not in self.plans:
            found = await self._registry.get(f"{records.PLAN}.{plan}")
            if found is None:
                return None
            self._take(Entry(f"{records.PLAN}.{plan}", found))
        return self.plans.get(plan)

    async def publish(self, plan: Plan) -> None:
        """Put a plan into the registry."""
        if plan.hash not in self.plans:
            await self._registry.put(f"{records.PLAN}.{plan.hash}", plan.json)
            self.plans[plan.hash] = plan

    async def announce(self, record: FlowRecord) -> None:
        """Set a flow's record: from now on, new runs take its plan and mode."""
        if self.flows.get(record.flow) != record:
            await self._registry.put(f"{records.FLOW}.{record.flow}", records.encode(record))
            self.flows[record.flow] = record

    async def offer(self, record: ServiceRecord) -> None:
        """Say what a service offers."""
        if self.services.get(record.service) != record:
            await self._registry.put(f"{records.SERVICE}.{record.service}", records.encode(record))
            self.services[record.service] = record

    async def mark(self, record: StoreRecord) -> None:
        """Say how far a participant's store is."""
        await self._registry.put(f"{records.STORE}.{record.participant}", records.encode(record))
        self.stores[record.participant] = record

    def schedule(self, name: str) -> ScheduleRecord:
        """The record of a schedule.

        Raises:
            UnknownSchedule: There is none of this name.
        """
        if name not in self.schedules:
            known = ", ".join(sorted(self.schedules)) or "none"
            raise UnknownSchedule(f"there is no schedule {name!r}", f"schedules: {known}")
        return self.schedules[name]

    async def set_schedule(self, record: ScheduleRecord) -> None:
        """Set a schedule's record."""
        if self.schedules.get(record.name) != record:
            await self._registry.put(f"{schedules.SCHEDULE}.{record.name}", schedules.encode(record))
            self.schedules[record.name] = record

    async def drop_schedule(self, name: str) -> None:
        """Remove a schedule, and what is known of its due times."""
        for what, known in ((schedules.SCHEDULE, self.schedules), (schedules.PROGRESS, self.progress)):
            await self._registry.put(f"{what}.{name}", REMOVED)
            known.pop(name, None)

    async def report(self, done: Progress) -> Progress:
        """Add to a schedule's progress: what the registry has from now on."""
        key = f"{schedules.PROGRESS}.{done.schedule}"
        found = await self._registry.get(key)
        before = schedules.decode_progress(found) if found else Progress(done.schedule)
        after = before.add(done.handled)
        if after != before:
            await self._registry.put(key, schedules.encode(after))
        self.progress[done.schedule] = after
        return after

    async def _follow(self) -> None:
        async with self._registry.follow() as entries:
            async for entry in entries:
                if entry is None:
                    self._fresh.set()
                    continue
                self._take(entry)
                if not entry.key.startswith(f"{records.STORE}."):
                    self._changed.set()
                    self._changed = anyio.Event()

    def _take(self, entry: Entry) -> None:
        what, _, name = entry.key.partition(".")
        try:
            if what == records.PLAN and name not in self.plans:
                plan = graph.load(entry.value)
                self.plans[plan.hash] = plan
            elif what == records.FLOW:
                self.flows[name] = records.decode_flow(entry.value)
            elif what == records.SERVICE:
                self.services[name] = records.decode_service(entry.value)
            elif what == records.STORE:
                self.stores[name] = records.decode_store(entry.value)
            elif what in (schedules.SCHEDULE, schedules.PROGRESS):
                self._take_schedule(what, name, entry.value)
        except SegueError as error:
            log.error("registry entry %s is unreadable and was left out: %s", entry.key, error)

    def _take_schedule(self, what: str, name: str, value: bytes) -> None:
        if value == REMOVED:
            (self.schedules if what == schedules.SCHEDULE else self.progress).pop(name, None)
        elif what == schedules.SCHEDULE:
            self.schedules[name] = schedules.decode_schedule(value)
        else:
            self.progress[name] = schedules.decode_progress(value)
