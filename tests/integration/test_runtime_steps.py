"""How a service runs its steps: attempts, timeouts, threads, limits, what a step may know, and steps that take long."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import anyio
import msgspec
import pytest
from stage import eventually, stage

from segue import App, Retry, RunFailed, Service, current, flow, hookimpl
from segue.config import Config, ServiceConfig
from segue.hooks import plugins
from segue.plan.projection import MODES, Mode
from segue.testing.world import World

pytestmark = pytest.mark.parametrize("mode", MODES)


class Declined(Exception):
    """Not to be tried again."""


def one_step(function: Callable[..., Any], **options: Any) -> App:
    """An app with one flow of one step; the flow is called `go`, and its home is another service than the worker."""
    service, home = Service("worker"), Service("desk")
    step = service.step(**options)(function) if options else service.step(function)

    def go(n: int) -> int:
        return step(n)

    return App("one", flows=[flow(key=lambda n: n, home=home)(go)], services=[service, home])


async def test_attempts_are_counted_and_journalled(mode: Mode) -> None:
    seen = []

    async def work(n: int) -> int:
        seen.append(current())
        if current().attempt < 3:
            raise TimeoutError(f"attempt {current().attempt}")
        return n + 1

    app = one_step(work, retry=Retry(max_attempts=4, initial=0.01))
    async with World(app, mode=mode) as world:
        run = await world.start(app.flows["go"], 1)
        assert await run.result(5) == 2
        view = await world.where(run.id)
    assert [here.attempt for here in seen] == [1, 2, 3]
    assert len({here.idempotency_key for here in seen}) == 1
    assert {(here.run, here.key, here.flow, here.node) for here in seen} == {(run.id, "1", "go", "work")}
    assert (view.nodes[0].attempts, view.nodes[0].state, view.nodes[0].error) == (3, "completed", None)


async def test_journal_has_an_event_for_each_failed_attempt(mode: Mode, memory: Config) -> None:
    async def work(n: int) -> int:
        raise TimeoutError("never")

    app = one_step(work, retry=Retry(max_attempts=3, initial=0.01))
    async with stage(app, memory, mode) as here, here.running():
        run = await here.client.start(app.flows["go"], 1)
        with pytest.raises(RunFailed, match=r"go failed: work \(TimeoutError: never\)"):
            await run.result(5)
        events = await here.events(run.id)
    attempts = [(event.kind, event.attempt) for event in events if event.node == "work"]
    assert sorted(attempts) == [("attempt.failed", 1), ("attempt.failed", 2), ("failed", 3)]
    assert all(event.began is not None and event.began <= event.time for event in events if event.node == "work")


async def test_non_retryable_errors_fail_at_once(mode: Mode) -> None:
    calls = []

    async def work(n: int) -> int:
        calls.append(n)
        raise Declined("no")

    app = one_step(work, retry=Retry(max_attempts=5, initial=0.01, non_retryable=(Declined,)))
    async with World(app, mode=mode) as world:
        run = await world.start(app.flows["go"], 1)
        with pytest.raises(RunFailed, match="Declined: no"):
            await run.result(5)
    assert calls == [1]


async def test_backoff_of_the_next_attempt_is_shown_and_kept(mode: Mode) -> None:
    calls = []

    async def work(n: int) -> int:
        calls.append(time.monotonic())
        if len(calls) == 1:
            raise ConnectionError("busy")
        return n

    app = one_step(work, retry=Retry(max_attempts=2, initial=0.6, jitter=0))
    async with World(app, mode=mode) as world:
        run = await world.start(app.flows["go"], 1)
        view = await world.where(run.id, timeout=0.3)
        [node] = view.nodes
        assert node.error is not None
        assert (node.error.type, node.attempts, node.of) == ("ConnectionError", 1, 2)
        assert node.next is not None
        await run.result(5)
    assert 0.6 <= calls[1] - calls[0] < 1.2


async def test_duplicates_do_not_shorten_the_backoff(mode: Mode, memory: Config) -> None:
    """Whatever is delivered again while an attempt is waited for: it is not one more attempt."""
    attempts = []

    async def work(n: int) -> int:
        attempts.append(current().attempt)
        raise ConnectionError("busy")

    app = one_step(work, retry=Retry(max_attempts=3, initial=0.5, factor=1, jitter=0))
    async with stage(app, memory, mode) as here, here.running(), here.wiring.transport.listen(["segue.>"]) as heard:
        run = await here.client.start(app.flows["go"], 1)
        with anyio.fail_after(5):
            async for message in heard:
                if message.subject.endswith("attempt.failed"):
                    break
                if ".do." in message.subject or message.subject.endswith("started"):
                    trigger = message
        for n in range(5):
            await here.wiring.transport.publish([trigger._replace(id=f"again-{n}")])
            await anyio.sleep(0.05)
        assert (await run.outcome(5)).status == "failed"
    assert attempts == [1, 2, 3]


@pytest.mark.parametrize("threaded", [False, True])
async def test_timeout_ends_an_attempt(mode: Mode, threaded: bool) -> None:
    go_on = threading.Event()

    async def asynchronous(n: int) -> int:
        await anyio.sleep_forever()

    def plain(n: int) -> int:
        go_on.wait(5)
        return n

    app = one_step(plain if threaded else asynchronous, timeout=0.2)
    async with World(app, mode=mode) as world:
        run = await world.start(app.flows["go"], 1)
        began = time.monotonic()
        with pytest.raises(RunFailed, match=r"Timeout: .* took longer than 0.2 s"):
            await run.result(5)
        assert time.monotonic() - began < 2
        go_on.set()


async def test_plain_functions_do_not_block_the_loop(mode: Mode) -> None:
    threads, started = set(), threading.Barrier(3, timeout=5)

    def work(n: int) -> int:
        threads.add(threading.get_ident())
        started.wait()  # broken unless all three run at the same time
        return current().attempt + n

    app = one_step(work)
    async with World(app, mode=mode) as world:
        runs = [await world.start(app.flows["go"], n) for n in range(3)]
        assert [await run.result(5) for run in runs] == [1, 2, 3]
    assert threading.get_ident() not in threads


async def test_concurrency_is_limited(mode: Mode, memory: Config) -> None:
    now = most = 0

    async def work(n: int) -> int:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await anyio.sleep(0.01)
        now -= 1
        return n

    app = one_step(work)
    config = msgspec.structs.replace(memory, services={"worker": ServiceConfig(concurrency=3)})
    async with stage(app, config, mode) as here, here.running():
        runs = [await here.client.start(app.flows["go"], n) for n in range(20)]
        assert [await run.result(5) for run in runs] == list(range(20))
    assert most == 3


async def test_steps_that_take_long_hold_up_nobody(mode: Mode, config: Config) -> None:
    """A step over a second has a due row behind it, so that its message is acknowledged, and others go on."""
    go_on = anyio.Event()
    calls = []

    async def work(n: int) -> int:
        calls.append(n)
        if n == 0:
            await go_on.wait()
        return n

    app = one_step(work)
    channel = "commands" if mode == "orchestrated" else "events"
    async with stage(app, config, mode) as here, here.running():
        slow = await here.client.start(app.flows["go"], 0)
        others = [await here.client.start(app.flows["go"], n) for n in range(1, 30)]
        assert [await run.result(5) for run in others] == list(range(1, 30))

        async def acknowledged() -> bool:
            backlog = await here.wiring.transport.backlog(channel, "worker")
            return backlog is not None and not backlog.waiting + backlog.delivered

        await eventually(acknowledged, 5)
        assert calls.count(0) == 1
        go_on.set()
        assert await slow.result(5) == 0
    assert calls.count(0) == 1


async def test_a_step_that_leaks_a_cancellation_fails(mode: Mode) -> None:
    async def work(n: int) -> int:
        task = asyncio.create_task(anyio.sleep_forever())
        task.cancel()
        await task
        return n

    app = one_step(work)
    async with World(app, mode=mode) as world:
        run = await world.start(app.flows["go"], 1)
        with pytest.raises(RunFailed, match="CancelledError"):
            await run.result(5)


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_step_that_exits_fails(mode: Mode, threaded: bool) -> None:
    async def asynchronous(n: int) -> int:
        sys.exit(3)

    def plain(n: int) -> int:
        sys.exit(3)

    app = one_step(plain if threaded else asynchronous)
    async with World(app, mode=mode) as world:
        run = await world.start(app.flows["go"], 1)
        with pytest.raises(RunFailed, match="SystemExit"):
            await run.result(5)


async def test_plugins_hear_of_attempts_and_ends_and_cannot_break_them(mode: Mode) -> None:
    heard: list[tuple[Any, ...]] = []

    class Plugin:
        @hookimpl
        def segue_step_finished(self, service: str, step: str, run: str, node: str, kind: str, seconds: float) -> None:
            heard.append((run, service, step, node, kind))
            assert 0 <= seconds < 5
            raise RuntimeError("plugins do")

        @hookimpl
        def segue_run_ended(self, flow: str, run: str, key: str, status: str) -> None:
            heard.append((run, flow, key, status))
            raise RuntimeError("plugins do")

    async def work(n: int) -> int:
        if current().attempt == 1:
            raise ConnectionError
        return n

    app = one_step(work, retry=Retry(initial=0.01))
    plugin = Plugin()
    plugins().register(plugin)
    try:
        async with World(app, mode=mode) as world:
            run = await world.start(app.flows["go"], 4)
            assert await run.result(5) == 4
    finally:
        plugins().unregister(plugin)
    called = ("worker", "work", "work")
    assert heard == [
        (run.id, *called, "attempt.failed"),
        (run.id, *called, "completed"),
        (run.id, "go", "4", "completed"),
    ]


async def test_a_result_that_does_not_fit_its_type_fails(mode: Mode) -> None:
    async def work(n: int) -> int:
        return "text"  # type: ignore[return-value]

    app = one_step(work, retry=Retry(max_attempts=3, initial=0.01))
    async with World(app, mode=mode) as world:
        run = await world.start(app.flows["go"], 1)
        with pytest.raises(RunFailed, match="InvalidInput"):
            await run.result(5)


async def test_huge_error_messages_do_no_harm(mode: Mode) -> None:
    async def work(n: int) -> int:
        raise ValueError("x" * 3_000_000)

    app = one_step(work)
    async with World(app, mode=mode) as world:
        run = await world.start(app.flows["go"], 1)
        ended = await run.outcome(5)
    assert ended.causes[0].error is not None
    assert ended.causes[0].error.type == "ValueError"
    assert 100 < len(ended.causes[0].error.message) < 10_000


async def test_huge_results_are_carried(mode: Mode) -> None:
    service = Service("worker")

    @service.step(retry=Retry(max_attempts=3, initial=0.01))
    async def make(n: int) -> str:
        return "x" * n

    @service.step
    async def both(one: str, other: str) -> int:
        return len(one + other)

    @flow
    def go(n: int) -> int:
        return both(make(n), make(n))

    app = App("huge", flows=[go], services=[service])
    async with World(app, mode=mode) as world:
        for size in (400_000, 600_000, 2_000_000):  # of the second each fits into a message, but not both
            assert await (await world.start(go, size)).result(5) == 2 * size
        run = await world.start(go, 65 * 1024 * 1024)
        with pytest.raises(RunFailed, match="PayloadTooLarge: what make returned"):
            await run.result(10)
