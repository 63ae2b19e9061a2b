"""Evaluation of a plan's expressions over outcomes: arguments, and guards in Kleene's three-valued logic."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from segue.machine.facts import Outcome
from segue.plan.graph import And, Compare, Condition, Const, Fields, Get, Items, Not, Operand, Or, Truth, Value

Look = Callable[[str], Outcome]

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_UNKNOWN = object()


def evaluate(value: Value, look: Look) -> Any:
    """Build a value; a node that did not complete gives None (only optional reads get here)."""
    match value:
        case Get():
            found = _read(value, look)
            return None if found is _UNKNOWN else found
        case Const(literal):
            return literal
        case Items(items):
            return [evaluate(item, look) for item in items]
        case Fields(fields):
            return {name: evaluate(item, look) for name, item in fields.items()}


def holds(condition: Condition, look: Look) -> bool | None:
    """Whether a condition is true or false, or unknown (None): a side has no value, or the two cannot be compared."""
    match condition:
        case Compare(op, left, right):
            return _compare(op, _operand(left, look), _operand(right, look))
        case Truth(value):
            found = _read(value, look)
            return found if isinstance(found, bool) else None
        case Not(inner):
            truth = holds(inner, look)
            return None if truth is None else not truth
        case And(parts):
            truths = [holds(part, look) for part in parts]
            return False if False in truths else None if None in truths else True
        case Or(parts):
            truths = [holds(part, look) for part in parts]
            return True if True in truths else None if None in truths else False


def _compare(op: str, left: Any, right: Any) -> bool | None:
    if left is _UNKNOWN or right is _UNKNOWN:
        return None
    try:
        return bool(_OPERATORS[op](left, right))
    except TypeError:
        return None


def _operand(operand: Operand, look: Look) -> Any:
    return operand.value if isinstance(operand, Const) else _read(operand, look)


def _read(get: Get, look: Look) -> Any:
    outcome = look(get.node)
    if outcome.kind != "completed":
        return _UNKNOWN
    found = outcome.value
    for part in get.path:
        try:
            found = found[part]
        except (KeyError, IndexError, TypeError):
            return _UNKNOWN
    return found
