"""Expressions as mathematics: values with one element for "not there", and conditions as the numbers 0, 1/2 and 1.

Not is 1 - x, and is min, or is max. Written from the words of `segue.plan.expression`, without the machine.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from segue.machine.facts import Outcome
from segue.plan.expression import (
    And,
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

Look = Callable[[str], Outcome]
"""The outcome of a node that can be seen."""

_MISSING = object()


class Cannot(Exception):
    """A value cannot be computed."""


def build(value: Value, look: Look) -> Any:
    """A value as it is handed on: what is not there is None, what cannot be computed is an error.

    Raises:
        Cannot: An operator does not fit its values, or one of them is not there.
    """
    if isinstance(value, Get):
        seen = _find(value, look)
        return None if seen is _MISSING else seen
    if isinstance(value, Items):
        return [build(item, look) for item in value.items]
    if isinstance(value, Fields):
        return {name: build(item, look) for name, item in value.fields.items()}
    seen = _seen(value, look)
    if seen is _MISSING:
        raise Cannot(f"{value} rests on what is not there")
    return seen


def truth(condition: Condition, look: Look) -> float:
    """1 if a condition holds, 0 if not, 1/2 if that is unknown."""
    if isinstance(condition, Not):
        return 1 - truth(condition.condition, look)
    if isinstance(condition, And):
        return min((truth(part, look) for part in condition.conditions), default=1)
    if isinstance(condition, Or):
        return max((truth(part, look) for part in condition.conditions), default=0)
    try:
        if isinstance(condition, Truth):
            seen = _seen(condition.value, look)
            return 1 if seen is True else 0 if seen is False else 0.5
        left, right = _seen(condition.left, look), _seen(condition.right, look)
        if left is _MISSING or right is _MISSING:
            return 0.5
        return 1 if _compare(condition.op, left, right) else 0
    except Cannot:
        return 0.5


def there(get: Get, look: Look) -> bool:
    """Whether the node that is read completed, and what is read of a capture was captured."""
    outcome = look(get.node)
    if outcome.kind != "completed":
        return False
    if get.path[:1] == ("with",) and get.node.endswith(":entry"):
        return len(get.path) < 2 or get.path[1] in outcome.value["with"]
    return True


def _seen(value: Value, look: Look) -> Any:
    """A value as an operator sees it: what is not there makes everything that rests on it not there."""
    if isinstance(value, Get):
        return _find(value, look)
    if isinstance(value, Const):
        return value.value
    if isinstance(value, Test):
        found = truth(value.condition, look)
        return _MISSING if found == 0.5 else found == 1
    if isinstance(value, Items):
        items = [_seen(item, look) for item in value.items]
        return _MISSING if _MISSING in items else items
    if isinstance(value, Fields):
        fields = {name: _seen(item, look) for name, item in value.fields.items()}
        return _MISSING if _MISSING in fields.values() else fields
    if value.name == "default":
        first = _seen(value.args[0], look)
        return _seen(value.args[1], look) if first is _MISSING or first is None else first
    if value.name == "if":
        chosen = _seen(value.args[0], look)
        if chosen is not _MISSING and not isinstance(chosen, bool):
            raise Cannot("if needs a boolean")
        return _MISSING if chosen is _MISSING else _seen(value.args[1 if chosen else 2], look)
    args = [_seen(arg, look) for arg in value.args]
    if any(arg is _MISSING for arg in args):
        return _MISSING
    if value.name == "at":
        return _part(*args) if isinstance(args[0], (list, dict)) else _MISSING
    return _operate(value, args)


def _find(get: Get, look: Look) -> Any:
    outcome = look(get.node)
    value = outcome.value if outcome.kind == "completed" else _MISSING
    for part in get.path:
        value = _part(value, part)
    return value


def _part(value: Any, part: Any) -> Any:
    if isinstance(value, dict) and isinstance(part, str):
        return value.get(part, _MISSING)
    whole = isinstance(part, int) and not isinstance(part, bool)
    if isinstance(value, (list, str)) and whole and -len(value) <= part < len(value):
        return value[part]
    return _MISSING


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(left[name], right[name]) for name in left)
    return bool(left == right)


def _compare(op: str, left: Any, right: Any) -> bool:
    if op in ("==", "!="):
        return _equal(left, right) == (op == "==")
    if not (_number(left) and _number(right)) and not (isinstance(left, str) and isinstance(right, str)):
        raise Cannot(f"{left!r} and {right!r} have no order")
    below, above = bool(left < right), bool(left > right)
    return {"<": below, ">": above, "<=": not above, ">=": not below}[op]


def _operate(op: Op, args: list[Any]) -> Any:
    try:
        return _NUMERIC[op.name](*args) if op.name in _NUMERIC else _OTHERS[op.name](*args)
    except (ArithmeticError, TypeError, ValueError, KeyError, IndexError) as error:
        raise Cannot(f"{op.name} of {args}: {error}") from None


def _numeric(compute: Callable[..., Any]) -> Callable[..., Any]:
    def computed(*args: Any) -> Any:
        if not all(map(_number, args)):
            raise TypeError("not all numbers")
        return compute(*args)

    return computed


def _plus(*args: Any) -> Any:
    for kind in (str, list):
        if all(isinstance(arg, kind) for arg in args):
            return functools.reduce(lambda a, b: a + b, args)
    return _numeric(lambda *numbers: functools.reduce(lambda a, b: a + b, numbers))(*args)


def _listed(compute: Callable[[list[Any]], Any], *, texts: bool) -> Callable[[Any], Any]:
    def computed(values: Any) -> Any:
        if not isinstance(values, list):
            raise TypeError("not a list")
        if not all(map(_number, values)) and not (texts and all(isinstance(value, str) for value in values)):
            raise TypeError("not all numbers")
        return compute(values)

    return computed


def _length(value: Any) -> int:
    if not isinstance(value, (str, list, dict)):
        raise TypeError("has no length")
    return len(value)


def _contains(container: Any, item: Any) -> bool:
    if isinstance(container, list):
        return any(_equal(one, item) for one in container)
    if not isinstance(item, str) or not isinstance(container, (str, dict)):
        raise TypeError("cannot contain it")
    return item in container


def _text(*parts: Any) -> str:
    if not all(isinstance(part, (str, bool, int, float)) for part in parts):
        raise TypeError("no text")
    return "".join(str(part).lower() if isinstance(part, bool) else str(part) for part in parts)


def _texts(compute: Callable[..., Any]) -> Callable[..., Any]:
    def computed(*args: Any) -> Any:
        if not all(isinstance(arg, str) for arg in args):
            raise TypeError("not all texts")
        return compute(*args)

    return computed


def _join(values: Any, separator: Any) -> str:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in (separator, *values)):
        raise TypeError("not all texts")
    return str(separator.join(values))


_NUMERIC: dict[str, Callable[..., Any]] = {
    "-": _numeric(lambda a, b: a - b),
    "*": _numeric(lambda *args: functools.reduce(lambda a, b: a * b, args)),
    "/": _numeric(lambda a, b: a / b),
    "//": _numeric(lambda a, b: a // b),
    "%": _numeric(lambda a, b: a % b),
    "neg": _numeric(lambda a: -a),
    "abs": _numeric(abs),
    "round": _numeric(round),
}
_OTHERS: dict[str, Callable[..., Any]] = {
    "+": _plus,
    "sum": _listed(lambda values: functools.reduce(lambda a, b: a + b, values, 0), texts=False),
    "min": _listed(min, texts=True),
    "max": _listed(max, texts=True),
    "length": _length,
    "contains": _contains,
    "text": _text,
    "join": _join,
    "split": _texts(lambda text, separator: text.split(separator)),
    "lower": _texts(str.lower),
    "upper": _texts(str.upper),
    "strip": _texts(str.strip),
    "starts_with": _texts(str.startswith),
    "ends_with": _texts(str.endswith),
}
