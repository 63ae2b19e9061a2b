"""Large graphs, shaped like real workflows, through the whole runtime: right, complete, and in order."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from generated import CALLS, behave, services_of
from stage import eventually, stage

from segue import App, Service, each, flow
from segue.config import Config
from segue.machine.facts import Key
from segue.plan.graph import EXIT, Plan
from segue.plan.projection import MODES, Mode
from segue.ports.store import CellKey, CellKind
from segue.testing import reference
from segue.testing.graphs import GIVEN, workflow_like
from segue_memory.shared import shared
from segue_memory.store import MemoryStore, Part

each_mode = pytest.mark.parametrize("mode", MODES)


def widest(plan: Plan) -> int:
    return max(len(ups) for name, ups in plan.index.ups.items() if name != EXIT)


class Behaving:
    """What the steps do, as the evaluator asks for it."""

    def __call__(self, key: Key, args: dict[str, Any], revision: int = 1) -> Any:
        return behave(key.node, args)

    def signal(self, name: str, slot: str) -> None:
        return None


def expected(plan: Plan) -> Any:
    found = reference.evaluate(plan, GIVEN, Behaving()).outcomes[Key(EXIT)]
    assert found.kind == "completed"
    return found.value


async def run_it(plan: Plan, config: Config, mode: Mode, check: Any, runs: int = 1) -> None:
    app = App("large", [], services_of(plan, check).values())
    contracts = [contract for service in app.services.values() for contract in service.contracts()]
    plan = msgspec.structs.replace(plan, contracts=tuple(sorted(contracts, key=lambda item: (item.service, item.step))))
    async with stage(app, config, None) as here:
        await here.deploy(mode, plan)
        async with here.running():
            handles = [await here.client.start("generated", **GIVEN) for _ in range(runs)]
            for run in handles:
                assert await run.result(60) == expected(plan)
    steps = [node.id for node in plan.nodes if node.kind == "step"]
    for run in handles:
        assert all(CALLS[run.id, node] == 1 for node in steps)


@each_mode
@pytest.mark.parametrize(("seed", "nodes"), [(1, 10), (2, 100), (3, 100), (4, 400), (7, 1738)])
async def test_no_step_begins_before_its_inputs_are_recorded(mode: Mode, seed: int, nodes: int, memory: Config) -> None:
    plan = workflow_like(random.Random(seed), nodes)
    index, early = plan.index, []

    def check(run: str, node: str) -> None:
        for up in index.ups[node]:
            if index.nodes[up].kind != "step":
                continue
            owner = shared("store", memory.store.removeprefix("memory://"), index.nodes[up].owner, Part)
            if not any(key.run == run and key.node == up for key in _outcomes(owner, run, up)):
                early.append((node, up))

    await run_it(plan, memory, mode, check)
    assert not early
    assert len(plan.nodes) == nodes + 2


def _outcomes(part: Part, run: str, node: str) -> list[Any]:
    key = CellKey(run, node, Key(node).tag, 1, CellKind.OUTCOME)
    return [key] if key in part.cells[run] else []


@each_mode
async def test_a_wide_join(mode: Mode, nats: Config) -> None:
    """Over NATS and SQLite, several runs at the same time."""
    seed = next(seed for seed in range(100) if widest(workflow_like(random.Random(seed), 620)) >= 500)
    plan = workflow_like(random.Random(seed), 620)
    await run_it(plan, nats, mode, lambda run, node: None, runs=3)


@each_mode
async def test_a_thousand_failures_fit_into_one_end(mode: Mode, memory: Config) -> None:
    """Their texts together are larger than a message; the nodes that failed are named."""
    service = Service("sad")

    @service.step
    async def fail(n: int) -> int:
        raise ValueError("x" * 900 + str(n))

    @flow
    def all_fail(n: int) -> None:
        for i in range(1200):
            fail.named(f"f{i}")(n)

    async with stage(App("a", [all_fail], [service]), memory, mode) as here, here.running():
        run = await here.client.start(all_fail, 1)
        ended = await run.outcome(20)
    assert ended.status == "failed"
    assert [cause.node for cause in ended.causes] == [f"f{i}" for i in range(1200)]


depot, desk = Service("depot"), Service("desk")
PACKED: Counter[str] = Counter()


@depot.step
async def pack(n: int) -> int:
    PACKED["packed"] += 1
    return n * 2


@pack.undo
async def unpack(n: int, packed: int) -> None:
    PACKED["unpacked"] += 1


@desk.step
async def total(packed: list[int]) -> int:
    if sum(packed) < 0:
        raise ValueError("less than nothing")
    return sum(packed)


@flow
def pack_all(items: list[int]) -> int:
    """A map whose items another service packs, and unpacks if the sum is wrong."""
    return total(each(items, lambda n: pack(n)))


@flow
def pack_some(items: list[int]) -> int:
    """The same, ten items at a time."""
    return total(each(items, lambda n: pack(n), limit=10))


@each_mode
async def test_a_map_of_two_thousand_items_is_done_and_undone(mode: Mode, nats: Config) -> None:
    """Over NATS and SQLite, with two replicas of the service that does the items."""
    items = list(range(2000))
    async with stage(App("depots", [pack_all], [depot, desk]), nats, mode) as here:
        async with here.running(*here.everybody, "depot"):
            PACKED.clear()
            run = await here.client.start(pack_all, items)
            assert await run.result(30) == sum(items) * 2
            assert PACKED["packed"] >= 2000
            PACKED.clear()
            run = await here.client.start(pack_all, [-n for n in items])
            ended = await run.outcome(30)
    assert (ended.status, [cause.node for cause in ended.causes]) == ("failed", ["total"])
    assert PACKED["unpacked"] >= 2000


@each_mode
async def test_a_cancelled_map_is_not_looked_at_for_every_item(
    mode: Mode, memory: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: Counter[str] = Counter()

    async def scan(store: MemoryStore, runs: Sequence[str]) -> dict[CellKey, bytes]:
        looks.update(runs)
        return await scanned(store, runs)

    scanned = MemoryStore.scan
    monkeypatch.setattr(MemoryStore, "scan", scan)
    async with stage(App("depots", [pack_some], [depot, desk]), memory, mode) as here, here.running():
        PACKED.clear()
        run = await here.client.start(pack_some, list(range(1500)))
        await eventually(lambda: _packed(100))
        await here.client.cancel(run.id)
        ended = await run.outcome(20)
    assert (ended.status, PACKED["unpacked"]) == ("cancelled", PACKED["packed"])
    assert looks[run.id] < 100


async def _packed(count: int) -> bool:
    return PACKED["packed"] >= count
