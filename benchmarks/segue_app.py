"""The flows that are measured, as a user of Segue would write them."""

from __future__ import annotations

import payloads
from payloads import CHAIN, Basket, Confirmation, Link, Order, Receipt, Reservation

from segue import App, Service, each, flow

payments, inventory, email = SERVICES = Service("payments"), Service("inventory"), Service("email")


@payments.step
async def charge(order: Order) -> Receipt:
    """Take the money."""
    return payloads.charge(order)


@inventory.step
async def reserve(order: Order) -> Reservation:
    """Put the goods aside."""
    return payloads.reserve(order)


@email.step
async def notify(receipt: Receipt, reservation: Reservation) -> Confirmation:
    """Tell the customer."""
    return payloads.notify(receipt, reservation)


@flow(key=lambda order: order.id)
def place_order(order: Order) -> Confirmation:
    """Two parallel steps and a join."""
    return notify(charge(order), reserve(order))


async def forward(link: Link) -> Link:
    """One step of the chain."""
    return payloads.forward(link)


LINKS = [SERVICES[place % 3].step(name=f"link_{place}")(forward) for place in range(CHAIN)]


@flow(key=lambda link: link.id)
def chain(link: Link) -> Link:
    """Ten steps, each waiting for the one before, on three services in turn."""
    for step in LINKS:
        link = step(link)
    return link


@inventory.step
async def pick(sku: str) -> str:
    """Take one thing off its shelf."""
    return sku


@flow(key=lambda basket: basket.id)
def pick_all(basket: Basket) -> list[str]:
    """A map: one step for each item."""
    return each(basket.skus, lambda sku: pick(sku))


@payments.step
async def bill(order: Order) -> Receipt:
    """Take the money; it may have to be given back."""
    return payloads.charge(order)


@bill.undo
async def refund(order: Order, receipt: Receipt) -> None:
    """Give the money back."""


@inventory.step
async def hold(order: Order) -> Reservation:
    """Put the goods aside; they may have to go back."""
    return payloads.reserve(order)


@hold.undo
async def release(order: Order, reservation: Reservation) -> None:
    """Put the goods back."""


@email.step
async def refuse(receipt: Receipt, reservation: Reservation) -> Confirmation:
    """Fail, after all that."""
    raise ValueError(f"no address for {receipt.id}")


@flow(key=lambda order: order.id)
def saga(order: Order) -> Confirmation:
    """The order flow, whose last step fails: what the others did is undone."""
    return refuse(bill(order), hold(order))


app = App("bench", flows=[place_order, chain, pick_all, saga], services=SERVICES)
