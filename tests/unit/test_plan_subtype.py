"""Structural subtyping of JSON Schemas: what one side writes, the other takes, or the difference is named."""

from __future__ import annotations

import json
import random
from typing import Annotated, Any, Literal

import jsonschema
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


class Note(msgspec.Struct):
    note: str = ""


Pair = Annotated[list[int], msgspec.Meta(min_length=2, max_length=2)]


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    total: float


class Tree(msgspec.Struct):
    name: str
    children: list[Tree] = []


class DeepTree(msgspec.Struct):
    name: str
    children: list[DeepTree] = []
    size: int | None = None


class BadTree(msgspec.Struct):
    name: str
    children: list[BadTree] = []
    size: int = 0


class Chain(msgspec.Struct):
    name: str
    next: Chain | None


class LongChain(msgspec.Struct):
    name: str
    next: LongChain | None
    length: int | None = None


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
        (BadTree, Tree),
        (Chain, LongChain),
        (LongChain, Chain),
        (LongChain, Chain | None),
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
        (dict[str, Any], dict[str, int], "values: anything is given, integer is taken"),
        (dict[str, int], Note, "field 'note': integer is given, string is taken"),
        (Pair, tuple[int, str], "item 1: integer is given, string is taken"),
        (list[dict[str, int]], list[dict[str, str]], "items: values: integer is given, string is taken"),
        (Tree, Literal["x"], 'Tree is given, "x" is taken'),
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


def mutated(schema: Any, rng: random.Random) -> Any:
    """A schema that is mostly the same, wider or narrower in places."""
    if rng.random() < 0.15:
        return rng.choice(
            [{}, {"type": "number"}, {"enum": ["a"]}, {"anyOf": [schema, {"type": "null"}]}, {"$ref": "#/T"}]
        )
    found = dict(schema)
    for keyword in ("items", "additionalProperties"):
        if isinstance(found.get(keyword), dict):
            found[keyword] = mutated(found[keyword], rng)
    for keyword in ("anyOf", "prefixItems"):
        if keyword in found:
            found[keyword] = [mutated(inner, rng) for inner in found[keyword]]
    if "properties" in found:
        names = {name: mutated(inner, rng) for name, inner in found["properties"].items() if rng.random() < 0.9}
        if rng.random() < 0.2:
            names["x"] = {"type": "integer"}
        found["properties"] = names
        found["required"] = [name for name in found["required"] if rng.random() < 0.8]
        if rng.random() < 0.1:
            found["required"] = sorted({*found["required"], "x"})
    return found


@settings(max_examples=600, deadline=None)
@given(SCHEMAS, st.integers(0, 2**32))
def test_what_is_called_safe_is_taken_by_a_validator(writer: Any, seed: int) -> None:
    assert difference(writer, writer, {"T": TYPE}, {"T": TYPE}) == ""
    assert difference(writer, {"anyOf": [{"type": "null"}, writer]}, {"T": TYPE}, {"T": WIDER}) == ""
    rng = random.Random(seed)
    for _ in range(5):
        reader = mutated(writer, rng)
        if difference(writer, reader, {"T": TYPE}, {"T": WIDER}):
            continue
        validator = jsonschema.Draft202012Validator({"$defs": {"T": placed(WIDER)}, **placed(reader)})
        for _ in range(5):
            validator.validate(written(writer, rng))


def placed(schema: Any) -> Any:
    """The schema with its references where a validator looks for them."""
    return json.loads(json.dumps(schema).replace("#/T", "#/$defs/T"))
