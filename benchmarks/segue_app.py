"""The flows that are measured, as a user of Segue would write them."""

from __future__ import annotations

import payloads
from payloads import CHAIN, Confirmation, Link, Order, Receipt, Reservation

from segue import App, Service, flow

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


app = App("bench", flows=[place_order, chain], services=SERVICES)
