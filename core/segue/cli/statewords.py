"""What the screen says of a place: its mark, and a few words."""

from __future__ import annotations

from datetime import datetime

from segue.cli.screen import clock, count, span
from segue.machine.facts import Failure
from segue.plan.graph import ENTRY
from segue.runtime.tale import NodeView

MARKS = {
    "completed": ("✔", "green"),
    "skipped": ("-", "dim"),
    "failed": ("✖", "bold red"),
    "aborted": ("⊘", "dim"),
    "cancelled": ("⊘", "dim"),
    "open": ("…", "yellow"),
    "running": ("…", "yellow"),
    "sleeping": ("z", "yellow"),
    "waiting_signal": ("?", "yellow"),
    "waiting": ("·", "dim"),
    "paused": ("=", "yellow"),
    "stopping": ("⊘", "yellow"),
    "compensating": ("↶", "yellow"),
    "undo_failed": ("✖", "bold red"),
    "undone": ("↶", "dim"),
}
BACKING_OFF = ("↻", "yellow")
_NAMED = 6
_LONGEST = 300


def mark(node: NodeView) -> tuple[str, str]:
    """The mark of a place, and its style."""
    return BACKING_OFF if node.state == "open" and node.error is not None else MARKS[node.state]


def words(node: NodeView, now: datetime, counted: bool) -> str:
    """What a place is doing, or what came of it.

    Args:
        node: The place.
        now: The time; its zone is the one that times are shown in.
        counted: Whether the broker was asked how much waits.
    """
    match node.state:
        case "completed":
            return _construct_done(node) if node.total else _done(node)
        case "failed":
            return _failed(node, now)
        case "open":
            return _backing_off(node, now) if node.error is not None else _unanswered(node, now, counted)
        case "running":
            return _running(node, now)
        case "sleeping":
            return f"sleeps until {clock(node.next, now)}" if node.next is not None else "sleeps"
        case "waiting_signal":
            return _waiting(node, now)
        case "waiting":
            return f"waits for {names(node.waits_for)}" if node.waits_for else "waits"
        case "paused":
            return "is held, unless it had begun: the run is paused"
        case "stopping":
            return f"is stopped; {node.service} has not said whether it had begun"
        case "compensating":
            return f"undo: {_backing_off(node, now)}" if node.error is not None else "is being undone"
        case "undo_failed":
            return f"cannot be undone: {_error(node.error)}"
    return _ended(node)


def _done(node: NodeView) -> str:
    took = span(node.seconds) if node.seconds is not None else "done"
    return f"{took}, attempt {node.attempts}" if node.attempts > 1 else took


def _construct_done(node: NodeView) -> str:
    if node.kind == "race":
        won = ", ".join(str(winner + 1) for winner in node.outcome.winners) if node.outcome is not None else ""
        return f"won by branch {won}"
    return count(node.done, "round" if node.kind == "repeat" else "item")


def _failed(node: NodeView, now: datetime) -> str:
    text = f"failed in attempt {node.attempts}" if node.attempts > 1 else "failed"
    if node.ended is not None:
        text += f" at {clock(node.ended, now)}"
    return f"{text}: {_error(node.error)}" if node.error is not None else text


def _unanswered(node: NodeView, now: datetime, counted: bool) -> str:
    text = f"run {node.child} has not ended" if node.child else f"{node.service} has not answered"
    text += _for(node, now)
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


def _running(node: NodeView, now: datetime) -> str:
    if node.kind == "repeat":
        text = f"round {min(node.done + 1, node.total)} of {node.total} at most"
        return f"{text}; next at {clock(node.next, now)}" if node.next is not None else text + _for(node, now)
    if node.kind == "attempt":
        return f"under way{_for(node, now)}{_until(node, now)}"
    what = "items" if node.kind == "each" else "branches"
    return f"{node.done:,} of {node.total:,} {what} over{_for(node, now)}"


def _waiting(node: NodeView, now: datetime) -> str:
    which = f" for {node.slot!r}" if node.slot and node.slot != node.tag else ""
    return f"waits for signal {node.signal!r}{which}{_for(node, now, 'since')}{_until(node, now)}"


def _for(node: NodeView, now: datetime, word: str = "for") -> str:
    if node.since is None:
        return ""
    return f" since {clock(node.since, now)}" if word == "since" else f" for {span((now - node.since).total_seconds())}"


def _until(node: NodeView, now: datetime) -> str:
    return f", until {clock(node.next, now)}" if node.next is not None else ""


def _ended(node: NodeView) -> str:
    causes = names(tuple(dict.fromkeys(cause.node for cause in node.causes if cause.node != node.node)))
    verb = "failed" if node.state == "aborted" else "was cancelled"
    return f"{node.state} because {causes} {verb}" if causes and node.state in ("aborted", "cancelled") else node.state


def _error(error: Failure | None) -> str:
    if error is None:
        return "unknown"
    text = f"{error.type}: {error.message}" if error.message else error.type
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def names(nodes: tuple[str, ...]) -> str:
    """Names of nodes, a few of many."""
    shown = [("the start" if node == ENTRY else node) for node in nodes[:_NAMED]]
    rest = len(nodes) - len(shown)
    return ", ".join(shown) + (f" and {rest:,} more" if rest else "")
