"""The load: a closed loop with a fixed number of flows in flight, and what is measured of it.

A round warms up, then measures a window with all lanes busy at both ends of it. After that the flows in flight end, and
the round with them when every consumer has finished. Rates and latencies are those of the window; CPU seconds and
messages are counted over the whole round, for all of its flows.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import anyio
from meter import Counters, Meter

DRAIN_TIMEOUT = 60.0
POLL = 0.05
WARM_FLOWS = 20
"""At least so many flows end before a window."""

RunFlow = Callable[[str], Awaitable[None]]
"""Runs the flow of a name from start to end."""


class System(NamedTuple):
    """Something that runs flows.

    Attributes:
        name: `<shape>-<variant>`.
        run: Runs one flow.
        meter: Its counters.
    """

    name: str
    run: RunFlow
    meter: Meter


class Round(NamedTuple):
    """What one round measured.

    Attributes:
        flows: Flows that ended in the window.
        seconds: Length of the window.
        latencies: Seconds from start to end of each of these flows.
        waiting: Messages that consumers had not finished when the window closed.
        all_flows: Flows of the whole round.
        counted: Counters over the whole round, until everything was finished.
    """

    flows: int
    seconds: float
    latencies: list[float]
    waiting: int
    all_flows: int
    counted: Counters


class _Lanes:
    def __init__(self, run: RunFlow, prefix: str) -> None:
        self._run = run
        self._prefix = prefix
        self._started = 0
        self._next: anyio.Event | None = None
        self.stopped = False
        self.ends: list[float] = []
        self.latencies: list[float] = []

    async def lane(self) -> None:
        """One flow after the other."""
        clock = time.perf_counter
        while not self.stopped:
            self._started += 1
            start = clock()
            await self._run(f"{self._prefix}-{self._started}")
            end = clock()
            self.ends.append(end)
            self.latencies.append(end - start)
            if self._next is not None:
                self._next.set()

    async def end(self) -> None:
        """Wait for the end of a flow."""
        self._next = anyio.Event()
        await self._next.wait()


async def measure(system: System, in_flight: int, warm_up: float, seconds: float) -> Round:
    """Measure a system once.

    Args:
        system: What runs the flows.
        in_flight: Flows at the same time.
        warm_up: Seconds before the window.
        seconds: Length of the window.

    Raises:
        TimeoutError: It came to a halt.
    """
    lanes = _Lanes(system.run, f"{time.time_ns():x}")
    before = await system.meter.read()
    with anyio.fail_after(warm_up + seconds + DRAIN_TIMEOUT):
        async with anyio.create_task_group() as tasks:
            for _ in range(in_flight):
                tasks.start_soon(lanes.lane)
            await anyio.sleep(warm_up)
            while len(lanes.ends) < WARM_FLOWS:
                await lanes.end()
            first = len(lanes.ends)
            await anyio.sleep(seconds)
            if len(lanes.ends) == first:
                await lanes.end()
            last = len(lanes.ends)
            lanes.stopped = True
            waiting = (await system.meter.read()).waiting
        after = await system.meter.read()
        while after.waiting:
            await anyio.sleep(POLL)
            after = await system.meter.read()
    # Flows that wait for each other end in bursts, so a window reaches from the end of one burst to that of another.
    window = lanes.ends[last - 1] - lanes.ends[first - 1]
    return Round(last - first, window, lanes.latencies[first:last], waiting, len(lanes.ends), after.since(before))
