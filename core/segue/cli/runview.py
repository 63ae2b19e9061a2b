"""A run on one screen: the same in both modes, which differ in one word of the header."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Literal

from rich.text import Text

from segue.cli.screen import clean, clock, count, span, table
from segue.machine.facts import Failure
from segue.plan.graph import ENTRY
from segue.runtime.where import NodeView, RunView

Broker = Literal["reachable", "unreachable", "not asked"]

_MARKS = {
    "completed": ("✔", "green"),
    "skipped": ("-", "dim"),
    "failed": ("✖", "bold red"),
    "aborted": ("⊘", "dim"),
    "cancelled": ("⊘", "dim"),
    "open": ("…", "yellow"),
    "waiting": ("·", "dim"),
}
_STYLES = {"completed": "bold green", "failed": "bold red", "cancelled": "bold", "running": "bold yellow"}
_QUIET = ("completed", "skipped", "waiting")
_BACKING_OFF = ("↻", "yellow")
_NAMED = 6
_LONGEST = 300


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
    nodes = view.nodes
    hidden: Counter[str] = Counter()
    if limit is not None and len(nodes) > limit:
        hidden = Counter(node.state for node in nodes if node.state in _QUIET)
        nodes = tuple(node for node in nodes if node.state not in _QUIET)
    lines: list[Text | str] = [_header(view, now)]
    rows = [_row(node, now, broker == "reachable") for node in nodes]
    lines += [Text("  ").append_text(line) for line in (table((), rows) if rows else [])]
    if hidden:
        lines.append("  " + ", ".join(f"{number:,} {state}" for state, number in hidden.items()) + "; --all shows them")
    if traceback:
        lines += [line for node in nodes if node.error is not None for line in _detail(node.node, node.error)]
    if broker == "unreachable":
        lines += ["", clean(f"broker unreachable at {url}: backlog unknown")]
    return lines


def _header(view: RunView, now: datetime) -> Text:
    run = view.run
    line = Text().append(clean(f"{run.flow}/{run.key}" if run.key else run.flow), "bold")
    line.append("  ").append(clean(run.status), _STYLES.get(run.status, "bold"))
    if run.started is not None:
        if run.ended is not None:
            line.append(f" after {span((run.ended - run.started).total_seconds())}, at {clock(run.ended, now)}")
        else:
            line.append(f" for {span((now - run.started).total_seconds())}")
    return line.append(clean(f"   {run.mode}   plan {run.plan[:12]}   run {run.run}"))


def _row(node: NodeView, now: datetime, counted: bool) -> tuple[Text | str, ...]:
    backing_off = node.state == "open" and node.error is not None
    mark, style = _BACKING_OFF if backing_off else _MARKS[node.state]
    words = clean(_words(node, now, counted))
    return (
        Text(mark, style),
        Text(clean(node.node), "bold"),
        node.service,
        Text(words, style if style != "green" else ""),
    )


def _words(node: NodeView, now: datetime, counted: bool) -> str:
    if node.state == "completed":
        took = span(node.seconds) if node.seconds is not None else "done"
        return f"{took}, attempt {node.attempts}" if node.attempts > 1 else took
    if node.state == "failed":
        tries = f"failed in attempt {node.attempts}" if node.attempts > 1 else "failed"
        at = f" at {clock(node.ended, now)}" if node.ended is not None else ""
        return f"{tries}{at}: {_error(node.error)}" if node.error is not None else f"{tries}{at}"
    if node.state == "open":
        return _backing_off(node, now) if node.error is not None else _unanswered(node, now, counted)
    if node.state == "waiting":
        return f"waits for {_names(node.waits_for)}" if node.waits_for else "waits"
    causes = _names(tuple(dict.fromkeys(cause.node for cause in node.causes)))
    verb = "failed" if node.state == "aborted" else "was cancelled"
    return f"{node.state} because {causes} {verb}" if causes and node.state != "skipped" else node.state


def _unanswered(node: NodeView, now: datetime, counted: bool) -> str:
    text = f"{node.service} has not answered"
    if node.since is not None:
        text += f" for {span((now - node.since).total_seconds())}"
    if counted and node.backlog is not None:
        text += f"; {count(node.backlog, 'message')} {'waits' if node.backlog == 1 else 'wait'} for it"
    return text


def _backing_off(node: NodeView, now: datetime) -> str:
    attempt = f"attempt {node.attempts} of {node.of}" if node.of else f"attempt {node.attempts}"
    at = f" at {clock(node.began, now)}" if node.began is not None else ""
    text = f"{attempt}{at} failed: {_error(node.error)}"
    if node.next is None:
        return text
    late = (now - node.next).total_seconds()
    return f"{text}; next {clock(node.next, now)}" + (f", due {span(late)} ago" if late > 1 else "")


def _error(error: Failure | None) -> str:
    if error is None:
        return "unknown"
    text = f"{error.type}: {error.message}" if error.message else error.type
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def _detail(node: str, error: Failure) -> list[str]:
    return ["", clean(f"{node}: {error.type}"), *(f"  {clean(line)}" for line in error.detail.splitlines())]


def _names(nodes: tuple[str, ...]) -> str:
    shown = [("the start" if node == ENTRY else node) for node in nodes[:_NAMED]]
    rest = len(nodes) - len(shown)
    return ", ".join(shown) + (f" and {rest:,} more" if rest else "")
