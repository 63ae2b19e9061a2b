"""Puts participants together: a service or the coordinator over an open transport, store and catalog."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from segue.config import RetentionConfig
from segue.errors import DeclarationError
from segue.model.service import Service
from segue.plan.projection import COORDINATOR
from segue.ports.store import StateStore
from segue.ports.tracing import NoTracing, Tracing
from segue.ports.transport import Group, Transport
from segue.runtime.catalog import Catalog
from segue.runtime.executor import Executor
from segue.runtime.marks import Marks
from segue.runtime.participant import Participant
from segue.runtime.roles import CoordinatorRole, Role, ServiceRole
from segue.runtime.values import Values
from segue.wire.records import ServiceRecord
from segue.wire.subjects import Subjects

CONCURRENCY = 100
"""Attempts that a replica of a service runs at a time, unless configured."""


class Wiring(NamedTuple):
    """What participants of one process share. The catalog must be following."""

    transport: Transport
    catalog: Catalog
    subjects: Subjects
    values: Values
    tracing: Tracing = NoTracing()
    retention: RetentionConfig = RetentionConfig()


@asynccontextmanager
async def coordinator(wiring: Wiring, store: StateStore) -> AsyncIterator[Participant]:
    """Take part as a coordinator while the context is open.

    Args:
        wiring: Transport, catalog and the rest.
        store: The coordinator's part of a store.

    Raises:
        StoreBehind: It has not all that the coordinator said.
    """
    role = CoordinatorRole()
    host = _participant(COORDINATOR, role, wiring, store)
    await wiring.transport.declare(Group("events", COORDINATOR, wiring.subjects.events_of(COORDINATOR)))
    async with Marks(host).kept(), host.serving():
        yield host


@asynccontextmanager
async def service(
    wiring: Wiring, service: Service, store: StateStore, concurrency: int = CONCURRENCY
) -> AsyncIterator[Participant]:
    """Take part as a replica of a service while the context is open.

    Args:
        wiring: Transport, catalog and the rest.
        service: The service, with the code of its steps.
        store: The service's part of a store.
        concurrency: Attempts at a time.

    Raises:
        DeclarationError: A step of the service has no code.
        StoreBehind: The store has not all that the service said.
    """
    steps = dict(service.steps)
    for step in steps.values():
        if not step.implemented:
            raise DeclarationError(
                f"step {step.name!r} of service {service.name!r} has a contract but no code",
                f"attach it with `@{service.name}.implements(...)` in the app that is served",
            )
    role = ServiceRole(service.name)
    host = _participant(service.name, role, wiring, store)
    role.executor = Executor(host, steps, concurrency)
    async with Marks(host).kept():
        await wiring.catalog.offer(ServiceRecord(service.name, service.contracts()))
        async with host.serving() as tasks:
            role.tasks = tasks
            yield host


def idle(wiring: Wiring, name: str, store: StateStore) -> Participant:
    """A participant that takes no part, to look after its store.

    Args:
        wiring: Transport, catalog and the rest.
        name: A service, or `coordinator`.
        store: Its part of a store.
    """
    return _participant(name, CoordinatorRole() if name == COORDINATOR else ServiceRole(name), wiring, store)


def _participant(name: str, role: Role, wiring: Wiring, store: StateStore) -> Participant:
    transport, catalog, subjects, values, tracing, retention = wiring
    host = Participant(name, role, transport, store, catalog, subjects, tracing, values)
    host.purger.keep = retention.state
    return host
