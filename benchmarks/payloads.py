"""What travels through the flows: the same structs for Segue and for what it is measured against."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

NOTE = "leave it with the neighbours, second floor on the left; ring twice, then wait a minute, please"
"""Brings what a flow starts with to about 200 bytes of JSON."""

CHAIN = 10
"""Steps of the chain."""

ITEMS = 100
"""Items of the map."""


class Order(msgspec.Struct):
    """What the order flow starts with."""

    id: str
    amount: int
    sku: str
    email: str
    note: str


class Receipt(msgspec.Struct):
    """What `charge` returns."""

    id: str
    ok: bool
    amount: int


class Reservation(msgspec.Struct):
    """What `reserve` returns."""

    id: str
    ok: bool
    sku: str


class Confirmation(msgspec.Struct):
    """What `notify` returns."""

    id: str
    sent: bool
    to: str


class Link(msgspec.Struct):
    """What the chain starts with, and what each of its steps returns."""

    id: str
    passed: int
    note: str


class Basket(msgspec.Struct):
    """What the map starts with."""

    id: str
    skus: list[str]


def basket(name: str) -> Basket:
    """A full basket with a name of its own."""
    return Basket(name, [f"teapot-blue-{number}" for number in range(ITEMS)])


def order(name: str) -> Order:
    """An order with a name of its own."""
    return Order(name, 4200, "teapot-blue-1", "someone@example.com", NOTE)


def link(name: str) -> Link:
    """The start of a chain with a name of its own."""
    return Link(name, 0, NOTE + NOTE[:60])


def charge(given: Order) -> Receipt:
    """Take the money."""
    return Receipt(given.id, True, given.amount)


def reserve(given: Order) -> Reservation:
    """Put the goods aside."""
    return Reservation(given.id, True, given.sku)


def notify(receipt: Receipt, reservation: Reservation) -> Confirmation:
    """Tell the customer."""
    return Confirmation(receipt.id, reservation.ok, "someone@example.com")


def forward(given: Link) -> Link:
    """One step of the chain."""
    return Link(given.id, given.passed + 1, given.note)


GIVEN: dict[str, Callable[[str], Order | Link | Basket]] = {
    "order": order,
    "chain": link,
    "map": basket,
    "saga": order,
}
"""What a flow of each shape starts with, by its name."""
