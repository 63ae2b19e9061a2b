"""A plan as a Mermaid flowchart, for READMEs and merge requests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from segue.plan.graph import RUN, Node, Plan
from segue.plan.outline import bodies, call, drawn, edges, follows, members, needs
from segue.plan.palette import colour
from segue.plan.words import shorten

_UNSAFE = re.compile(r"[^A-Za-z0-9 _.,=!?()'…-]")
_ARROWS = {"data": "-->", "guard": "-.->", "order": "-.->"}
_GUARD = 48


def mermaid(plan: Plan) -> str:
    """The plan as `flowchart LR`: a box to a node, coloured by service; guard and order edges are dotted.

    A construct with nodes in its bodies is a subgraph, and so is each body where there are several. Any text in the
    plan is safe in it. Mermaid's own defaults refuse more than 500 edges or 50,000 characters; use the SVG drawing for
    larger plans.
    """
    index, nodes = plan.index, drawn(plan)
    lines = ["flowchart LR", *_inside(plan, RUN, members(plan), "  ")]
    lines += [f"  n{index.order[edge.up]} {_ARROWS[edge.carries]} n{index.order[edge.down]}" for edge in edges(plan)]
    for number, service in enumerate(index.services):
        owned = ",".join(f"n{index.order[node.id]}" for node in nodes if node.owner == service)
        found = colour(number)
        lines.append(f"  classDef s{number} fill:{found.fill},stroke:{found.line},color:#1f2328")
        if owned:
            lines.append(f"  class {owned} s{number}")
    return "\n".join(lines) + "\n"


def _inside(plan: Plan, region: str, inside: Mapping[str, Sequence[Node]], indent: str) -> Iterator[str]:
    for node in inside[region]:
        name = f"n{plan.index.order[node.id]}"
        construct = plan.index.construct(node) if node.construct else None
        if construct is None or not any(inside[each] for each in construct.regions):
            yield f"{indent}{name}{_shape(plan, node)}"
            continue
        yield f'{indent}subgraph {name}["{_label(plan, node)}"]'
        for body in bodies(plan, construct):
            if len(construct.regions) == 1:
                yield from _inside(plan, body.region, inside, indent + "  ")
                continue
            title = f"b{plan.index.order[plan.index.regions[body.region].entry]}"
            label = _escape(body.title or "body")
            if inside[body.region]:
                yield f'{indent}  subgraph {title}["{label}"]'
                yield from _inside(plan, body.region, inside, indent + "    ")
                yield f"{indent}  end"
            else:
                yield f'{indent}  {title}("{label}")'
        yield f"{indent}end"
        for up, down in follows(construct):
            ends = [f"b{plan.index.order[plan.index.regions[each].entry]}" for each in (up, down)]
            yield f"{indent}{ends[0]} -.-> {ends[1]}"


def _shape(plan: Plan, node: Node) -> str:
    if node.kind in ("entry", "exit"):
        return f'(["{"start" if node.kind == "entry" else "end"}"])'
    label = _label(plan, node)
    return f'{{{{"{label}"}}}}' if node.kind == "either" else f'("{label}")'


def _label(plan: Plan, node: Node) -> str:
    who = node.owner if node.kind in ("step", "either") and node.step in ("", node.id) else call(plan, node)
    label = f"<b>{_escape(node.id)}</b><br/>{_escape(who)}"
    values, guard, _ = needs(plan, node)
    if node.construct and values:
        label += f"<br/>{_escape(shorten(', '.join(values), _GUARD))}"
    if guard:
        label += f"<br/><i>when {_escape(shorten(guard, _GUARD))}</i>"
    return label


def _escape(text: str) -> str:
    """Mermaid's entities: `#62;` for `>`; everything but plain letters and a few signs is written so."""
    return _UNSAFE.sub(lambda match: f"#{ord(match[0])};", text)
