"""What else is in a plan: contracts and types; and its hash, which is the same for every build."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from segue import DeclarationError, Service, after, flow, when
from segue.plan.check import problems
from segue.plan.graph import Param, Plan, load


class Order(Struct):
    id: str
    total: float
    vip: bool = False


class Receipt(Struct):
    order: str
    amount: float


sales, money = Service("sales"), Service("money")


@money.step
def charge(order: Order) -> Receipt: ...  # type: ignore[empty-body]


@sales.step
def reserve(order: Order) -> str: ...  # type: ignore[empty-body]


@sales.step
def tidy() -> None: ...


def plan_of(body: Callable[..., Any]) -> Plan:
    plan = flow(body).plan
    assert problems(plan) == []
    assert load(plan.json) == plan
    return plan


def test_contracts_and_types_are_in_the_plan() -> None:
    def place(order: Order, times: int = 3) -> Receipt:
        """Charge."""
        return charge(order)

    plan = plan_of(place)
    assert plan.inputs == (
        Param("order", {"$ref": "#/types/Order"}),
        Param("times", {"type": "integer", "default": 3}, False),
    )
    assert plan.output == {"$ref": "#/types/Receipt"}
    (contract,) = plan.contracts
    assert (contract.service, contract.step) == ("money", "charge")
    assert contract.inputs == (Param("order", {"$ref": "#/types/Order"}),)
    assert contract.output == {"$ref": "#/types/Receipt"}
    assert sorted(plan.types) == ["Order", "Receipt"]
    assert plan.types["Order"]["required"] == ["id", "total"]


def test_docstrings_and_lines_do_not_change_the_hash() -> None:
    def build(doc: str) -> Plan:
        thing = type("Thing", (Struct,), {"__annotations__": {"description": str}, "__doc__": doc, "__module__": "m"})
        keeper = Service("keeper")

        def keep(thing: Any) -> None: ...

        keep.__annotations__ = {"thing": thing, "return": None}
        kept = keeper.step(keep)

        def body(thing: Any) -> None:
            kept(thing)

        body.__annotations__ = {"thing": thing, "return": None}
        return flow(body).plan

    one, two = build("A thing."), build("Something else.")
    assert one == two
    assert one.hash == two.hash
    assert one.types["Thing"]["properties"] == {"description": {"type": "string"}}


def test_two_types_of_one_name_are_told_apart_or_refused() -> None:
    here: dict[str, Any] = {}
    for module in ("a", "b"):
        here[module] = type("Item", (Struct,), {"__annotations__": {"x": int}, "__module__": module})

    def place(a: Any, b: Any) -> None:
        tidy()

    place.__annotations__ = {"a": here["a"], "b": here["b"], "return": None}
    assert sorted(plan_of(place).types) == ["a.Item", "b.Item"]

    same = type("Item", (Struct,), {"__annotations__": {"y": int}, "__module__": "a"})
    place.__annotations__ = {"a": here["a"], "b": same, "return": None}
    with pytest.raises(DeclarationError, match=r"\.py:\d+: flow 'place': two different types are both named a\.Item"):
        _ = flow(place).plan


def test_a_step_declared_twice_with_other_types_is_refused() -> None:
    other = Service("money").contract("charge", Order, str)

    @flow
    def place(order: Order) -> None:
        charge(order)
        other(order)

    with pytest.raises(DeclarationError, match="step 'charge' of service 'money' is declared twice with other types"):
        _ = place.plan


def test_a_plan_is_built_once_and_every_build_gives_the_same() -> None:
    calls = []

    def place(order: Order) -> str:
        calls.append(order)
        with when(order.vip), after(tidy()):
            return reserve(order)

    first, second = flow(place), flow(place)
    assert first.plan is first.plan
    assert len(calls) == 1
    assert first.plan == second.plan
    assert first.plan.hash == second.plan.hash


PROGRAM = """
import msgspec
from segue import Service, flow, when, either
class Order(msgspec.Struct):
    id: str
    sizes: frozenset[str] = frozenset()
shop = Service("shop")
@shop.step
def pack(order: Order, only: frozenset[str] = frozenset({"x", "y"}), note: dict[str, int] | None = None) -> str: ...
@flow(key=lambda order: order.id)
def place(order: Order) -> str:
    with when(order.id != "1"):
        first = pack(order, frozenset({"a", "b", "c", "d"}), {"q": 1, "p": 2})
    return either(first, pack(order))
print(place.plan.hash)
"""


def test_the_hash_is_the_same_in_every_process(tmp_path: Path) -> None:
    program = tmp_path / "shop.py"
    program.write_text(PROGRAM)
    found = {
        subprocess.run(
            [sys.executable, str(program)], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(found) == 1
    assert len(found.pop().strip()) == 32
