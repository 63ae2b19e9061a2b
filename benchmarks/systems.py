"""The systems that are measured, each with a broker of its own on the same settings and disk.

All of one shape are up at the same time, so that rounds can take turns; one that is not measured has nothing to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import baseline
import msgspec
import payloads
import segue_node
from baseline import SERVICES
from children import team
from clients import Output, Style, acknowledge, batches, connect, create, publisher
from load import RunFlow, System
from meter import MONITORED, Meter
from segue_app import app

from segue import compose
from segue.plan.projection import COORDINATOR, Mode
from segue.runtime import deploy
from segue.wire.subjects import OBSERVER
from segue_nats.server import NatsServer, run_server

Shape = Literal["order", "chain", "map", "saga"]
SHAPES: tuple[Shape, ...] = ("order", "chain", "map", "saga")
FLOWS: dict[Shape, str] = {"order": "place_order", "chain": "chain", "map": "pick_all", "saga": "saga"}
VARIANTS = (
    "choreographed",
    "plain",
    "choreographed-observed",
    "lean",
    "orchestrated",
    "broker",
    "orchestrated-observed",
)
MESSAGES: dict[baseline.Shape, int] = {"order": 4, "chain": payloads.CHAIN + 1}
"""Messages of one flow that the services written by hand store."""
NAMES = tuple(
    f"{shape}-{variant}"
    for shape in SHAPES
    for variant in (VARIANTS if shape in MESSAGES else ("choreographed", "orchestrated"))
)
"""All systems. Maps and sagas are not written by hand."""

_encode = msgspec.json.Encoder().encode


@asynccontextmanager
async def system(shape: Shape, variant: str, folder: Path) -> AsyncIterator[System]:
    """Start a system.

    Args:
        shape: What its flows look like.
        variant: One of `VARIANTS`.
        folder: Where its files are.
    """
    name = f"{shape}-{variant}"
    place = folder / name
    place.mkdir()
    async with run_server(place / "broker", config=MONITORED) as server:
        if shape == "map" or shape == "saga":
            opened = _segue(name, shape, variant, server, place)
        elif variant == "broker":
            opened = _broker(name, shape, server)
        elif variant in ("plain", "lean"):
            opened = _by_hand(name, shape, "lean" if variant == "lean" else "plain", server, place)
        else:
            opened = _segue(name, shape, variant, server, place)
        async with opened as found:
            yield found


@asynccontextmanager
async def _segue(name: str, shape: Shape, variant: str, server: NatsServer, folder: Path) -> AsyncIterator[System]:
    mode: Mode = "choreographed" if variant.startswith("choreographed") else "orchestrated"
    roles = [*SERVICES]
    if mode == "orchestrated":
        roles.append(COORDINATOR)
    if variant.endswith("observed"):
        roles.append(OBSERVER)
    config = segue_node.settings(server.url, folder)
    flow = app.flows[FLOWS[shape]]
    async with compose.wired(config, "deploy") as wiring:
        await deploy.deploy(wiring.transport, wiring.catalog, wiring.subjects, [(flow.plan, mode)])
    async with (
        team("segue_node.py", dict.fromkeys(roles, (server.url, str(folder)))) as children,
        compose.connect(config=config) as client,
    ):

        async def run(key: str) -> None:
            given = payloads.GIVEN[shape](key)
            ended = await (await client.start(flow, given)).outcome()
            if ended.status != ("failed" if shape == "saga" else "completed"):
                raise RuntimeError(f"{name}: run {ended.run} {ended.status}")

        meter = Meter(server, children, unserved={COORDINATOR, OBSERVER} - children.keys())
        yield System(name, run, meter)


@asynccontextmanager
async def _by_hand(
    name: str, shape: baseline.Shape, style: Style, server: NatsServer, folder: Path
) -> AsyncIterator[System]:
    arguments = (shape, style, server.url, str(folder / "inbox.db"))
    connection = await connect(server.url)
    try:
        await create(connection, baseline.durables(shape))
        async with team("baseline.py", dict.fromkeys(SERVICES, arguments)) as children:
            yield System(name, await _caller(connection, shape, style), Meter(server, children))
    finally:
        await connection.close()


async def _caller(connection: Any, shape: baseline.Shape, style: Style) -> RunFlow:
    """Starts a flow with a stored message, and hears of its end from the last one."""
    loop, outbox = asyncio.get_running_loop(), await publisher(connection, style)
    first, last = baseline.ENDS[shape]
    ends: dict[str, asyncio.Future[None]] = {}
    result: type[payloads.Confirmation | payloads.Link]
    result, make = (payloads.Confirmation, payloads.order) if shape == "order" else (payloads.Link, payloads.link)
    decode = msgspec.json.Decoder(result).decode

    async def ended(message: Any) -> None:
        end = ends.pop(decode(message.data).id, None)
        if end is not None:
            end.set_result(None)

    async def run(name: str) -> None:
        end = ends[name] = loop.create_future()
        await outbox.store([Output(first, _encode(make(name)), name)])
        await end

    await connection.subscribe(last, cb=ended, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await connection.flush()
    return run


@asynccontextmanager
async def _broker(name: str, shape: baseline.Shape, server: NatsServer) -> AsyncIterator[System]:
    """Publishes as many messages as a flow has, and consumes them; nothing else."""
    connection = await connect(server.url)
    await create(connection, {"all": ["f.>"]})
    outbox, loop = await publisher(connection, "lean"), asyncio.get_running_loop()
    missing: dict[str, int] = {}
    ends: dict[str, asyncio.Future[None]] = {}
    count = MESSAGES[shape]
    make = payloads.order if shape == "order" else payloads.link

    async def consume() -> None:
        async for messages in batches(connection, "lean", "all"):
            await acknowledge(connection, messages)
            for message in messages:
                flow = message.headers["Nats-Msg-Id"].rpartition(".")[0]
                missing[flow] -= 1
                if not missing[flow]:
                    del missing[flow]
                    ends.pop(flow).set_result(None)

    async def run(flow: str) -> None:
        body = _encode(make(flow))
        missing[flow] = count
        end = ends[flow] = loop.create_future()
        await outbox.store([Output("f.any", body, f"{flow}.{number}") for number in range(count)])
        await end

    consumer = asyncio.create_task(consume())
    try:
        yield System(name, run, Meter(server, {}))
    finally:
        consumer.cancel()
        await connection.close()


__all__ = ["MESSAGES", "NAMES", "SHAPES", "VARIANTS", "system"]
