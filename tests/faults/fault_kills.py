"""Processes, brokers and databases are killed while runs go on: all end, and a kill explains every repeated effect.

Runs in both modes. FAULT_RUNS, FAULT_RATE and FAULT_SEED change how many runs, how many a second, and who dies when.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import msgspec
import oracle
import pytest
from arena import RATE, RUNS, SEED, Arena, Load, Postgres, arena, batter, meanwhile, report
from collector import Collector, collecting
from oracle import Span

from segue.config import Config, TraceConfig
from segue.plan.projection import COORDINATOR, MODES, Mode
from segue_nats.server import NatsServer

each_mode = pytest.mark.parametrize("mode", MODES)
TIMEOUT = RUNS / RATE * 3 + 180


@pytest.fixture
def traces() -> Iterator[Collector]:
    """Where everybody's spans go."""
    with collecting() as found:
        yield found


def traced(config: Config, traces: Collector) -> Config:
    """A configuration with tracing on."""
    return msgspec.structs.replace(config, trace=TraceConfig(endpoint=traces.url))


async def connected(here: Arena, load: Load, traces: Collector) -> dict[str, int]:
    """Check that every run has one trace; what a killed process had not exported is missing, and nothing else.

    Returns:
        How many spans there are, and how many died with their process.
    """
    killed = {death.pid for death in here.people.deaths}
    wanted = {
        (call[0], call[1] + (":undo" if call[3] == "undid" else ""), call[2])
        for call, rows in oracle.effects(here.effects).items()
        if not {row.pid for row in rows} & killed
    }
    if not killed:
        wanted |= {(run, "", "") for run in load.runs.numbers}
    found: set[tuple[str, str, str]] = set()
    with anyio.move_on_after(20):
        while not wanted <= found:
            await anyio.sleep(1)
            found = {(run, *place) for run in load.runs.numbers for place in traces.connected(run)}
    assert wanted <= found, f"{len(wanted - found)} spans are missing: {sorted(wanted - found)[:5]}"
    assert set(traces.spans) <= set(load.runs.numbers), "spans outside of the traces of runs"
    everything = len(load.runs.numbers) + len(oracle.effects(here.effects))
    return {"spans": len(found), "spans_lost": everything - len(found & _all(here, load))}


def _all(here: Arena, load: Load) -> set[tuple[str, str, str]]:
    calls = oracle.effects(here.effects)
    undone = {(run, node + (":undo" if what == "undid" else ""), tag) for run, node, tag, what in calls}
    return undone | {(run, "", "") for run in load.runs.numbers}


@each_mode
async def test_processes_are_killed(mode: Mode, sqlite: Config, traces: Collector, tmp_path: Path) -> None:
    """Anybody, at any time, with one replica of each: nobody stands in."""
    async with arena(traced(sqlite, traces), mode, tmp_path) as here:
        await here.start()
        load = here.load
        async with meanwhile(batter, here, here.everybody, f"{SEED}/{mode}"):
            await load.run(RUNS, RATE, TIMEOUT)
        report("processes", mode, {**await here.judge(load), **await connected(here, load, traces)})


async def interrupt(server: NatsServer | Postgres, seed: str, found: list[Span], pause: float = 5.0) -> None:
    """Kill a server now and then, and start it again at once."""
    draw = random.Random(seed)
    while True:
        await anyio.sleep(draw.uniform(pause / 5, pause))
        with anyio.CancelScope(shield=True):
            since = time.time()
            await anyio.to_thread.run_sync(server.kill)
            await anyio.sleep(draw.uniform(0, 1))
            await anyio.to_thread.run_sync(server.start)
            found.append(Span(since, time.time()))


@each_mode
async def test_the_broker_is_killed(
    mode: Mode, sqlite: Config, broker: NatsServer, traces: Collector, tmp_path: Path
) -> None:
    """With one replica of each there is nobody who could do a step a second time, so nothing explains a repeat."""
    async with arena(traced(sqlite, traces), mode, tmp_path) as here:
        await here.start()
        load = here.load
        kills: list[Span] = []
        async with meanwhile(interrupt, broker, f"{SEED}/{mode}", kills):
            await load.run(RUNS, RATE, TIMEOUT)
        figures = {**await here.judge(load), **await connected(here, load, traces)}
        report("broker", mode, {**figures, "kills": len(kills)})


@each_mode
async def test_postgresql_is_killed(mode: Mode, postgres: Config, database: Postgres, tmp_path: Path) -> None:
    """Everybody waits for it, and nobody forgets what is running."""
    async with arena(postgres, mode, tmp_path) as here:
        await here.start()
        load = here.load
        kills: list[Span] = []
        async with meanwhile(interrupt, database, f"{SEED}/{mode}", kills):
            await load.run(RUNS, RATE, TIMEOUT)
        figures = await here.judge(load)
        report("postgresql", mode, {**figures, "kills": len(kills)})


@each_mode
async def test_everything_is_killed(
    mode: Mode, postgres: Config, broker: NatsServer, database: Postgres, tmp_path: Path
) -> None:
    """Processes with a second replica of each, the broker and PostgreSQL, all at their own times."""
    async with arena(postgres, mode, tmp_path) as here:
        doubled = [*here.everybody, *(f"{name}#2" for name in here.everybody)]
        await here.start(*doubled)
        load = here.load
        kills: list[Span] = []
        async with (
            meanwhile(batter, here, doubled, f"{SEED}/{mode}/processes"),
            meanwhile(interrupt, broker, f"{SEED}/{mode}/broker", kills, 8.0),
            meanwhile(interrupt, database, f"{SEED}/{mode}/database", kills, 8.0),
        ):
            await load.run(RUNS, RATE, TIMEOUT)
        # A delivery that the broker had to repeat may meet the other replica while the first one is still busy with it.
        figures = await here.judge(load, kills)
        report("everything", mode, {**figures, "servers": len(kills)})


async def test_the_coordinator_is_killed_every_second(sqlite: Config, tmp_path: Path) -> None:
    """For a minute: throughput falls, and nothing else. Services are left alone, so no effect is repeated."""
    async with arena(sqlite, "orchestrated", tmp_path) as here:
        await here.start()
        quiet = here.load
        await quiet.run(RUNS, RATE, TIMEOUT)
        load = here.load
        count = int(60 * RATE)
        async with meanwhile(batter, here, [COORDINATOR], f"{SEED}", (1.0, 1.0)):
            await load.run(count, RATE, TIMEOUT + 120, first=RUNS - RUNS % 4)
        pids = {death.pid for death in here.people.deaths}
        load.runs.numbers.update(quiet.runs.numbers)
        load.runs.ends.update(quiet.runs.ends)
        figures = await here.judge(load)
        assert figures["repeated"] == 0
        assert len(pids) > 10
        report("coordinator", "orchestrated", {**figures, "quiet": _median(quiet), "battered": _median(load)})


def _median(load: Load) -> float:
    stays = sorted(stay.until - stay.since for stay in load.stays.values())
    return round(stays[len(stays) // 2], 3)


@each_mode
async def test_recovery_after_the_death_of_a_replica(mode: Mode, postgres: Config, tmp_path: Path) -> None:
    """The other one takes over within the redelivery time of the broker (2 s here) or the lease of what runs (15 s).

    A start that was recorded and not published waits for its guard: up to 30 s after the client has asked again (5 s).
    """
    async with arena(postgres, mode, tmp_path) as here:
        doubled = [*here.everybody, *(f"{name}#2" for name in here.everybody)]
        await here.start(*doubled)
        load = here.load

        async def kill_one_of_each() -> None:
            for name in here.everybody:
                await anyio.sleep(1)
                await anyio.to_thread.run_sync(here.people.kill, name)

        async with meanwhile(kill_one_of_each):
            await load.run(int(RATE * 8), RATE, TIMEOUT)
        figures = await here.judge(load)
        assert figures["kills"] == len(here.everybody)
        assert figures["recovery"] < 30 + 5 + 10
        report("replica", mode, figures)


@each_mode
async def test_zombies(mode: Mode, postgres: Config, tmp_path: Path) -> None:
    """A replica is frozen for longer than its leases, others take over, and it goes on as if nothing had happened."""
    async with arena(postgres, mode, tmp_path) as here:
        await here.start(*here.everybody, *(f"{name}#2" for name in here.everybody))
        load = here.load

        async def freeze() -> None:
            victims = [name for name in here.everybody if name != "observer"]
            async with anyio.create_task_group() as tasks:
                for victim in victims:
                    await anyio.sleep(1)
                    tasks.start_soon(anyio.to_thread.run_sync, here.people.freeze, victim, 18.0)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(freeze)
            await load.run(int(RATE * 25), RATE, TIMEOUT + 60)
        report("zombies", mode, await here.judge(load))
