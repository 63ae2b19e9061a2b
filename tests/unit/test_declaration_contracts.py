"""Steps declared without their code, and the code that implements them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Struct

from segue import DeclarationError, Retry, Service
from segue.plan.graph import Contract, Param


class Order(Struct):
    id: str
    total: float = 0.0


class Receipt(Struct):
    order: str
    amount: float


class Refusal(Struct):
    reason: str


def test_a_contract_of_one_type_is_matched_by_position() -> None:
    shipping = Service("shipping")
    ship = shipping.contract("ship", Order, Receipt)
    assert (ship.implemented, [p.name for p in ship.params]) == (False, ["input"])
    with pytest.raises(DeclarationError, match="step 'ship' of service 'shipping' is a contract; its code is not here"):
        ship(Order("1"))

    @shipping.implements(ship, retry=Retry(max_attempts=2), timeout=5)
    async def send(order: Order, express: bool = False) -> Receipt:
        return Receipt(order.id, 1.0)

    assert shipping.steps == {"ship": send}
    assert (send.name, send.is_async, send.retry.max_attempts, send.timeout) == ("ship", True, 2, 5.0)
    assert send.decode_args({"input": {"id": "4"}}) == {"order": Order("4")}


def test_a_contract_of_several_types_is_matched_by_name() -> None:
    shipping = Service("shipping")
    ship = shipping.contract("ship", {"order": Order, "days": int}, None)

    @Service("shipping").implements(ship)
    def send(days: int, order: Order) -> None: ...

    assert send.decode_args({"order": {"id": "4"}, "days": 3}) == {"order": Order("4"), "days": 3}
    assert send.encode_result(None) == b"null"


def wrong_type(order: Receipt) -> Receipt: ...  # type: ignore[empty-body]
def wrong_result(order: Order) -> Refusal: ...  # type: ignore[empty-body]
def too_many(order: Order, days: int) -> Receipt: ...  # type: ignore[empty-body]
def too_few() -> Receipt: ...  # type: ignore[empty-body]


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (wrong_type, "does not implement its contract: parameter 'order' is Receipt"),
        (wrong_result, "does not implement its contract: it returns Refusal"),
        (too_many, "does not implement its contract: nobody gives parameter 'days'"),
        (too_few, "does not implement its contract: parameter 'input' is missing"),
    ],
)
def test_code_that_differs_from_its_contract_is_refused(fn: Any, message: str) -> None:
    shipping = Service("shipping")
    ship = shipping.contract("ship", Order, Receipt)
    with pytest.raises(DeclarationError) as caught:
        shipping.implements(ship)(fn)
    assert message in caught.value.message
    assert f"{__file__}:{fn.__code__.co_firstlineno}: " in caught.value.message
    assert caught.value.hint == "the contract is ship(input: Order) -> Receipt"


def test_a_contract_is_implemented_once_and_by_its_service() -> None:
    shipping = Service("shipping")
    ship = shipping.contract("ship", Order, None)

    def send(order: Order) -> None: ...

    with pytest.raises(DeclarationError, match="'ship' is a contract of 'shipping', not of 'payments'"):
        Service("payments").implements(ship)(send)
    shipping.implements(ship)(send)
    with pytest.raises(DeclarationError, match=r"step 'ship' has its code already, from .*\.py:\d+"):
        shipping.implements(ship)(send)


def test_a_service_offers_contracts_of_what_it_implements() -> None:
    shipping = Service("shipping")
    shipping.contract("later", Order, None)

    @shipping.step
    def ship(order: Order, days: int = 3) -> None: ...

    order = {"type": "object", "title": "Order", "required": ["id"]}
    fields = {"id": {"type": "string"}, "total": {"type": "number", "default": 0.0}}
    defs = {"Order": {**order, "properties": fields}}
    assert shipping.contracts() == (
        Contract(
            "shipping",
            "ship",
            (
                Param("order", {"$ref": "#/$defs/Order", "$defs": defs}),
                Param("days", {"type": "integer", "default": 3}, False),
            ),
            {"type": "null"},
        ),
    )


def test_contracts_travel() -> None:
    shipping = Service("shipping")

    @shipping.step
    def ship(order: Order, parts: list[Receipt] | None = None) -> list[Refusal]: ...  # type: ignore[empty-body]

    raw = msgspec.json.encode(shipping.contracts())
    assert msgspec.json.decode(raw, type=tuple[Contract, ...]) == shipping.contracts()
