"""What attempts, waits, events and early ends become."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import pytest
from msgspec import Struct

from segue import (
    DeclarationError,
    Error,
    Service,
    after,
    attempt,
    each,
    emit,
    finish,
    flow,
    minutes,
    otherwise,
    raise_,
    sleep,
    sleep_until,
    wait_for,
    when,
)
from segue.model import build
from segue.plan.check import problems
from segue.plan.graph import (
    ENTRY,
    And,
    Arg,
    Compare,
    Const,
    Construct,
    Fields,
    Get,
    Handler,
    Kind,
    Node,
    Not,
    Plan,
    load,
)
from segue.plan.names import TIMER


class Line(Struct):
    sku: str
    count: int


class Order(Struct):
    id: str
    total: float
    lines: list[Line]
    due: datetime
    delay: int = 1


class Lost(Exception): ...


class Stolen(Lost): ...


sales, money, mail = Service("sales"), Service("money"), Service("mail")


@money.step
def charge(order: Order) -> float: ...  # type: ignore[empty-body]


@money.step
def pay(order: str, amount: float) -> str: ...  # type: ignore[empty-body]


@mail.step
def tell(text: str) -> str: ...  # type: ignore[empty-body]


@mail.step
def send(texts: list[str]) -> None: ...


def plan_of(body: Callable[..., Any], **settings: Any) -> Plan:
    plan = flow(**settings)(body).plan
    assert problems(plan) == []
    assert load(plan.json) == plan
    return plan


def inner(plan: Plan) -> list[Node]:
    return list(plan.nodes[1:-1])


def test_an_attempt_has_regions_for_its_body_its_handlers_and_its_cleanup() -> None:
    def place(order: Order) -> str:
        return attempt(
            lambda: pay(order.id, charge(order)),
            {
                Stolen: lambda error: tell(error.message),
                (Lost, "NoMoney"): lambda: tell(order.id),
                TimeoutError: lambda: tell("late"),
                Exception: lambda error: raise_(Stolen, error.type, value={"node": error.node}),
            },
            finally_=lambda: tell("bye"),
            undo=True,
            timeout=minutes(1),
        )

    plan = plan_of(place)
    assert plan.constructs == (
        Construct(
            "attempt",
            "attempt",
            "run",
            ("attempt:body",),
            handlers=(
                Handler(("Stolen",), "attempt:catch1"),
                Handler(("Lost", "NoMoney"), "attempt:catch2"),
                Handler(("Timeout", "TimeoutError"), "attempt:catch3"),
                Handler(("*",), "attempt:catch4"),
            ),
            cleanup="attempt:finally",
            undo=True,
            timeout=60.0,
        ),
    )
    ids = [node.id for node in inner(plan)]
    assert ids[:6] == ["attempt:open", "attempt:timer", "attempt:body:entry", "charge", "pay", "attempt:body:exit"]
    assert ids[-4:] == ["attempt:finally:entry", "tell_4", "attempt:finally:exit", "attempt"]
    nodes = plan.index.nodes
    assert nodes["attempt:timer"] == Node(
        "attempt:timer", "timer", "money", after=("attempt:open",), construct="attempt", timeout=60.0
    )
    entry = "attempt:catch1:entry"
    assert nodes["tell"].args == (Arg("text", Get(entry, ("value", "message"))),)
    raised = nodes["raise"]
    entry = "attempt:catch4:entry"
    assert (raised.kind, raised.step, raised.region) == ("raise", "Stolen", "attempt:catch4")
    assert raised.args == (
        Arg("message", Get(entry, ("value", "type"))),
        Arg("value", Fields({"node": Get(entry, ("value", "node"))})),
        Arg("bases", Const(["Lost"])),
    )
    assert [arg.name for arg in nodes["attempt:open"].args] == ["with.run.entry.order", "with.run.entry.order.id"]
    assert plan.nodes[-1].after == ("attempt",)


def test_waits_and_sleeps_stay_at_home() -> None:
    def place(order: Order) -> str:
        paid = wait_for("paid", float, timeout=60, match=order.id)
        with after(sleep(order.delay), sleep(2), sleep(minutes(2), name="nap")):
            pay(order.id, paid)
        sleep_until(order.due)
        sleep_until(datetime(2030, 1, 2, tzinfo=UTC))
        sleep_until(1e9)
        wait_for("go", None, name="ready")
        wait_for("lines", list[Line])
        return tell("x")

    plan = plan_of(place)
    nodes = plan.index.nodes
    assert nodes["paid"] == Node(
        "paid", "wait", "mail", step="paid", args=(Arg("match", Get(ENTRY, ("order", "id"))),), timeout=60.0
    )
    assert [node.args for node in inner(plan) if node.kind == "sleep"] == [
        (Arg("seconds", Get(ENTRY, ("order", "delay"))),),
        (Arg("seconds", Const(2)),),
        (Arg("seconds", Const(120.0)),),
        (Arg("until", Get(ENTRY, ("order", "due"))),),
        (Arg("until", Const("2030-01-02T00:00:00Z")),),
        (Arg("until", Const(1e9)),),
    ]
    assert (nodes["ready"].step, nodes["ready"].owner, nodes["nap"].owner) == ("go", "mail", "mail")
    assert [(signal.name, signal.schema) for signal in plan.signals] == [
        ("paid", {"type": "number"}),
        ("go", {"type": "null"}),
        ("lines", {"type": "array", "items": {"$ref": "#/types/Line"}}),
    ]
    assert "Line" in plan.types


def test_two_waits_of_one_signal_are_told_apart_by_their_match() -> None:
    def place(order: Order) -> None:
        wait_for("ok", bool, match=order.id)
        wait_for("ok", bool, match=7)
        tell("x")

    plan = plan_of(place)
    assert [(node.id, node.step) for node in plan.nodes if node.kind == "wait"] == [("ok", "ok"), ("ok_2", "ok")]
    assert len(plan.signals) == 1


def test_an_early_result_ends_the_rest() -> None:
    def place(order: Order) -> str:
        paid = charge(order)
        with when(order.total == 0):
            tell("free")
            finish("nothing")
        with otherwise():
            tell("paid")
        with when(paid > 7), after(tell("x")):
            finish(order.id, name="rich")
        each(order.lines, lambda line: tell("each"))
        return pay(order.id, paid)

    plan = plan_of(place)
    nodes = plan.index.nodes
    free, rich = Compare("==", Get(ENTRY, ("order", "total")), Const(0)), Compare(">", Get("charge"), Const(7))
    assert (nodes["finish"].kind, nodes["finish"].guard, nodes["tell"].guard) == ("value", free, free)
    assert nodes["tell_2"].guard == Not(free)
    assert nodes["rich"].guard == And((Not(free), rich))
    assert nodes["each:open"].guard == nodes["pay"].guard == And((Not(free), Not(rich)))
    assert nodes["tell_4"].guard is None
    assert nodes["result"] == Node(
        "result",
        "either",
        plan.home,
        args=(
            Arg("1", Get("finish", (), True)),
            Arg("2", Get("rich", (), True)),
            Arg("3", Get("pay", (), True)),
        ),
    )
    assert plan.nodes[-1].args == (Arg("result", Get("result", (), True)),)
    assert plan.home == "money"


def test_an_early_result_beside_others() -> None:
    def nothing(order: Order) -> str | None:
        with when(order.total == 0):
            finish(tell("x"))
        return None

    def built(order: Order) -> list[str]:
        with when(order.total == 0):
            finish(["x"])
        return [tell("y"), order.id]

    def constant(order: Order):  # type: ignore[no-untyped-def]
        with when(order.total == 0):
            finish(tell("z"))
        return "none"

    assert plan_of(nothing).nodes[-1].args == (Arg("result", Get("finish", (), True)),)
    plan = plan_of(built)
    assert plan.index.nodes["result"].kind == "value"
    assert plan.index.nodes["result_2"].args[1] == Arg("2", Get("result", (), True))
    plan = plan_of(constant)
    assert plan.index.nodes["result"].args[1] == Arg("2", Const("none"))


def test_a_failure_ends_the_rest_of_its_region() -> None:
    def place(order: Order) -> str:
        def body(line: Line) -> str:
            with when(line.count == 0):
                raise_(Lost(f"nothing {1}"))
            return tell(line.sku)

        send(each(order.lines, body))
        with when(order.total < 0):
            raise_("NoMoney", order.id)
        return tell("x")

    nodes = plan_of(place).index.nodes
    empty = Compare("==", Get("each:item:entry", ("value", "count")), Const(0))
    assert nodes["raise"].args == (Arg("message", Const("nothing 1")),)
    assert (nodes["raise"].guard, nodes["tell"].guard) == (empty, Not(empty))
    assert nodes["raise_2"].step == "NoMoney"
    assert nodes["tell_2"].guard == Not(Compare("<", Get(ENTRY, ("order", "total")), Const(0)))


def test_an_event_is_a_node_at_the_service_that_it_comes_from() -> None:
    def place(order: Order) -> str:
        emit("order-paid", {"order": order.id, "amount": charge(order)})
        with after(pay(order.id, 1.0)):
            emit("done")
        return tell("x")

    nodes = plan_of(place).index.nodes
    assert (nodes["order-paid"].kind, nodes["order-paid"].step, nodes["order-paid"].owner) == (
        *("emit", "order-paid"),
        "money",
    )
    assert nodes["done"].args == (Arg("value", Const(None)),)
    assert (nodes["done"].owner, nodes["done"].after) == ("money", ("pay",))


def test_a_deadline_is_a_timer_at_home() -> None:
    def place(order: Order) -> str:
        return tell(order.id)

    plan = plan_of(place, deadline=timedelta(minutes=1), on_failure="stop")
    assert (plan.deadline, plan.on_failure) == (60.0, "stop")
    assert plan.nodes[1] == Node(TIMER, "timer", "mail", after=(ENTRY,), timeout=60.0)
    assert plan.nodes[-1].after == ("tell",)


def test_bodies_see_typed_errors() -> None:
    assert Error.__struct_fields__ == ("type", "message", "node", "tag", "value")


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans of an app with every construct."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "apps"))
    return [place.plan for place in import_module("constructs").app.flows.values()]


def test_every_construct_makes_a_sound_plan(plans: list[Plan]) -> None:
    for plan in plans:
        assert problems(plan) == []
        assert load(plan.json) == plan
        assert load(plan.json).hash == plan.hash
    assert {construct.kind for plan in plans for construct in plan.constructs} == {"each", "repeat", "race", "attempt"}
    assert {node.kind for plan in plans for node in plan.nodes} == set(get_args(Kind))


def test_what_cannot_be_projected_is_refused_at_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "prove", lambda plan: [f"node {plan.nodes[1].id!r} waits for nobody"])

    @flow
    def place(order: Order) -> str:
        return tell(order.id)

    with pytest.raises(DeclarationError, match=r"\.py:\d+: flow 'place' cannot be run in both modes: node"):
        _ = place.plan
