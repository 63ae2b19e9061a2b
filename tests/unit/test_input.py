"""Input of a flow that is started by name: checked against the plan's schemas."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from segue import InvalidInput, Service, flow
from segue.runtime.input import bind


class Item(msgspec.Struct):
    sku: str
    count: int = 1


class Order(msgspec.Struct):
    id: str
    items: list[Item]
    note: str | None = None


shop = Service("shop")


@shop.step
def pack(order: Order, copies: int) -> str:
    return order.id


@flow
def ship(order: Order, copies: int = 2) -> str:
    return pack(order, copies)


GOOD: dict[str, Any] = {"id": "1", "items": [{"sku": "a"}], "note": None}


def test_what_fits_is_taken_and_defaults_are_filled_in() -> None:
    assert bind(None, ship.plan, (GOOD,), {}) == {"order": GOOD, "copies": 2}


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ({**GOOD, "id": 3}, r"\$\.order\.id: 3 is not of type 'string'"),
        ({"id": "1"}, r"\$\.order: 'items' is a required property"),
        ({**GOOD, "items": [{"sku": "a", "count": "many"}]}, r"\$\.order\.items\[0\]\.count"),
        ({**GOOD, "note": 1}, r"\$\.order\.note"),
        ("4711", r"\$\.order: '4711' is not of type 'object'"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(order: object, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        bind(None, ship.plan, (order,), {})
