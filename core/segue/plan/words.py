"""Expressions of a plan in the words of the flow that declared them, for people."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from segue.plan.graph import ENTRY, And, Compare, Condition, Const, Fields, Get, Items, Not, Or, Truth, Value

LISTED = 8
"""How many items of a list or mapping are shown."""


def describe_value(value: Value) -> str:
    """A value as the flow wrote it: `order.total`, `[charge.id, 'express']`.

    The run's input stands under its parameter's name; `?` marks a node that may be skipped. Of a list or mapping the
    first items are shown and the rest is counted.
    """
    match value:
        case Get():
            return _get(value)
        case Const(literal):
            return repr(literal)
        case Items(items):
            return f"[{_listed(map(describe_value, items[:LISTED]), len(items))}]"
        case Fields(fields):
            first = islice(fields.items(), LISTED)
            return f"{{{_listed((f'{name}: {describe_value(item)}' for name, item in first), len(fields))}}}"


def describe_condition(condition: Condition) -> str:
    """A condition as the flow wrote it: `order.total > 1000 and not order.paid`."""
    match condition:
        case Compare(op, left, right):
            return f"{describe_value(left)} {op} {describe_value(right)}"
        case Truth(value):
            return _get(value)
        case Not(inner):
            return f"not {_get(inner.value)}" if isinstance(inner, Truth) else f"not ({describe_condition(inner)})"
        case And(parts):
            return " and ".join(
                f"({describe_condition(part)})" if isinstance(part, Or) else describe_condition(part) for part in parts
            )
        case Or(parts):
            return " or ".join(map(describe_condition, parts))


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
    text = head + ("?" if get.optional else "")
    for part in path:
        text += f".{part}" if isinstance(part, str) and part.isidentifier() else f"[{part!r}]"
    return text
