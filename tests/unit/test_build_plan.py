"""What a flow body becomes: nodes, guards, order, owners, gateways, names and the hash."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from segue import DeclarationError, Flow, Service, after, either, flow, otherwise, when
from segue.machine.facts import Fact, Invoke, Key, Outcome, Record, State
from segue.machine.step import step
from segue.plan.check import problems
from segue.plan.graph import (
    ENTRY,
    EXIT,
    And,
    Arg,
    Compare,
    Const,
    Fields,
    Get,
    Items,
    Node,
    Not,
    Or,
    Plan,
    Truth,
    load,
)
from segue.plan.projection import project


class Order(Struct):
    id: str
    total: float
    vip: bool = False


class Receipt(Struct):
    order: str
    amount: float


sales, money, mail = Service("sales"), Service("money"), Service("mail")


@money.step
def charge(order: Order) -> Receipt:
    return Receipt(order.id, order.total)


@sales.step
def reserve(order: Order) -> str:
    return f"shelf-{order.id}"


@sales.step
def discount(order: Order) -> float:
    return 0.1


@mail.step
def notify(receipt: Receipt, shelf: str | None = None, rate: float = 0.0) -> str:
    return f"{receipt.order} {shelf} {rate}"


@mail.step
def tidy() -> None: ...


def plan_of(body: Callable[..., Any], **settings: Any) -> Plan:
    plan = flow(**settings)(body).plan
    assert problems(plan) == []
    assert load(plan.json) == plan
    return plan


def user_nodes(plan: Plan) -> list[Node]:
    assert (plan.nodes[0].id, plan.nodes[-1].id) == (ENTRY, EXIT)
    return list(plan.nodes[1:-1])


def run(place: Flow[..., Any], **inputs: Any) -> tuple[Any, dict[str, str]]:
    """Result and outcomes of a run: the machine with all nodes, and the steps' own code."""
    plan, services = place.plan, {service.name: service for service in (sales, money, mail)}
    mine = frozenset(node.id for node in plan.nodes)
    state, todo = State(), [Fact(Key(ENTRY), Outcome("completed", place.encode_input(inputs)))]
    while todo:
        fact = todo.pop(0)
        if fact.key in state.outcomes:
            continue
        state, effects = step(plan, state, fact, mine)
        for effect in effects:
            match effect:
                case Record(decided):
                    todo.append(decided)
                case Invoke(key, _, args):
                    node = plan.index.nodes[key.node]
                    called = services[node.owner].steps[node.step]
                    raw = called.encode_result(called.fn(**called.decode_args(args)))
                    todo.append(Fact(key, Outcome("completed", msgspec.json.decode(raw))))
    kinds: dict[str, str] = {key.node: outcome.kind for key, outcome in state.outcomes.items()}
    return place.decode_result(state.outcomes[Key(EXIT)].value), kinds


def test_data_use_makes_the_edges() -> None:
    def place(order: Order) -> str:
        receipt = charge(order)
        shelf = reserve(order)
        return notify(receipt, shelf, rate=0.5)

    plan = plan_of(place)
    order = Get(ENTRY, ("order",))
    assert plan.nodes == (
        Node(ENTRY, "entry", "mail"),
        Node("charge", "step", "money", step="charge", args=(Arg("order", order),)),
        Node("reserve", "step", "sales", step="reserve", args=(Arg("order", order),)),
        Node(
            "notify",
            "step",
            "mail",
            step="notify",
            args=(Arg("receipt", Get("charge")), Arg("shelf", Get("reserve")), Arg("rate", Const(0.5))),
        ),
        Node(EXIT, "exit", "mail", args=(Arg("result", Get("notify", (), True)),), after=("notify",)),
    )
    assert (plan.flow, plan.home, plan.key) == ("place", "mail", None)
    assert [(region.id, region.entry, region.exit) for region in plan.regions] == [("run", ENTRY, EXIT)]
    assert project(plan, "money").hears == (ENTRY,)


def test_a_run_of_a_built_plan_gives_what_the_body_says() -> None:
    @flow
    def place(order: Order) -> str:
        receipt = charge(order)
        with when(order.total > 100):
            shelf = reserve(order)
        with otherwise():
            tidy()
        return notify(receipt, shelf, either(discount(order), 0.0))

    value, kinds = run(place, order=Order("7", 500.0))
    assert value == "7 shelf-7 0.1"
    assert (kinds["reserve"], kinds["tidy"]) == ("completed", "skipped")
    value, kinds = run(place, order=Order("8", 50.0))
    assert value == "8 None 0.1"
    assert (kinds["reserve"], kinds["tidy"]) == ("skipped", "completed")


def test_a_skipped_result_is_none() -> None:
    @flow
    def place(order: Order) -> Receipt | None:
        with when(order.vip):
            return charge(order)

    assert run(place, order=Order("1", 2.0)) == (None, {ENTRY: "completed", "charge": "skipped", EXIT: "completed"})
    assert run(place, order=Order("1", 2.0, True))[0] == Receipt("1", 2.0)


def test_names_count_up_and_can_be_given() -> None:
    def place(order: Order) -> None:
        charge.named("charge_2")(order)
        for _ in range(3):
            charge(order)
        either(charge(order), None)
        either(charge.named("last-charge")(order), None, name="pick")

    assert [node.id for node in user_nodes(plan_of(place))] == [
        *("charge_2", "charge", "charge_3", "charge_4", "charge_5", "either", "last-charge", "pick")
    ]


def test_guards() -> None:
    def place(order: Order, limit: float) -> None:
        receipt = charge(order)
        with when((order.total > limit) & ~order.vip | (receipt.order == "x")):
            tidy()
        with otherwise():
            tidy()
            with when(1000 <= order.total):  # noqa: SIM300
                tidy()
            with otherwise():
                tidy()
        with when(order.vip):
            with when(order.total != 5):
                tidy()

    total, vip = Get(ENTRY, ("order", "total")), Truth(Get(ENTRY, ("order", "vip")))
    outer = Or(
        (
            And((Compare(">", total, Get(ENTRY, ("limit",))), Not(vip))),
            Compare("==", Get("charge", ("order",)), Const("x")),
        )
    )
    inner = Compare(">=", total, Const(1000))
    assert [node.guard for node in user_nodes(plan_of(place))[1:]] == [
        outer,
        Not(outer),
        And((Not(outer), inner)),
        And((Not(outer), Not(inner))),
        And((vip, Compare("!=", total, Const(5)))),
    ]


def test_otherwise_may_follow_after_a_nested_block() -> None:
    def place(order: Order) -> None:
        with when(order.vip):
            with when(order.total > 1):
                tidy()
            with after(tidy()):
                tidy()
        with otherwise():
            tidy()

    assert user_nodes(plan_of(place))[-1].guard == Not(Truth(Get(ENTRY, ("order", "vip"))))


def test_order_without_data() -> None:
    def place(order: Order) -> None:
        receipt = charge(order)
        done = tidy()
        with after(done, receipt.amount):
            shelf = reserve(order)
            notify(receipt, shelf)
            with after(shelf):
                tidy()

    nodes = user_nodes(plan_of(place))
    assert [node.after for node in nodes] == [
        (),
        (ENTRY,),
        ("tidy", "charge"),
        ("tidy",),
        ("tidy", "charge", "reserve"),
    ]


def test_the_exit_joins_all_sinks_in_plan_order() -> None:
    def place(order: Order) -> Receipt:
        shelf = reserve(order)
        receipt = charge(order)
        notify(receipt, shelf)
        tidy()
        return receipt

    end = plan_of(place).nodes[-1]
    assert end.after == ("notify", "tidy")
    assert end.args == (Arg("result", Get("charge", (), True)),)
    assert end.owner == "money"


def test_reads_of_what_may_be_skipped_are_optional_where_the_type_admits_none() -> None:
    @sales.step
    def gather(items: list[str | None], pair: tuple[str, str | None], by_name: dict[str, str | None]) -> str: ...  # type: ignore[empty-body]

    def place(order: Order) -> str | None:
        sure = reserve(order)
        with when(order.vip):
            maybe = reserve(order)
        lost = reserve.named("lost")(Order(maybe, 1.0))
        return gather([sure, maybe, lost], (sure, maybe), {"a": maybe})

    *_, node = user_nodes(plan_of(place))
    some, needed = Get("reserve_2", (), True), Get("reserve")
    assert node.args == (
        Arg("items", Items((needed, some, Get("lost", (), True)))),
        Arg("pair", Items((needed, some))),
        Arg("by_name", Fields({"a": some})),
    )
    del sales.steps["gather"]


def test_either_reads_all_choices_and_belongs_to_its_first_consumer() -> None:
    def place(order: Order) -> str:
        with when(order.vip):
            first = reserve(order)
        with otherwise():
            second = reserve(order)
        picked = either(first, second, "none")
        again = either(picked, "other")
        loose = either(first, second)
        receipt = charge(order)
        notify(receipt, again)
        with when(picked == "none"):
            tidy()
        return loose

    plan = plan_of(place)
    nodes = plan.index.nodes
    choices = Arg("1", Get("reserve", (), True)), Arg("2", Get("reserve_2", (), True))
    assert nodes["either"] == Node("either", "either", "mail", args=(*choices, Arg("3", Const("none"))))
    assert (nodes["either_2"].owner, nodes["either_3"].owner, plan.home) == ("mail", "sales", "sales")
    assert nodes["either_3"].args == choices


def test_either_may_be_skipped_only_if_all_its_choices_may() -> None:
    def place(order: Order) -> None:
        with when(order.vip):
            maybe = reserve(order)
        receipt = charge(order)
        notify(receipt, either(maybe, maybe))
        notify(receipt, either(maybe, reserve(order)))
        notify(receipt, either(maybe, "x"))
        with when(order.vip):
            guarded = either(maybe, "x")
        notify(receipt, guarded)

    notes = [node for node in user_nodes(plan_of(place)) if node.step == "notify"]
    assert [arg.value.optional for node in notes for arg in node.args if arg.name == "shelf"] == [  # type: ignore[union-attr]
        *(True, False, False, True)
    ]


@pytest.mark.parametrize(
    ("body", "home"),
    [
        (lambda order: (charge(order), reserve(order))[0], "money"),
        (lambda order: {"b": 1, "a": [charge(order).amount, reserve(order)]}, "money"),
        (lambda order: (charge(order), order.id)[1], "money"),
        (lambda order: either(either(order.id, reserve(order)), charge(order).order), "sales"),
        (lambda order: (charge(order), tidy(), None)[2], "mail"),
    ],
)
def test_the_home_is_the_owner_of_the_result_else_of_the_last_step(body: Callable[[Any], Any], home: str) -> None:
    def place(order: Order) -> Any:
        return body(order)

    plan = plan_of(place)
    assert plan.home == home
    assert {plan.nodes[0].owner, plan.nodes[-1].owner} == {home}
    assert plan_of(place, home=Service("front")).home == "front"


def test_a_flow_without_steps_needs_a_home() -> None:
    def echo(order: Order) -> Order:
        return order

    plan = plan_of(echo, home=sales)
    assert plan.nodes[1:] == (
        Node(EXIT, "exit", "sales", args=(Arg("result", Get(ENTRY, ("order",), True)),), after=(ENTRY,)),
    )
    with pytest.raises(DeclarationError, match=r"\.py:\d+: flow 'echo' calls no step, so it has no home"):
        _ = flow(echo).plan


def test_the_key_is_a_field_of_the_inputs() -> None:
    def place(order: Order, shop: int) -> None:
        charge(order)

    assert plan_of(place, key=lambda order: order.id).key == Get(ENTRY, ("order", "id"))
    assert plan_of(place, key=lambda order, shop: shop).key == Get(ENTRY, ("shop",))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (lambda order: order.idd, "Order has no field 'idd'"),
        (
            lambda order: order.total,
            "the key of flow 'place' must be a str or int of an input, but order.total is float",
        ),
        (lambda order: order.vip, "the key of flow 'place' must be a str or int of an input, but order.vip is bool"),
        (lambda order: order, "the key of flow 'place' must be a str or int of an input, but order is Order"),
        (lambda order: "fixed", "the key of flow 'place' is 'fixed', not a field of an input"),
        (lambda order: order.id == "1", "the key of flow 'place' is <condition"),
        (lambda order: reserve(order), "reserve is called in the key of flow 'place'"),
        (lambda a, b: a, "the key of flow 'place' takes 2 arguments, the flow has 1"),
        (lambda order: f"o-{order.id}", "text formatting (str, print, an f-string) needs the value of order.id"),
    ],
)
def test_a_bad_key_is_refused_with_its_place(key: Callable[..., Any], message: str) -> None:
    @flow(key=key)
    def place(order: Order) -> None:
        charge(order)

    with pytest.raises(DeclarationError) as caught:
        _ = place.plan
    assert caught.value.message.startswith(f"{__file__}:{key.__code__.co_firstlineno}: {message}")
