"""Brokers that lose more than messages: groups, plans, everything. Nobody deploys again; the others put it back."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import nats as client
import pytest
import trips
from nats.js import JetStreamContext
from orders import Order, app, place_order
from stage import eventually, stage

from segue import compose
from segue.config import Config
from segue.errors import TransportUnavailable
from segue.plan.projection import MODES, Mode
from segue.runtime import ends, overdue, participant, reception, whole
from segue_nats.server import NatsServer

each_mode = pytest.mark.parametrize("mode", MODES)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards and clients that do not wait long."""
    for module in (overdue, reception, whole):
        monkeypatch.setattr(module, "GUARD_FIRST", 1.0)
    monkeypatch.setattr(ends, "ASK_FIRST", 0.3)


@asynccontextmanager
async def jetstream(url: str) -> AsyncIterator[JetStreamContext]:
    """An operator's access to the broker."""
    found = await client.connect(url.partition("?")[0])
    try:
        yield found.jetstream()
    finally:
        await found.close()


async def deployed(config: Config, mode: Mode) -> None:
    """Deploy all flows, and go."""
    async with stage(app, config, mode):
        pass


@each_mode
async def test_groups_that_an_operator_deleted(mode: Mode, nats: Config) -> None:
    await deployed(nats, mode)
    async with stage(app, nats, None) as here, here.running():
        before = await here.client.start(place_order, Order("before", 500))
        await before.result(10)
        async with jetstream(nats.transport) as manager:
            for stream in (f"{nats.namespace}-events", f"{nats.namespace}-commands"):
                for info in await manager.consumers_info(stream):
                    await manager.delete_consumer(stream, info.name)
        runs = [await here.client.start(place_order, Order(f"after{n}", 500)) for n in range(5)]
        for n, run in enumerate(runs):
            assert (await run.result(50)).order == f"after{n}"


@each_mode
async def test_a_broker_that_lost_everything(mode: Mode, tmp_path: Path) -> None:
    """A service is down meanwhile: it learns the plans from those who know them."""
    with NatsServer(tmp_path / "nats") as server:
        config = Config(
            transport=f"{server.url}?redelivery=2",
            store=f"sqlite:///{tmp_path}/{{part}}.db",
            journal=f"sqlite:///{tmp_path}/journal.db",
        )
        await deployed(config, mode)
        async with stage(app, config, None) as here:
            async with here.running(*(name for name in here.everybody if name != "payments")):
                run = await here.client.start(place_order, Order("lost", 500))
                await anyio.sleep(0.2)
                await anyio.to_thread.run_sync(server.kill)
                shutil.rmtree(server.store_dir / "jetstream")
                await anyio.to_thread.run_sync(server.start)
                # A process of its own knows nothing but what the registry says.
                async with compose.wired(config) as fresh:

                    async def known() -> bool:
                        return "place_order" in fresh.catalog.flows and bool(fresh.catalog.plans)

                    await eventually(known, 20)
                    async with compose.serve(config, fresh, app.services["payments"]):
                        assert (await run.result(30)).order == "lost"
                        again = await here.client.start(place_order, Order("new", 500))
                        assert (await again.result(20)).order == "new"


async def test_what_a_home_recorded_and_could_not_publish(memory: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer's step and the end of its run, in one turn: no message is behind them that would come again."""
    async with stage(trips.app, memory, "choreographed") as here:
        publish, refused = here.wiring.transport.publish, anyio.Event()

        async def refuse(messages: Any) -> None:
            if any(message.subject.endswith("run.ended") for message in messages):
                refused.set()
                raise TransportUnavailable("away")
            await publish(messages)

        monkeypatch.setattr(participant, "GRACE", 0.5)
        with monkeypatch.context() as broken, anyio.fail_after(20):
            broken.setattr(here.wiring.transport, "publish", refuse)
            async with here.running("hotels") as crowd:
                run = await crowd.client.start(trips.nap, trips.Trip("n", price=1))
                await refused.wait()
        async with here.running():
            assert await run.result(15) == 2
            completed = {event.node for event in await here.events(run.id) if event.kind == "completed"}
            assert "grow" in completed
