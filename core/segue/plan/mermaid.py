"""A plan as a Mermaid flowchart, for READMEs and merge requests."""

from __future__ import annotations

import re

from segue.plan.graph import Node, Plan
from segue.plan.outline import edges, needs
from segue.plan.palette import colour
from segue.plan.words import shorten

_UNSAFE = re.compile(r"[^A-Za-z0-9 _.,=!?()'…-]")
_ARROWS = {"data": "-->", "guard": "-.->", "order": "-.->"}
_GUARD = 48


def mermaid(plan: Plan) -> str:
    """The plan as `flowchart LR`: a box to a node, coloured by service; guard and order edges are dotted.

    Any text in the plan is safe in it. Mermaid's own defaults refuse more than 500 edges or 50,000 characters; use the
    SVG drawing for larger plans.
    """
    index = plan.index
    lines = ["flowchart LR"]
    lines += [f"  n{index.order[node.id]}{_shape(node)}" for node in plan.nodes]
    lines += [f"  n{index.order[edge.up]} {_ARROWS[edge.carries]} n{index.order[edge.down]}" for edge in edges(plan)]
    for number, service in enumerate(index.services):
        members = ",".join(f"n{index.order[node.id]}" for node in plan.nodes if node.owner == service)
        found = colour(number)
        lines.append(f"  classDef s{number} fill:{found.fill},stroke:{found.line},color:#1f2328")
        lines.append(f"  class {members} s{number}")
    return "\n".join(lines) + "\n"


def _shape(node: Node) -> str:
    if node.kind in ("entry", "exit"):
        return f'(["{"start" if node.kind == "entry" else "end"}"])'
    who = node.owner if node.step in ("", node.id) else f"{node.owner}.{node.step}"
    label = f"<b>{_escape(node.id)}</b><br/>{_escape(who)}"
    guard = needs(node).guard
    if guard:
        label += f"<br/><i>when {_escape(shorten(guard, _GUARD))}</i>"
    return f'{{{{"{label}"}}}}' if node.kind == "either" else f'("{label}")'


def _escape(text: str) -> str:
    """Mermaid's entities: `#62;` for `>`; everything but plain letters and a few signs is written so."""
    return _UNSAFE.sub(lambda match: f"#{ord(match[0])};", text)
