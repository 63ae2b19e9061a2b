"""A run on one screen: the same in both modes, which differ in one word of the header.

Items of maps and rounds of loops are counted, one line to a node; those that are under way or failed follow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import groupby
from typing import Literal

from rich.text import Text

from segue.cli.screen import clean, clock, count, span, table
from segue.cli.statewords import MARKS, mark, words
from segue.machine.facts import Failure
from segue.runtime.where import NodeView, RunView

Broker = Literal["reachable", "unreachable", "not asked"]
Row = tuple[Text | str, ...]

_STYLES = {"completed": "bold green", "failed": "bold red", "cancelled": "bold"}
_QUIET = ("completed", "skipped", "waiting")
_OVER = ("completed", "skipped", "undone")
_COUNTED = {"undo_failed": "not undone", "waiting_signal": "waiting for a signal", "compensating": "being undone"}
_DULL = (*_OVER, "waiting", "aborted", "cancelled")
_LISTED = 5
"""Items of one node that are shown; the rest is counted."""


def view_lines(
    view: RunView, now: datetime, broker: Broker, url: str, limit: int | None = 40, traceback: bool = False
) -> list[Text | str]:
    """The screen.

    Args:
        view: The run.
        now: The time; its zone is the one that times are shown in.
        broker: Whether the broker was asked how much waits.
        url: Of the broker, for the message that it is unreachable.
        limit: Nodes from which on those that are done or wait are counted instead of shown; None shows all.
        traceback: Show where errors were raised.
    """
    groups = [list(places) for _, places in groupby(view.nodes, key=lambda node: node.node)]
    hidden: Counter[str] = Counter()
    if limit is not None and len(groups) > limit:
        quiet = [group for group in groups if all(node.state in _QUIET for node in group)]
        hidden = Counter(node.state for group in quiet for node in group)
        groups = [group for group in groups if any(node.state not in _QUIET for node in group)]
    lines: list[Text | str] = [_header(view, now)]
    items = _items(view.nodes)
    rows = [row for group in groups for row in _rows(group, items, now, broker == "reachable", limit is None)]
    lines += [Text("  ").append_text(line) for line in (table((), rows) if rows else [])]
    if hidden:
        lines.append("  " + ", ".join(f"{number:,} {state}" for state, number in hidden.items()) + "; --all shows them")
    if traceback:
        lines += [line for node in view.nodes if node.error is not None for line in _detail(name(node), node.error)]
    if view.unread:
        lines += ["", f"{count(view.unread, 'large value')} could not be read: what follows from them is not shown"]
    if broker == "unreachable":
        lines += ["", clean(f"broker unreachable at {url}: backlog unknown")]
    return lines


def name(node: NodeView) -> str:
    """A place, as people write it: `reserve/3`."""
    return f"{node.node}/{node.tag}" if node.tag else node.node


def _header(view: RunView, now: datetime) -> Text:
    run = view.run
    line = Text().append(clean(f"{run.flow}/{run.key}" if run.key else run.flow), "bold")
    line.append("  ").append(clean(run.status), _STYLES.get(run.status, "bold yellow"))
    if run.started is not None:
        if run.ended is not None:
            line.append(f" after {span((run.ended - run.started).total_seconds())}, at {clock(run.ended, now)}")
        else:
            line.append(f" for {span((now - run.started).total_seconds())}")
    if view.stop == "deadline":
        line.append(", because its time was over")
    if view.stop == "undone":
        line.append(", and undone with its parent run")
    if run.revision > 1:
        line.append(f"   retried, revision {run.revision}")
    return line.append(clean(f"   {run.mode}   plan {run.plan[:12]}   run {run.run}"))


def _items(nodes: Iterable[NodeView]) -> Counter[str]:
    """How many items each map has, all of its own items and rounds taken together."""
    found: Counter[str] = Counter()
    for node in nodes:
        if node.kind == "each":
            found[node.node] += node.total
    return found


def _rows(places: list[NodeView], items: Counter[str], now: datetime, counted: bool, every: bool) -> Iterator[Row]:
    """The lines of one node."""
    first = places[0]
    if not first.tag:
        yield _row(first, now, counted)
        return
    numbered = [construct for construct in first.inside if construct in items]
    total = max(len(places), items[numbered[-1]] if numbered else 0)
    shown = places if every else [node for node in places if node.state not in _DULL]
    if len(places) > 1 or total > 1:
        yield _summary(places, total)
    elif not shown:
        shown = places
    kept = shown if every else shown[:_LISTED]
    yield from (_row(node, now, counted) for node in kept)
    if len(shown) > len(kept):
        yield "", Text(f"{_indent(first)}… {len(shown) - len(kept):,} more", "dim"), "", ""


def _summary(places: list[NodeView], total: int) -> Row:
    states: Counter[str] = Counter(node.state for node in places)
    over = sum(states[state] for state in _OVER)
    others = [state for state in MARKS if states[state] and state not in _OVER]
    parts = [f"{over:,}/{total:,} done"]
    parts += [f"{states[state]:,} {_COUNTED.get(state, state)}" for state in others]
    loud = next((state for state in ("undo_failed", "failed", *others) if states[state]), "completed")
    sign, style = MARKS[loud]
    first = places[0]
    return Text(sign, style), Text(clean(_indent(first) + first.node), "bold"), first.service, ", ".join(parts)


def _row(node: NodeView, now: datetime, counted: bool) -> Row:
    sign, style = mark(node)
    return (
        Text(sign, style),
        Text(clean(_indent(node) + name(node)), "bold"),
        node.service,
        Text(clean(words(node, now, counted)), style if style != "green" else ""),
    )


def _indent(node: NodeView) -> str:
    return "  " * len(node.inside)


def _detail(node: str, error: Failure) -> list[str]:
    return ["", clean(f"{node}: {error.type}"), *(f"  {clean(line)}" for line in error.detail.splitlines())]
