"""What piles up: stores that stop, services that are away while work waits. Memory stays bounded, nobody spins.

FAULT_BACKLOG says how many messages wait (20,000).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import anyio
import battered
import pytest
from arena import RATE, Arena, Meter, Postgres, arena, meanwhile, report

from segue.config import Config
from segue.plan.projection import COORDINATOR, MODES, Mode

each_mode = pytest.mark.parametrize("mode", MODES)
BACKLOG = int(os.environ.get("FAULT_BACKLOG", "20000"))
AWAY = float(os.environ.get("FAULT_AWAY", "20"))
"""Seconds for which the store is stopped."""

IDLE = 0.25
"""The share of a processor that a participant may use while it can do nothing but wait."""

ROOM = 200.0
"""Megabytes that a process may grow by, however much waits for it."""


def meters(here: Arena) -> dict[str, Meter]:
    """One for each participant, from now on."""
    return {name: Meter(here.people.measured(name)) for name in here.everybody}


@each_mode
async def test_the_store_is_stopped(mode: Mode, postgres: Config, database: Postgres, tmp_path: Path) -> None:
    """While starts and messages go on coming, everybody waits without spinning, and then goes on."""
    async with arena(postgres, mode, tmp_path) as here:
        await here.start()
        load = here.load
        busy: dict[str, float] = {}

        async def stop() -> None:
            await anyio.sleep(2)
            await anyio.to_thread.run_sync(database.kill)
            found = meters(here)
            await anyio.sleep(AWAY)
            busy.update({name: round(meter.busy(), 2) for name, meter in found.items()})
            await anyio.to_thread.run_sync(database.start)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stop)
            await load.run(int(RATE * 6), RATE, AWAY + 120)
        figures = await here.judge(load)
        report("store stopped", mode, {**figures, "seconds": AWAY, "busy": busy})
        assert max(busy.values()) < IDLE, busy


@each_mode
async def test_a_backlog_is_worked_off(mode: Mode, sqlite: Config, tmp_path: Path) -> None:
    """A service is away while a great many calls pile up for it; then it comes back."""
    async with arena(sqlite, mode, tmp_path) as here:
        away = "right"
        present = [name for name in here.everybody if name != away]
        await here.start(*present)
        load = here.load
        homes = {name: Meter(here.people.measured(name)) for name in present}

        async def come_back() -> None:
            while len(load.runs.numbers) < BACKLOG:
                await anyio.sleep(0.2)
            figures["filled"] = round(time.time() - begun, 1)
            await here.start(away)
            since, meter = time.time(), Meter(here.people.measured(away))
            async with meanwhile(meter.watch):
                while len(load.runs.ends) < BACKLOG:
                    await anyio.sleep(0.2)
            figures["worked_off"] = round(time.time() - since, 1)
            figures["grown"] = {away: round(meter.grown, 1)}

        begun = time.time()
        figures: dict[str, object] = {}
        async with anyio.create_task_group() as tasks:
            for meter in homes.values():
                tasks.start_soon(meter.watch)
            async with anyio.create_task_group() as main:
                main.start_soon(come_back)
                await load.run(BACKLOG, 2000, BACKLOG / 50 + 300, [battered.single])
            tasks.cancel_scope.cancel()
        judged = await here.judge(load, history=False)
        assert judged["repeated"] == 0
        grown = {**figures.pop("grown"), **{name: round(meter.grown, 1) for name, meter in homes.items()}}  # type: ignore[dict-item]
        report("backlog", mode, {**judged, **figures, "grown": grown})
        assert grown[away] < ROOM, grown
        assert grown.get(COORDINATOR, grown["desk"]) < ROOM, grown


@each_mode
async def test_a_slow_consumer(mode: Mode, sqlite: Config, tmp_path: Path) -> None:
    """A service is frozen in the middle of its work, and what piles up is neither lost nor done twice by itself."""
    async with arena(sqlite, mode, tmp_path) as here:
        await here.start()
        load = here.load
        meter = Meter(here.people.measured("left"))

        async def freeze() -> None:
            for _ in range(3):
                await anyio.sleep(1)
                await anyio.to_thread.run_sync(here.people.freeze, "left", 4.0)

        async with meanwhile(meter.watch), meanwhile(freeze):
            await load.run(int(RATE * 18), RATE, 180)
        figures = await here.judge(load)
        assert figures["repeated"] == 0
        report("slow consumer", mode, {**figures, "grown": round(meter.grown, 1)})
