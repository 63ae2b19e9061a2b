"""What the constructs become: regions, gateways, captures, owners, sinks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec import Struct

from segue import (
    Service,
    after,
    attempt,
    each,
    either,
    expr,
    flow,
    n_of,
    race,
    repeat,
    wait_for,
    when,
)
from segue.plan.check import problems
from segue.plan.graph import (
    ENTRY,
    EXIT,
    Arg,
    Compare,
    Const,
    Construct,
    Fields,
    Get,
    Node,
    Plan,
    Region,
    load,
)


class Line(Struct):
    sku: str
    count: int


class Order(Struct):
    id: str
    total: float
    lines: list[Line]
    due: datetime
    delay: int = 1


class Job(Struct):
    id: str
    done: bool = False


class Lost(Exception): ...


sales, money, mail = Service("sales"), Service("money"), Service("mail")


@sales.step
def pick(order: str, sku: str) -> str: ...  # type: ignore[empty-body]


@sales.step
def start(order: Order) -> Job: ...  # type: ignore[empty-body]


@sales.step
def look(job: Job) -> Job: ...  # type: ignore[empty-body]


@money.step
def charge(order: Order) -> float: ...  # type: ignore[empty-body]


@money.step
def pay(order: str, amount: float) -> str: ...  # type: ignore[empty-body]


@mail.step
def tell(text: str) -> str: ...  # type: ignore[empty-body]


@mail.step
def send(texts: list[str]) -> None: ...


@mail.step
def maybe(value: str | list[str | None] | None) -> None: ...


def plan_of(body: Callable[..., Any], **settings: Any) -> Plan:
    plan = flow(**settings)(body).plan
    assert problems(plan) == []
    assert load(plan.json) == plan
    return plan


def inner(plan: Plan) -> list[Node]:
    return list(plan.nodes[1:-1])


def test_a_map_captures_what_its_body_reads_outside() -> None:
    def place(order: Order) -> None:
        send(each(order.lines, lambda line: pick(order.id, line.sku), limit=3))

    plan = plan_of(place)
    name = "run.entry.order.id"
    assert inner(plan) == [
        Node(
            "each:open",
            "open",
            "sales",
            args=(
                Arg("items", Get(ENTRY, ("order", "lines"))),
                Arg(f"with.{name}", Get(ENTRY, ("order", "id"), True)),
            ),
            construct="each",
        ),
        Node("each:item:entry", "entry", "sales", "each:item", construct="each"),
        Node(
            "pick",
            "step",
            "sales",
            "each:item",
            step="pick",
            args=(
                Arg("order", Get("each:item:entry", ("with", name))),
                Arg("sku", Get("each:item:entry", ("value", "sku"))),
            ),
        ),
        Node(
            "each:item:exit",
            "exit",
            "sales",
            "each:item",
            args=(Arg("result", Get("pick", (), True)),),
            after=("pick",),
            construct="each",
        ),
        Node("each", "close", "sales", construct="each"),
        Node("send", "step", "mail", step="send", args=(Arg("texts", Get("each")),)),
    ]
    assert plan.regions == (
        Region("run", ENTRY, EXIT),
        Region("each:item", "each:item:entry", "each:item:exit", "run", "each"),
    )
    assert plan.constructs == (Construct("each", "each", "run", ("each:item",), limit=3),)
    assert plan.nodes[-1].after == ("send",)


def test_nested_bodies_capture_level_by_level() -> None:
    def place(orders: list[Order], word: str) -> None:
        def body(order: Order) -> list[str]:
            paid = charge(order)
            return each(order.lines, lambda line: (pay(word, paid), pick(order.id, line.sku))[1])

        each(orders, body)

    plan = plan_of(place)
    nodes = plan.index.nodes
    outer, within = "each:item:entry", "each_2:item:entry"
    assert nodes["each:open"].args[1:] == (Arg("with.run.entry.word", Get(ENTRY, ("word",), True)),)
    assert nodes["each_2:open"].args[1:] == (
        Arg("with.run.entry.word", Get(outer, ("with", "run.entry.word"), True)),
        Arg("with.charge", Get("charge", (), True)),
        Arg("with.each:item:entry.value.id", Get(outer, ("value", "id"), True)),
    )
    assert nodes["pay"].args == (
        Arg("order", Get(within, ("with", "run.entry.word"))),
        Arg("amount", Get(within, ("with", "charge"))),
    )
    assert [construct.id for construct in plan.constructs] == ["each", "each_2"]
    assert plan.index.depth("pay") == 2
    assert [node.id for node in plan.nodes[1:-1]] == [
        *("each:open", outer, "charge", "each_2:open", within, "pay", "pick"),
        *("each_2:item:exit", "each_2", "each:item:exit", "each"),
    ]


def test_keys_with_dots_are_captured_apart() -> None:
    def place(table: dict[str, dict[str, str]], items: list[str]) -> None:
        each(items, lambda item: pick(table["a.b"]["c"], table["a"]["b.c"]))

    opened = plan_of(place).index.nodes["each:open"]
    assert [arg.name for arg in opened.args] == [
        *("items", "with.run.entry.table['a.b'].c", "with.run.entry.table.a['b.c']")
    ]


def test_guards_and_order_of_a_construct_stand_on_its_open() -> None:
    def place(order: Order) -> None:
        done = tell("x")
        with when(order.total > 5), after(done):
            each(order.lines, lambda line: tell(line.sku), name="all")

    plan = plan_of(place)
    opened = plan.index.nodes["all:open"]
    assert (opened.guard, opened.after) == (Compare(">", Get(ENTRY, ("order", "total")), Const(5)), ("tell",))
    body = plan.index.nodes["tell_2"]
    assert (body.guard, body.after) == (None, ())


def test_a_body_may_be_guarded_by_and_ordered_after_what_is_outside() -> None:
    def place(order: Order) -> None:
        done = tell("x")
        paid = charge(order)

        def body(line: Line) -> None:
            with when(paid > line.count), after(done):
                tell("y")

        each(order.lines, lambda line: race(lambda: body(line), lambda: body(line)))

    nodes = plan_of(place).index.nodes
    assert nodes["each:open"].after == ("tell",)
    assert [arg.name for arg in nodes["each:open"].args] == ["items", "with.charge"]
    entry = "race:1:entry"
    assert nodes["tell_2"].guard == Compare(
        ">", Get(entry, ("with", "charge")), Get(entry, ("with", "each:item:entry.value.count"))
    )
    assert nodes["tell_2"].after == ()
    assert nodes["race:open"].after == ()


def test_what_reads_nothing_in_a_body_follows_its_entry() -> None:
    def place(order: Order) -> None:
        each(order.lines, lambda line: race(lambda: tell("a"), lambda: tell("b")))

    nodes = plan_of(place).index.nodes
    assert (nodes["race:open"].after, nodes["tell"].after) == (("each:item:entry",), ("race:1:entry",))


def test_a_body_without_a_node_gives_its_value() -> None:
    def place(order: Order) -> None:
        numbers = each(order.lines, lambda line: line.sku)
        send(numbers)
        send(each(order.lines, lambda line: "x"))
        send(each(order.lines, lambda line: order.id))
        each(order.lines, lambda line: {"sku": line.sku, "order": [order.id]})

    plan = plan_of(place)
    results = [node.args[0].value for node in plan.nodes if node.kind == "exit" and node.region != "run"]
    name = ("with", "run.entry.order.id")
    assert results[:3] == [
        Get("each:item:entry", ("value", "sku"), True),
        Const("x"),
        Get("each_3:item:entry", name, True),
    ]
    assert isinstance(results[3], Fields)
    assert {node.owner for node in plan.nodes if node.region == "each:item"} == {plan.home}


def test_items_may_be_a_list_of_placeholders() -> None:
    def place(order: Order) -> None:
        send(each([tell("a"), order.id, "x"], tell))

    plan = plan_of(place)
    assert [node.step for node in plan.nodes if node.region == "each:item"] == ["", "tell", ""]


def test_a_loop_carries_its_value() -> None:
    def place(order: Order) -> Job:
        limit = charge(order)
        return repeat(
            look, start(order), until=lambda job: job.done | (limit > 3), cap=5, every=timedelta(seconds=2), last=True
        )

    plan = plan_of(place)
    (loop,) = plan.constructs
    assert (loop.kind, loop.bodies, loop.cap, loop.every, loop.last) == ("repeat", ("repeat:round",), 5, 2.0, True)
    assert msg(loop.until) == "repeat:round:exit.done or repeat:round:entry.with.charge > 3"
    assert plan.index.nodes["repeat:open"].args == (
        Arg("initial", Get("start")),
        Arg("with.charge", Get("charge", (), True)),
    )
    assert plan.index.nodes["look"].args == (Arg("job", Get("repeat:round:entry", ("value",))),)


def msg(condition: Any) -> str:
    """A condition in short."""
    match condition:
        case Compare(op, left, right):
            return f"{msg(left)} {op} {msg(right)}"
        case Get(node, path):
            return ".".join((node, *map(str, path)))
        case Const(value):
            return repr(value)
    parts = getattr(condition, "conditions", None)
    return " or ".join(map(msg, parts)) if parts else msg(condition.value)


def test_a_loop_that_does_not_look_at_its_value_may_give_another_type() -> None:
    def place(order: Order) -> Job:
        return repeat(lambda _: look(start(order)), None, until=lambda job: job.done, cap=3)

    def annotated(order: Order) -> Job | None:
        def body(job: Job | None) -> Job:
            return look(expr.default(job, start(order)))

        return repeat(body, None, until=lambda job: job.done, cap=3)

    assert plan_of(place).index.nodes["repeat:open"].args[0] == Arg("initial", Const(None))
    assert plan_of(annotated).constructs[0].cap == 3


def test_a_race_has_a_region_for_each_branch_and_is_settled_later() -> None:
    def place(order: Order) -> str:
        return race(lambda: tell(order.id), lambda: pay(order.id, 2.5), name="first")

    plan = plan_of(place)
    assert [node.id for node in inner(plan)] == [
        *("first:open", "first:1:entry", "tell", "first:1:exit", "first:2:entry", "pay", "first:2:exit"),
        *("first", "first:settle"),
    ]
    assert plan.constructs == (Construct("first", "race", "run", ("first:1", "first:2")),)
    end = plan.nodes[-1]
    assert (end.args, end.after) == ((Arg("result", Get("first", (), True)),), ("first:settle",))
    assert {node.owner for node in plan.nodes if node.construct} == {"mail"}


def test_n_of_gives_a_list() -> None:
    def place(order: Order, n: int = 2) -> None:
        send(n_of(2, lambda: tell("a"), lambda: tell("b"), lambda: tell("c")))
        send(n_of(1, lambda: tell("a"), lambda: tell("b"), name="one"))

    plan = plan_of(place)
    assert [(construct.id, construct.winners) for construct in plan.constructs] == [("n_of", 2), ("one", 1)]
    assert msg(plan.index.nodes["send_2"].args[0].value.items[0]) == "one"  # type: ignore[union-attr]


def test_the_holder_is_the_owner_of_the_first_result_in_the_first_body() -> None:
    def place(order: Order) -> None:
        def nested() -> str:
            return attempt(lambda: either(pay(order.id, 1.0), "x"), {Lost: lambda: tell("x")})

        each(order.lines, lambda line: (tell(line.sku), nested())[1])
        each(order.lines, lambda line: (tell(line.sku), None)[1])
        each(order.lines, lambda line: wait_for("x", str))
        start(order)

    nodes = plan_of(place).index.nodes
    owners = [nodes[name].owner for name in ("each", "each:open", "attempt:open", "each_2", "each_3", "x")]
    assert owners == ["money", "money", "money", "mail", "sales", "sales"]


def test_the_home_is_found_through_constructs() -> None:
    def place(order: Order) -> str:
        found = race(lambda: either(charge(order), 1.0), lambda: charge(order))
        tell("x")
        return attempt(lambda: repeat(lambda x: x, found, until=lambda x: x > 1, cap=2), {Lost: lambda: 1.0})  # type: ignore[return-value]

    def waits(order: Order) -> str:
        each(order.lines, lambda line: tell("x"))
        return wait_for("ok", str)

    place.__annotations__["return"] = "float"
    assert plan_of(waits).home == "mail"
    assert plan_of(place).home in {"money", "mail"}


@pytest.mark.parametrize(
    ("body", "skips"),
    [
        (lambda order: each(order.lines, lambda line: guarded(order)), False),
        (lambda order: repeat(lambda _: guarded(order), "x", until=lambda x: x == "y", cap=2), True),
        (lambda order: race(lambda: guarded(order), lambda: tell("x")), False),
        (lambda order: race(lambda: guarded(order), lambda: guarded(order)), True),
        (lambda order: n_of(2, lambda: guarded(order), lambda: tell("x")), True),
        (lambda order: attempt(lambda: tell("x"), {Lost: lambda: guarded(order)}), True),
        (lambda order: attempt(lambda: tell("x"), {Lost: lambda: tell("y")}), False),
        (lambda order: each([guarded(order)], tell), True),
    ],
)
def test_a_construct_may_be_skipped_if_its_result_may(body: Callable[[Any], Any], skips: bool) -> None:
    def place(order: Order) -> None:
        maybe(body(order))

    node = plan_of(place).nodes[-2]
    assert getattr(node.args[0].value, "optional") is skips  # noqa: B009


def guarded(order: Order) -> str:
    with when(order.total > 1):
        return tell(order.id)
