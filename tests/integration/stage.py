"""A stage: one namespace whose participants a test starts and stops as it likes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any

import anyio

from segue import App, Flow, compose
from segue.config import Config
from segue.plan.graph import Plan
from segue.plan.projection import COORDINATOR, Mode
from segue.ports.journal import Journal
from segue.ports.tracing import Tracing
from segue.runtime import client as clients
from segue.runtime import deploy
from segue.runtime.client import Client
from segue.runtime.deploy import Deployed
from segue.runtime.serving import Wiring
from segue.wire import envelope
from segue.wire.envelope import Event
from segue.wire.subjects import OBSERVER

NAMES = count(1)
"""Numbers for what must not meet another test's."""


def in_memory(options: str = "") -> Config:
    """Memory adapters under a name of their own; `options` are those of the transport."""
    name = f"memory://test-{next(NAMES)}"
    return Config(transport=name + options, store=name, journal=name)


class Stage:
    """Participants of an app, each as a context of its own; enter `open` first."""

    def __init__(self, app: App, config: Config, wiring: Wiring, client: Client, journal: Journal) -> None:
        self.app = app
        self.config = config
        self.wiring = wiring
        self.client = client
        self.journal = journal

    @property
    def everybody(self) -> tuple[str, ...]:
        """All participants and the observer."""
        return (COORDINATOR, *self.app.services, OBSERVER)

    async def deploy(self, mode: Mode, *flows: Flow[..., Any] | Plan) -> list[Deployed]:
        """Deploy flows, by default all of the app."""
        plans = [item if isinstance(item, Plan) else item.plan for item in flows or self.app.flows.values()]
        wiring = self.wiring
        return await deploy.deploy(wiring.transport, wiring.catalog, wiring.subjects, [(plan, mode) for plan in plans])

    async def switch(self, flow: Flow[..., Any], mode: Mode) -> Deployed:
        """Set the mode of new runs."""
        return await deploy.set_mode(self.wiring.catalog, flow.name, mode)

    @asynccontextmanager
    async def running(self, *names: str) -> AsyncIterator[Stage]:
        """Run a replica of each; by default everybody."""
        async with AsyncExitStack() as stack:
            for name in names or self.everybody:
                if name == COORDINATOR:
                    await stack.enter_async_context(compose.coordinating(self.config, self.wiring))
                elif name == OBSERVER:
                    await stack.enter_async_context(compose.observing(self.config, self.wiring))
                else:
                    service = self.app.hosted()[name]
                    await stack.enter_async_context(compose.serve(self.config, self.wiring, service))
            yield self

    async def events(self, run: str, until: str = "ended", timeout: float = 10.0) -> list[Event]:
        """The journal of a run, once it has an event of this kind; "" takes what is there."""

        async def read() -> list[Event]:
            return [envelope.decode(entry.body) for entry in await self.journal.history(run)]

        found: list[Event] = []

        async def there() -> bool:
            found[:] = await read()
            return not until or any(event.kind == until for event in found)

        await eventually(there, timeout)
        return found


@asynccontextmanager
async def stage(
    app: App, config: Config, mode: Mode | None = "orchestrated", tracing: Tracing | None = None
) -> AsyncIterator[Stage]:
    """An open stage: connected, all flows deployed in `mode` (None: none), nothing running yet."""
    async with compose.wired(config) as wiring, compose.journal(config) as journal:
        if tracing is not None:
            wiring = wiring._replace(tracing=tracing)
        async with clients.client(wiring, lambda: compose.open_journal(config.journal)) as client:
            found = Stage(app, config, wiring, client, journal)
            if mode is not None:
                await found.deploy(mode)
            yield found


async def eventually(check: Callable[[], Awaitable[bool]], timeout: float = 10.0) -> None:
    """Wait until something holds."""
    with anyio.fail_after(timeout):
        while not await check():
            await anyio.sleep(0.02)
