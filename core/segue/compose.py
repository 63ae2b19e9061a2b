"""Composition: from a configuration to open adapters, participants and clients.

Whoever opens something here closes it here; participants and clients only use what they are given.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

from segue import config as configuration
from segue.config import Config
from segue.hooks import open_journal, open_objects, open_store, open_transport
from segue.model.app import App
from segue.model.service import Service
from segue.plan.graph import Plan
from segue.plan.projection import COORDINATOR, Mode
from segue.ports.journal import Journal
from segue.runtime import client as clients
from segue.runtime import serving
from segue.runtime.catalog import Catalog
from segue.runtime.client import Client
from segue.runtime.observer import Observer
from segue.runtime.participant import Participant
from segue.runtime.serving import Wiring
from segue.runtime.values import ENVELOPE_ROOM, Values
from segue.trace import open_tracing
from segue.wire.subjects import Subjects


@asynccontextmanager
async def wired(config: Config, who: str = "segue") -> AsyncIterator[Wiring]:
    """An open transport, its registry followed, the object store, and tracing.

    Args:
        config: Where everything is.
        who: Name of this process in traces.

    Raises:
        PluginError: Nobody serves the transport's or the object store's URL.
        TransportUnavailable: The broker cannot be reached.
    """
    async with AsyncExitStack() as stack:
        transport = await stack.enter_async_context(aclosing(await open_transport(config.transport, config.namespace)))
        catalog = await stack.enter_async_context(Catalog(transport.registry).following())
        objects = await open_objects(config.objects.url, config.transport, config.namespace)
        if objects is not None:
            await stack.enter_async_context(aclosing(objects))
        values = Values(objects, transport.capabilities.max_bytes - ENVELOPE_ROOM, config.limits)
        tracing = open_tracing(config.trace.endpoint, config.trace.sample, who)
        stack.callback(tracing.close)
        yield Wiring(transport, catalog, Subjects(config.namespace), values, tracing, config.retention)


@asynccontextmanager
async def values(config: Config) -> AsyncIterator[Values]:
    """The object store alone, for those who only read what was put away.

    Raises:
        PluginError: Nobody serves its URL.
        SegueError: It cannot be reached.
    """
    objects = await open_objects(config.objects.url, config.transport, config.namespace)
    async with AsyncExitStack() as stack:
        if objects is not None:
            await stack.enter_async_context(aclosing(objects))
        yield Values(objects, config.limits.value, config.limits)


@asynccontextmanager
async def coordinating(config: Config, wiring: Wiring) -> AsyncIterator[Participant]:
    """A coordinator, on the store that the configuration names for it."""
    async with (
        aclosing(await open_store(config.store_for(COORDINATOR), COORDINATOR)) as store,
        serving.coordinator(wiring, store) as host,
    ):
        yield host


@asynccontextmanager
async def serve(config: Config, wiring: Wiring, service: Service) -> AsyncIterator[Participant]:
    """A replica of a service, on the store that the configuration names for it."""
    settings = config.service(service.name)
    async with (
        aclosing(await open_store(config.store_for(service.name), service.name)) as store,
        serving.service(wiring, service, store, settings.concurrency) as host,
    ):
        yield host


@asynccontextmanager
async def observing(config: Config, wiring: Wiring) -> AsyncIterator[Observer]:
    """An observer, on the configured journal."""
    async with journal(config) as history, Observer(wiring, history).observing() as observer:
        yield observer


@asynccontextmanager
async def journal(config: Config) -> AsyncIterator[Journal]:
    """The configured journal."""
    async with aclosing(await open_journal(config.journal)) as history:
        yield history


@asynccontextmanager
async def connect(
    url: str | None = None, *, journal: str | None = None, namespace: str | None = None, config: Config | None = None
) -> AsyncIterator[Client]:
    """A client; in a web application, open it once in the lifespan and share it.

    Args:
        url: Transport; by default what `segue.toml` and the environment say.
        journal: Journal, for `client.where`; by default as configured.
        namespace: Namespace; by default as configured.
        config: A configuration that is loaded already.

    Raises:
        ConfigError: The configuration is not good.
        TransportUnavailable: The broker cannot be reached.
    """
    if config is None:
        config = configuration.load({"transport": url, "journal": journal, "namespace": namespace})
    async with wired(config) as wiring, clients.client(wiring, lambda: open_journal(config.journal)) as client:
        yield client


def plans(app: App, config: Config, names: Iterable[str] = ()) -> list[tuple[Plan, Mode]]:
    """The plans of an app's flows with their configured modes, all or those named.

    Raises:
        DeclarationError: A flow cannot be compiled.
    """
    wanted: set[Any] = set(names)
    return [
        (flow.plan, config.flow(flow.name).mode) for flow in app.flows.values() if not wanted or flow.name in wanted
    ]
