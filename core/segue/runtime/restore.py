"""Makes a store good that was restored from a backup: what the journal knows is folded into its cells.

Every fact that a participant published, and the observer wrote, is recorded again as it was, by put-if-absent: results
of its steps, its decisions, what it waits for, notices; at a home the keys and the guards of open runs too. Nothing is
decided and nothing is said: the guards see to that when the participant serves again.

Not in the journal, and so begun anew: time that a wait or sleep had already waited since the backup, attempts of a step
that had not ended, calls that were sent and have no result.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import anyio.lowlevel
import msgspec

from segue.errors import InvalidInput, StoreError
from segue.machine.facts import Fact, Reset, Stop, Undone
from segue.plan import graph
from segue.plan.graph import ENTRY, EXIT, Plan
from segue.plan.projection import Mode, holder
from segue.ports.journal import Journal, JournalEntry, RunRecord
from segue.ports.store import CellKind, Due
from segue.runtime.marks import Marks
from segue.runtime.turn import Turn
from segue.runtime.view import View
from segue.runtime.work import News, RunRef
from segue.wire import envelope
from segue.wire.said import is_notice

if TYPE_CHECKING:
    from segue.runtime.participant import Participant

log = logging.getLogger("segue.restore")

RUNS = 100
"""Runs that are read from the journal at a time."""

CELLS = 2_000
"""Cells of one commit."""

_LAST = "f" * 32


class Restored(msgspec.Struct, frozen=True):
    """What came of it: runs of the journal that concern the participant, and facts of them that were missing."""

    runs: int = 0
    facts: int = 0
    missing: int = 0


async def restore(host: Participant, journal: Journal) -> Restored:
    """Fold the journal into a participant's store, and let it count as current.

    Args:
        host: The participant; it must not be serving, here or elsewhere.
        journal: The history; the observer must have written all that was published.

    Raises:
        StoreError: A plan is neither in the registry nor in the journal; the store does not count as current then.
        TransportUnavailable: The mark could not be told; do it again.
    """
    marks = Marks(host)
    await marks.find()
    after, runs, facts, missing = "", 0, 0, 0
    while records := await journal.oldest(after, _LAST, RUNS):
        for record in records:
            known, fresh = await _fold(host, journal, record)
            runs += bool(known)
            facts += known
            missing += fresh
        after = records[-1].run
    await marks.accept()
    return Restored(runs, facts, missing)


async def _fold(host: Participant, journal: Journal, record: RunRecord) -> tuple[int, int]:
    """Record what concerns the participant of a run; how many facts that are, and how many were missing."""
    entries = await journal.history(record.run)
    turn = Turn(host)
    news: list[News] = []
    for entry in entries:
        item = await _news(turn, journal, record, entry)
        if item is not None and _keeps(turn, item):
            news.append(item)
    if not news:
        return 0, 0
    await _at_home(turn, news)
    draft = turn.draft
    for item in sorted(news, key=lambda item: not isinstance(item.fact, Stop)):
        there = draft.cells.get(item.cell)
        if there is not None and there[1] is not None and isinstance(there[1].fact, Stop):
            # A stopped region: what came of its exit is beside that, where it was decided.
            if not isinstance(item.fact, Fact) or item.fact.key.node not in turn.view(item.run).mine:
                continue
            item.cell = item.cell._replace(kind=CellKind.END)
        draft.keep(item)
        if is_notice(item.fact) and turn.view(item.run).mine:
            draft.mark(item.run.noticed)
    cells = [cell for cell, _ in draft.cells.values()]
    lost = 0
    for first in range(0, len(cells), CELLS):
        some = cells[first : first + CELLS]
        due = list(draft.due.values()) if first + CELLS >= len(cells) else []
        found = await host.insist(partial(host.store.commit, some, due=due))
        lost += len(found.lost)
        await anyio.lowlevel.checkpoint()
    return len(cells), len(cells) - lost


async def _news(turn: Turn, journal: Journal, record: RunRecord, entry: JournalEntry) -> News | None:
    try:
        event = envelope.decode(entry.body)
    except InvalidInput as error:
        log.warning("an event of run %s is left out: %s", record.run, error.message)
        return None
    plan = await _plan(turn.host, journal, event.plan)
    mode: Mode = "choreographed" if record.mode == "choreographed" else "orchestrated"
    run = RunRef(event.run, plan, mode, event.key or record.key)
    item = await turn.news(run, event, entry.body)
    unknown = item is not None and isinstance(item.fact, Fact) and item.fact.key.node not in plan.index.nodes
    return None if unknown else item


async def _plan(host: Participant, journal: Journal, name: str) -> Plan:
    found = await host.catalog.plan(name)
    if found is None:
        text = await journal.plan(name)
        if text is None:
            raise StoreError(f"plan {name} is neither in the registry nor in the journal", "deploy it again")
        found = host.catalog.plans[name] = graph.load(text)
    return found


def _keeps(turn: Turn, item: News) -> bool:
    """Whether the participant records a fact: decided, heard or executed here."""
    fact, host, nodes = item.fact, turn.host, item.run.plan.index.nodes
    if isinstance(fact, Fact | Undone) and host.role.executes:
        node = nodes.get(fact.key.node)
        if node is not None and node.kind == "step" and node.owner == host.name:
            return not (isinstance(fact, Undone) and fact.error)
    view: View = turn.view(item.run)
    return bool(view.mine) and view.keeps(fact)


async def _at_home(turn: Turn, news: Sequence[News]) -> None:
    """At a run's home: bind its key; and if it is open, it has a guard."""
    host, run = turn.host, news[0].run
    if holder(run.plan, run.mode) != host.name:
        return
    started = [item for item in news if isinstance(item.fact, Fact) and item.fact.key.node == ENTRY]
    if not started:
        return
    event = started[0].event
    if event.key:
        await host.insist(partial(host.store.bind, event.flow, [(event.key, run.id)]))
    revision = max((item.fact.revision for item in news if isinstance(item.fact, Reset)), default=1)
    ends = {item.fact.revision for item in news if isinstance(item.fact, Fact) and item.fact.key.node == EXIT}
    if revision not in ends:
        # How often the guard went off before is forgotten, and a redrive that others have heard already is passed over.
        guard, now = run.guard(revision), turn.draft.now.timestamp()
        turn.draft.due[guard] = Due(guard, now, int(now), b"")
