"""Stopping in order: what runs may finish, what has not begun goes to others, and nobody waits for leases."""

from __future__ import annotations

import time

import anyio
import pytest
from orders import LOG, Order, app, place_order
from stage import stage

from segue import App, Service, current, flow
from segue.config import Config
from segue.plan.projection import COORDINATOR, MODES, Mode
from segue.runtime import overdue, participant, reception
from segue.testing.world import World

pytestmark = pytest.mark.parametrize("mode", MODES)

worker, desk = Service("worker"), Service("desk")
CALLS: list[int] = []


@worker.step
async def work(n: int) -> int:
    CALLS.append(n)
    await anyio.sleep(0.3)
    return n


@flow(key=lambda n: n, home=desk)
def go(n: int) -> int:
    return work(n)


slow = App("slow", flows=[go], services=[worker, desk])


async def test_running_calls_finish_and_are_acknowledged(mode: Mode, config: Config) -> None:
    CALLS.clear()
    async with stage(slow, config, mode) as here, here.running(COORDINATOR, "desk", "observer"):
        async with here.running("worker"):
            runs = [await here.client.start(go, n) for n in range(5)]
            with anyio.fail_after(5):
                while len(CALLS) < 5:
                    await anyio.sleep(0.01)
        for n, run in enumerate(runs):
            assert await run.result(5) == n
        async with here.running("worker"):
            await anyio.sleep(0.2)
    assert sorted(CALLS) == [0, 1, 2, 3, 4]


async def test_what_has_not_begun_goes_to_another_replica(mode: Mode, memory: Config) -> None:
    CALLS.clear()
    async with stage(slow, memory, mode) as here, here.running(COORDINATOR, "desk", "observer"):
        async with here.running("worker"):
            first = await here.client.start(go, 0)
            with anyio.fail_after(5):
                while not CALLS:
                    await anyio.sleep(0.01)
        later = await here.client.start(go, 1)
        await first.result(5)
        began = time.monotonic()
        async with here.running("worker"):
            assert await later.result(5) == 1
        assert time.monotonic() - began < 2
    assert CALLS == [0, 1]


async def test_what_does_not_finish_in_time_is_handed_back(
    mode: Mode, memory: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(participant, "GRACE", 0.1)
    CALLS.clear()
    async with stage(slow, memory, mode) as here, here.running(COORDINATOR, "desk", "observer"):
        async with here.running("worker"):
            run = await here.client.start(go, 7)
            with anyio.fail_after(5):
                while not CALLS:
                    await anyio.sleep(0.01)
            began = time.monotonic()
        assert time.monotonic() - began < 1
        async with here.running("worker"):
            assert await run.result(5) == 7
        assert time.monotonic() - began < 3
    assert CALLS == [7, 7]


async def test_parked_calls_go_to_others_at_once(mode: Mode, memory: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call with a due row need not wait for the end of its lease."""
    monkeypatch.setattr(participant, "GRACE", 0.1)
    attempts: list[int] = []
    keeper, home = Service("keeper"), Service("home")

    @keeper.step
    async def hold(n: int) -> int:
        attempts.append(current().attempt)
        if len(attempts) == 1:
            await anyio.sleep_forever()
        return n

    @flow(home=home)
    def held(n: int) -> int:
        return hold(n)

    async with stage(App("held", [held], [keeper, home]), memory, mode) as here:
        async with here.running(COORDINATOR, "home", "observer"):
            async with here.running("keeper"):
                run = await here.client.start(held, 3)
                await anyio.sleep(2.1)
            began = time.monotonic()
            async with here.running("keeper"):
                assert await run.result(5) == 3
    assert time.monotonic() - began < 2
    assert attempts == [1, 2]


async def test_stopping_leaves_nothing_behind(mode: Mode, memory: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """No due row of an ended run is left to whoever starts next."""
    for module in (overdue, reception):
        monkeypatch.setattr(module, "GUARD_FIRST", 0.3)
    LOG.clear()
    async with stage(app, memory, mode) as here:
        async with here.running():
            runs = [await here.client.start(place_order, Order(f"s{n}", 50)) for n in range(10)]
            for run in runs:
                await run.result(5)
        said = []
        async with here.wiring.transport.listen([f"{memory.namespace}.>"]) as heard, here.running():
            with anyio.move_on_after(0.6):
                said.append((await anext(aiter(heard))).subject)
    assert not said


async def test_an_idle_world_stops_at_once(mode: Mode) -> None:
    async with World(app, mode=mode, replicas=2) as world:
        await (await world.start(place_order, Order("i", 5))).result(5)
        began = time.monotonic()
    assert time.monotonic() - began < 1


async def test_a_cancelled_world_stops_at_once(mode: Mode) -> None:
    began = time.monotonic()
    with anyio.move_on_after(0.3):
        async with World(app, mode=mode) as world:
            await (await world.start(place_order, Order("c", 5))).result(5)
            await anyio.sleep_forever()
    assert time.monotonic() - began < 2


async def test_stopping_while_starts_come_in(mode: Mode, memory: Config) -> None:
    """A stopping home refuses for now; the client goes on with the next replica."""
    LOG.clear()
    async with stage(app, memory, mode) as here, here.running():
        runs = []

        async def start(n: int) -> None:
            await anyio.sleep(0.002 * n)
            runs.append(await here.client.start(place_order, Order(f"x{n}", 50)))

        async with anyio.create_task_group() as tasks:
            for n in range(50):
                tasks.start_soon(start, n)
            for _ in range(5):
                async with here.running(COORDINATOR, "email", "payments"):
                    await anyio.sleep(0.02)
        for run in runs:
            await run.result(10)
    assert len(runs) == 50
    assert sum(1 for _, node in LOG if node == "notify") == 50
