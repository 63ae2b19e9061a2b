"""A stop is quick: it reaches what runs elsewhere, and does not wait for the next attempt of a call that failed."""

from __future__ import annotations

import time

import anyio
import pytest
from stage import Stage, eventually, stage

from segue import App, Retry, RunFailed, Service, flow, race
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


app = App("stopping", flows=[hopeless, quicker, elsewhere], services=[front, back])


@pytest.fixture(autouse=True)
def clean() -> None:
    done.clear()
    held.clear()


async def backing_off(here: Stage, run: str, node: str) -> None:
    async def there() -> bool:
        found = {view.node: view for view in (await here.client.where(run)).nodes}
        return found[node].next is not None

    await eventually(there)


@each_mode
async def test_cancel_does_not_wait_for_a_backoff(mode: Mode, config: Config) -> None:
    async with stage(app, config, mode) as here, here.running():
        run = await here.client.start(hopeless, "x")
        await backing_off(here, run.id, "flaky")
        began = time.monotonic()
        assert (await run.cancel()).changed
        with pytest.raises(RunFailed, match="cancelled"):
            await run.result(10)
        assert time.monotonic() - began < 5
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
            await backing_off(here, run.id, "flaky")
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
