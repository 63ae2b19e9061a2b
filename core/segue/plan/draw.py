"""A plan as text for people: one line to a node, in plan order, bodies indented."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from segue.plan.graph import RUN, Node, Plan
from segue.plan.outline import bodies, call, counted, longest, members, needs, span, stages
from segue.plan.words import describe_value, shorten

NAMED = 4
"""How many items of a long list are named before the rest is counted."""
FOLDED = 4
"""Nodes of one step in one stage are folded into one line from this many on, if the plan is too long."""
WIDTH = 100
"""Characters of one description."""
INDENT = "  "


class _Row(NamedTuple):
    name: str
    call: str
    needs: str
    nodes: int


def draw(plan: Plan, limit: int = 80) -> str:
    """A compact listing of a plan: each node, its step, the values that it takes, its guard, and what it comes after.

    What stands in the bodies of a construct is indented below it.

    Args:
        plan: The plan to show.
        limit: Most lines of nodes. A longer plan has nodes of one step in one stage on one line, and if that is still
            too long, its middle is counted instead of shown. 0: show every node on its own line.
    """
    rows = _rows(plan, folded=False)
    if limit and len(rows) > limit:
        rows = _rows(plan, folded=True)
    head, rest, tail = rows, 0, rows[:0]
    if limit and len(rows) > limit:
        kept = max(limit - 1, 2)
        head, tail = rows[: kept - kept // 4], rows[-(kept // 4 or 1) :]
        rest = sum(row.nodes for row in rows) - sum(row.nodes for row in (*head, *tail))
    shown = [*head, *tail]
    names, calls = (max(len(text) for text in column) for column in zip(*(row[:2] for row in shown), strict=True))
    lines = [f"  {row.name:<{names}}  {row.call:<{calls}}  {row.needs}".rstrip() for row in shown]
    if rest:
        lines.insert(len(head), f"  … {rest:,} more nodes")
    return "\n".join([*_title(plan), "", *lines]) + "\n"


def _rows(plan: Plan, folded: bool) -> list[_Row]:
    inside, stage = members(plan), stages(plan)

    def below(region: str, depth: int) -> Iterator[_Row]:
        for group in _folded(inside[region], stage) if folded else [[node] for node in inside[region]]:
            yield _row(plan, group, depth)
            for body in bodies(plan, plan.index.construct(group[0])) if group[0].construct else ():
                if body.title:
                    yield _Row(INDENT * (depth + 1) + body.title, "", "", 0)
                inner = depth + 1 + bool(body.title)
                yield from below(body.region, inner)
                if body.result:
                    yield _Row(f"{INDENT * inner}(result)", "", body.result, 0)

    return list(below(RUN, 0))


def _title(plan: Plan) -> list[str]:
    steps = sum(node.kind == "step" for node in plan.nodes)
    services = plan.index.services
    lines = [
        f"{plan.flow}  plan {plan.hash[:12]}, home {plan.home}",
        f"{counted(steps, 'step')}, {counted(len(services), 'service')}, {counted(longest(plan), 'stage')}",
    ]
    if plan.deadline:
        lines.append(f"deadline {span(plan.deadline)}")
    if plan.on_failure == "stop":
        lines.append("the first failure stops the run")
    if plan.key is not None:
        lines.append(f"key {shorten(describe_value(plan.key), WIDTH)}")
    return lines


def _folded(nodes: Sequence[Node], stage: Mapping[str, int]) -> Iterable[Sequence[Node]]:
    """Groups of like nodes at the place of their first; small groups are left apart."""
    place = {node.id: i for i, node in enumerate(nodes)}
    groups: dict[object, list[Node]] = {}
    for node in nodes:
        like = (node.kind, node.owner, node.step, node.guard is None, stage[node.id])
        groups.setdefault(like if node.kind in ("step", "either") else node.id, []).append(node)
    parts = [part for group in groups.values() for part in ([group] if len(group) >= FOLDED else [[n] for n in group])]
    return sorted(parts, key=lambda part: place[part[0].id])


def _row(plan: Plan, group: Sequence[Node], depth: int) -> _Row:
    node = group[0]
    name = INDENT * depth + {"entry": "(start)", "exit": "(end)"}.get(node.kind, node.id)
    who, what = call(plan, node), _needs(plan, node)
    if len(group) > 1:
        return _Row(f"{name} … {group[-1].id}", who, f"{len(group):,} nodes, the first: {what}", len(group))
    return _Row(name, who, what, 1)


def _needs(plan: Plan, node: Node) -> str:
    values, guard, after = needs(plan, node)
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
