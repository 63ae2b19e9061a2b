"""An independent evaluator: what a run must come to, worked out from the rules' text without the machine.

It looks at a plan as mathematics, not as events: death is a property of a node's *ancestors*, not something that
travels. A step that ran and did not complete is an *origin*. Data, guards and order all pass death on, and nothing here
contains it, so

    a node is dead        iff it has an origin among its ancestors;
    its causes            are all of these origins;
    it is aborted         iff one of them failed, else cancelled.

Guards are Kleene's logic on the numbers 0, 1/2, 1: not is 1 - x, and is min, or is max. Shares no code with
`segue.machine` but the types of its answer, and not the plan's index either.
"""

from __future__ import annotations

import graphlib
from collections.abc import Callable
from typing import Any

import msgspec

from segue.machine.facts import Cause, Outcome
from segue.plan.graph import (
    ENTRY,
    EXIT,
    And,
    Compare,
    Condition,
    Const,
    Fields,
    Get,
    Items,
    Node,
    Not,
    Or,
    Plan,
    Truth,
    Value,
)

Execute = Callable[[str, dict[str, Any]], Outcome]
"""The result of executing a node's step with these arguments."""

_MISSING = object()
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
}


class Evaluation(msgspec.Struct, frozen=True):
    """What a run must come to.

    Attributes:
        outcomes: Outcome of every node by name.
        calls: Arguments of every step that must run, and of no other.
        status: How the run ends.
        result: Its value, None unless completed.
        causes: Of a run that did not complete, in plan order.
    """

    outcomes: dict[str, Outcome]
    calls: dict[str, dict[str, Any]]
    status: str
    result: Any
    causes: tuple[Cause, ...]


def evaluate(plan: Plan, given: Any, execute: Execute) -> Evaluation:
    """Evaluate a plan.

    Args:
        plan: Any plan of steps, guards, order and either.
        given: The run's input.
        execute: What steps do; called once for each step that must run.
    """
    nodes = {node.id: node for node in plan.nodes}
    reads = {node.id: _reads(node) for node in plan.nodes}
    place = {name: i for i, name in enumerate(nodes)}
    ancestors: dict[str, int] = {}
    origins: dict[str, Cause] = {}
    outcomes: dict[str, Outcome] = {}
    calls: dict[str, dict[str, Any]] = {}
    for name in graphlib.TopologicalSorter(reads).static_order():
        above = 0
        for up in reads[name]:
            above |= ancestors[up] | 1 << place[up]
        ancestors[name] = above
        guilty = [origin for origin in origins if above >> place[origin] & 1]
        if guilty:
            kind = "aborted" if any(outcomes[origin].kind == "failed" for origin in guilty) else "cancelled"
            causes = tuple(origins[origin] for origin in sorted(guilty, key=place.__getitem__))
            outcomes[name] = Outcome(kind, causes=causes)  # type: ignore[arg-type]
            continue
        alive = _alive(nodes[name], given, outcomes)
        if not isinstance(alive, Outcome):
            calls[name] = alive
            alive = execute(name, alive)
            if alive.kind != "completed":
                origins[name] = alive.causes[0]
        outcomes[name] = alive
    end = outcomes[EXIT]
    status = "failed" if end.kind == "aborted" else end.kind
    return Evaluation(outcomes, calls, status, end.value, end.causes)


def _alive(node: Node, given: Any, outcomes: dict[str, Outcome]) -> Outcome | dict[str, Any]:
    """The outcome of a node above which nothing died, or the arguments to run it with."""
    if node.id == ENTRY:
        return Outcome("completed", given)
    if node.guard is not None and _truth(node.guard, outcomes) < 1:
        return Outcome("skipped")
    values = [arg.value for arg in node.args]
    if node.kind == "exit":
        return Outcome("completed", _build(values[0], outcomes) if values else None)
    if node.kind == "either":
        there = [value for value in values if not (isinstance(value, Get) and outcomes[value.node].kind == "skipped")]
        return Outcome("completed", _build(there[0], outcomes)) if there else Outcome("skipped")
    for value in values:
        if any(outcomes[get.node].kind == "skipped" and not get.optional for get in _gets(value)):
            return Outcome("skipped")
    return {arg.name: _build(arg.value, outcomes) for arg in node.args}


def _truth(condition: Condition, outcomes: dict[str, Outcome]) -> float:
    if isinstance(condition, Not):
        return 1 - _truth(condition.condition, outcomes)
    if isinstance(condition, And):
        return min(_truth(part, outcomes) for part in condition.conditions)
    if isinstance(condition, Or):
        return max(_truth(part, outcomes) for part in condition.conditions)
    if isinstance(condition, Truth):
        seen = _find(condition.value, outcomes)
        return 1 if seen is True else 0 if seen is False else 0.5
    sides = [
        side.value if isinstance(side, Const) else _find(side, outcomes) for side in (condition.left, condition.right)
    ]
    if _MISSING in (sides[0], sides[1]):
        return 0.5
    try:
        return 1 if _COMPARISONS[condition.op](*sides) else 0
    except TypeError:
        return 0.5


def _find(get: Get, outcomes: dict[str, Outcome]) -> Any:
    outcome = outcomes[get.node]
    value = outcome.value if outcome.kind == "completed" else _MISSING
    for part in get.path:
        if isinstance(part, int):
            value = value[part] if isinstance(value, (list, str)) and part < len(value) else _MISSING
        else:
            value = value.get(part, _MISSING) if isinstance(value, dict) else _MISSING
    return value


def _build(value: Value, outcomes: dict[str, Outcome]) -> Any:
    if isinstance(value, Get):
        seen = _find(value, outcomes)
        return None if seen is _MISSING else seen
    if isinstance(value, Items):
        return [_build(item, outcomes) for item in value.items]
    if isinstance(value, Fields):
        return {name: _build(item, outcomes) for name, item in value.fields.items()}
    return value.value


def _gets(value: Value) -> list[Get]:
    if isinstance(value, Get):
        return [value]
    parts = value.items if isinstance(value, Items) else value.fields.values() if isinstance(value, Fields) else ()
    return [get for part in parts for get in _gets(part)]


def _reads(node: Node) -> set[str]:
    found = {get.node for arg in node.args for get in _gets(arg.value)} | set(node.after)
    todo = [node.guard] if node.guard is not None else []
    while todo:
        match todo.pop():
            case Truth(value):
                found.add(value.node)
            case Not(inner):
                todo.append(inner)
            case And(parts) | Or(parts):
                todo.extend(parts)
            case Compare(_, left, right):
                found |= {side.node for side in (left, right) if isinstance(side, Get)}
    return found
