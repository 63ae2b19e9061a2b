"""The flows that are measured, as a user of Segue would write them."""

from __future__ import annotations

from collections.abc import Sequence

import payloads
from payloads import CHAIN, Basket, Confirmation, Link, Order, Receipt, Reservation

from segue import App, Service, after, each, flow, repeat

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


@inventory.step
async def take(number: int) -> int:
    """Take one thing off its shelf; it may have to go back."""
    return number


@take.undo
async def put_back(number: int, taken: int) -> None:
    """Put it back."""


@inventory.step
async def take_odd(number: int) -> int:
    """Take one thing off its shelf, if its number is odd."""
    if number % 2 == 0:
        raise ValueError(f"there is no {number}")
    return number


@email.step
async def apologise(numbers: list[int]) -> None:
    """Fail, after all that."""
    raise ValueError("no address")


@inventory.step
async def count_down(number: int) -> int:
    """One round of a loop."""
    return number - 1


@flow
def large_map(numbers: list[int]) -> list[int]:
    """All items at once."""
    return each(numbers, lambda number: count_down(number))


@flow
def large_nested(rows: list[list[int]]) -> list[list[int]]:
    """A map in a map."""
    return each(rows, lambda row: each(row, lambda number: count_down(number)))


@flow
def large_limited(numbers: list[int]) -> list[int]:
    """Fifty items at a time."""
    return each(numbers, lambda number: count_down(number), limit=50)


@flow
def large_tolerant(numbers: list[int]) -> Sequence[int | None]:
    """Half of the items fail."""
    return each(numbers, lambda number: take_odd(number), tolerate=1_000_000)


@flow
def large_undone(numbers: list[int]) -> None:
    """All items are undone, for what comes after the map fails."""
    apologise(each(numbers, lambda number: take(number)))


@flow
def large_cancelled(numbers: list[int]) -> int:
    """To be cancelled half way."""
    taken = each(numbers, lambda number: take(number), limit=50)
    with after(taken):
        return count_down(0)


@flow
def large_loop(number: int) -> int:
    """As many rounds as the number says."""
    return repeat(lambda number: count_down(number), number, until=lambda number: number <= 0, cap=1_000_000)


LARGE = (large_map, large_nested, large_limited, large_tolerant, large_undone, large_cancelled, large_loop)

app = App("bench", flows=[place_order, chain, pick_all, saga, *LARGE], services=SERVICES)
