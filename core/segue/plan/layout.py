"""Layered drawing of a directed acyclic graph, left to right (after Sugiyama, Tagawa and Toda, 1981).

1. A node's layer is given (the longest way from the start). An edge over several layers runs through a *bend* in each
   of them; edges from one node share their bends, so a fan stays one line as long as it can. If that would take more
   bends than the drawing can afford, the longest edges get none and are drawn straight.
2. The order within the layers follows the barycentres of the neighbours, sweeping right and left; the order with the
   fewest crossings stays.
3. The heights are the least squares fit to the neighbours' heights that keeps order and distance: pool adjacent
   violators, sweep by sweep.

Everything is deterministic: ties keep the given order.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

BENDS = 6000
GAP_X = 56.0
GAP_Y = 18.0
BEND_Y = 10.0
ORDER_SWEEPS = 8
PLACE_SWEEPS = 13
STRAIGHT = 6.0
"""How much more a bend is drawn to another bend than a node to its neighbour."""


class Size(NamedTuple):
    """Width and height of a box, in pixels."""

    width: float
    height: float


class Point(NamedTuple):
    """A place in the drawing, in pixels from the upper left corner."""

    x: float
    y: float


class Layout(NamedTuple):
    """Where everything goes.

    Attributes:
        centres: Middle of each box.
        widths: Width of each box: all boxes of a layer are as wide as the widest, except for blocks.
        routes: For each edge, in the given order, the points that it runs through: from the right side of one layer,
            in and out of the layers between, to the left side of the other.
        size: Of the whole drawing, without a margin.
    """

    centres: dict[str, Point]
    widths: dict[str, float]
    routes: list[list[Point]]
    size: Size


class _Slot:
    """A node or a bend in a layer."""

    __slots__ = ("height", "is_bend", "layer", "left", "right", "y")

    def __init__(self, layer: int, height: float, is_bend: bool) -> None:
        self.layer, self.height, self.is_bend = layer, height, is_bend
        self.left: list[_Slot] = []
        self.right: list[_Slot] = []
        self.y = 0.0


_Layers = list[list[_Slot]]


def layout(
    sizes: Mapping[str, Size],
    layer: Mapping[str, int],
    edges: Sequence[tuple[str, str]],
    blocks: Collection[str] = (),
) -> Layout:
    """Place boxes and route edges.

    Args:
        sizes: The boxes, in the order that decides ties.
        layer: For each box its layer, from 0.
        edges: From a box to one in a later layer.
        blocks: Boxes with more inside than a label: they keep their width, and the others of their layer theirs.
    """
    slots = {name: _Slot(layer[name], size.height, False) for name, size in sizes.items()}
    layers: _Layers = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for slot in slots.values():
        layers[slot.layer].append(slot)
    paths = _route(slots, layers, edges)
    layers = _ordered(layers)
    _place(layers)
    plain, widths = [0.0] * len(layers), [0.0] * len(layers)
    for name, size in sizes.items():
        widths[layer[name]] = max(widths[layer[name]], size.width)
        if name not in blocks:
            plain[layer[name]] = max(plain[layer[name]], size.width)
    lefts = [sum(widths[:i]) + GAP_X * i for i in range(len(layers))]
    top = min((slot.y - slot.height / 2 for row in layers for slot in row), default=0.0)
    bottom = max((slot.y + slot.height / 2 for row in layers for slot in row), default=0.0)
    routes = []
    for path in paths:
        points = [Point(lefts[path[0].layer] + widths[path[0].layer], path[0].y - top)]
        for bend in path[1:-1]:
            points += [Point(lefts[bend.layer] + at, bend.y - top) for at in (0.0, widths[bend.layer])]
        routes.append([*points, Point(lefts[path[-1].layer], path[-1].y - top)])
    return Layout(
        centres={name: Point(lefts[s.layer] + widths[s.layer] / 2, s.y - top) for name, s in slots.items()},
        widths={name: size.width if name in blocks else plain[layer[name]] for name, size in sizes.items()},
        routes=routes,
        size=Size(lefts[-1] + widths[-1] if layers else 0.0, bottom - top),
    )


def _route(slots: Mapping[str, _Slot], layers: _Layers, edges: Sequence[tuple[str, str]]) -> list[list[_Slot]]:
    """Add the bends, link neighbours, and return each edge's way."""
    longest = _longest_bent(slots, edges)
    chains: dict[str, list[_Slot]] = {}
    paths = []
    for up, down in edges:
        start, end = slots[up], slots[down]
        span = end.layer - start.layer
        if span > longest:
            paths.append([start, end])
            continue
        chain = chains.setdefault(up, [start])
        while len(chain) < span:
            bend = _Slot(start.layer + len(chain), 0.0, True)
            layers[bend.layer].append(bend)
            _link(chain[-1], bend)
            chain.append(bend)
        _link(chain[span - 1], end)
        paths.append([*chain[:span], end])
    return paths


def _link(left: _Slot, right: _Slot) -> None:
    left.right.append(right)
    right.left.append(left)


def _longest_bent(slots: Mapping[str, _Slot], edges: Sequence[tuple[str, str]]) -> int:
    """The longest span that gets bends, so that there are at most `BENDS` of them."""
    spans: dict[str, list[int]] = {}
    for up, down in edges:
        spans.setdefault(up, []).append(slots[down].layer - slots[up].layer)
    most = max((max(found) for found in spans.values()), default=1)
    while most > 1 and sum(max((s for s in found if s <= most), default=1) - 1 for found in spans.values()) > BENDS:
        most = most * 3 // 4
    return most


def _ordered(layers: _Layers) -> _Layers:
    """Sweep by barycentres; keep the best order seen."""
    best, fewest = [list(row) for row in layers], _crossings(layers)
    for sweep in range(ORDER_SWEEPS):
        if not fewest:
            break
        forward = sweep % 2 == 0
        for row in layers if forward else reversed(layers):
            _sort(row, layers, forward)
        crossings = _crossings(layers)
        if crossings < fewest:
            best, fewest = [list(row) for row in layers], crossings
    return best


def _sort(row: list[_Slot], layers: _Layers, forward: bool) -> None:
    beside = row[0].layer + (-1 if forward else 1) if row else -1
    if not 0 <= beside < len(layers):
        return
    at = {id(slot): i for i, slot in enumerate(layers[beside])}
    scale = len(layers[beside]) / len(row)
    weight = {}
    for i, slot in enumerate(row):
        near = slot.left if forward else slot.right
        weight[id(slot)] = sum(at[id(n)] for n in near) / len(near) if near else i * scale
    row.sort(key=lambda slot: weight[id(slot)])


def _crossings(layers: _Layers) -> int:
    """Pairs of neighbouring edges that cross: inversions of their ends."""
    total = 0
    for row, beside in pairwise(layers):
        at = {id(slot): i for i, slot in enumerate(beside)}
        seen: list[int] = []
        for slot in row:
            ends = sorted(at[id(n)] for n in slot.right)
            for end in ends:
                total += len(seen) - bisect_left(seen, end + 1)
            for end in ends:
                insort(seen, end)
    return total


def _place(layers: _Layers) -> None:
    for row in layers:
        _fit(row, [0.0] * len(row))
    for sweep in range(PLACE_SWEEPS):
        last = sweep >= PLACE_SWEEPS // 2
        forward = sweep % 2 == 0
        for row in layers if forward else reversed(layers):
            _fit(row, [_wish(slot, forward, last) for slot in row])


def _wish(slot: _Slot, forward: bool, both: bool) -> float:
    """The height that a slot would like: the mean of its neighbours."""
    near = slot.left + slot.right if both else (slot.left if forward else slot.right) or slot.left or slot.right
    total = weight = 0.0
    for neighbour in near:
        pull = STRAIGHT if slot.is_bend and neighbour.is_bend else 1.0
        total += pull * neighbour.y
        weight += pull
    return total / weight if weight else slot.y


def _fit(row: list[_Slot], wishes: list[float]) -> None:
    """Heights nearest to the wishes, by least squares, in this order and without overlap."""
    offsets = [0.0]
    for above, below in pairwise(row):
        gap = BEND_Y if above.is_bend or below.is_bend else GAP_Y
        offsets.append(offsets[-1] + above.height / 2 + gap + below.height / 2)
    pools: list[tuple[float, int]] = []
    for wish, offset in zip(wishes, offsets, strict=False):
        total, count = wish - offset, 1
        while pools and pools[-1][0] / pools[-1][1] > total / count:
            above_total, above_count = pools.pop()
            total, count = total + above_total, count + above_count
        pools.append((total, count))
    i = 0
    for total, count in pools:
        for _ in range(count):
            row[i].y = total / count + offsets[i]
            i += 1
