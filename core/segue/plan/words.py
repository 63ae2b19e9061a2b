"""Expressions of a plan in the words of the flow that declared them, for people."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from segue.plan.graph import ENTRY, And, Compare, Condition, Const, Fields, Get, Items, Not, Op, Or, Test, Truth, Value
from segue.plan.index import CAPTURED
from segue.plan.names import entering

_ENTRY = entering("")

LISTED = 8
"""How many items of a list or mapping are shown."""


def describe_value(value: Value) -> str:
    """A value as the flow wrote it: `order.total`, `[charge.id, 'express']`, `order.net * 2 + 1`.

    The run's input stands under its parameter's name; `?` marks a node that may be skipped. Of a list or mapping the
    first items are shown and the rest is counted.
    """
    return _value(value)[0]


def describe_condition(condition: Condition) -> str:
    """A condition as the flow wrote it: `order.total > 1000 and not order.paid`."""
    return _condition(condition)[0]


_CHOICE, _OR, _AND, _NOT, _COMPARISON, _SUM, _PRODUCT, _SIGN, _ATOM = range(9)
"""How tightly the parts of a text hold together: what holds less tightly than its place asks for stands in brackets."""
_INFIX = {"+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "//": _PRODUCT, "%": _PRODUCT}

Said = tuple[str, int]
"""A text, and how tightly it holds together."""


def _value(value: Value) -> Said:
    match value:
        case Get():
            return _get(value), _ATOM
        case Const(literal):
            sign = isinstance(literal, int | float) and literal < 0
            return repr(literal), _SIGN if sign else _ATOM
        case Items(items):
            return f"[{_listed(map(describe_value, items[:LISTED]), len(items))}]", _ATOM
        case Fields(fields):
            first = islice(fields.items(), LISTED)
            return f"{{{_listed((f'{name}: {describe_value(item)}' for name, item in first), len(fields))}}}", _ATOM
        case Op(name, args):
            return _operation(name, args)
        case Test(condition):
            return _condition(condition)


def _operation(name: str, args: tuple[Value, ...]) -> Said:
    if name in _INFIX and len(args) > 1:
        tight = _INFIX[name]
        parts = [_in(tight + bool(i), _value(arg)) for i, arg in enumerate(args[:LISTED])]
        rest = [f"… {len(args) - LISTED:,} more"] if len(args) > LISTED else []
        return f" {name} ".join(parts + rest), tight
    match name, args:
        case "neg", (only,):
            return f"-{_in(_SIGN, _value(only))}", _SIGN
        case "at", (container, key):
            return _in(_ATOM, _value(container)) + _part(key), _ATOM
        case "contains", (container, item):
            return f"{_in(_SUM, _value(item))} in {_in(_SUM, _value(container))}", _COMPARISON
        case "if", (condition, first, second):
            parts = [_in(_OR, _value(part)) for part in (first, condition, second)]
            return "{} if {} else {}".format(*parts), _CHOICE
        case "text", _:
            return _template(args), _ATOM
        case (("min" | "max"), (Items(items),)):
            return f"{name}({_listed(map(describe_value, items[:LISTED]), len(items))})", _ATOM
    return f"{name}({_listed(map(describe_value, args[:LISTED]), len(args))})", _ATOM


def _condition(condition: Condition) -> Said:
    match condition:
        case Compare(op, left, right):
            return f"{_in(_SUM, _value(left))} {op} {_in(_SUM, _value(right))}", _COMPARISON
        case Truth(value):
            return _value(value)
        case Not(inner):
            return f"not {_in(_SIGN, _condition(inner))}", _NOT
        case And(parts):
            return " and ".join(_in(_NOT, _condition(part)) for part in parts) or "True", _AND
        case Or(parts):
            return " or ".join(_in(_AND, _condition(part)) for part in parts) or "False", _OR


def _in(place: int, said: Said) -> str:
    text, tight = said
    return text if tight >= place else f"({text})"


def _template(parts: tuple[Value, ...]) -> str:
    template, values = "", []
    for part in parts:
        if isinstance(part, Const) and isinstance(part.value, str):
            template += part.value.replace("{", "{{").replace("}", "}}")
        else:
            template += "{}"
            values.append(part)
    return f"text({_listed([repr(template), *map(describe_value, values[:LISTED])], len(values))})"


def _part(key: Value) -> str:
    if isinstance(key, Op) and key.name == "text" and len(key.args) == 1:
        key = key.args[0]  # a number as a key
    literal = key.value if isinstance(key, Const) else None
    return f".{literal}" if isinstance(literal, str) and literal.isidentifier() else f"[{describe_value(key)}]"


def shorten(text: str, limit: int) -> str:
    """A text cut to `limit` characters, with an ellipsis where it was cut."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def _listed(texts: Iterable[str], number: int) -> str:
    return ", ".join([*texts, *([f"… {number - LISTED:,} more"] if number > LISTED else [])])


def _get(get: Get) -> str:
    path = list(get.path)
    head = get.node
    if head == ENTRY:
        head = str(path.pop(0)) if path else "input"
    elif head.endswith(_ENTRY) and path:
        captured = path.pop(0) == CAPTURED and path
        head = str(path.pop(0)).removeprefix(f"{ENTRY}.") if captured else "value"
    text = head + ("?" if get.optional else "")
    for part in path:
        text += _part(Const(part))
    return text
