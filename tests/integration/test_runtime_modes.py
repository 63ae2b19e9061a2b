"""Switching the mode: runs under way end in theirs, new ones begin in the new one, and a key stays one run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio
import msgspec
import pytest
from orders import Order, app, place_order
from stage import Stage, stage

from segue import App, Service, UnknownFlow, flow
from segue.config import Config
from segue.errors import TransportUnavailable
from segue.plan.projection import COORDINATOR, MODES, Mode
from segue.runtime import client as clients
from segue.runtime import deploy, starter

both_ways = pytest.mark.parametrize(
    ("mode", "other"), [(mode, MODES[1 - i]) for i, mode in enumerate(MODES)], ids=["to-c", "to-o"]
)


async def mode_in_journal(here: Stage, run: str) -> str:
    await here.events(run)
    [record] = await here.journal.find(run)
    return record.mode


@both_ways
async def test_runs_under_way_end_in_their_mode(mode: Mode, other: Mode, config: Config) -> None:
    gate = anyio.Event()
    service, desk = Service("worker"), Service("desk")

    @service.step
    async def work(n: int) -> int:
        if n < 10:
            await gate.wait()
        return n

    @desk.step
    async def finish(n: int) -> int:
        return n + 1

    @flow(key=lambda n: n)
    def go(n: int) -> int:
        return finish(work(n))

    async with stage(App("a", [go], [service, desk]), config, mode) as here, here.running():
        before = [await here.client.start(go, n) for n in range(5)]
        done = await here.switch(go, other)
        assert (done.mode, done.previous_mode, done.changed) == (other, mode, True)
        after = [await here.client.start(go, n) for n in range(10, 15)]
        assert [await run.result(10) for run in after] == list(range(11, 16))
        gate.set()
        assert [await run.result(10) for run in before] == list(range(1, 6))
        assert {run.mode for run in before} == {mode}
        assert {run.mode for run in after} == {other}
        assert {await mode_in_journal(here, run.id) for run in before} == {mode}
        assert {await mode_in_journal(here, run.id) for run in after} == {other}


@both_ways
async def test_a_key_is_one_run_across_the_switch(mode: Mode, other: Mode, config: Config) -> None:
    async with stage(app, config, mode) as here, here.running():
        first = await here.client.start(place_order, Order("x", 5))
        await first.result(10)
        await here.switch(place_order, other)
        again = await here.client.start(place_order, Order("x", 5))
        assert (again.id, again.existing, again.mode) == (first.id, True, mode)
        assert (await again.result(5)).order == "x"
        found = await here.client.get(place_order, "x")
        assert (found.id, found.mode) == (first.id, mode)
        assert (await found.result(5)).order == "x"
        fresh = await here.client.start(place_order, Order("y", 5))
        assert (fresh.existing, fresh.mode) == (False, other)
        await fresh.result(10)
        await here.switch(place_order, mode)
        back = await here.client.start(place_order, Order("y", 5))
        assert (back.id, back.mode) == (fresh.id, other)
        assert (await here.client.start(place_order, Order("x", 5))).id == first.id


@both_ways
async def test_starts_during_the_switch_are_one_run_each(mode: Mode, other: Mode, memory: Config) -> None:
    """Two clients start the same keys one after the other while the mode changes."""
    found: dict[str, set[str]] = {}
    async with stage(app, memory, mode) as here, here.running(), clients.client(here.wiring) as second:

        async def start(client: clients.Client, n: int) -> None:
            await anyio.sleep(0.002 * n + (0.02 if client is second else 0.0))
            run = await client.start(place_order, Order(f"k{n}", 5))
            found.setdefault(f"k{n}", set()).add(run.id)
            await run.result(10)

        async with anyio.create_task_group() as tasks:
            for n in range(60):
                tasks.start_soon(start, here.client, n)
                tasks.start_soon(start, second, n)
            await anyio.sleep(0.06)
            await here.switch(place_order, other)
    assert {len(runs) for runs in found.values()} == {1}
    assert len(found) == 60


@both_ways
async def test_refused_while_nobody_knows_whether_the_key_is_taken(
    mode: Mode, other: Mode, memory: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starter, "TIMEOUT", 0.5)
    old = COORDINATOR if mode == "orchestrated" else "email"
    now = "email" if mode == "orchestrated" else COORDINATOR
    rest = [name for name in (COORDINATOR, *app.services, "observer") if name not in (old, now)]
    async with stage(app, memory, mode) as here, here.running(now, *rest):
        async with here.running(old):
            first = await here.client.start(place_order, Order("x", 5))
            await first.result(5)
        await here.switch(place_order, other)
        with pytest.raises(TransportUnavailable) as caught:
            await here.client.start(place_order, Order("x", 5))
        assert caught.value.retryable
        assert repr(old) in caught.value.message
        assert "start" in caught.value.hint
        without_key = await here.client.start(place_order, Order("z", 5), key="")
        assert without_key.mode == other
        async with here.running(old):
            assert (await here.client.start(place_order, Order("x", 5))).id == first.id


async def test_asking_the_other_placement_holds_up_nobody(memory: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs go on while a start waits for a participant that does not answer."""
    async with stage(app, memory, "choreographed") as here:
        await here.switch(place_order, "orchestrated")
        rest = [name for name in here.everybody if name != "email"]

        async def silent(body: bytes) -> bytes:
            await anyio.sleep(3)
            return b"[]"

        async with here.running(*rest), here.wiring.transport.respond("segue.ask.email", silent):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(here.client.start, place_order, Order("waits", 5))
                await anyio.sleep(0.1)
                with anyio.fail_after(2):
                    run = await here.client.start(place_order, Order("free", 5), key="")
                    while not any(event.node == "charge" for event in await here.events(run.id, until="")):
                        await anyio.sleep(0.02)
                assert not run.existing
                tasks.cancel_scope.cancel()


async def test_after_the_lifetime_of_keys_nobody_is_asked(memory: Config) -> None:
    async with stage(app, memory, "choreographed") as here, here.running(COORDINATOR, "payments"):
        await here.switch(place_order, "orchestrated")
        record = here.wiring.catalog.flow("place_order")
        assert record.changed is not None
        assert datetime.now(UTC) - record.changed < timedelta(minutes=1)
        await here.wiring.catalog.announce(
            msgspec.structs.replace(record, changed=datetime.now(UTC) - timedelta(days=8))
        )
        run = await here.client.start(place_order, Order("x", 5))
        assert run.mode == "orchestrated"


async def test_switching_a_flow_that_is_not_deployed(memory: Config) -> None:
    async with stage(app, memory) as here:
        with pytest.raises(UnknownFlow, match="'nothing' is not deployed"):
            await deploy.set_mode(here.wiring.catalog, "nothing", "orchestrated")
        assert not (await here.switch(place_order, "orchestrated")).changed
        assert here.wiring.catalog.flow("place_order").changed is None
