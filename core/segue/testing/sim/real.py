"""Steps of an app in a simulation: real functions, run by the real executor, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from math import inf
from typing import TYPE_CHECKING, Any

from segue.model.step import Step
from segue.runtime.executor import Code, Executor
from segue.runtime.work import Job, Returned
from segue.testing.sim.loop import SimLoop
from segue.testing.sim.steps import Done

if TYPE_CHECKING:
    from segue.testing.sim.host import SimHost
    from segue.testing.sim.world import World

ServiceSteps = Mapping[str, Mapping[str, Step[..., Any]]]


class RealSteps:
    """Runs the functions of steps. What they wait for by `anyio.sleep` passes at once.

    Threads and sockets are outside of the simulation: functions without `async` are called directly.

    Args:
        world: The simulation.
        steps: By service and name.
    """

    def __init__(self, world: World, steps: ServiceSteps) -> None:
        self.loop = SimLoop(world.timeline)
        self._world = world
        self._steps = steps
        self._running: set[asyncio.Task[None]] = set()

    def attempt(self, host: SimHost, job: Job, began: datetime, done: Done) -> None:
        """Run one."""
        # Not at once: this is called in a turn, and a loop that runs cannot be entered again.
        self._world.timeline.after(self._world.dice.delay(), self._begin, host, job, began, done)

    def close(self) -> None:
        """End what still runs."""
        for task in self._running:
            task.cancel()
        self.loop.pump()
        self.loop.close()

    def _begin(self, host: SimHost, job: Job, began: datetime, done: Done) -> None:
        if not host.alive:
            return
        task = self.loop.create_task(self._attempt(host, job, began, done))
        self._running.add(task)
        host.dying.append(task.cancel)
        task.add_done_callback(self._running.discard)
        self.loop.pump()

    async def _attempt(self, host: SimHost, job: Job, began: datetime, done: Done) -> None:
        returned = await _Runner(host, dict(self._steps.get(host.name, {}))).attempt(job, began)
        if host.alive:
            self._world.log.came_to(host.name, job, returned.kind)
            done(returned)


class _Runner(Executor):
    """The executor, without workers and threads.

    Args:
        host: The process.
        steps: Steps of its service.
    """

    def __init__(self, host: SimHost, steps: dict[str, Step[..., Any]]) -> None:
        super().__init__(host, steps, 1)
        self._random = host.world.dice.rng.random

    async def attempt(self, job: Job, began: datetime) -> Returned:
        """Run an attempt."""
        return await self._attempt(job, began)

    def _may_lose(self, code: Code) -> float:
        return inf  # here processes die of the weather, and often; never of a call

    async def _execute(self, code: Code, args: dict[str, Any]) -> Any:
        return await code.fn(**args) if code.is_async else code.fn(**args)
