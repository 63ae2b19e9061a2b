"""Several replicas of everybody: shaken deliveries, and stores and brokers that fail. All runs end, and end right."""

from __future__ import annotations

from collections import Counter

import anyio
import faulty
import msgspec
import pytest
from orders import LOG, Order, Summary, app, place_order
from stage import NAMES, Stage, stage

from segue import App, Service, flow
from segue.config import Config
from segue.plan.projection import MODES, Mode
from segue.runtime import overdue, reception
from segue.runtime.handle import RunHandle
from segue.testing.world import World
from segue.wire.envelope import Event

each_mode = pytest.mark.parametrize("mode", MODES)
assert faulty  # registers its scheme


async def start_all(client_start: object, totals: dict[str, int]) -> dict[str, RunHandle[Summary]]:
    """Start orders at the same time."""
    found: dict[str, RunHandle[Summary]] = {}

    async def start(key: str, total: int) -> None:
        found[key] = await client_start(place_order, Order(key, total))  # type: ignore[operator]

    async with anyio.create_task_group() as tasks:
        for key, total in totals.items():
            tasks.start_soon(start, key, total)
    return found


def expected(key: str, total: int) -> Summary:
    note = "small" if total <= 100 else "reviewed"
    return Summary(key, total, f"{note} shelf-{key}", "ribbon" if total > 1000 else None)


TOTALS = {f"o{n}": (50, 500, 5000)[n % 3] for n in range(60)}


@each_mode
async def test_without_faults_every_step_runs_once(mode: Mode) -> None:
    LOG.clear()
    async with World(app, mode=mode, replicas=3) as world:
        runs = await start_all(world.start, TOTALS)
        for key, total in TOTALS.items():
            assert await runs[key].result(10) == expected(key, total)
    assert set(LOG.values()) == {1}
    assert sum(1 for _, node in LOG if node == "notify") == len(TOTALS)


@each_mode
@pytest.mark.parametrize("seed", range(4))
async def test_shaken_deliveries(mode: Mode, seed: int) -> None:
    LOG.clear()
    async with World(app, mode=mode, seed=seed, replicas=2) as world:
        runs = await start_all(world.start, TOTALS)
        for key, total in TOTALS.items():
            assert await runs[key].result(20) == expected(key, total)
            view = await world.where(runs[key].id)
            assert all(node.outcome is not None for node in view.nodes)
    executed = Counter(node for _, node in LOG)
    assert executed["charge"] == len(TOTALS)


async def recorded_once(here: Stage, run: str) -> None:
    """Whoever published an outcome of a node published the same."""
    values: dict[tuple[str, str], set[bytes]] = {}
    heard: list[Event] = await here.events(run, timeout=20)
    for event in heard:
        if event.kind != "attempt.failed":
            values.setdefault((event.node, event.tag), set()).add(event.kind.encode() + bytes(event.data))
    for node, found in values.items():
        assert node[0] == "run" or len(found) == 1, (run, node, found)


@each_mode
@pytest.mark.parametrize(
    "rates",
    [
        "down=0.1&lost=0.1",
        "refused=0.15",
        "unacked=0.3&down=0.05",
        "broken=0.1",
        "swallowed=0.1",
        "down=0.05&lost=0.05&refused=0.05&unacked=0.1&swallowed=0.05",
    ],
)
async def test_faulty_stores_and_brokers(mode: Mode, rates: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (overdue, reception):
        monkeypatch.setattr(module, "GUARD_FIRST", 0.5)
    monkeypatch.setattr(overdue, "GUARD_LAST", 1.0)
    monkeypatch.setattr(overdue, "LEASE", 1.0)
    LOG.clear()
    name = f"faulty://test-{next(NAMES)}?seed=5&{rates}"
    config = Config(transport=name, store=name, journal=f"memory://test-{next(NAMES)}")
    totals = dict(list(TOTALS.items())[:30])
    async with stage(app, config, mode) as here, here.running(), here.running():
        runs = await start_all(here.client.start, totals)
        for key, total in totals.items():
            assert await runs[key].result(30) == expected(key, total)
    executed = Counter(node for _, node in LOG)
    assert executed["charge"] >= len(totals)


async def test_a_large_join_whose_last_input_was_recorded_before_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """One service owns all, so nothing but the guard repeats what was recorded."""
    for module in (overdue, reception):
        monkeypatch.setattr(module, "GUARD_FIRST", 0.2)
    monkeypatch.setattr(overdue, "GUARD_LAST", 0.5)
    monkeypatch.setattr(overdue, "LEASE", 0.5)
    service = Service("alone")

    @service.step
    async def work(n: int) -> int:
        return n

    @service.step
    async def total(parts: list[int]) -> int:
        return sum(parts)

    @flow
    def wide(n: int) -> int:
        return total([work.named(f"w{i}")(n) for i in range(100)])

    for seed in range(2):
        name = f"faulty://test-{next(NAMES)}?seed={seed}&broken=0.3"
        config = Config(transport=name, store=name, journal=f"memory://test-{next(NAMES)}")
        async with stage(App("a", [wide], [service]), config, "choreographed") as here, here.running():
            runs = [await here.client.start(wide, n) for n in range(3)]
            assert [await run.result(20) for run in runs] == [0, 100, 200]


async def test_replicas_on_postgresql(postgres: Config) -> None:
    LOG.clear()
    for mode in MODES:
        totals = {f"{mode[0]}{n}": 500 for n in range(40)}
        config = msgspec.structs.replace(postgres, namespace=f"{postgres.namespace}{mode[0]}")
        async with stage(app, config, mode) as here, here.running(), here.running():
            runs = await start_all(here.client.start, totals)
            for key, total in totals.items():
                assert await runs[key].result(20) == expected(key, total)
    assert set(LOG.values()) == {1}
