"""What type checkers see of expressions in a flow body. Checked by mypy, never run."""

from __future__ import annotations

from typing import assert_type

import msgspec

from segue import Service, either, expr, flow, when


class Line(msgspec.Struct):
    sku: str
    price: float


class Order(msgspec.Struct):
    id: str
    total: float
    count: int
    vip: bool
    lines: list[Line]
    tags: list[str]
    fees: dict[str, int]
    discount: float | None


shop = Service("shop")


@shop.step
def note(text: str) -> int:
    return len(text)


@shop.step
def flag(value: bool) -> None:
    print(value)


@flow
def place(order: Order) -> float:
    assert_type(order.total * 2 + order.count, float)
    assert_type(order.count // 2, int)
    assert_type(round(order.total), int)
    assert_type(round(order.total, 2), float)
    assert_type(order.lines[order.count].sku, str)
    assert_type(expr.length(order.lines), int)
    assert_type(expr.contains(order.tags, "gift"), bool)
    assert_type(expr.item(order.fees, order.id), int)
    assert_type(expr.item([order.id], order.count), str)
    assert_type(expr.sum([1, order.count]), int)
    assert_type(expr.sum([order.total, order.lines[0].price]), float)
    assert_type(expr.min(order.total, 10.0), float)
    assert_type(expr.max(order.tags), str)
    assert_type(expr.text("{} of {}", order.id, order.count), str)
    assert_type(expr.split(expr.join(order.tags, ","), ","), list[str])
    assert_type(expr.lower(expr.upper(expr.strip(order.id))), str)
    assert_type(expr.choose(order.vip & ~expr.starts_with(order.id, "x"), 1, "x"), int | str)
    assert_type(expr.default(order.discount, 0.0), float)
    flag(order.total > 10)
    flag(order.vip | expr.ends_with(order.id, "x"))
    with when(expr.contains(order.fees, order.id)):
        noted = note(expr.text("{}", order.total))
    expr.length(order.count)  # type: ignore[arg-type]
    expr.upper(order.count)  # type: ignore[arg-type]
    expr.sum(order.tags)  # type: ignore[arg-type]
    expr.choose("x", 1, 2)  # type: ignore[arg-type]
    note(order.total * 2)  # type: ignore[arg-type]
    return either(noted * 2, order.total)
