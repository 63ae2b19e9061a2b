"""The checks of a plan: against what services offer, and of its own structure."""

from __future__ import annotations

import json
import random
from typing import Any, Literal

import jsonschema
import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from segue.plan.check import compatible, problems
from segue.plan.graph import (
    ENTRY,
    EXIT,
    RUN,
    Arg,
    Compare,
    Const,
    Contract,
    Get,
    Node,
    Param,
    Plan,
    Region,
)
from segue.plan.subtype import difference


class Line(msgspec.Struct):
    sku: str
    count: int


class Order(msgspec.Struct):
    id: str
    total: float
    lines: list[Line]


class OrderWithNote(msgspec.Struct):
    id: str
    total: float
    lines: list[Line]
    note: str = ""


class OrderWithDate(msgspec.Struct):
    id: str
    total: float
    lines: list[Line]
    date: str


class OrderInCents(msgspec.Struct):
    id: str
    total: int
    lines: list[Line]


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    total: float


class Tree(msgspec.Struct):
    name: str
    children: "list[Tree]" = []


class DeepTree(msgspec.Struct):
    name: str
    children: "list[DeepTree]" = []
    size: int | None = None


class BadTree(msgspec.Struct):
    name: str
    children: "list[BadTree]" = []
    size: int = 0


class Cash(msgspec.Struct, tag="cash"):
    amount: int


class Card(msgspec.Struct, tag="card"):
    number: str


def components(kind: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    (schema,), types = msgspec.json.schema_components([kind], ref_template="#/types/{name}")
    return schema, types


def gap(written: Any, read: Any) -> str:
    writer, given = components(written)
    reader, taken = components(read)
    return difference(writer, reader, given, taken)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (Order, Order),
        (OrderWithNote, OrderWithNote),
        (Order, OrderWithNote),
        (OrderWithNote, Order),
        (OrderWithDate, Order),
        (OrderInCents, Order),
        (Order, dict[str, Any]),
        (Order, Any),
        (Tree, DeepTree),
        (DeepTree, Tree),
        (int, float),
        (int, int | None),
        (int, int | str),
        (int | str, str | float),
        (Literal["a", "b"], Literal["a", "b", "c"]),
        (Literal["a", "b"], str),
        (Literal[1, None], int | None),
        (tuple[int, int], list[int]),
        (tuple[int, str], list[int | str]),
        (dict[str, int], dict[str, float]),
        (Cash, Cash | Card),
        (Cash | Card, Card | Cash),
        (list[Order], list[OrderWithNote]),
        (msgspec.Raw, Any),
    ],
)
def test_each_written_value_is_taken(written: Any, read: Any) -> None:
    assert gap(written, read) == ""


@pytest.mark.parametrize(
    ("written", "read", "text"),
    [
        (Order, OrderWithDate, "field 'date' is required and not given"),
        (OrderWithNote, Strict, "field 'lines': is given and not taken"),
        (Order, OrderInCents, "field 'total': number is given, integer is taken"),
        (str, int, "string is given, integer is taken"),
        (int | None, int, "null is given, integer is taken"),
        (int, str | None, "integer is given, string or null is taken"),
        (Literal["a", "d"], Literal["a", "b"], '"d" is given, one of "a", "b" is taken'),
        (str, Literal["a", "b"], 'string is given, one of "a", "b" is taken'),
        (Any, int, "anything is given, integer is taken"),
        (list[int], tuple[int, int], "maxItems 2 is demanded, none is promised"),
        (tuple[int, int, int], tuple[int, int], "maxItems 2 is demanded, 3 is promised"),
        (tuple[int, str], list[int], "item 1: string is given, integer is taken"),
        (dict[str, str], dict[str, int], "values: string is given, integer is taken"),
        (dict[str, Any], Order, "field 'id' is required and not given"),
        (list[dict[str, int]], list[dict[str, str]], "items: values: integer is given, string is taken"),
        (Tree, Literal["x"], 'Tree is given, "x" is taken'),
        (BadTree, Tree, ""),
        (DeepTree, BadTree, "field 'size': null is given, integer is taken"),
        (Cash | Card, Cash, 'field \'type\': "card" is given, "cash" is taken'),
    ],
)
def test_the_first_difference_is_named(written: Any, read: Any, text: str) -> None:
    assert gap(written, read) == text


def test_constraints_may_be_loosened_and_not_tightened() -> None:
    wide, narrow = {"type": "integer", "minimum": 0}, {"type": "integer", "minimum": 1, "maximum": 9}
    assert difference(narrow, wide, {}, {}) == ""
    assert difference(wide, narrow, {}, {}) == "maximum 9 is demanded, none is promised"
    dated = {"type": "string", "format": "date-time"}
    assert difference(dated, {"type": "string"}, {}, {}) == ""
    assert difference({"type": "string"}, dated, {}, {}) == 'format "date-time" is demanded, none is promised'


def test_schemas_may_bring_their_own_definitions() -> None:
    own = msgspec.json.schema(Order)
    schema, types = components(Order)
    assert difference(own, schema, {}, types) == ""
    assert difference(own, schema, {}, {}) == "the type Order that is taken is not described"


def test_a_choice_that_fails_leaves_no_assumption_behind() -> None:
    def node(size: str) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {"next": {"$ref": "#/N"}, "size": {"type": size}},
            "required": ["next", "size"],
        }

    writer, reader = {"N": node("string")}, {"N": node("integer")}
    ref = {"$ref": "#/N"}
    assert difference(ref, {"anyOf": [ref, {"type": "null"}]}, writer, reader) != ""
    assert difference({"anyOf": [ref, ref]}, {"anyOf": [ref, ref]}, writer, reader) != ""
    assert difference({"$ref": "#/L"}, {"$ref": "#/L"}, {"L": {"$ref": "#/L"}}, {"L": {"type": "null"}}) != ""


_LEAVES = st.sampled_from(
    [{"type": name} for name in ("integer", "number", "string", "boolean", "null")]
    + [{"enum": ["a"]}, {"enum": ["a", "b", 1, None]}, {"type": "integer", "minimum": 3}, {"$ref": "#/T"}, {}]
)


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    fields = st.dictionaries(st.sampled_from("xyz"), inner, max_size=3)
    required = st.sets(st.sampled_from("xyz"))
    return st.one_of(
        st.builds(lambda item: {"type": "array", "items": item}, inner),
        st.builds(
            lambda items, rest: {"type": "array", "prefixItems": items, "minItems": len(items), "items": rest},
            st.lists(inner, min_size=1, max_size=2),
            st.one_of(st.just(False), inner),
        ),
        st.builds(lambda item: {"type": "object", "additionalProperties": item}, inner),
        st.builds(
            lambda names, need: {"type": "object", "properties": names, "required": sorted(need & names.keys())},
            fields,
            required,
        ),
        st.builds(lambda choices: {"anyOf": choices}, st.lists(inner, min_size=1, max_size=3)),
    )


SCHEMAS = st.recursive(_LEAVES, _nested, max_leaves=6)
TYPE = {
    "type": "object",
    "properties": {"next": {"anyOf": [{"$ref": "#/T"}, {"type": "null"}]}, "x": {"type": "integer"}},
    "required": ["next", "x"],
}
WIDER = {**TYPE, "properties": {**TYPE["properties"], "x": {"type": "number"}}}
_SCALARS: dict[str, list[Any]] = {
    "integer": [0, 7],
    "number": [0.5, 4],
    "string": ["a", "b", ""],
    "boolean": [True, False],
    "null": [None],
}


def written(schema: Any, rng: random.Random) -> Any:
    """Some value that a writer of the schema may write."""
    if not schema:
        return rng.choice([None, 1, "a", [], {"x": 1}])
    if "$ref" in schema:
        return {"next": written(schema, rng) if rng.random() < 0.4 else None, "x": 4}
    if "anyOf" in schema:
        return written(rng.choice(schema["anyOf"]), rng)
    if "enum" in schema:
        return rng.choice(schema["enum"])
    if schema["type"] == "object":
        if "additionalProperties" in schema:
            return {name: written(schema["additionalProperties"], rng) for name in "xyw" if rng.random() < 0.5}
        return {
            name: written(inner, rng)
            for name, inner in schema["properties"].items()
            if name in schema["required"] or rng.random() < 0.5
        }
    if schema["type"] == "array":
        first = [written(inner, rng) for inner in schema.get("prefixItems", [])]
        rest = schema["items"]
        return first + ([] if rest is False else [written(rest, rng) for _ in range(rng.randrange(3))])
    return rng.choice([4, 9]) if "minimum" in schema else rng.choice(_SCALARS[schema["type"]])


@settings(max_examples=400, deadline=None)
@given(SCHEMAS, SCHEMAS, st.integers(0, 2**32))
def test_what_is_called_safe_is_taken_by_a_validator(writer: Any, reader: Any, seed: int) -> None:
    assert difference(writer, writer, {"T": TYPE}, {"T": TYPE}) == ""
    assert difference(writer, {"anyOf": [{"type": "null"}, writer]}, {"T": TYPE}, {"T": WIDER}) == ""
    safe = difference(writer, reader, {"T": TYPE}, {"T": WIDER}) == ""
    assume(safe)
    rng = random.Random(seed)
    validator = jsonschema.Draft202012Validator({"$defs": {"T": _placed(WIDER)}, **_placed(reader)})
    for _ in range(5):
        validator.validate(written(writer, rng))


def _placed(schema: Any) -> Any:
    return json.loads(json.dumps(schema).replace("#/T", "#/$defs/T"))


def contract(step: str, inputs: dict[str, Any], output: Any) -> tuple[Contract, dict[str, Any]]:
    names = list(inputs)
    schemas, types = msgspec.json.schema_components([*inputs.values(), output], ref_template="#/types/{name}")
    params = tuple(Param(name, schema) for name, schema in zip(names, schemas, strict=False))
    return Contract("payments", step, params, schemas[-1]), types


def flow(charge: Contract, types: dict[str, Any], *nodes: Node) -> Plan:
    every = nodes or (Node("charge", "step", "payments", step="charge", args=(Arg("order", Get(ENTRY, ("order",))),)),)
    return Plan(
        "place_order",
        "payments",
        (Node(ENTRY, "entry", "payments"), *every, Node(EXIT, "exit", "payments", after=(every[-1].id,))),
        (Region(RUN, ENTRY, EXIT),),
        (Param("order", {}),),
        {},
        (charge,),
        types,
    )


def offer(plan: Plan, offered: Contract, types: dict[str, Any]) -> list[str]:
    found = compatible(plan, {"payments": (offered,)}, {"payments": types})
    assert found.unknown == ()
    return [str(problem) for problem in found.problems]


def test_a_service_may_offer_more_and_not_less() -> None:
    plan = flow(*contract("charge", {"order": Order}, Tree))
    assert offer(plan, *contract("charge", {"order": Order}, Tree)) == []
    assert offer(plan, *contract("charge", {"order": OrderWithNote}, DeepTree)) == []
    assert offer(plan, *contract("charge", {"order": OrderWithDate}, Tree)) == [
        "payments.charge: parameter 'order': field 'date' is required and not given"
    ]
    assert offer(plan, *contract("charge", {"order": Order}, str)) == [
        "payments.charge: result: string is given, Tree is taken"
    ]
    assert offer(plan, *contract("refund", {"order": Order}, Tree)) == [
        "payments.charge: the service has no such step (its steps: refund)"
    ]


def test_parameters_go_by_name() -> None:
    plan = flow(*contract("charge", {"order": Order}, Tree))
    renamed, types = contract("charge", {"purchase": Order}, Tree)
    assert offer(plan, renamed, types) == [
        "payments.charge: parameter 'purchase': is required, node 'charge' does not give it",
        "payments.charge: parameter 'order': is given by node 'charge', the service takes no such parameter",
    ]
    more, types = contract("charge", {"order": Order, "currency": str}, Tree)
    assert len(offer(plan, more, types)) == 1
    optional = Contract(
        "payments", "charge", (more.inputs[0], Param("currency", {"type": "string"}, False)), more.output
    )
    assert offer(plan, optional, types) == []


def test_a_problem_of_many_nodes_is_told_once_per_node_that_has_it() -> None:
    wanted, types = contract("charge", {"order": Order, "note": str}, Tree)
    order, note = Arg("order", Get(ENTRY, ("order",))), Arg("note", Const("x"))
    nodes = [
        Node("a", "step", "payments", step="charge", args=(order, note)),
        Node("b", "step", "payments", step="charge", args=(order,), after=("a",)),
    ]
    plan = flow(wanted, types, *nodes)
    assert offer(plan, *contract("charge", {"order": OrderInCents, "note": str}, Tree)) == [
        "payments.charge: parameter 'note': is required, node 'b' does not give it",
        "payments.charge: parameter 'order': field 'total': number is given, integer is taken",
    ]


def test_unknown_services_are_no_problem() -> None:
    plan = flow(*contract("charge", {"order": Order}, Tree))
    found = compatible(plan, {"shipping": ()})
    assert (found.problems, found.unknown) == ((), ("payments",))
    assert compatible(plan, {"payments": ()}).problems[0].text.endswith("(its steps: none)")


GOOD = flow(*contract("charge", {"order": Order}, Tree))
CHARGE = GOOD.nodes[1]


def changed(node: Node | None = None, **changes: Any) -> Plan:
    nodes = (GOOD.nodes[0], node, GOOD.nodes[2]) if node is not None else GOOD.nodes
    return msgspec.structs.replace(GOOD, **{"nodes": nodes, **changes})


def replace(**changes: Any) -> Node:
    return msgspec.structs.replace(CHARGE, **changes)


def renamed(name: str) -> Plan:
    return changed(nodes=(GOOD.nodes[0], replace(id=name), msgspec.structs.replace(GOOD.nodes[2], after=(name,))))


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (changed(flow="Place Order"), "flow name 'Place Order' is not allowed"),
        (changed(replace(owner="coordinator")), "service name 'coordinator' is reserved"),
        (renamed("a.b"), "node name 'a.b' is not allowed"),
        (renamed("run"), "node name 'run' is reserved"),
        (changed(replace(step="void")), "node 'charge' calls payments.void, which has no contract in the plan"),
        (changed(replace(args=(), after=(ENTRY,))), "node 'charge' does not give 'order' to payments.charge"),
        (
            changed(replace(args=(*CHARGE.args, Arg("tip", Const(1))))),
            "node 'charge' gives 'tip', which payments.charge does not take",
        ),
        (changed(replace(args=CHARGE.args * 2)), "node 'charge' has two arguments of the same name"),
        (changed(replace(guard=Compare("==", Get(ENTRY, ("oder",)), Const(1)))), "reads 'oder', which is no input"),
        (changed(replace(after=("ghost",))), "names an unknown node 'ghost'"),
        (changed(replace(after=(EXIT,))), "needs 'run.exit', which comes after it"),
        (changed(replace(region="loop")), "node 'charge' lies in an unknown region 'loop'"),
        (changed(Node("charge", "either", "payments", after=(ENTRY,))), "node 'charge' has no choices"),
        (changed(Node("charge", "exit", "payments", after=(ENTRY,))), "exit 'charge' belongs to no region"),
        (changed(home="shipping"), "the run's entry is owned by 'payments', not by the home 'shipping'"),
        (changed(regions=()), "the region 'run' with 'run.entry' and 'run.exit' is missing"),
        (changed(regions=(*GOOD.regions, Region("loop", "a", "b", "x"))), "lies in an unknown region 'x'"),
        (changed(regions=(*GOOD.regions, Region("loop", "a", "b", RUN))), "region 'loop' has no entry 'a'"),
        (changed(nodes=(*GOOD.nodes[:2], *GOOD.nodes[1:])), "two nodes have the same name"),
        (
            changed(nodes=(*GOOD.nodes[:2], replace(id="lost", args=()), GOOD.nodes[2]), contracts=()),
            "node 'lost' calls payments.charge, which has no contract in the plan",
        ),
    ],
)
def test_structural_problems_are_named(plan: Plan, text: str) -> None:
    found = problems(plan)
    assert any(text in line for line in found), found


def test_a_sound_plan_has_no_problems_and_lost_nodes_are_found() -> None:
    assert problems(GOOD) == []
    idle = Contract("payments", "idle", (), {})
    lost = Node("lost", "step", "payments", step="idle")
    unjoined = replace(id="again", after=("charge",))
    plan = changed(nodes=(*GOOD.nodes[:2], lost, unjoined, GOOD.nodes[2]), contracts=(*GOOD.contracts, idle))
    assert problems(plan) == [
        "node 'lost' cannot be reached from the start",
        "node 'lost' leads nowhere: the exit does not join it",
        "node 'again' leads nowhere: the exit does not join it",
    ]
