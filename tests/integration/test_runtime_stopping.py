"""A stop is quick: it reaches what runs elsewhere, and does not wait for the next attempt of a call that failed.

The next attempts would come after a minute, and what overdue runs are healed by after half a minute.
"""

from __future__ import annotations

import anyio
import pytest
from stage import eventually, stage

from segue import App, Flow, Retry, RunFailed, Service, after, each, flow, race, sleep, wait_for, when
from segue.config import Config
from segue.plan.projection import COORDINATOR, MODES, Mode

front, back = Service("front"), Service("back")
done: list[str] = []
held: list[anyio.Event] = []

each_mode = pytest.mark.parametrize("mode", MODES)


@front.step
async def take(order: str) -> str:
    done.append("take")
    return order


@take.undo
async def put_back(order: str) -> None:
    done.append("put back")


@back.step(retry=Retry(max_attempts=5, initial=60, jitter=0))
async def flaky(order: str) -> str:
    done.append("flaky")
    for event in held:
        await event.wait()
    raise ConnectionError("not now")


@back.step
async def slow(order: str) -> str:
    done.append("slow")
    await anyio.sleep(0.2)
    return order


@back.step(retry=Retry(max_attempts=1))
async def refuse(order: str) -> str:
    raise ValueError(f"no {order}")


@flow(home=front, key=lambda order: order)
def hopeless(order: str) -> str:
    return flaky(take(order))


@flow(home=front, key=lambda order: order)
def quicker(order: str) -> str:
    return race(lambda: flaky(take(order)), lambda: slow(order))


@flow(home=front, key=lambda order: order)
def elsewhere(order: str) -> str:
    """Its result does not depend on what fails."""
    refuse(take(order))
    return take(order)


@flow(home=front, key=lambda order: order, on_failure="stop")
def hasty(order: str) -> str:
    """What fails is no input of what waits, nor of the result."""
    with after(refuse(take(order))):
        slow(order)
    return take(wait_for("never", str, timeout=3600))


@flow(home=front, key=lambda order: order, on_failure="stop")
def hasty_map(order: str) -> str:
    """One item of a map fails, while the others wait."""

    def body(n: int) -> str:
        with when(n > 1):
            refuse(order)
        return take(wait_for("never", str, timeout=3600, match=n))

    each([1, 2], body)
    with after(sleep(3600)):
        return take(order)


app = App("stopping", flows=[hopeless, quicker, elsewhere, hasty, hasty_map], services=[front, back])


@pytest.fixture(autouse=True)
def clean() -> None:
    done.clear()
    held.clear()


@each_mode
async def test_cancel_does_not_wait_for_a_backoff(mode: Mode, config: Config) -> None:
    async with stage(app, config, mode) as here, here.running():
        run = await here.client.start(hopeless, "x")
        await here.events(run.id, until="attempt.failed")
        assert (await run.cancel()).changed
        with pytest.raises(RunFailed, match="cancelled"):
            await run.result(20)
        assert done == ["take", "flaky", "put back"]
        await here.events(run.id)
        view = await here.client.where(run.id)
        assert {node.node: node.state for node in view.nodes} == {"take": "undone", "flaky": "cancelled"}


@each_mode
async def test_a_lost_race_does_not_wait_for_a_backoff(mode: Mode, memory: Config) -> None:
    async with stage(app, memory, mode) as here, here.running():
        run = await here.client.start(quicker, "x")
        assert await run.result(5) == "x"
        assert sorted(done) == ["flaky", "put back", "slow", "take"]


@each_mode
async def test_another_replica_may_hear_of_the_stop(mode: Mode, memory: Config) -> None:
    """The replica whose attempt failed is gone; the row of the next attempt is all that is left of the call."""
    async with stage(app, memory, mode) as here, here.running(COORDINATOR, "front", "observer"):
        async with here.running("back"):
            run = await here.client.start(hopeless, "x")
            await here.events(run.id, until="attempt.failed")
        async with here.running("back"):
            await run.cancel()
            with pytest.raises(RunFailed, match="cancelled"):
                await run.result(5)
    assert done == ["take", "flaky", "put back"]


@each_mode
async def test_a_call_that_is_withdrawn_while_it_fails_is_not_repeated(mode: Mode, memory: Config) -> None:
    """Two replicas: one may hear of the stop while the other one's attempt runs, and then fails."""
    held.append(anyio.Event())
    async with stage(app, memory, mode) as here, here.running(), here.running("back"):
        run = await here.client.start(hopeless, "x")
        await eventually(lambda: has_done("flaky"))
        await run.cancel()
        await anyio.sleep(0.1)
        held[0].set()
        with pytest.raises(RunFailed, match="cancelled"):
            await run.result(5)
    assert done == ["take", "flaky", "put back"]


async def has_done(what: str) -> bool:
    return what in done


@each_mode
async def test_what_fails_elsewhere_is_undone_at_once(mode: Mode, memory: Config) -> None:
    async with stage(app, memory, mode) as here, here.running():
        run = await here.client.start(elsewhere, "x")
        with pytest.raises(RunFailed, match="no x"):
            await run.result(5)
        assert done == ["take", "take", "put back", "put back"]


@each_mode
@pytest.mark.parametrize("fast", [hasty, hasty_map], ids=lambda fast: fast.name)
async def test_the_first_failure_stops_what_does_not_depend_on_it(
    mode: Mode, config: Config, fast: Flow[..., str]
) -> None:
    async with stage(app, config, mode) as here, here.running():
        run = await here.client.start(fast, "x")
        with pytest.raises(RunFailed, match="no x"):
            await run.result(20)
        assert done == (["take", "put back"] if fast is hasty else [])
        await here.events(run.id)
        view = await here.client.where(run.id)
        assert view.stop == "failed"
        waits = {node.state for node in view.nodes if node.signal or node.kind in ("wait", "sleep")}
        assert waits == {"cancelled"}


@each_mode
async def test_a_run_that_was_paused_still_fails_fast(mode: Mode, memory: Config) -> None:
    async with stage(app, memory, mode) as here, here.running(COORDINATOR, "front", "observer"):
        run = await here.client.start(hasty, "x")
        await run.pause()
        await run.resume()
        async with here.running("back"):
            with pytest.raises(RunFailed, match="no x"):
                await run.result(5)
