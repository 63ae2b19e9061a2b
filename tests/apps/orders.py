"""Orders: the flow that most tests of the runtime run. What its steps did is written into `LOG`."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import msgspec

from segue import App, Retry, Service, after, current, either, flow, otherwise, when

LOG: Counter[tuple[str, str]] = Counter()
"""How often (business key, node) was executed in this process."""


class Order(msgspec.Struct):
    """What a customer wants."""

    id: str
    total: int
    stock: int = 1


class Receipt(msgspec.Struct):
    """What was paid."""

    order: str
    amount: int


class Summary(msgspec.Struct):
    """What happened to an order."""

    order: str
    paid: int
    note: str
    gift: str | None = None


class OutOfStock(Exception):
    """There is nothing left."""


class Made(NamedTuple):
    """An order app of its own."""

    app: App


payments, inventory, email = Service("payments"), Service("inventory"), Service("email")


def log() -> None:
    """Remember that the current step was executed."""
    here = current()
    LOG[here.key, here.node] += 1


@payments.step
async def charge(order: Order) -> Receipt:
    """Take the money."""
    log()
    return Receipt(order.id, order.total)


@inventory.step(retry=Retry(max_attempts=2, initial=0.01))
def reserve(order: Order) -> str:
    """A plain function: it runs in a worker thread."""
    log()
    if order.stock < 1:
        raise OutOfStock(f"no {order.id} left")
    return f"shelf-{order.id}"


@payments.step
async def review(order: Order) -> str:
    """Of large orders only."""
    log()
    return "reviewed"


@payments.step
async def wave_through(order: Order) -> str:
    """Of small orders only."""
    log()
    return "small"


@inventory.step
async def wrap(order: Order) -> str:
    """Only for very large ones."""
    log()
    return "ribbon"


@email.step
async def notify(receipt: Receipt, place: str, note: str, gift: str | None) -> Summary:
    """Write to the customer."""
    log()
    return Summary(receipt.order, receipt.amount, f"{note} {place}", gift)


@email.step
async def archive(order: Order) -> None:
    """Has nothing to do with the rest."""
    log()


@flow(key=lambda order: order.id)
def place_order(order: Order) -> Summary:
    """Guards, a nested one, `either`, order only, an optional read, several sinks."""
    receipt = charge(order)
    place = reserve(order)
    with when(order.total > 100):
        big = review(order)
        with when(order.total > 1000):
            gift = wrap(order)
    with otherwise():
        small = wave_through(order)
    archive(order)
    with after(big):
        return notify(receipt, place, either(big, small), gift)


app = App("orders", flows=[place_order], services=[payments, inventory, email])
