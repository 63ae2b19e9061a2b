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
import msgspec

from segue import compose
from segue.config import Config
from segue.machine.facts import Key, Outcome
from segue.model.app import App
from segue.model.flow import Flow
from segue.plan.graph import EXIT
from segue.plan.projection import MODES, Mode
from segue.runtime import client as clients
from segue.runtime import deploy
from segue.runtime.client import Client, RunHandle
from segue.runtime.input import bind
from segue.runtime.serving import Wiring
from segue.runtime.where import RunView, where
from segue.testing import reference
from segue.testing.behaviours import Sent
from segue.wire.envelope import Ended

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
                    view = await where(self._journal, text)
                    if view.run.status != "running" and not any(node.outcome is None for node in view.nodes):
                        return view
                await anyio.sleep(0.01)
        return await where(self._journal, text)


class Difference(AssertionError):
    """A run came to something else in another mode or order of delivery, or than the rules say."""


class Everywhere(msgspec.Struct, frozen=True):
    """What a run came to, the same everywhere.

    Attributes:
        ended: How it ended.
        states: State of every node.
        runs: How many executions were compared.
    """

    ended: Ended
    states: dict[str, str]
    runs: int

    @property
    def value(self) -> Any:
        """The run's value, as JSON builtins."""
        return msgspec.json.decode(self.ended.value)


async def run_everywhere(
    app: App, flow: Flow[..., Any], *args: Any, seeds: tuple[int | None, ...] = (None, 1, 2), timeout: float = 30.0
) -> Everywhere:
    """Run a flow in both modes, in order and shaken, and compare all with each other and with an independent evaluator.

    The flow's steps must give the same results for the same inputs.

    Args:
        app: Flows, and all services that they call.
        flow: The flow.
        *args: Its input.
        seeds: Orders of delivery; None is undisturbed.
        timeout: Seconds for one run.

    Raises:
        Difference: Two executions differ, or one differs from the rules.
    """
    found: Everywhere | None = None
    for mode in MODES:
        for seed in seeds:
            async with World(app, mode=mode, seed=seed) as world:
                run = await world.start(flow, *args)
                ended = await run.outcome(timeout)
                view = await world.where(run.id)
            place = f"{mode}, seed {seed}"
            states: dict[str, str] = {node.node: node.state for node in view.nodes}
            _compare_with_rules(flow, args, ended, view, place)
            if found is None:
                found = Everywhere(ended, states, 0)
            elif (ended, states) != (found.ended, found.states):
                raise Difference(f"{place}: {ended} {states}\nbefore: {found.ended} {found.states}")
            found = msgspec.structs.replace(found, runs=found.runs + 1)
    assert found is not None, "no seeds were given"
    return found


def _compare_with_rules(flow: Flow[..., Any], args: tuple[Any, ...], ended: Ended, view: RunView, place: str) -> None:
    """Take what the steps returned as given; everything else must follow from the rules."""
    plan = flow.plan
    ruled = reference.evaluate(plan, bind(flow, plan, args, {}), _Told(view, place))
    for node in view.nodes:
        expected = ruled.outcomes[Key(node.node, node.tag)]
        if node.outcome != expected:
            raise Difference(f"{place}: {node.node} is {node.outcome}, by the rules it is {expected}")
    outcome = ruled.outcomes[Key(EXIT)]
    status = "completed" if outcome.kind == "completed" else "failed"
    if (ended.status, msgspec.json.decode(ended.value), ended.causes) != (status, outcome.value, outcome.causes):
        raise Difference(f"{place}: the run ended {ended}, by the rules {outcome}")


class _Told:
    """The world as a run tells of it: what its steps returned; no signals."""

    def __init__(self, view: RunView, place: str) -> None:
        self._place = place
        self._returned = {
            Key(node.node, node.tag): node.outcome for node in view.nodes if node.kind == "step" and node.attempts
        }

    def __call__(self, key: Key, args: dict[str, Any], revision: int = 1) -> Outcome:
        """What a step returned."""
        outcome = self._returned.get(key)
        if outcome is None:
            raise Difference(f"{self._place}: by the rules {key.node!r} runs with {args}, but it did not")
        return outcome

    def signal(self, name: str, slot: str) -> Sent | None:
        """Nobody sends any."""
        return None
