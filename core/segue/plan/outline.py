"""What every drawing of a plan shows: edges by what they carry, stages, and what a node needs."""

from __future__ import annotations

from typing import Literal, NamedTuple

from segue.plan.graph import ENTRY, Node, Plan, gets_of, reads_of
from segue.plan.words import describe_condition, describe_value

Carries = Literal["data", "guard", "order"]


class Edge(NamedTuple):
    """An upstream and a node that waits for it; an edge that carries several things counts as the first of them."""

    up: str
    down: str
    carries: Carries


class Needs(NamedTuple):
    """What a node waits for, in words: its arguments or choices, its guard, what else it comes after."""

    values: tuple[str, ...]
    guard: str
    after: tuple[str, ...]


def edges(plan: Plan) -> list[Edge]:
    """The edges to draw, in plan order.

    An edge from the run's entry is left out where the node has another upstream: everything follows from the start.
    """
    found: list[Edge] = []
    for node in plan.nodes:
        data = {get.node for arg in node.args for get in gets_of(arg.value)}
        guard = {get.node for get in reads_of(node.guard)} if node.guard is not None else set()
        ups = plan.index.ups[node.id]
        found += [
            Edge(up, node.id, "data" if up in data else "guard" if up in guard else "order")
            for up in ups
            if up != ENTRY or len(ups) == 1
        ]
    return found


def stages(plan: Plan) -> dict[str, int]:
    """For each node the length of the longest way from the start."""
    found: dict[str, int] = {}
    for node in plan.nodes:
        found[node.id] = max((found[up] + 1 for up in plan.index.ups[node.id]), default=0)
    return found


def needs(node: Node) -> Needs:
    """What a node waits for, in words. An argument of the same name as its value is named once."""
    values = []
    for arg in node.args:
        text = describe_value(arg.value)
        values.append(text if node.kind != "step" or text == arg.name else f"{arg.name}={text}")
    read = {get.node for arg in node.args for get in gets_of(arg.value)}
    after = tuple(name for name in node.after if name not in read)
    return Needs(tuple(values), describe_condition(node.guard) if node.guard is not None else "", after)


def call(node: Node) -> str:
    """Who does what at a node: `payments.charge`, or the owner of a join."""
    if node.kind == "step":
        return f"{node.owner}.{node.step}"
    return f"{node.owner}, either" if node.kind == "either" else node.owner
