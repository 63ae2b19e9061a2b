"""Where is order 4711? The one screen about a run, from the journal alone; the broker adds what waits in its queues."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from segue.errors import AmbiguousRun, SegueError, UnknownRun
from segue.machine.facts import ROOT
from segue.plan import graph
from segue.plan.graph import RUN, Plan
from segue.ports.journal import Journal, JournalEntry, RunRecord
from segue.ports.transport import Transport
from segue.runtime.tale import NodeView, Tale
from segue.runtime.values import Values
from segue.wire import envelope

__all__ = ["NodeView", "RunView", "find", "view", "where"]


class RunView(msgspec.Struct, frozen=True):
    """A run and its places, in plan order and then by item or round; gateways are left out.

    Attributes:
        run: The run.
        nodes: Its places.
        stop: Why its newest revision was stopped: `cancelled`, `failed`, `deadline` or `undone`; "" if it was not.
        unread: How many large values could not be read; what follows from them is not known here.
    """

    run: RunRecord
    nodes: tuple[NodeView, ...]
    stop: str = ""
    unread: int = 0


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


async def where(
    journal: Journal, text: str, transport: Transport | None = None, values: Values | None = None
) -> RunView:
    """Everything about one run.

    Args:
        journal: The history.
        text: A key, an id, or a unique fragment of either.
        transport: Asked how much waits for the services of open nodes, if given; may be down.
        values: Where large values are; what cannot be read is left out.

    Raises:
        UnknownRun: Nothing fits.
        AmbiguousRun: Several runs fit.
    """
    record = await find(journal, text)
    stored = await journal.plan(record.plan)
    if stored is None:
        raise UnknownRun(f"the journal has run {record.run} but not its plan {record.plan}")
    entries = await journal.history(record.run)
    if values is not None:
        entries = [await _whole(values, entry) for entry in entries]
    tale = Tale(graph.load(stored), entries)
    nodes = tuple(tale.nodes())
    if transport is not None:
        nodes = await _backlogs(nodes, transport, record.mode)
    state = tale.history.state
    return RunView(record, nodes, state.stops.get((RUN, ROOT, state.revision), ""), tale.unread)


def view(plan: Plan, entries: Sequence[JournalEntry]) -> tuple[NodeView, ...]:
    """Every place of a run as the journal's entries show it."""
    return tuple(Tale(plan, entries).nodes())


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


async def _whole(values: Values, entry: JournalEntry) -> JournalEntry:
    """An entry with its data, wherever that is."""
    if b'"dataref"' not in entry.body:
        return entry
    try:
        event = await values.open(envelope.decode(entry.body))
    except SegueError:
        return entry
    return entry._replace(body=envelope.encode(msgspec.structs.replace(event, dataref="")))


def _canonical(text: str) -> str:
    """Run ids may be written with dashes."""
    bare = text.replace("-", "").lower()
    return bare if len(bare) == 32 and all(letter in "0123456789abcdef" for letter in bare) else text
