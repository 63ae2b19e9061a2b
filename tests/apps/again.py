"""Flows that people retry; steps note their idempotency keys in `keys`, without the run."""

from __future__ import annotations

from segue import App, Retry, Service, after, current, each, flow, repeat

shop, bank = Service("shop"), Service("bank")
keys: list[str] = []
broken: set[str] = set()


class Broken(Exception):
    """Somebody has to repair it first."""


def note(what: str = "") -> None:
    """Remember the key of this call; fail if it is broken."""
    keys.append(current().idempotency_key.partition("/")[2])
    if what in broken or current().node in broken:
        raise Broken(what or current().node)


@bank.step(retry=Retry(max_attempts=1))
async def charge(order: str) -> int:
    note()
    return len(order)


@charge.undo
async def refund(order: str, amount: int) -> None:
    note()


@shop.step(retry=Retry(max_attempts=1))
async def ship(order: str, amount: int) -> str:
    note()
    return f"{order} for {amount}"


@shop.step
async def label(order: str) -> str:
    note()
    return order


@flow(home=shop, key=lambda order: order)
def sale(order: str) -> str:
    """What is charged is given back if it cannot be shipped."""
    amount = charge(order)
    with after(label(order)):
        return ship(order, amount)


@shop.step(retry=Retry(max_attempts=1))
async def pick(item: str) -> str:
    note(item)
    return item.upper()


@bank.step(retry=Retry(max_attempts=1))
async def weigh(item: str) -> int:
    note(item)
    return len(item)


@bank.step
async def total(weights: list[int]) -> int:
    note()
    return sum(weights)


@flow(home=shop)
def parcels(items: list[str]) -> int:
    """A map of two steps in different services, and one over all of it."""
    return total(each(items, lambda item: weigh(pick(item))))


@bank.step
async def grow(n: int) -> int:
    note()
    return n + 1


@flow(home=shop)
def rounds(n: int) -> str:
    """A loop of three rounds."""
    return ship("x", repeat(lambda value: grow(value), n, until=lambda value: value >= 3, cap=5))


app = App("again", flows=[sale, parcels, rounds], services=[shop, bank])
