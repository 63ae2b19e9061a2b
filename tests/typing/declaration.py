"""What type checkers see of a declaration. Checked by mypy, never run."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, assert_type

import msgspec

from segue import (
    App,
    Error,
    Flow,
    Retry,
    Service,
    Step,
    after,
    attempt,
    compute,
    each,
    either,
    emit,
    finish,
    flow,
    minutes,
    n_of,
    otherwise,
    race,
    raise_,
    repeat,
    sleep,
    sleep_until,
    wait_for,
    when,
)
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


@charge.undo
async def refund(order: Order, receipt: Receipt) -> None: ...


@charge.undo(retry=Retry(max_attempts=9), timeout=3)
def refund_again(order: Order) -> int:
    return 1


a_coroutine_again: Callable[[Order, Receipt], Coroutine[Any, Any, None]] = refund
a_function_again: Callable[[Order], int] = refund_again


@compute
def fee(total: float, rate: float = 0.1) -> float:
    return total * rate


@compute(name="shown")
def show(total: float) -> str:
    return f"{total:.2f}"


@flow(on_failure="stop", deadline=minutes(5))
def constructs(orders: list[Order], order: Order) -> Receipt:
    assert_type(each(orders, charge, limit=2), list[Receipt])
    assert_type(each(orders, lambda one: refuse(one).reason), list[str])
    assert_type(each(orders, charge, tolerate=1), list[Receipt | None])
    assert_type(each(orders, charge, None, 1), list[Receipt | None])
    each(order, charge)  # type: ignore[call-overload]
    each(orders, lambda one: one.size)  # type: ignore[attr-defined]

    assert_type(repeat(again, order, until=lambda one: one.vip, cap=3, last=True), Order)
    assert_type(repeat(lambda _: charge(order), None, until=lambda found: found.order == "x", cap=3), Receipt)
    repeat(again, order, until=lambda one: one.size, cap=3)  # type: ignore[attr-defined]

    assert_type(race(lambda: charge(order), lambda: charge(order), name="first"), Receipt)
    assert_type(n_of(2, lambda: refuse(order), lambda: refuse(order)), list[Refusal])
    race(lambda one: charge(one))  # type: ignore[arg-type, misc]

    def refused(error: Error) -> Receipt:
        log(error.message)
        emit("refused", error.value)
        return charge(order)

    assert_type(attempt(lambda: charge(order), {KeyError: refused, "Gone": lambda: ship(order)}), Receipt)
    assert_type(attempt(lambda: charge(order), {KeyError: lambda error: raise_(ValueError, error.message)}), Receipt)
    assert_type(attempt(lambda: charge(order), finally_=lambda: log("x"), undo=True, timeout=minutes(1)), Receipt)
    attempt(charge, {KeyError: refused})  # type: ignore[arg-type]

    assert_type(wait_for("paid", Receipt, timeout=minutes(1), match=order.id), Receipt)
    assert_type(wait_for("lines", list[str]), list[str])
    with after(wait_for("go", None), sleep(3), sleep_until("2030-01-01T00:00:00Z")):
        emit("gone")
    sleep("x", "y")  # type: ignore[call-overload]

    assert_type(fee(order.total, rate=0.5), float)
    assert_type(show(fee(1)), str)
    fee("x")  # type: ignore[arg-type]

    assert_type(place_order(order), Receipt | Refusal)
    assert_type(place_order.named("child")(order), Receipt | Refusal)
    place_order(3)  # type: ignore[arg-type]

    with when(order.vip):
        raise_(KeyError, value={"order": order.id})
    with when(order.total > 1):
        finish(charge(order))
    return charge(order)


@payments.step
def again(order: Order) -> Order:
    return order


app = App("shop", flows=[place_order, small], services=[payments])


async def test_of_a_step(order: Order) -> None:
    assert_type(await charge.fn(order), Receipt)
    assert_type(refuse(order), Refusal)
