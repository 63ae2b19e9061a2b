"""A small shop: what the tests of the command line run."""

from __future__ import annotations

import asyncio

import msgspec

from segue import App, Retry, Service, flow, when


class Order(msgspec.Struct):
    """What a customer wants."""

    id: str
    total: float


class Receipt(msgspec.Struct):
    """What was paid."""

    order: str
    amount: float


class Declined(Exception):
    """The bank said no."""


payments, inventory, email = Service("payments"), Service("inventory"), Service("email")


@payments.step(retry=Retry(max_attempts=3, initial=60.0, non_retryable=(Declined,)))
async def charge(order: Order) -> Receipt:
    """Negative totals are declined; 13 never works out."""
    if order.total < 0:
        raise Declined(f"order {order.id} was declined")
    if order.total == 13:
        raise TimeoutError("the bank does not answer")
    return Receipt(order.id, order.total)


@inventory.step
async def reserve(order: Order) -> str:
    """Two seconds for order 2, so that somebody can look at it meanwhile."""
    await asyncio.sleep(2 if order.total == 2 else 0)
    return f"shelf of {order.id}"


@payments.step
async def review(order: Order) -> str:
    """Somebody looks at large orders."""
    return "fine"


@email.step
async def confirm(order: Order, receipt: Receipt, place: str) -> str:
    """Say that it is on its way."""
    return f"{order.id}: {receipt.amount:g} from {place}"


@flow(key=lambda order: order.id)
def place_order(order: Order) -> str:
    """Charge and reserve, then confirm."""
    receipt = charge(order)
    place = reserve(order)
    with when(order.total > 1000):
        review(order)
    return confirm(order, receipt, place)


@flow
def greet(name: str, times: int = 1) -> str:
    """Two parameters."""
    return hello(name, times)


@email.step
async def hello(name: str, times: int) -> str:
    """Greet."""
    return f"hello {name} " * times


app = App("shop", flows=[place_order, greet], services=[payments, inventory, email])
no_app = 1
