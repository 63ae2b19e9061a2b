"""Guards of very many runs at once, and of runs in which everybody hears everybody: no storms."""

from __future__ import annotations

import time
from collections import Counter

import anyio
import msgspec
import pytest
from stage import eventually, stage

from segue import App, Service, flow
from segue.config import Config, LimitsConfig
from segue.plan.projection import COORDINATOR, MODES, Mode
from segue.runtime import overdue, reception
from segue.wire import envelope

RATE, OPEN = 500, 5_000


async def asleep(_: overdue.DueRows) -> None:
    """Nothing falls due."""


async def test_five_thousand_guards_at_once(memory: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The home was down when they fell due; new runs do not wait for them."""
    monkeypatch.setattr(reception, "GUARD_FIRST", 0.0)
    away, here_now = Service("away"), Service("here")

    @away.step
    async def late(n: int) -> int:
        return n

    @here_now.step
    async def soon(n: int) -> int:
        return n + 1

    @flow
    def waits(n: int) -> int:
        return late(n)

    @flow
    def goes(n: int) -> int:
        return soon(n)

    heard: Counter[int] = Counter()
    config = msgspec.structs.replace(memory, limits=LimitsConfig(guards=RATE))
    async with stage(App("a", [waits, goes], [away, here_now]), config) as here:
        monkeypatch.setattr(overdue.DueRows, "claim", asleep)
        async with here.running(COORDINATOR):
            for first in range(0, OPEN, 500):
                async with anyio.create_task_group() as tasks:
                    for n in range(first, first + 500):
                        tasks.start_soon(here.client.start, waits, n)
        monkeypatch.undo()
        began = 0.0

        async def listen() -> None:
            started = here.wiring.subjects.event("orchestrated", "waits", "run", "started")
            async with here.wiring.transport.listen([started]) as messages:
                async for message in messages:
                    heard[int((time.monotonic() - began) / 0.5)] += len(envelope.split(message.body))

        async with anyio.create_task_group() as tasks:
            began = time.monotonic()
            tasks.start_soon(listen)
            async with here.running(COORDINATOR, "here"):
                slowest = 0.0
                for n in range(25):
                    start = time.monotonic()
                    run = await here.client.start(goes, n)
                    assert await run.result(5) == n + 1
                    slowest = max(slowest, time.monotonic() - start)
                    await anyio.sleep(max(0.0, 0.1 - (time.monotonic() - start)))
                passed = time.monotonic() - began
            tasks.cancel_scope.cancel()
    assert slowest < 1.0
    assert 0.5 * RATE * passed < heard.total() <= RATE * (passed + 0.5)
    assert max(heard.values()) <= 1.6 * RATE * 0.5, heard


@pytest.mark.parametrize("mode", MODES)
async def test_a_chain_of_diamonds_stays_linear(mode: Mode, memory: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody repeats what they said once; if each repetition caused two, this would be a million messages."""
    left, right, held = Service("left"), Service("right"), Service("held")
    length = 20

    @left.step
    async def top(n: int) -> int:
        return n

    @right.step
    async def bottom(n: int) -> int:
        return n

    @left.step
    async def join(a: int, b: int) -> int:
        return max(a, b) + 1

    release = anyio.Event()

    @held.step
    async def last(n: int) -> int:
        await release.wait()
        return n

    @flow
    def diamonds(n: int) -> int:
        for i in range(length):
            n = join.named(f"join{i}")(top.named(f"top{i}")(n), bottom.named(f"bottom{i}")(n))
        return last(n)

    monkeypatch.setattr(reception, "GUARD_FIRST", 1.0)
    said: Counter[tuple[str, str]] = Counter()
    last_said = 0.0

    async def listen() -> None:
        nonlocal last_said
        patterns = [f"{here.config.namespace}.{mode[0]}.>", f"{here.config.namespace}.do.>"]
        async with here.wiring.transport.listen(patterns) as messages:
            async for message in messages:
                for raw in envelope.split(message.body):
                    one = msgspec.json.decode(raw)
                    if one.get("redrive") == 1:
                        said[one["type"], one["node"]] += 1
                        last_said = time.monotonic()

    async def quiet() -> bool:
        return bool(said) and time.monotonic() - last_said > 0.5

    async with stage(App("a", [diamonds], [left, right, held]), memory, mode) as here, here.running():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            run = await here.client.start(diamonds, 0)
            await eventually(quiet)
            tasks.cancel_scope.cancel()
        release.set()
        assert await run.result(10) == length
    if mode == "orchestrated":
        assert said.total() == 2, said  # who knows everything repeats the call that has no result
    else:
        assert 3 * length <= said.total() <= 6 * length, said  # everybody who decided something repeats it
    assert max(said.values()) <= 2, said
