"""Arguments and results are checked against types when a flow is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum, StrEnum
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, TypedDict, TypeVar
from uuid import UUID

import msgspec
import pytest
from msgspec import UNSET, Meta, Struct, UnsetType, field

from segue import DeclarationError, Service, flow, when
from segue.model.types import assignable, show
from segue.plan.graph import Compare, Const, Fields, Get, Items, Plan, Truth, Value, load

T = TypeVar("T")
UserId = NewType("UserId", str)
Positive = Annotated[int, Meta(gt=0)]


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Level(Enum):
    LOW = 1
    HIGH = 2


class Parent(Struct):
    x: int


class Child(Parent):
    y: int = 0


class TaggedParent(Struct, tag=True):
    x: int


class TaggedChild(TaggedParent, tag=True):
    y: int = 0


class Closed(Struct, forbid_unknown_fields=True):
    x: int


class ClosedChild(Closed):
    y: int = 0


class Page(Struct, Generic[T]):
    items: list[T]


@dataclass
class Address:
    city: str
    zip: str | None = None


class Point(NamedTuple):
    x: int
    label: str = ""


class Extra(TypedDict):
    note: str
    gift: NotRequired[bool]


class Order(Struct, rename="camel"):
    order_id: str
    total: float
    qty: int
    status: Literal["open", "paid"]
    colour: Colour
    level: Level
    address: Address
    billing: Address | None
    point: Point
    extra: Extra
    lines: list[Parent]
    by_sku: dict[str, int]
    by_number: dict[int, Parent]
    pair: tuple[int, str]
    anything: Any
    ref: UUID
    day: date
    unset: str | UnsetType = UNSET


class Row(Struct, array_like=True, tag="row"):
    a: int
    b: str


class Swapped(Struct):
    kind: int


@pytest.mark.parametrize(
    ("source", "target", "fits"),
    [
        (int, int, True),
        (int, float, True),
        (float, int, False),
        (bool, int, False),
        (int, bool, False),
        (str, Any, True),
        (Any, str, True),
        (int, int | None, True),
        (int | None, int, False),
        (int | str, str | int | None, True),
        (int | bytes, str | int, False),
        (None, int | None, True),
        (list[int], list[float], True),
        (list[int], list[str], False),
        (list[int], Sequence[int], True),
        (Sequence[int], list[int], False),
        (list[int], list, True),
        (list, list[int], True),
        (tuple[int, str], tuple[int, str], True),
        (tuple[int, str], tuple[int, int], False),
        (tuple[int, int], tuple[int, ...], True),
        (tuple[int, ...], tuple[int, int], False),
        (set[int], frozenset[int], False),
        (dict[str, int], Mapping[str, float], True),
        (dict[str, int], dict[str, str], False),
        (dict[int, int], dict[str, int], False),
        (list[int], dict[str, int], False),
        (Child, Parent, True),
        (Parent, Child, False),
        (TaggedChild, TaggedParent, False),
        (ClosedChild, Closed, False),
        (Page[Child], Page[Parent], True),
        (Page[str], Page[int], False),
        (Colour, str, True),
        (str, Colour, False),
        (Level, int, False),
        (Literal["a"], str, True),
        (Literal["a"], Literal["a", "b"], True),
        (Literal["a", "c"], Literal["a", "b"], False),
        (str, Literal["a"], False),
        (UserId, str, True),
        (Positive, int, True),
        (datetime, date, False),
        (Address, Address, True),
        (Address, Parent, False),
        (Page[int], list[int], False),
    ],
)
def test_what_is_assignable(source: Any, target: Any, fits: bool) -> None:
    assert assignable(source, target) is fits


@pytest.mark.parametrize(
    ("tp", "text"),
    [
        (int | None, "int | None"),
        (list[Parent], "list[Parent]"),
        (dict[str, list[int] | None], "dict[str, list[int] | None]"),
        (tuple[int, ...], "tuple[int, ...]"),
        (Literal["a", 1], "Literal['a', 1]"),
        (Positive, "int"),
        (Page[int], "Page[int]"),
        (Any, "Any"),
        (None, "None"),
        (UserId, "UserId"),
    ],
)
def test_types_are_shown_as_people_write_them(tp: Any, text: str) -> None:
    assert show(tp) == text


def step_of(tp: Any) -> Callable[..., Any]:
    """A step with a parameter `value` of a type."""

    def take(value: Any) -> int: ...  # type: ignore[empty-body]

    take.__annotations__ = {"value": tp, "return": int}
    return Service("taker").step(take)


def built(tp: Any, value: Callable[[Any], Any]) -> Plan:
    take = step_of(tp)

    @flow
    def place(order: Order) -> None:
        take(value(order))

    plan = place.plan
    assert load(plan.json) == plan
    return plan


def lowered(tp: Any, value: Callable[[Any], Any]) -> Value:
    return built(tp, value).nodes[1].args[0].value


def read(*path: str | int) -> Get:
    return Get("run.entry", ("order", *path))


@pytest.mark.parametrize(
    ("tp", "value", "expected"),
    [
        (str, lambda o: o.order_id, read("orderId")),
        (float, lambda o: o.qty, read("qty")),
        (Address, lambda o: o.address, read("address")),
        (str, lambda o: o.address.city, read("address", "city")),
        (str | None, lambda o: o.billing.city, read("billing", "city")),
        (int, lambda o: o.point.x, read("point", 0)),
        (str, lambda o: o.point[1], read("point", 1)),
        (str, lambda o: o.extra["note"], read("extra", "note")),
        (bool | None, lambda o: o.extra["gift"], read("extra", "gift")),
        (int, lambda o: o.lines[0].x, read("lines", 0, "x")),
        (int, lambda o: o.by_sku["a"], read("bySku", "a")),
        (Parent, lambda o: o.by_number[7], read("byNumber", "7")),
        (str, lambda o: o.pair[1], read("pair", 1)),
        (str, lambda o: o.anything["x"][0].name, read("anything", "x", 0, "name")),
        (str | None, lambda o: o.unset, read("unset")),
        (list[int], lambda o: [1, o.qty], Items((Const(1), read("qty")))),
        (tuple[int, str], lambda o: (o.qty, "x"), Items((read("qty"), Const("x")))),
        (dict[str, Any], lambda o: {"a": [o.qty]}, Fields({"a": Items((read("qty"),))})),
        (dict[int, float], lambda o: {7: o.qty}, Fields({"7": read("qty")})),
        (Extra, lambda o: {"note": o.order_id}, Fields({"note": read("orderId")})),
        (Parent, lambda o: Parent(o.qty), Fields({"x": read("qty")})),
        (Parent, lambda o: Child(1, o.qty), Fields({"x": Const(1), "y": read("qty")})),
        (Page[int], lambda o: Page([o.qty]), Fields({"items": Items((read("qty"),))})),
        (Address, lambda o: Address(o.order_id), Fields({"city": read("orderId"), "zip": Const(None)})),
        (TaggedParent, lambda o: TaggedParent(o.qty), Fields({"type": Const("TaggedParent"), "x": read("qty")})),
        (Row, lambda o: Row(o.qty, "b"), Items((Const("row"), read("qty"), Const("b")))),
        (Point, lambda o: Point(o.qty), Items((read("qty"), Const("")))),
        (list[Parent] | None, lambda o: [Parent(o.qty)], Items((Fields({"x": read("qty")}),))),
        (dict[str, int] | list[int], lambda o: [o.qty], Items((read("qty"),))),
        (Parent, lambda o: Parent(1), Const({"x": 1})),
        (Any, lambda o: (1, {"b": Colour.RED}), Const([1, {"b": "red"}])),
        (list[int], lambda o: [], Const([])),
        (frozenset[str], lambda o: frozenset({"b", "a"}), Const(["a", "b"])),
        (datetime, lambda o: datetime(2024, 5, 1), Const("2024-05-01T00:00:00")),
        (UUID, lambda o: UUID(int=1), Const("00000000-0000-0000-0000-000000000001")),
        (Level, lambda o: Level.HIGH, Const(2)),
        (str | None, lambda o: None, Const(None)),
        (float, lambda o: 3, Const(3)),
    ],
)
def test_values_that_fit(tp: Any, value: Callable[[Any], Any], expected: Value) -> None:
    assert lowered(tp, value) == expected


@pytest.mark.parametrize(
    ("tp", "value", "message"),
    [
        (int, lambda o: o.total, "argument 'value' of take must be int, but order.total is float"),
        (str, lambda o: o.billing.city, "must be str, but order.billing.city is str | None"),
        (bool, lambda o: o.extra["gift"], "must be bool, but order.extra['gift'] is bool | None"),
        (str, lambda o: o.unset, "argument 'value' of take must be str, but order.unset is str | UnsetType"),
        (Address, lambda o: o, "must be Address, but order is Order"),
        (int, lambda o: "x", "argument 'value' of take must be int, got 'x': Expected `int`, got `str`"),
        (int, lambda o: True, "argument 'value' of take must be int, got True: Expected `int`, got `bool`"),
        (int, lambda o: None, "argument 'value' of take must be int, got nothing (None): Expected `int`, got `null`"),
        (Positive, lambda o: -1, "must be int, got -1: Expected `int` >= 1"),
        (list[int], lambda o: [1, o.total], "argument 'value' of take, item 1, must be int, but order.total is float"),
        (list[int], lambda o: [1, "x"], "argument 'value' of take, item 1, must be int, got 'x'"),
        (list[int], lambda o: {"a": 1}, "argument 'value' of take must be list[int], got a dict"),
        (tuple[int, str], lambda o: (1,), "must be tuple[int, str], got 1 items"),
        (tuple[int, ...], lambda o: [1], "must be tuple[int, ...], got a list"),
        (dict[str, int], lambda o: {"a": o.order_id}, "item 'a', must be int, but order.order_id is str"),
        (dict[str, int], lambda o: {(1, 2): 1}, "has the key (1, 2), which does not fit"),
        (dict[int, int], lambda o: {"x": 1}, "has the key 'x', which does not fit"),
        (Extra, lambda o: {"gift": True}, "is Extra, and its field 'note' is missing"),
        (Extra, lambda o: {"note": "x", "y": 1}, "is Extra, which has no field 'y'"),
        (Parent, lambda o: Parent("x"), "argument 'value' of take, field 'x', must be int, got 'x'"),  # type: ignore[arg-type]
        (Parent, lambda o: Parent(o.total), "argument 'value' of take, field 'x', must be int, but order.total is"),
        (Parent, lambda o: Swapped(1), "argument 'value' of take must be Parent, got a Swapped"),
        (int, lambda o: Parent(1), "argument 'value' of take must be int, got a Parent"),
        (int | str, lambda o: [o.qty], "argument 'value' of take must be int | str, got a list"),
        (int, lambda o: object, "argument 'value' of take must be int, got <class 'object'>: Encoding objects of type"),
        (int, lambda o: o.total > 1, "argument 'value' of take must be int, but order.total > 1 is bool"),
        (int, lambda o: o.total / 2, "argument 'value' of take must be int, but order.total / 2 is float"),
    ],
)
def test_values_that_do_not_fit(tp: Any, value: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        built(tp, value)
    assert message in caught.value.message
    line = built.__code__.co_firstlineno + 5
    assert caught.value.message.startswith(f"{__file__}:{line}: argument 'value' of take")


shop = Service("shop")


@shop.step
def pick(order: Order, note: str, times: int = 1) -> str: ...  # type: ignore[empty-body]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda o: pick(o), "pick is called wrongly: argument 'note' is missing"),  # type: ignore[call-arg]
        (lambda o: pick(o, "a", 2, 3), "pick is called wrongly: 4 arguments are given, 3 are taken"),  # type: ignore[call-arg]
        (lambda o: pick(o, "a", notes="b"), "pick is called wrongly: there is no parameter 'notes'"),  # type: ignore[call-arg]
        (lambda o: pick(o, "a", note="b"), "pick is called wrongly: 'note' is given twice"),  # type: ignore[misc]
    ],
)
def test_calls_that_do_not_fit(call: Callable[[Any], Any], message: str) -> None:
    @flow
    def place(order: Order) -> None:
        call(order)

    with pytest.raises(DeclarationError) as caught:
        _ = place.plan
    assert caught.value.message == f"{__file__}:{call.__code__.co_firstlineno}: {message}"
    assert caught.value.hint == "it is declared as pick(order: Order, note: str, times: int = ...) -> str"


def test_missing_arguments_with_defaults_are_left_to_the_step() -> None:
    @flow
    def place(order: Order) -> None:
        pick(note="x", order=order)

    assert [arg.name for arg in place.plan.nodes[1].args] == ["order", "note"]


def wrong_result(order: Order) -> int:
    return pick(order, "x")  # type: ignore[return-value]


def no_result(order: Order) -> str:  # type: ignore[return]
    pick(order, "x")


def too_much(order: Order) -> None:
    return pick(order, "x")  # type: ignore[return-value]


def wrong_part(order: Order) -> dict[str, int]:
    return {"a": order.order_id}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (wrong_result, "the result of flow wrong_result must be int, but pick(...) is str"),
        (no_result, "the result of flow no_result must be str, got nothing (None): Expected `str`, got `null`"),
        (too_much, "the result of flow too_much must be None, but pick(...) is str"),
        (wrong_part, "the result of flow wrong_part, item 'a', must be int, but order.order_id is str"),
    ],
)
def test_the_result_is_checked_against_the_annotation(body: Callable[..., Any], message: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        _ = flow(body).plan
    assert caught.value.message == f"{__file__}:{body.__code__.co_firstlineno}: {message}"


def test_an_unannotated_result_has_the_type_of_its_node() -> None:
    @flow
    def place(order: Order):  # type: ignore[no-untyped-def]
        return pick(order, "x")

    @flow
    def nothing(order: Order):  # type: ignore[no-untyped-def]
        pick(order, "x")

    assert place.plan.output == {"type": "string"}
    assert (nothing.plan.output, nothing.plan.nodes[-1].args) == ({"type": "null"}, ())


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (lambda o: o.status == "paid", Compare("==", read("status"), Const("paid"))),
        (lambda o: o.colour != Colour.RED, Compare("!=", read("colour"), Const("red"))),
        (lambda o: o.level == Level.LOW, Compare("==", read("level"), Const(1))),
        (lambda o: o.billing == None, Compare("==", read("billing"), Const(None))),  # noqa: E711
        (lambda o: o.billing.zip == None, Compare("==", read("billing", "zip"), Const(None))),  # noqa: E711
        (lambda o: o.ref == UUID(int=1), Compare("==", read("ref"), Const(str(UUID(int=1))))),
        (lambda o: o.day >= date(2024, 5, 1), Compare(">=", read("day"), Const("2024-05-01"))),
        (lambda o: o.qty <= o.total, Compare("<=", read("qty"), read("total"))),
        (lambda o: o.qty < o.total, Compare("<", read("qty"), read("total"))),
        (lambda o: o.total > 3, Compare(">", read("total"), Const(3))),
        (lambda o: o.anything > "x", Compare(">", read("anything"), Const("x"))),
        (lambda o: o.anything["flag"], Truth(read("anything", "flag"))),
        (lambda o: o.extra["gift"], Truth(read("extra", "gift"))),
    ],
)
def test_conditions_that_can_hold(condition: Callable[[Any], Any], expected: object) -> None:
    @flow
    def place(order: Order) -> None:
        with when(condition(order)):
            pick(order, "x")

    assert place.plan.nodes[1].guard == expected


@pytest.mark.parametrize(
    "condition",
    [
        lambda o: o.status == "piad",
        lambda o: o.colour == "green",
        lambda o: o.qty == 1.5,
        lambda o: o.ref == "no-uuid",
        lambda o: o.total == None,  # noqa: E711
        lambda o: o.level > Level.LOW,
        lambda o: o.address == Address("x"),
    ],
)
def test_comparisons_with_what_can_never_be_are_refused(condition: Callable[[Any], Any]) -> None:
    @flow
    def place(order: Order) -> None:
        with when(condition(order)):
            pick(order, "x")

    with pytest.raises(DeclarationError, match=r"test_build_types\.py:\d+: "):
        _ = place.plan


def test_constants_are_what_the_step_reads() -> None:
    take = step_of(Page[Parent])
    plan = built(Page[Parent], lambda o: Page([Child(1, 2)]))
    value = plan.nodes[1].args[0].value
    assert isinstance(value, Const)
    assert take.decode_args({"value": value.value}) == {"value": Page([Parent(1)])}  # type: ignore[attr-defined]
    assert msgspec.json.decode(msgspec.json.encode(value.value)) == value.value


class Renamed(Struct):
    inner_name: int = field(name="n")


def test_renamed_fields_of_constants_keep_their_encoded_name() -> None:
    assert lowered(Renamed, lambda o: Renamed(o.qty)) == Fields({"n": read("qty")})
