"""The expression tree of plans: how values are built from the values of nodes, and conditions on them.

One typed tree, evaluated in the same way by everybody who holds a plan (`machine.values`). What is richer is a step.

Values are JSON values, and operators do with them what Python does, with these additions:

- Whole numbers and fractions are numbers, True and False are not. `/` always gives a fraction (`6 / 2` is 3.0), all
  else a whole number if it is given whole ones; `//` and `%` round down, so `-7 // 2` is -4 and `-7 % 2` is 1.
- `round` rounds halves to the even neighbour: `round(2.5)` is 2, a whole number; `round(2.5, 1)` stays a fraction.
- Equality is that of JSON: `1 == 1.0`, `True != 1`, lists and mappings item by item. Numbers have an order, and
  strings, by code point; nothing else has.
- A skipped node, a field or item that is not there, and what is computed of these, is *unknown*; in lists and mappings
  that are handed on, and not computed with, it is None. `default` is the one operator that bears it.
- What cannot be computed (`1 + "a"`, a division by zero, a result beyond the limits of `machine.operators`) makes the
  node fail, and a condition unknown.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

Operator = Literal[
    "+", "-", "*", "/", "//", "%", "neg", "abs", "round",
    "sum", "min", "max", "length", "contains", "at",
    "text", "join", "split", "lower", "upper", "strip", "starts_with", "ends_with",
    "if", "default",
]  # fmt: skip
"""`+` adds numbers, and joins strings and lists; it and `*` take two values or more, from left to right. `sum`, `min`
and `max` take one list. `at`: item of a list or field of a mapping by a computed key. `text`: strings, numbers and
booleans as one string. `join` and `split`: the list or string, then the separator. `if`: a boolean, the value if it is
true, the value if not. `default`: the first value unless it is unknown or None, else the second."""

DEPTH_LIMIT = 200
"""Levels of an expression of a plan; whoever evaluates one has room for so many."""


class Get(msgspec.Struct, frozen=True, omit_defaults=True, tag="get"):
    """The value of a node, or a field of it; `optional`: a skipped node gives None instead of a skip."""

    node: str
    path: tuple[str | int, ...] = ()
    optional: bool = False


class Const(msgspec.Struct, frozen=True, tag="const"):
    """A literal, as JSON builtins."""

    value: Any


class Items(msgspec.Struct, frozen=True, tag="items"):
    """A list of values."""

    items: tuple[Value, ...]


class Fields(msgspec.Struct, frozen=True, tag="fields"):
    """A mapping or struct of values."""

    fields: dict[str, Value]


class Op(msgspec.Struct, frozen=True, tag="op"):
    """An operator applied to values."""

    name: Operator
    args: tuple[Value, ...]


class Test(msgspec.Struct, frozen=True, tag="test"):
    """A condition as a boolean value."""

    condition: Condition


Value = Get | Const | Items | Fields | Op | Test


class Compare(msgspec.Struct, frozen=True, tag="compare"):
    """left op right; unknown if a side is unknown or the sides cannot be compared."""

    op: Literal["==", "!=", "<", "<=", ">", ">="]
    left: Value
    right: Value


class Truth(msgspec.Struct, frozen=True, tag="truth"):
    """A boolean value used as a condition."""

    value: Value


class Not(msgspec.Struct, frozen=True, tag="not"):
    """Negation; not(unknown) is unknown."""

    condition: Condition


class And(msgspec.Struct, frozen=True, tag="and"):
    """Conjunction, three-valued (Kleene)."""

    conditions: tuple[Condition, ...]


class Or(msgspec.Struct, frozen=True, tag="or"):
    """Disjunction, three-valued (Kleene)."""

    conditions: tuple[Condition, ...]


Condition = Compare | Truth | Not | And | Or


def gets_of(value: Value) -> Iterator[Get]:
    """Every node value that a value is made of."""
    match value:
        case Get():
            yield value
        case Items(items) | Op(_, items):
            for item in items:
                yield from gets_of(item)
        case Fields(fields):
            for item in fields.values():
                yield from gets_of(item)
        case Test(condition):
            yield from reads_of(condition)


def reads_of(condition: Condition) -> Iterator[Get]:
    """Every node value that a condition reads."""
    match condition:
        case Compare(_, left, right):
            yield from gets_of(left)
            yield from gets_of(right)
        case Truth(value):
            yield from gets_of(value)
        case Not(inner):
            yield from reads_of(inner)
        case And(parts) | Or(parts):
            for part in parts:
                yield from reads_of(part)


def depth_of(part: Value | Condition) -> int:
    """How many levels a value or condition has."""
    inner: tuple[Value | Condition, ...]
    match part:
        case Items(items) | Op(_, items):
            inner = items
        case Fields(fields):
            inner = tuple(fields.values())
        case Test(condition) | Not(condition):
            inner = (condition,)
        case Compare(_, left, right):
            inner = (left, right)
        case Truth(value):
            inner = (value,)
        case And(parts) | Or(parts):
            inner = parts
        case _:
            inner = ()
    return 1 + max(map(depth_of, inner), default=0)
