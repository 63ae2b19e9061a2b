"""Where is order 4711? The one screen about a run, from the journal alone; the broker adds what waits in its queues."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from segue.errors import AmbiguousRun, SegueError, UnknownRun
from segue.machine.facts import Cause, Failure, Outcome
from segue.machine.history import NodeState, NodeStatus, fold
from segue.plan import graph
from segue.plan.graph import ENTRY, EXIT, Plan
from segue.ports.journal import Journal, JournalEntry, RunRecord
from segue.ports.transport import Transport
from segue.wire import envelope
from segue.wire.envelope import Event, Retrying


class NodeView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A node of a run, for people and programs.

    Attributes:
        node: Its name in the plan.
        service: Who owns it.
        kind: What it is.
        state: `open` means: its inputs are there and its service has not answered.
        outcome: Its outcome, if it is final.
        attempts: Attempts that are known of.
        began: When the last known attempt began.
        ended: When its outcome was published.
        seconds: How long the last attempt took.
        since: Since when it is open.
        error: Of a failure, or of the last failed attempt.
        next: When the next attempt is due.
        of: How many attempts its retry policy allows.
        waits_for: Inputs that are missing.
        causes: Where a dead path began.
        backlog: Messages that wait for its service, if the broker was asked.
    """

    node: str
    service: str
    kind: str
    state: NodeState
    outcome: Outcome | None = None
    attempts: int = 0
    began: datetime | None = None
    ended: datetime | None = None
    seconds: float | None = None
    since: datetime | None = None
    error: Failure | None = None
    next: datetime | None = None
    of: int = 0
    waits_for: tuple[str, ...] = ()
    causes: tuple[Cause, ...] = ()
    backlog: int | None = None


class RunView(msgspec.Struct, frozen=True):
    """A run and all nodes of its plan, in plan order, gateways of the run left out."""

    run: RunRecord
    nodes: tuple[NodeView, ...]


class Times(msgspec.Struct):
    """What events say of one node."""

    last: Event | None = None
    failed: Event | None = None


async def find(journal: Journal, text: str) -> RunRecord:
    """The run that a key, id, or unique fragment of either names.

    Raises:
        UnknownRun: None does.
        AmbiguousRun: Several do.
    """
    found = await journal.find(_canonical(text))
    if not found:
        raise UnknownRun(
            f"no run has the key or id {text!r}, or a part of it",
            "list runs with `segue runs`; is an observer running?",
        )
    if len(found) > 1:
        names = ", ".join(f"{run.flow}/{run.key or run.run}" for run in found[:5])
        raise AmbiguousRun(f"{text!r} fits {len(found)} runs or more: {names}", "give a longer part of the key or id")
    return found[0]


async def where(journal: Journal, text: str, transport: Transport | None = None) -> RunView:
    """Everything about one run.

    Args:
        journal: The history.
        text: A key, an id, or a unique fragment of either.
        transport: Asked how much waits for the services of open nodes, if given; may be down.

    Raises:
        UnknownRun: Nothing fits.
        AmbiguousRun: Several runs fit.
    """
    record = await find(journal, text)
    stored = await journal.plan(record.plan)
    if stored is None:
        raise UnknownRun(f"the journal has run {record.run} but not its plan {record.plan}")
    nodes = view(graph.load(stored), await journal.history(record.run))
    if transport is not None:
        nodes = await _backlogs(nodes, transport, record.mode)
    return RunView(record, nodes)


def view(plan: Plan, entries: Sequence[JournalEntry]) -> tuple[NodeView, ...]:
    """Every node of a plan as the journal's entries of a run show it."""
    times: dict[str, Times] = {}
    facts = []
    for entry in entries:
        event = envelope.decode(entry.body)
        seen = times.setdefault(event.node if event.kind != "started" else ENTRY, Times())
        fact = envelope.fact_of(event)
        if fact is not None:
            facts.append(fact)
            if event.kind != "ended":
                seen.last = event
        elif seen.failed is None or event.attempt > seen.failed.attempt:
            seen.failed = event
    states = fold(plan, facts)
    return tuple(_node(plan, states[node.id], times) for node in plan.nodes if node.id not in (ENTRY, EXIT))


def _node(plan: Plan, status: NodeStatus, times: dict[str, Times]) -> NodeView:
    node = plan.index.nodes[status.node]
    seen = times.get(node.id, Times())
    last, failed = seen.last, seen.failed
    causes = status.outcome.causes if status.outcome is not None else ()
    error, following, of = None, None, 0
    if status.state == "failed":
        error = causes[0].error if causes else None
    elif failed is not None and last is None:
        retrying = msgspec.json.decode(failed.data, type=Retrying)
        error, following, of = retrying.error, retrying.next, retrying.of
    began = last.began if last is not None else failed.began if failed is not None else None
    ended = last.time if last is not None else None
    ups = [times[up].last for up in plan.index.ups[node.id] if up in times]
    heard = [event.time for event in ups if event is not None]
    return NodeView(
        node=node.id,
        service=node.owner,
        kind=node.kind,
        state=status.state,
        outcome=status.outcome,
        attempts=last.attempt if last is not None else failed.attempt if failed is not None else 0,
        began=began,
        ended=ended,
        seconds=(ended - began).total_seconds() if ended and began else None,
        since=max(heard) if status.state == "open" and heard else None,
        error=error,
        next=following,
        of=of,
        waits_for=status.waits_for,
        causes=causes if status.state != "failed" else (),
    )


async def _backlogs(nodes: tuple[NodeView, ...], transport: Transport, mode: str) -> tuple[NodeView, ...]:
    counts: dict[str, int | None] = {}
    for service in {node.service for node in nodes if node.state == "open"}:
        try:
            backlog = await transport.backlog("events" if mode == "choreographed" else "commands", service)
        except SegueError:
            backlog = None
        counts[service] = backlog.waiting + backlog.delivered if backlog is not None else None
    return tuple(
        msgspec.structs.replace(node, backlog=counts.get(node.service)) if node.state == "open" else node
        for node in nodes
    )


def _canonical(text: str) -> str:
    """Run ids may be written with dashes."""
    bare = text.replace("-", "").lower()
    return bare if len(bare) == 32 and all(letter in "0123456789abcdef" for letter in bare) else text
