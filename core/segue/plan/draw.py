"""A plan as text for people: one line to a node, in plan order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from segue.plan.graph import Node, Plan
from segue.plan.outline import call, needs, stages
from segue.plan.words import describe_value, shorten

NAMED = 4
"""How many items of a long list are named before the rest is counted."""
FOLDED = 4
"""Nodes of one step in one stage are folded into one line from this many on, if the plan is too long."""
WIDTH = 100
"""Characters of one description."""


class _Row(NamedTuple):
    name: str
    call: str
    needs: str
    nodes: int


def draw(plan: Plan, limit: int = 80) -> str:
    """A compact listing of a plan: each node, its step, the values that it takes, its guard, and what it comes after.

    Args:
        plan: The plan to show.
        limit: Most lines of nodes. A longer plan has nodes of one step in one stage on one line, and if that is still
            too long, its middle is counted instead of shown. 0: show every node on its own line.
    """
    rows = [_row([node]) for node in plan.nodes]
    if limit and len(rows) > limit:
        rows = [_row(group) for group in _folded(plan)]
    head, rest, tail = rows, 0, rows[:0]
    if limit and len(rows) > limit:
        kept = max(limit - 1, 2)
        head, tail = rows[: kept - kept // 4], rows[-(kept // 4 or 1) :]
        rest = len(plan.nodes) - sum(row.nodes for row in (*head, *tail))
    shown = [*head, *tail]
    names, calls = (max(len(text) for text in column) for column in zip(*(row[:2] for row in shown), strict=True))
    lines = [f"  {row.name:<{names}}  {row.call:<{calls}}  {row.needs}".rstrip() for row in shown]
    if rest:
        lines.insert(len(head), f"  … {rest:,} more nodes")
    return "\n".join([*_title(plan), "", *lines]) + "\n"


def _title(plan: Plan) -> list[str]:
    steps = sum(node.kind == "step" for node in plan.nodes)
    services = plan.index.services
    lines = [
        f"{plan.flow}  plan {plan.hash[:12]}, home {plan.home}",
        f"{_count(steps, 'step')}, {_count(len(services), 'service')}, {_count(max(stages(plan).values()), 'stage')}",
    ]
    if plan.key is not None:
        lines.append(f"key {shorten(describe_value(plan.key), WIDTH)}")
    return lines


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _folded(plan: Plan) -> Iterable[Sequence[Node]]:
    """Groups of like nodes at the place of their first; small groups are left apart."""
    stage = stages(plan)
    groups: dict[object, list[Node]] = {}
    for node in plan.nodes:
        like = (node.kind, node.owner, node.step, node.guard is None, stage[node.id])
        groups.setdefault(like if node.kind in ("step", "either") else node.id, []).append(node)
    parts = [part for group in groups.values() for part in ([group] if len(group) >= FOLDED else [[n] for n in group])]
    return sorted(parts, key=lambda part: plan.index.order[part[0].id])


def _row(group: Sequence[Node]) -> _Row:
    node = group[0]
    name = {"entry": "(start)", "exit": "(end)"}.get(node.kind, node.id)
    if len(group) > 1:
        return _Row(
            f"{name} … {group[-1].id}", call(node), f"{len(group):,} nodes, the first: {_needs(node)}", len(group)
        )
    return _Row(name, call(node), _needs(node), 1)


def _needs(node: Node) -> str:
    values, guard, after = needs(node)
    parts = [_listed(values)] if values else []
    if guard:
        parts.append(f"when {shorten(guard, WIDTH)}")
    if after:
        parts.append(f"{'joins' if node.kind == 'exit' else 'after'} {_listed(after)}")
    return "; ".join(parts)


def _listed(texts: Sequence[str]) -> str:
    rest = len(texts) - NAMED
    shown = texts if rest <= 1 else texts[:NAMED]
    return ", ".join(shorten(text, WIDTH) for text in shown) + (f" and {rest:,} more" if rest > 1 else "")
