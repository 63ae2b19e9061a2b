"""A plan as one SVG file: no script, no font, no link; looks right on light and dark pages.

Every box is a group `<g class="node sN" data-node="ID">`. A viewer shows a run by adding the class of a node's state to
it: `running`, `completed`, `skipped`, `failed`, `aborted` or `cancelled`; the style is in the file.
"""

from __future__ import annotations

import re
from html import escape
from typing import NamedTuple

from segue.plan.graph import Node, Plan
from segue.plan.layout import Layout, Point, Size, layout
from segue.plan.outline import Needs, call, edges, needs, stages
from segue.plan.palette import COLOURS, colour
from segue.plan.words import shorten

MARGIN = 20.0
PADDING = 14.0
LINE = 17.0
LABEL, GUARD = 30, 38
"""Most characters of a name and of a guard in a box; the tooltip has all of it."""
TOOLTIP = 12
_NAME_WIDTH, _SMALL_WIDTH = 7.6, 6.3
_ILLEGAL = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_STYLE = """
.segue-plan text{font-family:ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,Helvetica,Arial,sans-serif;
fill:#1f2328}
.segue-plan .name{font-size:13px;font-weight:600}
.segue-plan .call{font-size:11px;fill:#59636e}
.segue-plan .when{font-size:11px;font-style:italic;fill:#59636e}
.segue-plan .box{stroke-width:1.2}
.segue-plan .gate .box{fill:#f6f8fa;stroke:#818b98}
.segue-plan .edge{fill:none;stroke:#818b98;stroke-width:1.3}
.segue-plan .guard,.segue-plan .order{stroke-dasharray:5 4}
.segue-plan .tip{fill:#818b98}
.segue-plan .running .box{stroke:#0969da;stroke-width:3}
.segue-plan .completed .box{fill:#dafbe1;stroke:#1a7f37}
.segue-plan .skipped .box,.segue-plan .cancelled .box,.segue-plan .aborted .box{fill:#f6f8fa;stroke:#818b98;\
stroke-dasharray:4 3}
.segue-plan .skipped,.segue-plan .cancelled{opacity:.6}
.segue-plan .failed .box{fill:#ffebe9;stroke:#cf222e;stroke-width:3}
.segue-plan .aborted .box{stroke:#cf222e}
"""
_DARK = """
.segue-plan text{fill:#e6edf3}
.segue-plan .call,.segue-plan .when{fill:#9198a1}
.segue-plan .gate .box{fill:#21262d;stroke:#6e7681}
.segue-plan .edge{stroke:#6e7681}
.segue-plan .tip{fill:#6e7681}
.segue-plan .running .box{stroke:#4493f8}
.segue-plan .completed .box{fill:#12261e;stroke:#3fb950}
.segue-plan .skipped .box,.segue-plan .cancelled .box,.segue-plan .aborted .box{fill:#21262d;stroke:#6e7681}
.segue-plan .failed .box{fill:#2d1214;stroke:#f85149}
.segue-plan .aborted .box{stroke:#f85149}
"""


class _Label(NamedTuple):
    """The lines in a box: class and text."""

    lines: tuple[tuple[str, str], ...]

    @property
    def size(self) -> Size:
        width = max(len(text) * (_NAME_WIDTH if kind == "name" else _SMALL_WIDTH) for kind, text in self.lines)
        return Size(round(width + 2 * PADDING + 4), LINE * len(self.lines) + 12)


def svg(plan: Plan) -> str:
    """The plan as SVG text: layered from left to right, boxes coloured by service, guard and order edges dashed."""
    words = {node.id: needs(node) for node in plan.nodes}
    labels = {node.id: _label(node, words[node.id]) for node in plan.nodes}
    drawn = edges(plan)
    found = layout(
        {name: label.size for name, label in labels.items()}, stages(plan), [(edge.up, edge.down) for edge in drawn]
    )
    width, height = (round(side + 2 * MARGIN) for side in found.size)
    number = {service: i % COLOURS for i, service in enumerate(plan.index.services)}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="segue-plan" role="img" viewBox="0 0 {width} {height}"'
        f' width="{width}" height="{height}">',
        f"<title>{_text(plan.flow)}</title>",
        f"<style>{_style(min(len(number), COLOURS))}</style>",
        '<defs><marker id="segue-tip" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" markerHeight="7"'
        ' markerUnits="userSpaceOnUse" orient="auto"><path class="tip" d="M0 0.5 8 4 0 7.5Z"/></marker></defs>',
        f'<g transform="translate({MARGIN:g} {MARGIN:g})">',
    ]
    for edge, route in zip(drawn, found.routes, strict=True):
        ends = f'data-from="{_text(edge.up)}" data-to="{_text(edge.down)}"'
        parts.append(f'<path class="edge {edge.carries}" {ends} marker-end="url(#segue-tip)" d="{_curve(route)}"/>')
    for node in plan.nodes:
        kind = "gate" if node.kind in ("entry", "exit") else f"s{number[node.owner]}"
        title = _text(_tooltip(node, words[node.id]))
        parts.append(f'<g class="node {kind}" data-node="{_text(node.id)}"><title>{title}</title>')
        parts += _box(node, labels[node.id], found)
        parts.append("</g>")
    return "\n".join([*parts, "</g>", "</svg>", ""])


def _label(node: Node, words: Needs) -> _Label:
    if node.kind in ("entry", "exit"):
        return _Label((("name", "start" if node.kind == "entry" else "end"), ("call", shorten(node.owner, LABEL))))
    who = call(node) if node.step != node.id else node.owner
    lines = [("name", shorten(node.id, LABEL)), ("call", shorten(who, LABEL))]
    if words.guard:
        lines.append(("when", "when " + shorten(words.guard, GUARD)))
    return _Label(tuple(lines))


def _box(node: Node, label: _Label, found: Layout) -> list[str]:
    centre, width, height = found.centres[node.id], found.widths[node.id], label.size.height
    x, y = centre.x - width / 2, centre.y - height / 2
    radius = height / 2 if node.kind in ("entry", "exit", "either") else 7
    parts = [f'<rect class="box" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius:g}"/>']
    base = y + 6 + 12.5
    for i, (kind, text) in enumerate(label.lines):
        at = f'x="{centre.x:.1f}" y="{base + i * LINE:.1f}"'
        parts.append(f'<text class="{kind}" text-anchor="middle" {at}>{_text(text)}</text>')
    return parts


def _curve(route: list[Point]) -> str:
    """Smooth between the layers, level where it passes through one."""
    start = route[0]
    parts = [f"M{start.x:.1f} {start.y:.1f}"]
    for i, point in enumerate(route[1:]):
        if i % 2:
            parts.append(f"H{point.x:.1f}")
        else:
            middle = (route[i].x + point.x) / 2
            parts.append(f"C{middle:.1f} {route[i].y:.1f} {middle:.1f} {point.y:.1f} {point.x:.1f} {point.y:.1f}")
    return "".join(parts)


def _tooltip(node: Node, words: Needs) -> str:
    lines = [node.id, call(node), *words.values]
    if words.guard:
        lines.append(f"when {words.guard}")
    lines += [f"after {name}" for name in words.after]
    rest = len(lines) - TOOLTIP
    return "\n".join(lines if rest <= 0 else [*lines[:TOOLTIP], f"and {rest:,} more"])


def _style(services: int) -> str:
    light, dark = [], []
    for number in range(services):
        found = colour(number)
        light.append(f".segue-plan .s{number} .box{{fill:{found.fill};stroke:{found.line}}}\n")
        dark.append(f".segue-plan .s{number} .box{{fill:{found.dark_fill};stroke:{found.dark_line}}}\n")
    # Services first: the states' rules have the same weight and win by coming later.
    return (
        f"\n{''.join(light)}{_STYLE.lstrip()}@media (prefers-color-scheme:dark){{\n{''.join(dark)}{_DARK.lstrip()}}}\n"
    )


def _text(text: str) -> str:
    return escape(_ILLEGAL.sub("\ufffd", text))
