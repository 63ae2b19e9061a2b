"""A plan as one SVG file: no script, no font, no link; looks right on light and dark pages.

Every box is a group `<g class="node sN" data-node="ID">`, that of a construct has the class `block` too. A viewer shows
a run by adding the class of a node's state to it: `running`, `completed`, `skipped`, `failed`, `aborted` or
`cancelled`; the style is in the file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from segue.plan.graph import RUN, Construct, Node, Plan
from segue.plan.layout import Layout, Point, Size, layout
from segue.plan.outline import Body, Edge, Needs, bodies, call, drawn, edges, follows, members, needs, stages
from segue.plan.palette import COLOURS, colour
from segue.plan.words import shorten

MARGIN = 20.0
PADDING = 14.0
LINE = 17.0
FRAME = LINE + 9
"""Room for the title of a body."""
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
_BLOCKS = """.segue-plan .block .box{fill-opacity:.35}
.segue-plan .body{fill:none;stroke:#818b98;stroke-width:1;stroke-dasharray:2 3}
"""


class _Label(NamedTuple):
    """The lines in a box: class and text."""

    lines: tuple[tuple[str, str], ...]

    @property
    def size(self) -> Size:
        width = max(len(text) * (_NAME_WIDTH if kind == "name" else _SMALL_WIDTH) for kind, text in self.lines)
        return Size(round(width + 2 * PADDING + 4), LINE * len(self.lines) + 12)


class _Field(NamedTuple):
    """A region laid out: its nodes, the edges between them, and what is in its constructs."""

    members: Sequence[Node]
    edges: Sequence[Edge]
    found: Layout
    blocks: dict[str, _Block]


class _Block(NamedTuple):
    """What is in a construct: its bodies below its label, in frames if there are several."""

    bodies: Sequence[Body]
    fields: dict[str, _Field]
    follows: Sequence[tuple[str, str]]
    found: Layout
    label: Size

    @property
    def size(self) -> Size:
        inner = self.found.size
        return Size(max(self.label.width, inner.width + 2 * PADDING), self.label.height + inner.height + PADDING)


def svg(plan: Plan) -> str:
    """The plan as SVG text: layered from left to right, boxes coloured by service, guard and order edges dashed.

    A construct is a box around its bodies.
    """
    return _Drawing(plan).text()


class _Drawing:
    """What all regions of a plan share, while it is drawn."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.inside = members(plan)
        self.words = {node.id: needs(plan, node) for node in drawn(plan)}
        self.labels = {node.id: _label(plan, node, self.words[node.id]) for node in drawn(plan)}
        self.stages = stages(plan)
        self.number = {service: i % COLOURS for i, service in enumerate(plan.index.services)}
        self.edges: dict[str, list[Edge]] = {region.id: [] for region in plan.regions}
        for edge in edges(plan):
            self.edges[plan.index.nodes[edge.down].region].append(edge)
        self.parts: list[str] = []

    def text(self) -> str:
        field = self.field(RUN)
        width, height = (round(side + 2 * MARGIN) for side in field.found.size)
        self.paint(field, Point(0.0, 0.0))
        style = _style(min(len(self.number), COLOURS)) + (_BLOCKS if self.plan.constructs else "")
        head = [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="segue-plan" role="img" viewBox="0 0 {width} {height}"'
            f' width="{width}" height="{height}">',
            f"<title>{_text(self.plan.flow)}</title>",
            f"<style>{style}</style>",
            '<defs><marker id="segue-tip" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" markerHeight="7"'
            ' markerUnits="userSpaceOnUse" orient="auto"><path class="tip" d="M0 0.5 8 4 0 7.5Z"/></marker></defs>',
            f'<g transform="translate({MARGIN:g} {MARGIN:g})">',
        ]
        return "\n".join([*head, *self.parts, "</g>", "</svg>", ""])

    def field(self, region: str) -> _Field:
        """Lay out a region, its constructs first."""
        nodes, between = self.inside[region], self.edges[region]
        sizes = {node.id: self.labels[node.id].size for node in nodes}
        blocks: dict[str, _Block] = {}
        for node in nodes:
            construct = self.plan.index.construct(node) if node.construct else None
            if construct is not None and any(self.inside[each] for each in construct.regions):
                blocks[node.id] = self.block(construct, sizes[node.id])
                sizes[node.id] = blocks[node.id].size
        found = layout(sizes, self.stages_of(nodes), [(edge.up, edge.down) for edge in between], blocks)
        return _Field(nodes, between, found, blocks)

    def stages_of(self, nodes: Sequence[Node]) -> dict[str, int]:
        return {node.id: self.stages[node.id] for node in nodes}

    def block(self, construct: Construct, label: Size) -> _Block:
        """Lay out the bodies of a construct: what may follow a body stands to its right."""
        fields = {region: self.field(region) for region in construct.regions}
        several = bodies(self.plan, construct)
        between = follows(construct)
        sizes: dict[str, Size] = {}
        layer: dict[str, int] = {}
        for body in several:
            inner = fields[body.region].found.size
            title = len(body.title) * _SMALL_WIDTH
            sizes[body.region] = Size(max(inner.width, title) + 2 * PADDING, inner.height + PADDING + FRAME)
            layer[body.region] = max((layer[up] + 1 for up, down in between if down == body.region), default=0)
        if len(several) == 1:
            sizes = {region: field.found.size for region, field in fields.items()}
        return _Block(several, fields, between, layout(sizes, layer, between, sizes), label)

    def paint(self, field: _Field, at: Point) -> None:
        """Draw a region with its upper left corner at a point."""
        for edge, route in zip(field.edges, field.found.routes, strict=True):
            self.parts.append(_path(edge, field.found, route, at))
        for node in field.members:
            block = field.blocks.get(node.id)
            kind = "gate" if node.kind in ("entry", "exit") else f"s{self.number[node.owner]}"
            results = [f"gives {body.result}" for body in block.bodies if body.result] if block else []
            title = _text(_tooltip(self.plan, node, self.words[node.id], results))
            classes = f"node block {kind}" if block else f"node {kind}"
            self.parts.append(f'<g class="{classes}" data-node="{_text(node.id)}"><title>{title}</title>')
            size = block.size if block else Size(field.found.widths[node.id], self.labels[node.id].size.height)
            centre = field.found.centres[node.id]
            corner = Point(at.x + centre.x - size.width / 2, at.y + centre.y - size.height / 2)
            self.parts += _box(node, self.labels[node.id], corner, size)
            self.parts.append("</g>")
            if block:
                inner = block.found.size
                left = corner.x + (size.width - inner.width) / 2
                self.paint_block(block, Point(left, corner.y + block.label.height))

    def paint_block(self, block: _Block, at: Point) -> None:
        """Draw the bodies of a construct."""
        if len(block.bodies) == 1:
            self.paint(block.fields[block.bodies[0].region], at)
            return
        for (up, down), route in zip(block.follows, block.found.routes, strict=True):
            self.parts.append(_path(Edge(up, down, "order"), block.found, route, at))
        for body in block.bodies:
            field, centre = block.fields[body.region], block.found.centres[body.region]
            width = block.found.widths[body.region]
            height = field.found.size.height + PADDING + FRAME
            corner = Point(at.x + centre.x - width / 2, at.y + centre.y - height / 2)
            box = f'x="{corner.x:.1f}" y="{corner.y:.1f}" width="{width:.1f}" height="{height:.1f}"'
            self.parts.append(f'<rect class="body" data-region="{_text(body.region)}" {box} rx="7"/>')
            if body.title:
                place = f'x="{corner.x + PADDING:.1f}" y="{corner.y + LINE:.1f}"'
                self.parts.append(f'<text class="call" {place}>{_text(shorten(body.title, GUARD))}</text>')
            left = corner.x + (width - field.found.size.width) / 2
            self.paint(field, Point(left, corner.y + FRAME))


def _label(plan: Plan, node: Node, words: Needs) -> _Label:
    if node.kind in ("entry", "exit"):
        return _Label((("name", "start" if node.kind == "entry" else "end"), ("call", shorten(node.owner, LABEL))))
    who = node.owner if node.kind == "step" and node.step == node.id else call(plan, node)
    lines = [("name", shorten(node.id, LABEL)), ("call", shorten(who, LABEL))]
    if words.values and (node.construct or node.kind in ("wait", "sleep")):
        lines.append(("call", shorten(", ".join(words.values), GUARD)))
    if words.guard:
        lines.append(("when", "when " + shorten(words.guard, GUARD)))
    return _Label(tuple(lines))


def _box(node: Node, label: _Label, at: Point, size: Size) -> list[str]:
    width, height = size
    radius = height / 2 if node.kind in ("entry", "exit", "either") else 7
    box = f'x="{at.x:.1f}" y="{at.y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    parts = [f'<rect class="box" {box} rx="{radius:g}"/>']
    base = at.y + 6 + 12.5
    for i, (kind, text) in enumerate(label.lines):
        place = f'x="{at.x + width / 2:.1f}" y="{base + i * LINE:.1f}"'
        parts.append(f'<text class="{kind}" text-anchor="middle" {place}>{_text(text)}</text>')
    return parts


def _path(edge: Edge, found: Layout, route: Sequence[Point], at: Point) -> str:
    """From box to box; what is narrower than its layer is linked to the layer's sides by level lines."""
    start = found.centres[edge.up].x + found.widths[edge.up] / 2
    end = found.centres[edge.down].x - found.widths[edge.down] / 2
    points = [Point(at.x + point.x, at.y + point.y) for point in route]
    way = _curve(points)
    if points[0].x - at.x - start > 0.1:
        way = f"M{at.x + start:.1f} {points[0].y:.1f}H{points[0].x:.1f}" + way[way.index("C") :]
    if end + at.x - points[-1].x > 0.1:
        way += f"H{at.x + end:.1f}"
    ends = f'data-from="{_text(edge.up)}" data-to="{_text(edge.down)}"'
    return f'<path class="edge {edge.carries}" {ends} marker-end="url(#segue-tip)" d="{way}"/>'


def _curve(route: Sequence[Point]) -> str:
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


def _tooltip(plan: Plan, node: Node, words: Needs, results: Sequence[str]) -> str:
    lines = [node.id, call(plan, node), *words.values, *results]
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
