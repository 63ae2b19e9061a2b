"""What type checkers see of a declaration. Checked by mypy, never run."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, assert_type

import msgspec

from segue import App, Flow, Retry, Service, Step, after, either, flow, minutes, otherwise, when
from segue.model.step import AsyncStep


class Order(msgspec.Struct):
    id: str
    total: float
    vip: bool


class Receipt(msgspec.Struct):
    order: str


class Refusal(msgspec.Struct):
    reason: str


payments = Service("payments")


@payments.step
async def charge(order: Order) -> Receipt:
    return Receipt(order.id)


@payments.step(retry=Retry(max_attempts=5), timeout=minutes(1))
async def authorise(order: Order, limit: int = 3) -> Receipt:
    return Receipt(order.id)


@payments.step
def refuse(order: Order) -> Refusal:
    return Refusal(order.id)


@payments.step(name="log-it")
async def log(text: str) -> None:
    print(text)


ship = payments.contract("ship", Order, Receipt)
audit = payments.contract("audit", {"order": Order, "note": str}, Receipt)
ping = payments.contract("ping", Order, None)


@payments.implements(ship)
async def ship_it(order: Order) -> Receipt:
    return Receipt(order.id)


an_async_step: AsyncStep[[Order], Receipt] = charge
a_step: Step[[Order], Receipt] = charge
a_plain_step: Step[[Order], Refusal] = refuse
assert_type(ship, Step[[Order], Receipt])
assert_type(ping, Step[[Order], None])
a_coroutine_function: Callable[[Order], Coroutine[Any, Any, Receipt]] = charge.fn
an_implementation: Callable[[Order], Coroutine[Any, Any, Receipt]] = ship_it.fn
a_function: Callable[[Order], Refusal] = refuse.fn


@payments.implements(ship)  # type: ignore[arg-type]
async def ship_badly(order: Order) -> Refusal:
    return Refusal(order.id)


@flow(key=lambda order: order.id)
def place_order(order: Order) -> Receipt | Refusal:
    receipt = charge(order)
    assert_type(receipt, Receipt)
    assert_type(authorise(order, limit=4), Receipt)
    assert_type(refuse.named("refuse-it")(order), Refusal)
    assert_type(ship(order), Receipt)
    assert_type(audit(order=order, note="x"), Receipt)
    with when((order.total > 1000) & ~order.vip | order.vip), after(receipt):
        refusal = refuse(order)
    with otherwise():
        log(receipt.order)
    assert_type(either(receipt, refusal), Receipt | Refusal)
    assert_type(either(receipt, refusal, None), Receipt | Refusal | None)
    return either(receipt, refusal)


@flow
def small(order: Order) -> None:
    log(order.id)
    charge(order.id)  # type: ignore[arg-type]
    charge()  # type: ignore[call-arg]
    charge(order, 3)  # type: ignore[call-arg]
    log(charge(order).total)  # type: ignore[attr-defined]
    ship("x")  # type: ignore[arg-type]
    done = log("x")
    with after(log("x"), done):
        log("y")
    with when("x"):  # type: ignore[arg-type]
        log.named("again")("x")
        log.named("again")(3)  # type: ignore[arg-type]


a_flow: Flow[[Order], Receipt | Refusal] = place_order
assert_type(small.decode_result(None), None)

app = App("shop", flows=[place_order, small], services=[payments])


async def test_of_a_step(order: Order) -> None:
    assert_type(await charge.fn(order), Receipt)
    assert_type(refuse(order), Refusal)
