"""Undo, deadlines, subflows, and functions that are computed where they are needed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from msgspec import Struct

from segue import App, DeclarationError, InvalidInput, Retry, Service, compute, each, finish, flow, when
from segue.plan.check import problems
from segue.plan.graph import ENTRY, Arg, Const, Get, Node


class Order(Struct):
    id: str
    total: int = 1


class Receipt(Struct):
    amount: int


ONCE = Retry(max_attempts=1)


def shop() -> tuple[Service, Any]:
    """A service with a step."""
    service = Service("money")

    @service.step(retry=Retry(max_attempts=4), timeout=5, deadline=timedelta(minutes=1))
    async def charge(order: Order, note: str = "x") -> Receipt:
        return Receipt(order.total)

    return service, charge


# Undo


def test_an_undo_takes_arguments_by_name_and_the_result() -> None:
    _, charge = shop()

    @charge.undo
    async def refund(order: Order, receipt: Receipt) -> None: ...

    undo = charge.undone_by
    assert (undo.fn, undo.is_async, undo.result, undo.timeout) == (refund, True, "receipt", 5.0)
    assert undo.retry == charge.retry
    args = {"order": {"id": "1", "total": 3}, "note": "y"}
    assert undo.decode_args(args, {"amount": 3}) == {"order": Order("1", 3), "receipt": Receipt(3)}
    with pytest.raises(InvalidInput, match="argument receipt of charge: Expected `object`, got `int`"):
        undo.decode_args(args, 3)


def test_an_undo_may_take_less_and_has_defaults_of_the_step() -> None:
    _, charge = shop()

    @charge.undo(retry=ONCE, timeout=timedelta(seconds=2))
    def refund(note: str) -> None: ...

    undo = charge.undone_by
    assert (undo.is_async, undo.result, undo.retry, undo.timeout) == (False, "", ONCE, 2.0)
    assert undo.decode_args({"order": {"id": "1"}}, {"amount": 3}) == {"note": "x"}
    assert undo.decode_args({"order": {"id": "1"}, "note": "y"}, None) == {"note": "y"}


def test_an_undo_of_a_contract_goes_by_the_names_of_its_code() -> None:
    service = Service("money")
    contract = service.contract("charge", Order, Receipt, undo=True)

    @service.implements(contract)
    def charge(order: Order) -> Receipt: ...  # type: ignore[empty-body]

    assert not service.contracts()[0].undo

    @charge.undo
    def refund(order: Order, done: Receipt) -> None: ...

    assert service.contracts()[0].undo
    assert charge.undone_by is not None
    found = charge.undone_by.decode_args({"input": {"id": "1", "total": 2}}, {"amount": 2})
    assert found == {"order": Order("1", 2), "done": Receipt(2)}


def a_stranger(order: Order, receipt: Receipt, reason: str) -> None: ...
def another_type(order: Receipt) -> None: ...
def another_result(receipt: int) -> None: ...
def unannotated(order) -> None: ...  # type: ignore[no-untyped-def]
def generator(order: Order) -> Any:
    yield order


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (a_stranger, "the undo of charge(order: Order, note: str = ...) -> Receipt does not fit it: nobody gives"),
        (
            another_type,
            "the undo of charge(order: Order, note: str = ...) -> Receipt does not fit it: parameter 'order'",
        ),
        (another_result, "the undo of charge(order: Order, note: str = ...) -> Receipt does not fit it: parameter"),
        (unannotated, "parameter 'order' of the undo of step 'charge' has no type"),
        (generator, "undo 'generator' is a generator"),
    ],
)
def test_an_undo_that_does_not_fit_is_refused(fn: Callable[..., Any], message: str) -> None:
    _, charge = shop()
    with pytest.raises(DeclarationError) as caught:
        charge.undo(fn)
    assert caught.value.message.startswith(f"{__file__}:{fn.__code__.co_firstlineno}: {message}")
    assert charge.undone_by is None


def test_a_step_has_one_undo_and_its_code() -> None:
    service, charge = shop()

    @charge.undo
    def refund(order: Order) -> None: ...

    with pytest.raises(DeclarationError, match="step 'charge' has an undo already"):
        charge.undo(refund)
    ship = service.contract("ship", Order, Receipt)
    with pytest.raises(DeclarationError, match="step 'ship' of service 'money' is a contract; its code is not here"):
        ship.undo(refund)
    with pytest.raises(DeclarationError, match="'net' only computes, so there is nothing to undo"):
        net.undo(refund)
    with pytest.raises(DeclarationError, match="an undo must be a function, got 3"):
        charge.undo(3)


def test_a_plan_says_what_can_be_undone() -> None:
    service, charge = shop()
    ship = service.contract("ship", Order, Receipt, undo=True)
    look = service.contract("look", Order, Receipt)

    def place(order: Order) -> None:
        charge(order), ship(order), look(order)

    before = flow(place).plan

    @charge.undo
    def refund(order: Order) -> None: ...

    after = flow(place).plan
    assert [node.undo for node in before.nodes] == [False, False, True, False, False]
    assert [node.undo for node in after.nodes] == [False, True, True, False, False]
    assert [(one.step, one.undo) for one in after.contracts] == [("charge", True), ("look", False), ("ship", True)]
    assert before.hash != after.hash
    assert problems(after) == []


# Deadlines


def test_a_step_has_a_deadline_over_all_attempts() -> None:
    service, charge = shop()
    assert (charge.timeout, charge.deadline) == (5.0, 60.0)
    ship = service.implements(service.contract("ship", Order, Receipt), deadline=3)(lambda_free)
    assert ship.deadline == 3.0
    with pytest.raises(DeclarationError, match="the deadline of step 'lambda_free' must be more than zero seconds"):
        service.step(deadline=0)(lambda_free)


def lambda_free(order: Order) -> Receipt: ...  # type: ignore[empty-body]


# Flows in flows


@flow(home=Service("money"))
def countdown(n: int, step: int = 1) -> int:
    with when(n <= 0):
        finish(0)
    return countdown(n - step)


def test_a_flow_in_a_flow_is_a_node_with_all_its_inputs() -> None:
    _, charge = shop()

    def place(order: Order) -> None:
        left = countdown(order.total)
        each([left, 3], countdown)
        countdown.named("last")(1, step=2)
        charge(order)

    plan = flow(place).plan
    assert problems(plan) == []
    nodes = plan.index.nodes
    assert nodes["countdown"] == Node(
        "countdown",
        "flow",
        "money",
        step="countdown",
        args=(Arg("n", Get(ENTRY, ("order", "total"))), Arg("step", Const(1))),
    )
    assert (nodes["countdown_2"].region, nodes["countdown_2"].kind) == ("each:item", "flow")
    assert nodes["last"].args == (Arg("n", Const(1)), Arg("step", Const(2)))
    assert [node.step for node in countdown.plan.nodes if node.kind == "flow"] == ["countdown"]


# Computed where needed


@compute
def net(total: int, rate: int = 25) -> int:
    return total * 100 // (100 + rate)


@compute(name="label")
def _label(total: int) -> str:
    return f"{total} EUR"


sales, mail = Service("sales"), Service("mail")


@sales.step
def total(order: Order) -> int: ...  # type: ignore[empty-body]


@mail.step
def send(amount: int, text: str = "") -> None: ...


def test_a_pure_function_is_a_plain_function_outside_of_flows() -> None:
    assert net(125) == 100
    assert net.name == "net"
    assert repr(_label) == "<compute label(total: int) -> str>"


def test_a_pure_function_runs_where_its_arguments_come_from_else_where_its_result_goes() -> None:
    @flow(home=Service("front"))
    def place(order: Order) -> str:
        send(net(total(order)))
        send(net.named("later")(order.total), _label(order.total))
        return _label(net.named("again")(order.total))

    plan = place.plan
    assert problems(plan) == []
    nodes = plan.index.nodes
    assert [(name, nodes[name].owner, nodes[name].step, nodes[name].kind) for name in ("net", "later", "again")] == [
        ("net", "sales", "net", "step"),
        ("later", "mail", "net", "step"),
        ("again", "front", "net", "step"),
    ]
    assert [(one.service, one.step) for one in plan.contracts] == [
        *(("front", "label"), ("front", "net"), ("mail", "label"), ("mail", "net"), ("mail", "send")),
        *(("sales", "net"), ("sales", "total")),
    ]
    assert [(step.service, step.name) for step in place.computed] == [
        *(("front", "label"), ("front", "net"), ("mail", "label"), ("mail", "net"), ("sales", "net"))
    ]
    assert place.computed[0].fn(3) == "3 EUR"
    app = App("shop", flows=[place], services=[sales, mail])
    assert {name: sorted(service.steps) for name, service in app.hosted().items()} == {
        "sales": ["net", "total"],
        "mail": ["label", "net", "send"],
    }
    assert sorted(sales.steps) == ["total"]
    offered = {(one.service, one.step) for service in app.hosted().values() for one in service.contracts()}
    assert {(one.service, one.step) for one in plan.contracts if one.service != "front"} == offered


def test_two_of_one_name_are_refused() -> None:
    @compute(name="total")
    def mine(n: int) -> int:
        return n

    @compute(name="net")
    def other(total: int, rate: int = 25) -> int:
        return 1

    @flow
    def clash(order: Order) -> int:
        return mine(total(order))

    @flow
    def double(order: Order) -> int:
        return net(other(total(order)))

    @flow
    def hidden(order: Order) -> None:
        send(mine(order.total))

    @flow
    def ours(order: Order) -> None:
        send(net(total(order)))

    @flow
    def theirs(order: Order) -> None:
        send(other(total(order)))

    with pytest.raises(
        DeclarationError, match=r":\d+: 'total' is computed by service 'sales', which has a step of that"
    ):
        _ = clash.plan
    with pytest.raises(DeclarationError, match=r":\d+: 'net' is computed by two functions, from "):
        _ = double.plan
    app = App("a", flows=[ours, theirs], services=[sales])
    with pytest.raises(DeclarationError, match=r"flow 'theirs' computes 'net' at service 'sales', which has a step of"):
        app.hosted()
    extra = Service("mail")

    @extra.step(name="total")
    def known(n: int) -> int: ...  # type: ignore[empty-body]

    with pytest.raises(DeclarationError, match="flow 'hidden' computes 'total' at service 'mail', which has a step of"):
        App("b", flows=[hidden], services=[extra]).hosted()


async def waits(n: int) -> int:
    return n


def yields(n: int) -> Any:
    yield n


def untyped(n) -> int:  # type: ignore[no-untyped-def]
    return 1


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (waits, "'waits' computes, so it must be a plain function"),
        (yields, "computation 'yields' is a generator"),
        (untyped, "parameter 'n' of compute 'untyped' has no type"),
    ],
)
def test_only_typed_plain_functions_compute(fn: Callable[..., Any], message: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        compute(fn)
    assert caught.value.message.startswith(f"{__file__}:{fn.__code__.co_firstlineno}: {message}")


def test_a_flow_that_only_computes_needs_a_home() -> None:
    def place(order: Order) -> int:
        return net(order.total)

    with pytest.raises(DeclarationError, match="flow 'place' calls no step, so it has no home"):
        _ = flow(place).plan
    assert flow(home=sales)(place).plan.index.nodes["net"].owner == "sales"
