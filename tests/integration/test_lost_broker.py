"""Brokers that lose what they were given: emptied, rolled back, or too young to remember. Open runs go on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import pytest
from orders import LOG, Order, app, place_order
from stage import Stage, eventually, stage

from segue.config import Config
from segue.plan.projection import MODES, Mode
from segue.runtime import ends, overdue, reception
from segue_nats.server import NatsServer

each_mode = pytest.mark.parametrize("mode", MODES)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (overdue, reception):
        monkeypatch.setattr(module, "GUARD_FIRST", 0.3)
    monkeypatch.setattr(overdue, "GUARD_LAST", 1.0)
    monkeypatch.setattr(overdue, "LEASE", 1.0)
    monkeypatch.setattr(ends, "ASK_FIRST", 0.3)
    LOG.clear()


@contextmanager
def broker(folder: Path) -> Iterator[tuple[NatsServer, Config]]:
    """A server of this test's own."""
    with NatsServer(folder / "nats") as server:
        yield (
            server,
            Config(
                transport=f"{server.url}?redelivery=2",
                store=f"sqlite:///{folder}/{{part}}.db",
                journal=f"sqlite:///{folder}/journal.db",
            ),
        )


def data(server: NatsServer) -> Path:
    """Where its streams are."""
    return server.store_dir / "jetstream"


def copy(server: NatsServer, backup: Path) -> None:
    """A copy of what it has."""
    server.stop()
    shutil.copytree(data(server), backup)
    server.start()


def wipe(server: NatsServer, backup: Path | None = None) -> None:
    """Another broker at the same place: empty, or with what is in a copy."""
    server.kill()
    shutil.rmtree(data(server))
    if backup is not None:
        shutil.copytree(backup, data(server))
    server.start()


async def open_runs(here: Stage, number: int) -> None:
    """Runs that are open because a service is away; the others have done their part."""
    async with here.running(*[name for name in here.everybody if name != "payments"]):
        for n in range(number):
            await here.client.start(place_order, Order(f"o{n}", 500))

        async def all_reserved() -> bool:
            return sum(1 for key, node in LOG if key.startswith("o") and node == "reserve") == number

        await eventually(all_reserved)
        await anyio.sleep(0.1)


async def all_end(here: Stage, number: int) -> None:
    async with here.running():
        for n in range(number):
            run = await here.client.start(place_order, Order(f"o{n}", 500))
            assert (await run.result(20)).order == f"o{n}"
        fresh = await here.client.start(place_order, Order("fresh", 500))
        assert (await fresh.result(10)).order == "fresh"
    assert set(LOG.values()) == {1}


@each_mode
async def test_a_broker_that_was_emptied(mode: Mode, tmp_path: Path) -> None:
    """Nobody is started again; somebody deploys."""
    with broker(tmp_path) as (server, config):
        async with stage(app, config, mode) as here:
            await open_runs(here, 10)
            async with here.running(*[name for name in here.everybody if name != "payments"]):
                await anyio.to_thread.run_sync(wipe, server)
                async with stage(app, config, mode) as again, again.running("payments"):
                    for n in range(10):
                        run = await again.client.start(place_order, Order(f"o{n}", 500))
                        assert (await run.result(30)).order == f"o{n}"
    assert set(LOG.values()) == {1}


async def test_a_broker_that_was_rolled_back(tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    with broker(tmp_path) as (server, config):
        async with stage(app, config, "choreographed") as here:
            async with here.running():
                first = await here.client.start(place_order, Order("first", 500))
                assert (await first.result(10)).order == "first"
            await anyio.to_thread.run_sync(copy, server, backup)
        async with stage(app, config, "choreographed") as here:
            await open_runs(here, 10)
        await anyio.to_thread.run_sync(wipe, server, backup)
        async with stage(app, config, mode=None) as here:
            await all_end(here, 10)


async def test_a_stream_that_keeps_events_for_a_second(tmp_path: Path) -> None:
    """What waited for a service that was away is gone when it comes."""
    with broker(tmp_path) as (_, config):
        config = msgspec.structs.replace(config, transport=f"{config.transport}&max_age=1")
        async with stage(app, config, "choreographed") as here:
            await open_runs(here, 10)
            await anyio.sleep(1.2)
            await all_end(here, 10)
