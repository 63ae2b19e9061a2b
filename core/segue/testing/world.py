"""A whole Segue in one process, for tests: coordinator, services and observer on the memory adapters.

    async with World(app, mode="choreographed") as world:
        run = await world.start(place_order, order)
        assert await run.result(timeout=5) == ...

It is the real runtime; only transport and stores are in memory. With a seed, deliveries are reordered and repeated, the
same way each time: what a test sees then must not rest on luck.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from itertools import count
from types import TracebackType
from typing import Any, TypeVar

import anyio

from segue import compose
from segue.config import Config
from segue.model.app import App
from segue.model.flow import Flow
from segue.plan.projection import Mode
from segue.runtime import client as clients
from segue.runtime import deploy
from segue.runtime.client import Client
from segue.runtime.handle import RunHandle
from segue.runtime.serving import Wiring
from segue.runtime.values import Values
from segue.runtime.where import RunView, where

R = TypeVar("R")
_numbers = count(1)


class World:
    """Runs an app in this process.

    Args:
        app: Flows, and all services that they call.
        mode: Mode of new runs.
        seed: Reorder and repeat deliveries by this seed; None delivers in order, once.
        transport: URL of another transport, for its own tests.
        store: URL of another store, with `{part}`.
        replicas: Replicas of each service and of the coordinator.
    """

    def __init__(
        self,
        app: App,
        *,
        mode: Mode = "orchestrated",
        seed: int | None = None,
        transport: str = "",
        store: str = "",
        replicas: int = 1,
    ) -> None:
        name = f"memory://world-{next(_numbers)}"
        shaken = "" if seed is None else f"?seed={seed}"
        self.app = app
        self.mode: Mode = mode
        self.replicas = replicas
        self.config = Config(transport=transport or name + shaken, store=store or name, journal=name)
        self._stack = AsyncExitStack()
        self._client: Client | None = None
        self._wiring: Wiring | None = None

    async def __aenter__(self) -> World:
        stack, config = self._stack, self.config
        await stack.__aenter__()
        self._wiring = wiring = await stack.enter_async_context(compose.wired(config))
        plans = [(flow.plan, self.mode) for flow in self.app.flows.values()]
        await deploy.deploy(wiring.transport, wiring.catalog, wiring.subjects, plans)
        for _ in range(self.replicas):
            await stack.enter_async_context(compose.coordinating(config, wiring))
            for service in self.app.hosted().values():
                await stack.enter_async_context(compose.serve(config, wiring, service))
        await stack.enter_async_context(compose.observing(config, wiring))
        self._journal = await stack.enter_async_context(compose.journal(config))
        self._client = await stack.enter_async_context(clients.client(wiring))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, trace)

    @property
    def client(self) -> Client:
        """A client of this world."""
        assert self._client is not None, "enter the world first"
        return self._client

    async def start(self, flow: Flow[..., R], *args: Any, **kwargs: Any) -> RunHandle[R]:
        """Start a run; see `Client.start`."""
        return await self.client.start(flow, *args, **kwargs)

    async def switch(self, flow: Flow[..., Any], mode: Mode) -> None:
        """Set the mode of a flow's new runs."""
        assert self._wiring is not None, "enter the world first"
        await deploy.set_mode(self._wiring.catalog, flow.name, mode)

    async def where(self, text: str, timeout: float = 5.0) -> RunView:
        """Where a run is, once the observer has caught up with it all or `timeout` seconds are over.

        The end may be heard before what led to it.

        Raises:
            UnknownRun: Nothing fits.
        """
        with anyio.move_on_after(timeout):
            while True:
                if await self._journal.find(text):
                    view = await where(self._journal, text, values=self._values)
                    if view.run.status != "running" and not any(node.outcome is None for node in view.nodes):
                        return view
                await anyio.sleep(0.01)
        return await where(self._journal, text, values=self._values)

    @property
    def _values(self) -> Values | None:
        return self._wiring.values if self._wiring is not None else None
