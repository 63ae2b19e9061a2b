"""The catalog: this process's copy of the registry, kept up to date by following it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from segue.errors import SegueError, UnknownFlow
from segue.plan import graph
from segue.plan.graph import Plan
from segue.ports.transport import Entry, Registry
from segue.runtime.tasks import task_group
from segue.wire import records
from segue.wire.records import FlowRecord, ServiceRecord

log = logging.getLogger("segue.catalog")


class Catalog:
    """What is deployed.

    Attributes:
        flows: Flow records by name.
        services: Service records by name.
        plans: Plans by hash.
    """

    def __init__(self, registry: Registry) -> None:
        self.flows: dict[str, FlowRecord] = {}
        self.services: dict[str, ServiceRecord] = {}
        self.plans: dict[str, Plan] = {}
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

    async def _follow(self) -> None:
        async with self._registry.follow() as entries:
            async for entry in entries:
                if entry is None:
                    self._fresh.set()
                    continue
                self._take(entry)
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
        except SegueError as error:
            log.error("registry entry %s is unreadable and was left out: %s", entry.key, error)
