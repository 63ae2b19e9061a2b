"""Evaluation of a plan's expressions over outcomes: arguments, and guards in Kleene's three-valued logic.

What an expression says is written down with its tree, in `segue.plan.expression`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from segue.machine.facts import Outcome
from segue.machine.operators import COMPARISONS, Unfit, apply
from segue.plan.expression import Compare, Condition, Const, Fields, Get, Items, Not, Op, Or, Test, Truth, Value
from segue.plan.words import describe_value, shorten

__all__ = ["Look", "Unfit", "evaluate", "holds"]

Look = Callable[[str], Outcome]

_UNKNOWN = object()
_SHOWN = 200
"""Characters of an expression in a message."""


def evaluate(value: Value, look: Look) -> Any:
    """Build a value; a node that did not complete gives None (only optional reads get here).

    Raises:
        Unfit: An operator in it and its values do not fit, or one of these is unknown.
    """
    # Every argument of every call comes through here, and isinstance is much faster than matching class patterns.
    if isinstance(value, Get):
        found = _read(value, look)
        return None if found is _UNKNOWN else found
    if isinstance(value, Const):
        return value.value
    if isinstance(value, Fields):
        return {name: evaluate(item, look) for name, item in value.fields.items()}
    if isinstance(value, Items):
        return [evaluate(item, look) for item in value.items]
    try:
        found = _find(value, look)
    except Unfit as error:
        raise Unfit(f"{error}, in {_words(value)}") from None
    if found is _UNKNOWN:
        raise Unfit(f"{_words(value)} is unknown: something that it reads is not there")
    return found


def holds(condition: Condition, look: Look) -> bool | None:
    """Whether a condition is true or false, or unknown (None): a side has no value, or the two cannot be compared."""
    if isinstance(condition, Compare):
        try:
            ours, theirs = _find(condition.left, look), _find(condition.right, look)
        except Unfit:
            return None
        return None if ours is _UNKNOWN or theirs is _UNKNOWN else COMPARISONS[condition.op](ours, theirs)
    if isinstance(condition, Truth):
        try:
            found = _find(condition.value, look)
        except Unfit:
            return None
        return found if isinstance(found, bool) else None
    if isinstance(condition, Not):
        truth = holds(condition.condition, look)
        return None if truth is None else not truth
    decisive = isinstance(condition, Or)
    decided: bool | None = not decisive
    for part in condition.conditions:
        truth = holds(part, look)
        if truth is decisive:
            return decisive
        if truth is None:
            decided = None
    return decided


def _find(value: Value, look: Look) -> Any:
    """What an operator or a comparison sees: unknown if anything that it needs is."""
    if isinstance(value, Get):
        return _read(value, look)
    if isinstance(value, Const):
        return value.value
    if isinstance(value, Op):
        return _operate(value.name, value.args, look)
    if isinstance(value, Test):
        truth = holds(value.condition, look)
        return _UNKNOWN if truth is None else truth
    if isinstance(value, Items):
        values = [_find(item, look) for item in value.items]
        return _UNKNOWN if any(found is _UNKNOWN for found in values) else values
    named = {name: _find(item, look) for name, item in value.fields.items()}
    return _UNKNOWN if any(found is _UNKNOWN for found in named.values()) else named


def _operate(name: str, args: tuple[Value, ...], look: Look) -> Any:
    if name == "if" and len(args) == 3:
        truth = _find(args[0], look)
        if truth is not _UNKNOWN and not isinstance(truth, bool):
            raise Unfit("if takes a boolean first")
        return truth if truth is _UNKNOWN else _find(args[1] if truth else args[2], look)
    if name == "default" and len(args) == 2:
        found = _find(args[0], look)
        return _find(args[1], look) if found is _UNKNOWN or found is None else found
    values = [_find(arg, look) for arg in args]
    for found in values:
        if found is _UNKNOWN:
            return _UNKNOWN
    return _at(*values) if name == "at" and len(values) == 2 else apply(name, values)


def _at(container: Any, key: Any) -> Any:
    if type(key) is not (int if type(container) is list else str):
        return _UNKNOWN
    try:
        return container[key]
    except (KeyError, IndexError, TypeError):
        return _UNKNOWN


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


def _words(value: Value) -> str:
    return shorten(describe_value(value), _SHOWN)
