"""Expressions in flow bodies: what they become in the plan, their types, and what they come to."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, Literal, NotRequired, TypedDict

import msgspec
import pytest

from segue import DeclarationError, Service, each, either, expr, flow, when
from segue.errors import PlanError
from segue.machine.facts import Outcome
from segue.machine.values import evaluate, holds
from segue.model.refs import operand_of
from segue.model.types import show
from segue.plan import graph
from segue.plan.expression import DEPTH_LIMIT
from segue.plan.graph import ENTRY, EXIT, Const, Get, Op, Plan, load
from segue.plan.words import describe_condition, describe_value


class Grade(Enum):
    LOW = 1


class Level(IntEnum):
    HIGH = 3


class Line(msgspec.Struct):
    sku: str
    price: float
    count: int = 1
    note: str | None = None


class Address(TypedDict):
    city: str
    street: NotRequired[str]


class Order(msgspec.Struct):
    id: str
    total: float
    count: int
    vip: bool
    kind: Literal["a", "b"]
    lines: list[Line]
    tags: list[str]
    prices: list[float]
    fees: dict[str, float]
    floors: dict[int, str]
    address: Address
    discount: float | None
    due: datetime
    price: Decimal
    grade: Grade
    level: Level
    extra: Any
    pair: tuple[int, str]
    seen: set[int]
    first: Line | None = None


ORDER = {
    "id": "A7",
    "total": 12.5,
    "count": 3,
    "vip": True,
    "kind": "a",
    "lines": [
        {"sku": "x", "price": 2.5, "count": 2, "note": None},
        {"sku": "y", "price": 1.5, "count": 1, "note": "!"},
    ],
    "tags": ["gift", "new"],
    "prices": [2.5, 1.5],
    "fees": {"DE": 4, "FR": 5.5},
    "floors": {"1": "first", "-2": "cellar"},
    "address": {"city": "Łódź"},
    "discount": None,
    "due": "2026-01-01T00:00:00",
    "price": "9.99",
    "grade": 1,
    "level": 3,
    "extra": {"n": 4, "deep": [1, {"x": "y"}]},
    "pair": [7, "seven"],
    "seen": [1, 2],
    "first": None,
}

shop = Service("shop")


@shop.step
def take(value: Any) -> int: ...  # type: ignore[empty-body]


@shop.step
def maybe(value: int | None) -> int: ...  # type: ignore[empty-body]


@shop.step
def price(sku: str) -> float: ...  # type: ignore[empty-body]


def plan_of(body: Callable[[Any], object]) -> Plan:
    @flow(home=shop)
    def place(order: Order) -> Any:
        return body(order)

    return load(place.plan.json)


def look(node: str) -> Outcome:
    return Outcome("completed", {"order": ORDER}) if node == ENTRY else Outcome("skipped")


def argument(plan: Plan, node: str = "take") -> Any:
    return plan.index.nodes[node].args[0].value


def worth(body: Callable[[Any], object]) -> Any:
    """What the value of a body comes to."""
    return evaluate(argument(plan_of(lambda order: take(body(order)))), look)


EXPRESSIONS: list[tuple[Callable[[Any], Any], str, str, Any]] = [
    (lambda o: o.total + 1, "order.total + 1", "float", 13.5),
    (lambda o: 1 - o.count, "1 - order.count", "int", -2),
    (lambda o: o.count * 2 * o.total, "order.count * 2 * order.total", "float", 75.0),
    (lambda o: o.count / 2, "order.count / 2", "float", 1.5),
    (lambda o: 6 / o.count, "6 / order.count", "float", 2.0),
    (lambda o: -7 // o.count, "-7 // order.count", "int", -3),
    (lambda o: -7 % o.count, "-7 % order.count", "int", 2),
    (lambda o: o.total // 1, "order.total // 1", "float", 12.0),
    (lambda o: -(o.count - 5), "-(order.count - 5)", "int", 2),
    (lambda o: abs(o.count - 5), "abs(order.count - 5)", "int", 2),
    (lambda o: round(o.total), "round(order.total)", "int", 12),
    (lambda o: round(o.total / 3, 2), "round(order.total / 3, 2)", "float", 4.17),
    (lambda o: o.total - (o.count - 1), "order.total - (order.count - 1)", "float", 10.5),
    (lambda o: (o.total - o.count) - 1, "order.total - order.count - 1", "float", 8.5),
    (lambda o: (o.count + 1) * 2, "(order.count + 1) * 2", "int", 8),
    (lambda o: sum([o.count, o.count, 1]), "0 + order.count + order.count + 1", "int", 7),
    (lambda o: o.level + 1, "order.level + 1", "int", 4),
    (lambda o: "order " + o.id + "!", "'order ' + order.id + '!'", "str", "order A7!"),
    (lambda o: o.kind + "x", "order.kind + 'x'", "str", "ax"),
    (lambda o: o.tags + ["x", o.id], "order.tags + ['x', order.id]", "list[str]", ["gift", "new", "x", "A7"]),  # noqa: RUF005
    (lambda o: [1] + o.prices, "[1] + order.prices", "list[int | float]", [1, 2.5, 1.5]),  # noqa: RUF005
    (lambda o: expr.length(o.lines), "length(order.lines)", "int", 2),
    (lambda o: expr.length(o.address["city"]), "length(order.address.city)", "int", 4),
    (lambda o: expr.length(o.fees), "length(order.fees)", "int", 2),
    (lambda o: expr.contains(o.tags, "gift"), "'gift' in order.tags", "bool", True),
    (lambda o: expr.contains(["b", "c"], o.kind), "order.kind in ['b', 'c']", "bool", False),
    (lambda o: expr.contains(o.fees, o.id), "order.id in order.fees", "bool", False),
    (lambda o: expr.contains(o.id, "7"), "'7' in order.id", "bool", True),
    (lambda o: expr.sum(o.prices), "sum(order.prices)", "float", 4.0),
    (lambda o: expr.sum([o.count, 1]), "sum([order.count, 1])", "int", 4),
    (lambda o: expr.min(o.total, 10), "min(order.total, 10)", "float", 10),
    (lambda o: expr.max(o.tags), "max(order.tags)", "str", "new"),
    (lambda o: o.lines[o.count - 2].sku, "order.lines[order.count - 2].sku", "str", "y"),
    (lambda o: o.lines[-1].price * 2, "order.lines[-1].price * 2", "float", 3.0),
    (lambda o: (o.lines + o.lines)[3].count, "(order.lines + order.lines)[3].count", "int", 1),
    (lambda o: o.floors[o.count - 5], "order.floors[order.count - 5]", "str", "cellar"),
    (lambda o: expr.item({"a": 1.5, "b": 2}, o.kind), "{'a': 1.5, 'b': 2}[order.kind]", "float | int", 1.5),
    (lambda o: expr.item({1: o.id, 3: "x"}, o.count), "{1: order.id, 3: 'x'}[order.count]", "str", "x"),
    (lambda o: expr.item({1: "a", 3: "b"}, o.count), "{'1': 'a', '3': 'b'}[order.count]", "str", "b"),
    (lambda o: expr.item([o.id, "x"], o.count - 3), "[order.id, 'x'][order.count - 3]", "str", "A7"),
    (
        lambda o: expr.text("{}: {} of {{{}}}, {}", o.id, o.count, o.total, o.vip),
        "text('{}: {} of {{{}}}, {}', order.id, order.count, order.total, order.vip)",
        "str",
        "A7: 3 of {12.5}, true",
    ),
    (lambda o: expr.join(o.tags + [o.id], ", "), "join(order.tags + [order.id], ', ')", "str", "gift, new, A7"),  # noqa: RUF005
    (lambda o: expr.split("a-b-" + o.id, "-")[2], "split('a-b-' + order.id, '-')[2]", "str", "A7"),
    (lambda o: expr.upper(o.tags[0]), "upper(order.tags[0])", "str", "GIFT"),
    (lambda o: expr.lower(o.address["city"]), "lower(order.address.city)", "str", "łódź"),
    (lambda o: expr.strip(" " + o.id + "\n"), "strip(' ' + order.id + '\\n')", "str", "A7"),
    (lambda o: expr.starts_with(o.id, "A"), "starts_with(order.id, 'A')", "bool", True),
    (lambda o: expr.ends_with(o.id, o.kind), "ends_with(order.id, order.kind)", "bool", False),
    (lambda o: expr.choose(o.vip, 0, o.total), "0 if order.vip else order.total", "int | float", 0),
    (lambda o: 1 + expr.choose(o.count > 5, 1, 2), "1 + (1 if order.count > 5 else 2)", "int", 3),
    (lambda o: expr.default(o.discount, 0) + 1, "default(order.discount, 0) + 1", "float", 1),
    (lambda o: expr.default(o.fees["XX"], 9), "default(order.fees.XX, 9)", "float | int", 9),
    (lambda o: expr.default(o.address["street"], "-"), "default(order.address.street, '-')", "str", "-"),
    (lambda o: expr.default(o.lines[o.count].sku, ""), "default(order.lines[order.count].sku, '')", "str", ""),
    (lambda o: o.total > 10, "order.total > 10", "bool", True),
    (lambda o: (o.total > 10) & ~o.vip | o.vip, "order.total > 10 and not order.vip or order.vip", "bool", True),
    (lambda o: (o.count > 5) == o.vip, "(order.count > 5) == order.vip", "bool", False),
    (lambda o: o.extra.n * 2, "order.extra.n * 2", "Any", 8),
    (lambda o: o.extra["deep"][o.count - 2].x, "order.extra.deep[order.count - 2].x", "Any", "y"),
    (lambda o: o.extra.n / 2, "order.extra.n / 2", "float", 2.0),
    (lambda o: expr.length(["a"]), "length(['a'])", "int", 1),
]  # fmt: skip


@pytest.mark.parametrize(("body", "words", "tp", "value"), EXPRESSIONS, ids=[words for _, words, _, _ in EXPRESSIONS])
def test_an_expression_has_words_a_type_and_a_value(
    body: Callable[[Any], Any], words: str, tp: str, value: Any
) -> None:
    types = []

    def kept(order: Any) -> Any:
        made = body(order)
        types.append(show(operand_of(made).type))
        return take(made)

    expression = argument(plan_of(kept))
    assert types == [tp]
    assert describe_value(expression) == words
    found = evaluate(expression, look)
    assert (found, type(found)) == (value, type(value))


def test_structs_lists_and_dicts_are_built_of_expressions() -> None:
    found = worth(
        lambda o: {
            "line": Line(o.id + "!", o.total * 2, count=o.count + 1),
            "all": [o.total > 10, [o.count - 1]],
        }
    )
    assert found == {"line": {"sku": "A7!", "price": 25.0, "count": 4, "note": None}, "all": [True, [2]]}


def test_choose_and_default_take_structs() -> None:
    assert worth(lambda o: expr.choose(o.vip, Line("v", o.total), o.lines[0]).price) == 12.5
    assert worth(lambda o: expr.default(o.first, Line("none", 0)).sku) == "none"
    assert worth(lambda o: expr.default(o.lines[0].note, o.lines[1].note)) == "!"


def test_an_argument_of_a_step_is_checked_against_the_type_of_the_expression() -> None:
    assert evaluate(argument(plan_of(lambda o: maybe(o.count * 2)), "maybe"), look) == 6
    with pytest.raises(DeclarationError, match=r"must be int \| None, but order\.count \* 0\.5 is float"):
        plan_of(lambda o: maybe(o.count * 0.5))


@pytest.mark.parametrize(
    ("condition", "words", "truth"),
    [
        (lambda o: o.total * 2 > 20, "order.total * 2 > 20", True),
        (lambda o: 20 > o.total * 2, "order.total * 2 < 20", False),  # noqa: SIM300
        (lambda o: o.total + o.count == o.count + 12.5, "order.total + order.count == order.count + 12.5", True),
        (lambda o: expr.contains(o.tags, "gift") & (o.count < 3), "'gift' in order.tags and order.count < 3", False),
        (lambda o: ~expr.contains(o.tags, "gift"), "not ('gift' in order.tags)", False),
        (lambda o: expr.choose(o.vip, o.count > 1, False), "order.count > 1 if order.vip else False", True),
        (lambda o: o.extra.deep, "order.extra.deep", None),
        (lambda o: o.lines[5].price > 1, "order.lines[5].price > 1", None),
        (lambda o: o.lines[o.count].price > 1, "order.lines[order.count].price > 1", None),
        (lambda o: o.count / (o.count - 3) > 1, "order.count / (order.count - 3) > 1", None),
        (lambda o: (o.count / (o.count - 3) > 1) | o.vip, "order.count / (order.count - 3) > 1 or order.vip", True),
        (lambda o: o.extra.n + "x" == "4x", "order.extra.n + 'x' == '4x'", None),
    ],
)
def test_conditions_are_made_of_expressions(condition: Callable[[Any], Any], words: str, truth: bool | None) -> None:
    def body(order: Any) -> None:
        with when(condition(order)):
            take(1)

    guard = plan_of(body).index.nodes["take"].guard
    assert guard is not None
    assert describe_condition(guard) == words
    assert holds(guard, look) is truth


REFUSED: list[tuple[Callable[[Any], Any], str, str]] = [
    (lambda o: o.id + 1, "`+` cannot be applied to order.id, which is str and 1, which is int", "expr.text("),
    (
        lambda o: o.total * "x",
        "`*` cannot be applied to order.total, which is float and 'x', which is str",
        "expr.text(",
    ),
    (lambda o: o.vip + 1, "`+` cannot be applied to order.vip, which is bool", "True and False are no numbers"),
    (lambda o: (o.total > 1) + 1, "`+` cannot be applied to order.total > 1, which is bool", "expr.choose("),
    (lambda o: o.price * 2, "`*` cannot be applied to order.price, which is Decimal", "Decimal travels as a text"),
    (lambda o: o.total * Decimal(2), "which is Decimal", "Decimal travels as a text"),
    (lambda o: o.due + timedelta(1), "order.due, which is datetime", "datetime travels as a text"),
    (lambda o: o.grade + 1, "`+` cannot be applied to order.grade, which is Grade", "compute it in a step"),
    (lambda o: o.discount + 1, "which is float | None", "say what stands for None: expr.default(order.discount, ...)"),
    (lambda o: -o.id, "`-` cannot be applied to order.id, which is str", ""),
    (lambda o: abs(o.lines), "abs() cannot be applied to order.lines, which is list[Line]", ""),
    (lambda o: round(o.total, 1.5), "round() cannot be applied to order.total, which is float and 1.5", ""),
    (lambda o: o.tags + "x", "`+` cannot be applied to order.tags, which is list[str] and 'x', which is str", ""),
    (lambda o: expr.length(o.count), "expr.length() cannot be applied to order.count, which is int", ""),
    (lambda o: expr.length(o), "expr.length() cannot be applied to order, which is Order", ""),
    (lambda o: expr.sum(o.tags), "expr.sum() cannot be applied to order.tags, which is list[str]", ""),
    (lambda o: expr.sum(o.total), "expr.sum() cannot be applied to order.total, which is float", ""),
    (
        lambda o: expr.min(o.total, "x"),
        "expr.min() cannot be applied to [order.total, 'x'], which is list[float | str]",
        "",
    ),
    (lambda o: expr.max(o.lines), "expr.max() cannot be applied to order.lines, which is list[Line]", ""),
    (
        lambda o: expr.contains(o.tags, 1),
        "`==` cannot compare 1, which is int, with an item of order.tags, which is",
        "",
    ),
    (lambda o: expr.contains(o.lines, o.lines[0]), "`==` cannot compare order.lines[0], which is Line", ""),
    (lambda o: expr.contains(o.total, 1), "expr.contains() cannot be applied to order.total, which is float", ""),
    (lambda o: expr.contains(o.id, 1), "expr.contains() cannot be applied to order.id, which is str and 1", ""),
    (lambda o: expr.text("{}", o.discount), "expr.text() cannot be applied to order.discount", "expr.default("),
    (lambda o: expr.text("{}", o.lines), "expr.text() cannot be applied to order.lines", ""),
    (lambda o: expr.text("{:.2f}", o.total), "must be a constant with plain {} for each value", "round(x, 2)"),
    (lambda o: expr.text("{} {}", o.total), "the template '{} {}' of expr.text() is given 1 values", ""),
    (lambda o: expr.text("{", o.total), "the template '{' of expr.text() is broken", ""),
    (lambda o: expr.text(o.id, o.total), "the template of expr.text() must be a constant", ""),
    (lambda o: expr.join(o.prices, ","), "expr.join() cannot be applied to order.prices, which is list[float]", ""),
    (lambda o: expr.upper(o.total), "expr.upper() cannot be applied to order.total, which is float", ""),
    (lambda o: expr.choose(o.total, 1, 2), "expr.choose() needs a condition, but order.total is float", "compare it"),
    (lambda o: o.tags[o.id], "an item of order.tags is read by order.id, which is str", "give a whole number"),
    (lambda o: o.tags[o.vip], "an item of order.tags is read by order.vip, which is bool", "give a whole number"),
    (lambda o: o.fees[o.count], "an item of order.fees is read by order.count, which is int", "its keys are str"),
    (lambda o: o.floors[o.id], "an item of order.floors is read by order.id, which is str", "its keys are int"),
    (
        lambda o: o.extra[o.total],
        "an item of order.extra is read by order.total, which is float",
        "a string or a whole",
    ),
    (lambda o: o.seen[o.count], "order.seen is set[int], so no item of it is read by a computed key", ""),
    (lambda o: o[o.id], "order is Order, so no item of it is read by a computed key", ""),
    (lambda o: o.lines[o.count].nope, "Line has no field 'nope'", "known fields: sku, price, count, note"),
    (lambda o: o.first.sku + "x", "order.first.sku, which is str | None", "expr.default(order.first.sku, ...)"),
    (lambda o: expr.default(object(), 1), "cannot be used in an expression", ""),
]


@pytest.mark.parametrize(("body", "message", "hint"), REFUSED, ids=[message for _, message, _ in REFUSED])
def test_what_the_types_do_not_allow_is_refused_at_build(body: Callable[[Any], Any], message: str, hint: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        plan_of(body)
    line = body.__code__.co_firstlineno
    assert caught.value.message.startswith(f"{__file__}:{line}: ")
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_functions_are_for_flow_bodies() -> None:
    with pytest.raises(DeclarationError, match=r"expr\.length\(\) is used outside of a flow body"):
        expr.length([])


def test_expressions_have_a_limit_at_build() -> None:
    def deep(order: Any) -> Any:
        found = order.total
        for _ in range(200):
            found = (found + 1) * 2
        return take(found)

    def broad(order: Any) -> Any:
        found = order.total
        for _ in range(20):
            found = found - found
        return take(found)

    def many(order: Any) -> Any:
        return take(sum([order.total] * 3000))

    for body in (deep, broad):
        with pytest.raises(DeclarationError, match="this expression is too large"):
            plan_of(body)
    total = argument(plan_of(many))
    assert isinstance(total, Op)
    assert len(total.args) == 3001
    assert evaluate(total, look) == 37500.0


def test_a_plan_with_a_deeper_expression_than_anybody_evaluates_is_not_loaded() -> None:
    plan = plan_of(lambda order: take(order.total))
    value = argument(plan)
    for _ in range(DEPTH_LIMIT):
        value = Op("-", (value, Const(1)))
    nodes = [
        msgspec.structs.replace(node, args=(graph.Arg("value", value),)) if node.id == "take" else node
        for node in plan.nodes
    ]
    with pytest.raises(PlanError, match="'take' has an expression of more than 200 levels"):
        load(msgspec.structs.replace(plan, nodes=tuple(nodes)).json)


def skippable(order: Any) -> int:
    with when(order.total > 100):
        return take(order)


def test_an_expression_over_a_step_that_may_be_skipped_needs_it_unless_a_default_is_given() -> None:
    required = plan_of(lambda o: take.named("next")(skippable(o) + 1))
    assert "take" in required.index.required["next"]
    assert "next" in str(required.index.downs["take"])
    softened = plan_of(lambda o: take.named("next")(expr.default(skippable(o) * 2, -1)))
    assert "take" not in softened.index.required["next"]
    assert evaluate(argument(softened, "next"), look) == -1
    admitted = plan_of(lambda o: maybe(skippable(o) + 1))
    assert "take" not in admitted.index.required["maybe"]
    assert evaluate(argument(admitted, "maybe"), look) is None


def test_a_result_that_rests_on_a_skipped_step_is_none() -> None:
    plan = plan_of(lambda o: {"sum": skippable(o) + 1, "many": skippable(o) > 5, "total": o.total * 2})
    assert evaluate(plan.index.nodes[EXIT].args[0].value, look) == {"sum": None, "many": None, "total": 25.0}


def test_either_takes_expressions() -> None:
    plan = plan_of(lambda o: either(skippable(o) * 2, o.total * 3, 0))
    assert [arg.value for arg in plan.index.nodes["either"].args] == [
        Get("value", (), True),
        Get("value_2", (), True),
        Const(0),
    ]
    assert "take" in plan.index.required["value"]


def test_expressions_in_a_body_read_what_is_outside_through_its_entry() -> None:
    plan = plan_of(lambda o: each(o.lines, lambda line: take(line.price * line.count + expr.length(o.tags) - o.total)))
    assert describe_value(argument(plan)) == "value.price * value.count + length(order.tags) - order.total"
    reads = [get for arg in plan.index.nodes["take"].args for get in arg_reads(arg.value)]
    assert {get.node for get in reads} == {"each:item:entry"}
    entry = Outcome(
        "completed",
        {
            "value": ORDER["lines"][0],
            "with": {str(get.path[1]): captured(get) for get in reads if get.path[0] == "with"},
        },  # type: ignore[index]
    )
    assert evaluate(argument(plan), lambda _: entry) == -5.5


def arg_reads(value: Any) -> list[Get]:
    return [value] if isinstance(value, Get) else [get for arg in getattr(value, "args", ()) for get in arg_reads(arg)]


def captured(get: Get) -> Any:
    name = re.sub(r".*\.", "", str(get.path[1]))
    return ORDER[name]


def test_a_condition_is_a_value() -> None:
    value = argument(plan_of(lambda o: take(o.total > 1)))
    assert isinstance(value, graph.Test)
    assert evaluate(value, look) is True
