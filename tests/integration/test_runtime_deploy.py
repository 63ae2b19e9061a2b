"""Deploying: all or nothing, while everything runs, before anything has run, and with several versions side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import msgspec
import pytest
from orders import Order, Summary, app, place_order
from stage import eventually, stage

from segue import App, Flow, Service, flow
from segue.config import Config
from segue.errors import ContractMismatch, PlanError
from segue.plan.projection import COORDINATOR, MODES, Mode
from segue.runtime import client as clients
from segue.wire.subjects import OBSERVER

each_mode = pytest.mark.parametrize("mode", MODES)

stock, desk, extra = Service("stock"), Service("desk"), Service("extra")
GATES: dict[int, anyio.Event] = {}


@stock.step
async def pick(n: int) -> str:
    if n in GATES:
        await GATES[n].wait()
    return f"item {n}"


@desk.step
async def pack(item: str) -> str:
    return f"packed {item}"


@extra.step
async def label(text: str) -> str:
    return f"labelled {text}"


def version_1(n: int) -> str:
    return pack(pick(n))


def version_2(n: int) -> str:
    return label(pack(label(pick(n))))


def named(body: Callable[[int], str]) -> Flow[[int], str]:
    return flow(name="ship", key=lambda n: n)(body)


V1, V2 = named(version_1), named(version_2)


@each_mode
async def test_old_runs_end_on_the_old_plan_and_new_ones_take_the_new(mode: Mode, config: Config) -> None:
    """The running services take up the new subscriptions without a restart."""
    GATES[1] = anyio.Event()
    async with stage(App("a", [V1], [stock, desk, extra]), config, mode) as here, here.running():
        old = await here.client.start(V1, 1)
        [done] = await here.deploy(mode, V2)
        assert (done.previous_plan, done.plan, done.changed) == (V1.plan.hash, V2.plan.hash, True)
        new = await here.client.start(V2, 2)
        assert await new.result(10) == "labelled packed labelled item 2"
        GATES.pop(1).set()
        assert await old.result(10) == "packed item 1"
        records = {record.run: record.plan for record in await here.journal.find("", 5)}
        assert (records[old.id], records[new.id]) == (V1.plan.hash, V2.plan.hash)


@each_mode
async def test_deploying_twice_changes_nothing(mode: Mode, memory: Config) -> None:
    async with stage(app, memory, mode) as here:
        [again] = await here.deploy(mode)
        assert not again.changed


@each_mode
async def test_a_mismatch_leaves_everything_as_it_was(mode: Mode, memory: Config) -> None:
    other = Service("desk")

    @other.step(name="pack")
    async def pack_int(item: int) -> int:
        return item

    @other.step
    async def count(n: int) -> int:
        return n

    @flow(name="ship", key=lambda n: n)
    def wrong(n: int) -> int:
        return pack_int(n)

    @flow(name="fits")
    def fits(n: int) -> str:
        return pick(n)

    @flow(name="missing")
    def missing(n: int) -> int:
        return count(n)

    async with stage(App("a", [V1], [stock, desk]), memory, mode) as here, here.running():
        before = (dict(here.wiring.catalog.flows), set(here.wiring.catalog.plans))
        with pytest.raises(ContractMismatch, match="flow 'ship' does not fit its services") as caught:
            await here.deploy(mode, fits, wrong)
        assert "pack" in caught.value.message
        assert caught.value.hint
        with pytest.raises(ContractMismatch, match="count"):
            await here.deploy(mode, missing)
        assert (dict(here.wiring.catalog.flows), set(here.wiring.catalog.plans)) == before
        assert await (await here.client.start(V1, 5)).result(5) == "packed item 5"


async def test_a_broken_plan_is_refused(memory: Config) -> None:
    async with stage(app, memory, None) as here:
        plan = place_order.plan
        broken = msgspec.structs.replace(plan, nodes=tuple(node for node in plan.nodes if node.id != "review"))
        with pytest.raises(PlanError):
            await here.deploy("orchestrated", broken)
        assert not here.wiring.catalog.flows


@each_mode
async def test_before_any_service_has_ever_run(mode: Mode, config: Config) -> None:
    """Nothing can be checked, so the services are named; what is sent waits for them."""
    async with stage(app, config, None) as here:
        [done] = await here.deploy(mode)
        assert done.unknown == ("email", "inventory", "payments")
        home = COORDINATOR if mode == "orchestrated" else "email"
        async with here.running(home):
            runs = [await here.client.start(place_order, Order(f"o{n}", 5)) for n in range(20)]
        async with here.running(home, "payments", OBSERVER):
            for run in runs:
                await here.events(run.id, until="completed")
        async with here.running():
            for n, run in enumerate(runs):
                assert await run.result(10) == Summary(f"o{n}", 5, f"small shelf-o{n}")
        [again] = await here.deploy(mode)
        assert again.unknown == ()


@each_mode
async def test_services_started_before_the_first_deploy(mode: Mode, config: Config) -> None:
    async with stage(app, config, None) as here, here.running():
        await anyio.sleep(0.1)
        await here.deploy(mode)
        run = await here.client.start(place_order, Order("o", 5))
        assert (await run.result(10)).order == "o"


@each_mode
async def test_flows_share_services(mode: Mode, memory: Config) -> None:
    @flow
    def first(n: int) -> str:
        return pack(pick(n))

    @flow
    def second(n: int) -> str:
        return pick.named("pack")(n)

    flows: list[Flow[..., Any]] = [first, second, V1]
    other: Mode = "choreographed" if mode == "orchestrated" else "orchestrated"
    async with stage(App("a", flows, [stock, desk]), memory, mode) as here, here.running():
        await here.deploy(other, second)
        runs = [(n, flow, await here.client.start(flow, n)) for n in range(10, 20) for flow in flows]
        for n, flow_, run in runs:
            expected = f"item {n}" if flow_ is second else f"packed item {n}"
            assert await run.result(5) == expected
            assert run.mode == (other if flow_ is second else mode)


async def test_deploys_at_the_same_time_do_not_forget_each_other(config: Config) -> None:
    """Filters are the union of all plans, whoever deploys when."""

    def make(i: int) -> Flow[[int], str]:
        def body(n: int) -> str:
            return pack.named(f"pack{i}")(pick.named(f"pick{i}")(n))

        return flow(name=f"flow{i}")(body)

    flows = [make(i) for i in range(6)]
    async with stage(App("a", flows, [stock, desk]), config, None) as here, here.running():
        async with stage(here.app, config, None) as second, anyio.create_task_group() as tasks:
            for i, item in enumerate(flows):
                tasks.start_soon((here, second)[i % 2].deploy, "choreographed", item)

        async def known() -> bool:
            return len(here.wiring.catalog.flows) == len(flows)

        await eventually(known)
        for item in flows:
            assert await (await here.client.start(item, 3)).result(10) == "packed item 3"


async def test_a_start_right_after_a_deploy_by_somebody_else(config: Config) -> None:
    """Clients and homes hear of a new plan at different times; nobody is refused for that."""
    ship = App("a", [V1], [stock, desk, extra])
    async with (
        stage(ship, config, "choreographed") as here,
        here.running(),
        stage(ship, config, None) as other,
        clients.client(here.wiring) as client,
    ):
        for n in range(30, 40):
            await other.deploy("choreographed", V2 if n % 2 else V1)
            assert (await (await client.start("ship", n)).result(10)).endswith(f"item {n}")
