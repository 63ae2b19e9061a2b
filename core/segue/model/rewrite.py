"""Expressions with other reads in them: a body reads outer values through its own entry."""

from __future__ import annotations

from collections.abc import Callable

from segue.plan.graph import And, Compare, Condition, Const, Fields, Get, Items, Not, Op, Or, Test, Truth, Value

Change = Callable[[Get], Get]


def rewrite(value: Value, change: Change) -> Value:
    """A value, each read in it changed."""
    match value:
        case Get():
            return change(value)
        case Const():
            return value
        case Items(items):
            return Items(tuple(rewrite(item, change) for item in items))
        case Fields(fields):
            return Fields({name: rewrite(item, change) for name, item in fields.items()})
        case Op(name, args):
            return Op(name, tuple(rewrite(arg, change) for arg in args))
        case Test(condition):
            return Test(rewrite_condition(condition, change))


def rewrite_condition(condition: Condition, change: Change) -> Condition:
    """A condition, each read in it changed."""
    match condition:
        case Compare(op, left, right):
            return Compare(op, rewrite(left, change), rewrite(right, change))
        case Truth(value):
            return Truth(rewrite(value, change))
        case Not(inner):
            return Not(rewrite_condition(inner, change))
        case And(parts):
            return And(tuple(rewrite_condition(part, change) for part in parts))
        case Or(parts):
            return Or(tuple(rewrite_condition(part, change) for part in parts))
