"""The results as a plot: flows per second at each number of flows in flight, with the range of the rounds."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from payloads import CHAIN, ITEMS
from report import Figures, Results

WIDTH, BAR, GAP, LABEL, RIGHT, TOP = 860, 15, 5, 215, 150, 46
COLORS = {
    "choreographed": "#0f766e",
    "orchestrated": "#6d28d9",
    "plain": "#64748b",
    "lean": "#94a3b8",
    "broker": "#cbd5e1",
}
TITLES = {
    "order": "Order flow: two parallel steps and a join",
    "chain": f"Chain of {CHAIN} steps",
    "map": f"Map of {ITEMS} items",
    "saga": "Saga: two parallel steps, the next one fails, both are undone",
}
INK, FAINT = "#1e293b", "#64748b"


def svg(results: Results) -> str:
    """Draw results.

    Args:
        results: What was measured.
    """
    parts: list[str] = []
    y = TOP
    for shape, title in TITLES.items():
        mine = [one for one in results.figures if one.system.startswith(f"{shape}-")]
        if not mine:
            continue
        parts.append(_text(16, y, title, 15, INK, "600"))
        y += 14
        most = max(one.flows_per_s.most for one in mine) or 1.0
        for level in sorted({one.in_flight for one in mine}):
            y += 18
            parts.append(_text(16, y, f"{level:,} in flight", 12, FAINT))
            y += 6
            for one in sorted((one for one in mine if one.in_flight == level), key=_order):
                parts += _bar(one, y, most)
                y += BAR + GAP
        y += 40
    note = f"flows per second, median and range of the rounds; {results.cores} cores; one run, systems taking turns"
    parts.append(_text(16, y - 14, note, 11, FAINT))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" font-family="system-ui, sans-serif" '
        f'role="img" aria-label="Flows per second"><rect width="{WIDTH}" height="{y}" fill="#ffffff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _order(one: Figures) -> tuple[int, bool]:
    variant = one.system.partition("-")[2]
    return list(COLORS).index(variant.removesuffix("-observed")), variant.endswith("-observed")


def _bar(one: Figures, y: int, most: float) -> Iterator[str]:
    variant = one.system.partition("-")[2]
    label = {"plain": "by hand, plain", "lean": "by hand, lean", "broker": "bare broker"}.get(variant, variant)
    label = label.replace("-observed", ", observed")
    color = COLORS[variant.removesuffix("-observed")]
    scale = (WIDTH - LABEL - RIGHT) / most
    rate = one.flows_per_s
    middle = y + BAR / 2
    faded = ' fill-opacity="0.6"' if variant.endswith("-observed") else ""
    yield _text(LABEL - 10, y + 12, label, 12, INK, anchor="end")
    yield f'<rect x="{LABEL}" y="{y}" width="{rate.median * scale:.1f}" height="{BAR}" rx="2" fill="{color}"{faded}/>'
    yield (
        f'<path d="M{LABEL + rate.least * scale:.1f} {middle}H{LABEL + rate.most * scale:.1f}" '
        f'stroke="{INK}" stroke-width="1.5"/>'
    )
    value = f"{rate.median:,.0f}/s   p50 {one.p50_ms:,.1f} ms"
    yield _text(LABEL + rate.most * scale + 8, y + 12, value, 11, FAINT)


def _text(x: float, y: float, text: str, size: int, color: str, weight: str = "400", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{color}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )
