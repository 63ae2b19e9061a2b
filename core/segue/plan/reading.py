"""Expressions inside bodies as the flow wrote them: an item is `item` again, and what was captured has its own name."""

from __future__ import annotations

from segue.plan.expression import (
    And,
    Compare,
    Condition,
    Const,
    Fields,
    Get,
    Items,
    Not,
    Op,
    Or,
    Test,
    Truth,
    Value,
)
from segue.plan.graph import RUN, Plan
from segue.plan.index import CAPTURED
from segue.plan.names import opening

_NOUNS = {"each": "item", "repeat": "value", "attempt": "error"}


def read_value(plan: Plan, value: Value) -> Value:
    """A value for people: its parts that come through an entry name what they stand for."""
    match value:
        case Get():
            return _get(plan, value)
        case Const():
            return value
        case Items(items):
            return Items(tuple(read_value(plan, item) for item in items))
        case Fields(fields):
            return Fields({name: read_value(plan, item) for name, item in fields.items()})
        case Op(name, args):
            return Op(name, tuple(read_value(plan, arg) for arg in args))
        case Test(condition):
            return Test(read_condition(plan, condition))


def read_condition(plan: Plan, condition: Condition) -> Condition:
    """A condition for people."""
    match condition:
        case Compare(op, left, right):
            return Compare(op, read_value(plan, left), read_value(plan, right))
        case Truth(value):
            return Truth(read_value(plan, value))
        case Not(inner):
            return Not(read_condition(plan, inner))
        case And(parts):
            return And(tuple(read_condition(plan, part) for part in parts))
        case Or(parts):
            return Or(tuple(read_condition(plan, part) for part in parts))


def _get(plan: Plan, get: Get, outer: bool = False) -> Get:
    """`outer`: it was captured, so that an item is one of another construct than the reader's own."""
    index = plan.index
    node = index.nodes[get.node]
    if node.region == RUN or node.kind not in ("entry", "exit"):
        return get
    construct = index.construct(node)
    if node.kind == "entry" and get.path[:1] == (CAPTURED,) and len(get.path) > 1:
        name = f"{CAPTURED}.{get.path[1]}"
        opened = index.nodes[opening(construct.id)]
        source = next((arg.value for arg in opened.args if arg.name == name), None)
        if isinstance(source, Get):
            return _get(plan, Get(source.node, (*source.path, *get.path[2:]), get.optional), True)
        return get
    noun = _NOUNS.get(construct.kind, "value")
    path = get.path[1:] if node.kind == "entry" else get.path
    return Get(f"{construct.id}.{noun}" if outer else noun, path, get.optional)
