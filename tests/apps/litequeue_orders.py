"""Orders over a transport, in both modes; prints what became of them as JSON. Every part has a connection of its own.

python litequeue_orders.py litequeue:///path/to/file.db
"""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from typing import Any

import anyio
import msgspec

from segue import App, Retry, RunFailed, Service, UnknownRun, compose, current, flow, when
from segue.config import Config
from segue.hooks import open_journal
from segue.plan.projection import MODES, Mode
from segue.runtime.client import Client, client
from segue.runtime.deploy import deploy
from segue.runtime.serving import Wiring

payments, inventory, email = Service("payments"), Service("inventory"), Service("email")


class Order(msgspec.Struct):
    """What a customer wants."""

    id: str
    total: int


@payments.step(retry=Retry(max_attempts=3, initial=0.05, non_retryable=(ValueError,)))
async def charge(order: Order) -> int:
    """Negative totals are refused; for 7, the bank answers at the second attempt."""
    if order.total < 0:
        raise ValueError("the total is negative")
    if order.total == 7 and current().attempt == 1:
        raise TimeoutError("no answer from the bank")
    return order.total


@payments.step
async def review(order: Order) -> str:
    """Somebody looks at large orders."""
    return "fine"


@inventory.step
async def reserve(order: Order) -> str:
    """Set the articles aside."""
    return "shelf 4"


@email.step
async def notify(order: Order, paid: int, place: str) -> str:
    """Confirm."""
    return f"{paid} paid, from {place}"


@flow(key=lambda order: order.id)
def place_order(order: Order) -> str:
    """Charge and reserve side by side, then notify."""
    paid = charge(order)
    place = reserve(order)
    with when(order.total > 1000):
        review(order)
    return notify(order, paid, place)


app = App("shop", flows=[place_order], services=[payments, inventory, email])
TOTALS = {"plain": 50, "large": 5000, "refused": -1, "retried": 7}


async def place(shop: Client, mode: Mode) -> dict[str, Any]:
    """Place all orders at once; for each, what its caller got, and what the journal says in the end."""
    found: dict[str, Any] = {}

    async def one(name: str, total: int) -> None:
        run = await shop.start(place_order, Order(f"{name}-{mode}", total))
        assert run.mode == mode
        try:
            result = await run.result(20)
        except RunFailed as failure:
            result = failure.message.replace(run.id, "RUN")
        found[name] = {"result": result, **await history(shop, run.id)}

    async with anyio.create_task_group() as tasks:
        for name, total in TOTALS.items():
            tasks.start_soon(one, name, total)
    return dict(sorted(found.items()))


async def history(shop: Client, run: str) -> dict[str, Any]:
    """The run in the journal, once it has heard everything: without times and ids."""
    with anyio.fail_after(10):
        while True:
            try:
                view = await shop.where(run)
            except UnknownRun:
                view = None
            if (
                view is not None
                and view.run.ended
                and not any(node.state in ("open", "waiting") for node in view.nodes)
            ):
                break
            await anyio.sleep(0.02)
    nodes = {node.node: (node.service, node.state, node.attempts, node.error, node.causes) for node in view.nodes}
    return {"status": view.run.status, "nodes": nodes}


async def switch(wirings: list[Wiring], mode: Mode) -> None:
    """Deploy the flow in a mode, and wait until every part has heard of it."""
    transport, catalog, subjects, *_ = wirings[0]
    await deploy(transport, catalog, subjects, [(place_order.plan, mode)])
    for wiring in wirings:
        with anyio.fail_after(10):
            while wiring.catalog.flows.get(place_order.name) != catalog.flow(place_order.name):
                await wiring.catalog.changed()


async def main(url: str) -> None:
    """Start every part, place the orders in one mode, then in the other."""
    config = Config(transport=url, store="memory://{part}", journal="memory://journal")
    wirings: list[Wiring] = []
    async with AsyncExitStack() as stack:

        async def wired(who: str) -> Wiring:
            wirings.append(await stack.enter_async_context(compose.wired(config, who)))
            return wirings[-1]

        await stack.enter_async_context(compose.coordinating(config, await wired("coordinator")))
        for service in app.services.values():
            await stack.enter_async_context(compose.serve(config, await wired(service.name), service))
        await stack.enter_async_context(compose.observing(config, await wired("observer")))
        connected = client(await wired("client"), lambda: open_journal(config.journal))
        shop = await stack.enter_async_context(connected)
        placed = {}
        for mode in MODES:
            await switch(wirings, mode)
            placed[mode] = await place(shop, mode)
    sys.stdout.buffer.write(msgspec.json.encode(placed))


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
