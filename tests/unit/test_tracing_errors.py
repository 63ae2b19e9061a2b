"""What a flow body must not do, and what it is told: the place, the construct, and what to use instead."""

from __future__ import annotations

import copy
import math
import operator
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, TypedDict

import pytest
from msgspec import Struct

from segue import (
    DeclarationError,
    PlaceholderError,
    Service,
    after,
    either,
    flow,
    otherwise,
    when,
)


class Address(TypedDict):
    city: str


class Order(Struct):
    id: str
    total: float
    vip: bool
    tags: list[str]
    address: Address
    due: datetime
    price: Decimal

    def compute(self) -> int:
        return 1


class Sparse(Struct, omit_defaults=True):
    total: float = 0.0


@dataclass
class Wrapped:
    order: Order

    def __post_init__(self) -> None:
        if self.order.vip:
            raise ValueError


shop = Service("shop")


@shop.step
def check(order: Order) -> bool: ...  # type: ignore[empty-body]


@shop.step
def count(n: int) -> int: ...  # type: ignore[empty-body]


@shop.step
def sparse() -> Sparse: ...  # type: ignore[empty-body]


@shop.step
def note(text: str) -> None: ...


@shop.step
def wrap(wrapped: Wrapped) -> None: ...


def refused(body: Callable[[Any], object], kind: type[DeclarationError] = DeclarationError) -> DeclarationError:
    """The error of a flow with this body, which must name this file and a line of the body."""

    def place(order: Order) -> Any:
        body(order)

    with pytest.raises(kind) as caught:
        _ = flow(place).plan
    error = caught.value
    name, line, _ = error.message.split(":", 2)
    assert name == __file__
    first = body.__code__.co_firstlineno
    assert first <= int(line) <= first + 12
    return error


def branch(order: Any) -> None:
    if order.vip:
        note("x")


def chained(order: Any) -> None:
    with when(1 < order.total < 5):
        note("x")


def loop(order: Any) -> None:
    for tag in order.tags:
        note(tag)


def unpack(order: Any) -> None:
    _first, _second = order.tags


def text(order: Any) -> None:
    note(f"order {order.id}")


def awaited(order: Any) -> None:
    check(order).__await__()  # type: ignore[attr-defined]


def matched(order: Any) -> None:
    match order.id:
        case "x":
            note("x")


VALUE = "needs the value of order.total, which is known only when the flow runs"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (branch, "`if`, `and`, `or`, `not`, `in` or a chained comparison needs the value of order.vip, which is"),
        (chained, "`if`, `and`, `or`, `not`, `in` or a chained comparison needs the value of order.total > 1,"),
        (lambda o: o.vip and o.total > 1, "`if`, `and`, `or`, `not`, `in` or a chained comparison needs the value of"),
        (lambda o: not (o.total > 1), "`if`, `and`, `or`, `not`, `in` or a chained comparison needs the value of"),
        (lambda o: o.id in ("a", "b"), "`if`, `and`, `or`, `not`, `in` or a chained comparison needs the value of"),
        (lambda o: o.id in {"a", "b"}, "a set, a dict key or `in` on one of them needs the value of order.id"),
        (lambda o: {o.id: 1}, "a set, a dict key or `in` on one of them needs the value of order.id"),
        (lambda o: "a" in o.tags, "`in` needs the value of order.tags"),
        (loop, "iteration or unpacking needs the value of order.tags"),
        (unpack, "iteration or unpacking needs the value of order.tags"),
        (lambda o: list(o.tags), "iteration or unpacking needs the value of order.tags"),
        (lambda o: [*o.tags], "iteration or unpacking needs the value of order.tags"),
        (lambda o: reversed(o.tags), "iteration or unpacking needs the value of order.tags"),
        (lambda o: len(o.tags), "len() needs the value of order.tags"),
        (text, "text formatting (str, print, an f-string) needs the value of order.id"),
        (lambda o: str(o.id), "text formatting (str, print, an f-string) needs the value of order.id"),
        (lambda o: print(o.id), "text formatting (str, print, an f-string) needs the value of order.id"),
        (lambda o: "%s" % o.id, "text formatting (str, print, an f-string) needs the value of order.id"),  # noqa: UP031
        (lambda o: open(o.id), "text formatting (str, print, an f-string) needs the value of order.id"),  # noqa: SIM115
        (lambda o: bytes(o.id), "text formatting (str, print, an f-string) needs the value of order.id"),
        (lambda o: int(o.total), f"conversion to a number {VALUE}"),
        (lambda o: float(o.total), f"conversion to a number {VALUE}"),
        (lambda o: range(o.total), f"conversion to a number {VALUE}"),
        (lambda o: math.floor(o.total), f"rounding by math {VALUE}"),
        (lambda o: divmod(o.total, 2), f"divmod() {VALUE}"),
        (lambda o: o.total**2, f"`**` {VALUE}"),
        (lambda o: +o.total, f"arithmetic of this kind {VALUE}"),
        (lambda o: operator.matmul(o.total, 2), f"arithmetic of this kind {VALUE}"),
        (lambda o: 1 << o.total, f"arithmetic with bits {VALUE}"),
        (lambda o: min(o.total, 2), "`if`, `and`, `or`, `not`, `in` or a chained comparison needs the value of"),
        (lambda o: sum(o.tags), "iteration or unpacking needs the value of order.tags"),
        (lambda o: len(o.tags + o.tags), "len() needs the value of order.tags + order.tags,"),
        (lambda o: isinstance(o.total * 2, float), "isinstance() or `match` needs the value of order.total * 2,"),
        (lambda o: isinstance(o.total > 2, bool), "isinstance() or `match` needs the value of order.total > 2,"),
        (lambda o: o.total(), f"a call {VALUE}"),
        (awaited, "`await` needs the value of check(...)"),
        (lambda o: isinstance(o.total, float), f"isinstance() or `match` {VALUE}"),
        (lambda o: isinstance(o.total, Mapping), f"isinstance() or `match` {VALUE}"),
        (lambda o: setattr(o, "total", 2), "setting .total needs the value of order,"),
        (lambda o: delattr(o, "total"), "deleting .total needs the value of order,"),
        (lambda o: operator.setitem(o.tags, 0, "x"), "changing an item needs the value of order.tags"),
        (lambda o: copy.copy(o), "copying or pickling needs the value of order,"),
        (lambda o: pickle.dumps(o.total), f"copying or pickling {VALUE}"),
        (lambda o: o.tags[0:2], "an item of order.tags is read by slice(0, 2, None)"),
        (lambda o: (o.total > 1)[0], "an item of a condition needs the value of order.total > 1,"),
    ],
)
def test_what_needs_the_value_is_refused(body: Callable[[Any], object], message: str) -> None:
    error = refused(body, PlaceholderError)
    assert f": {message}" in error.message
    assert error.hint


def test_code_that_the_body_calls_is_the_place() -> None:
    @flow
    def place(order: Order) -> None:
        wrap(Wrapped(order))

    line = Wrapped.__post_init__.__code__.co_firstlineno + 1
    with pytest.raises(PlaceholderError, match=rf"test_tracing_errors\.py:{line}: `if`"):
        _ = place.plan


def test_match_on_a_literal_is_refused() -> None:
    assert "a chained comparison" in refused(matched, PlaceholderError).message


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (
            branch,
            "use `with when(condition):` for a choice between steps, expr.choose(condition, a, b) for one between "
            "values; `&`, `|` and `~` for and, or and not; expr.contains() for `in`; expr.min() and expr.max()",
        ),
        (
            loop,
            "each(items, body) does it for every item; a flow body can only loop over what is known when it is traced",
        ),
        (text, 'write expr.text("order {} of {}", a, b)'),
        (lambda o: len(o.tags), "write expr.length(x)"),
        (lambda o: "a" in o.tags, "write expr.contains(items, x)"),
        (lambda o: o.total**2, "multiply, or compute it in a step or a @compute function, and use its result here"),
    ],
)
def test_the_hint_names_what_to_use_instead(body: Callable[[Any], object], hint: str) -> None:
    assert refused(body).hint == hint


@pytest.mark.parametrize(
    ("body", "message", "hint"),
    [
        (lambda o: o.totl, "Order has no field 'totl'", "known fields: id, total, vip, tags, address, due, price"),
        (lambda o: o.compute(), "Order.compute is no field", "compute it in a step"),
        (lambda o: o.id.upper(), "order.id is str, which has no field 'upper'", "write expr.upper(order.id)"),
        (lambda o: o.id.startswith("x"), "which has no field 'startswith'", "write expr.starts_with(order.id, ...)"),
        (lambda o: o.address.city, "order.address is Address, whose fields are items", 'write order.address["city"]'),
        (lambda o: o.address["town"], "Address has no field 'town'", "known fields: city"),
        (lambda o: o.tags["x"], "order.tags is list[str], which has no item 'x'", ""),
        (lambda o: o.id[0], "order.id is str, which has no item 0", ""),
        (lambda o: count(1).x, "count(...) is int, which has no field 'x'", ""),  # type: ignore[attr-defined]
        (
            lambda o: sparse().total,
            "sparse(...).total is left out of the JSON when it has its default",
            "omit_defaults",
        ),
    ],
)
def test_only_fields_that_are_there_can_be_read(body: Callable[[Any], object], message: str, hint: str) -> None:
    error = refused(body)
    assert message in error.message
    assert hint in error.hint


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda o: o.total > "5", "`>` cannot compare order.total, which is float, with '5', which is str"),
        (lambda o: o.total == "5", "order.total is float; `== '5'` compares it with what it never is"),
        (lambda o: o.id == o.total, "`==` cannot compare order.id, which is str, with order.total, which is float"),
        (lambda o: o.vip > True, "`>` cannot compare order.vip, which is bool, with True, which is bool"),
        (lambda o: o.due > datetime(2024, 1, 1), "`>` cannot compare order.due, which is datetime"),
        (lambda o: o.price == Decimal("1.0"), "`==` cannot compare order.price, which is Decimal"),
        (lambda o: o == 5, "order is Order; `== 5` compares it with what it never is"),
        (lambda o: o.tags == ["x"], "`==` cannot compare order.tags, which is list[str]"),
        (lambda o: o.total == Decimal, "<class 'decimal.Decimal'> cannot be used in an expression"),
        (
            lambda o: o.total == (o.total > 1),
            "`==` cannot compare order.total, which is float, with order.total > 1, w",
        ),
        (
            lambda o: (o.total > 1) < o.vip,
            "`<` cannot compare order.total > 1, which is bool, with order.vip, which is",
        ),
        (lambda o: o.total * 2 > "5", "`>` cannot compare order.total * 2, which is float, with '5', which is str"),
        (lambda o: o.total & o.vip, "`&` needs a condition, but order.total is float"),
        (lambda o: o.vip & True, "`&` needs a condition on a placeholder, got True"),
        (lambda o: True & o.vip, "`&` needs a condition on a placeholder, got True"),
        (lambda o: False | o.vip, "`|` needs a condition on a placeholder, got False"),
        (lambda o: ~o.id, "`~` needs a condition, but order.id is str"),
    ],
)
def test_conditions_that_would_never_hold_are_refused(body: Callable[[Any], object], message: str) -> None:
    assert f": {message}" in refused(body).message


def when_constant(order: Any) -> None:
    with when(True):
        note("x")


def when_text(order: Any) -> None:
    with when(order.id):
        note("x")


def otherwise_alone(order: Any) -> None:
    with otherwise():
        note("x")


def otherwise_late(order: Any) -> None:
    with when(order.vip):
        note("x")
    note("y")
    with otherwise():
        note("z")


def otherwise_twice(order: Any) -> None:
    with when(order.vip):
        note("x")
    with otherwise():
        note("y")
    with otherwise():
        note("z")


def otherwise_inside(order: Any) -> None:
    with when(order.vip):
        note("x")
        with otherwise():
            note("y")


def after_nothing(order: Any) -> None:
    with after():
        note("x")


def after_list(order: Any) -> None:
    with after([check(order)]):
        note("x")


def same_name(order: Any) -> None:
    note.named("hello")("x")
    note.named("hello")("y")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (when_constant, "when() needs a condition on a placeholder, got True"),
        (when_text, "when() needs a condition, but order.id is str"),
        (otherwise_alone, "otherwise() does not directly follow a `when` block"),
        (otherwise_late, "otherwise() does not directly follow a `when` block"),
        (otherwise_twice, "otherwise() does not directly follow a `when` block"),
        (otherwise_inside, "otherwise() does not directly follow a `when` block"),
        (after_nothing, "after() needs the result of a step call, or several"),
        (after_list, "after() takes results of step calls, got [<placeholder check(...): bool>]"),
        (lambda o: either(check(o)), "either() needs two or more choices, got 1"),
        (lambda o: either(None, check(o)), "choice 1 of either() is None, so the next one is never taken"),
        (lambda o: either(check(o), False, name="Big"), "node name 'Big' is not allowed"),
        (lambda o: note.named("run")("x"), "node name 'run' is reserved"),
    ],
)
def test_misused_constructs_are_refused(body: Callable[[Any], object], message: str) -> None:
    assert f": {message}" in refused(body).message


def test_two_nodes_of_one_explicit_name_are_refused_with_both_places() -> None:
    first = same_name.__code__.co_firstlineno + 1
    assert refused(same_name).message == (
        f"{__file__}:{first + 1}: a node named 'hello' is already there, from {__file__}:{first}"
    )


def test_constructs_outside_of_a_flow_body_are_refused() -> None:
    with pytest.raises(DeclarationError, match=r"\.py:\d+: when\(\) is used outside of a flow body"), when(True):
        pass
    with pytest.raises(DeclarationError, match=r"otherwise\(\) is used outside"), otherwise():
        pass
    with pytest.raises(DeclarationError, match=r"after\(\) is used outside"), after(1):
        pass
    with pytest.raises(DeclarationError, match=r"either\(\) is used outside"):
        either(1, 2)


def test_placeholders_of_another_flow_are_refused() -> None:
    kept: list[Any] = []

    @flow
    def first(order: Order) -> None:
        kept.append(order)
        kept.append(order.vip == True)  # noqa: E712
        note("x")

    _ = first.plan
    leaked, condition = kept

    def use_condition(order: Any) -> None:
        with when(condition):
            note("x")

    message = "order belongs to flow 'first', and flow 'place' uses it"
    assert message in refused(lambda o: check(leaked)).message
    assert message in refused(lambda o: count.named("x")(either(leaked.total, 3))).message.replace(
        "order.total", "order"
    )
    assert "order.vip == True belongs to flow 'first'" in refused(use_condition).message
    assert "order.total * 2 belongs to flow 'first'" in refused(lambda o: count(leaked.total * 2)).message
    assert "`==` takes placeholders of two different flows" in refused(lambda o: o.id == leaked.id).message
    assert "`+` takes placeholders of two different flows" in refused(lambda o: o.total + leaked.total).message
    assert "`&` takes placeholders of two different flows" in refused(lambda o: condition & o.vip).message
    with pytest.raises(DeclarationError, match="check is called with a placeholder outside of a flow body"):
        check(leaked)


def test_a_plan_is_not_asked_for_in_a_flow_body() -> None:
    @flow
    def inner(order: Order) -> None:
        note("x")

    assert "the plan of 'inner' is asked for in a flow body" in refused(lambda o: inner.plan).message


def test_what_the_body_raises_passes_through_and_leaves_no_trace() -> None:
    @flow
    def broken(order: Order) -> None:
        with when(order.vip):
            raise ZeroDivisionError("of the body")

    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="of the body"):
            _ = broken.plan
    with pytest.raises(DeclarationError, match="outside of a flow body"):
        either(1, 2)


def test_only_functions_are_declared() -> None:
    with pytest.raises(DeclarationError, match=r"\.py:\d+: a flow body must be a function, got <class"):
        flow(Order)
    with pytest.raises(DeclarationError, match=r"\.py:\d+: a step must be a function, got <class"):
        shop.step(Order)


def test_a_placeholder_can_be_looked_at() -> None:
    seen: list[str] = []

    @flow(home=shop)
    def place(order: Order) -> None:
        assert not hasattr(order, "__dataclass_fields__")
        seen.extend([repr(order.address["city"]), repr(check(order)), repr(order.total > 1), repr(-order.total)])

    _ = place.plan
    assert seen[:2] == ["<placeholder order.address['city']: str>", "<placeholder check(...): bool>"]
    assert seen[2:] == ["<condition order.total > 1>", "<placeholder -order.total: float>"]


def test_the_recursion_limit_is_left_alone() -> None:
    before = sys.getrecursionlimit()

    @flow
    def long() -> int:
        n = count(0)
        for _ in range(3000):
            n = count(n)
        return n

    assert len(long.plan.nodes) == 3003
    assert sys.getrecursionlimit() == before
