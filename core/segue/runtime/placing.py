"""Where a run is decided now (R13), as seen in a turn.

A run that was moved has a cell for each epoch, and the newest one counts, not the subject on which something was heard.
It is noticed, so it is looked at as a whole, and every look reads its cells first. What carries a newer epoch than the
newest one here comes from a move that has not got here yet: it is kept, and nothing is decided.

A participant that was overtaken by a move in the middle of a turn has recorded facts that nobody asked for, but it must
neither say them nor call anything: what is handed over was read after the move was recorded, so whoever records first
and then finds no move knows that all he did is handed over. That is the fence (`rivals.overtaken`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from segue.machine.facts import AnyFact, Fact, Key, Placed, Stop, Token, Undone
from segue.plan.graph import ENTRY, RUN, Plan
from segue.plan.projection import COORDINATOR, Mode, holder
from segue.ports.store import CellKey, CellKind
from segue.runtime.view import View
from segue.runtime.work import News, RunRef, mark
from segue.wire import envelope
from segue.wire.said import fact_of

if TYPE_CHECKING:
    from segue.runtime.participant import Participant
    from segue.runtime.turn import Turn

log = logging.getLogger("segue.placing")

_NOBODY: frozenset[str] = frozenset()


class Overtaken(Exception):
    """A run was moved while a turn went on with it: the turn's inputs are taken again."""


def other(mode: Mode) -> Mode:
    """The other mode."""
    return "choreographed" if mode == "orchestrated" else "orchestrated"


def newest(facts: Iterable[AnyFact]) -> Placed | None:
    """Where a run is decided now; None if it was never moved."""
    return max((fact for fact in facts if isinstance(fact, Placed)), default=None)


def placement(cells: Mapping[CellKey, bytes]) -> Placed | None:
    """`newest`, from the cells of a run."""
    found = max((cell for cell in cells if cell.kind == CellKind.PLACED), key=lambda cell: cell.revision, default=None)
    fact = None if found is None else fact_of(envelope.decode(cells[found]))
    return fact if isinstance(fact, Placed) else None


def truth(cells: Mapping[CellKey, bytes]) -> Mapping[CellKey, bytes]:
    """The cells of a run, with what counts instead of what was recorded by who had been overtaken by a move."""
    better = [cell for cell in cells if cell.kind == CellKind.CORRECTED]
    if not better:
        return cells
    found = {cell: raw for cell, raw in cells.items() if cell.kind != CellKind.CORRECTED}
    for cell in better:
        node, _, kind = cell.node.rpartition(":")
        found[cell._replace(node=node, kind=CellKind(int(kind)))] = cells[cell]
    return found


def corrected(cell: CellKey) -> CellKey:
    """Where it is recorded what counts instead of a cell."""
    return cell._replace(node=f"{cell.node}:{cell.kind:d}", kind=CellKind.CORRECTED)


def moved(run: str, epoch: int, who: str = "") -> CellKey:
    """Where a grantor records that somebody, or (`who` empty) everybody has got a run that it moved."""
    return CellKey(run, f"{RUN}:moved", who, epoch, CellKind.SENT)


def waits(plan: Plan, cells: Mapping[CellKey, bytes], run: str, to: Placed) -> tuple[str, ...]:
    """Who has not got a run yet that is being moved; whoever answers for it from then on gets it last."""
    last = holder(plan, to.mode)
    first = tuple(name for name in plan.index.services if name != last and moved(run, to.epoch, name) not in cells)
    return first or (() if moved(run, to.epoch, last) in cells else (last,))


def standing(plan: Plan, host: Participant, run: str, cells: Mapping[CellKey, bytes]) -> tuple[bool, Placed | None]:
    """Whether a participant answers for a run, and where the run is being moved to from here.

    Args:
        plan: The run's plan.
        host: The participant.
        run: The run's id.
        cells: What it has of the run.
    """
    now, name = placement(cells), host.name
    if now is None:
        mode: Mode = "orchestrated" if name == COORDINATOR else "choreographed"
        return holder(plan, mode) == name and accepted(host, run, cells), None
    if holder(plan, now.mode) == name:
        return True, None
    if holder(plan, other(now.mode)) == name and moved(run, now.epoch) not in cells:
        return True, now
    return False, None


def accepted(host: Participant, run: str, cells: Mapping[CellKey, bytes]) -> bool:
    """Whether a run that has no placement here was started here: a move may have brought a part of it."""
    raw = cells.get(CellKey(run, *Key(ENTRY), 1, CellKind.OUTCOME))
    return raw is not None and envelope.decode(raw).source == host.source


class Placing:
    """The placements of runs, on behalf of a participant.

    Args:
        host: The participant.
    """

    def __init__(self, host: Participant) -> None:
        self._host = host

    def place(self, view: View, now: Placed | None) -> None:
        """Let a run be decided where its cells say, which have just been read."""
        epoch = 1 if now is None else now.epoch
        if now is not None:
            view.run = view.run._replace(mode=now.mode, epoch=now.epoch)
            self.note(view.run.id)
        mine = self._host.role.mine(view.run.plan, view.run.mode)
        view.mine = mine if epoch >= view.ahead else _NOBODY

    def note(self, run: str) -> None:
        """Remember that a run was moved, so that it is looked at as a whole whatever its mode was."""
        self._host.moved.add([(run, None)])
        self._host.noticed.add([(run, True)])

    async def runs(self, runs: Iterable[RunRef]) -> dict[str, RunRef]:
        """Those of the runs that were moved, with their placement as of now."""
        asked = {run.noticed: run for run in runs}
        found: dict[str, RunRef] = {}
        if not asked:
            return found
        store = self._host.store
        for cell in await self._host.insist(partial(store.load, list(asked))):
            now = placement(await self._host.insist(partial(store.scan, [cell.run])))
            if now is not None:
                self.note(cell.run)
                found[cell.run] = asked[cell]._replace(mode=now.mode, epoch=now.epoch)
        return found

    def forward(self, turn: Turn, view: View, items: list[News]) -> None:
        """Say what was said, or heard, under a former placement to those who listen now.

        That is what services and subflows came to, where it was decided before what follows; all else was handed over.
        """
        nodes = view.run.plan.index.nodes
        mine = view.mine | self._host.role.mine(view.run.plan, other(view.run.mode))
        for item in items:
            if item.run.mode == view.run.mode or not isinstance(item.fact, Fact | Undone):
                continue
            if item.fact.key.node not in mine or nodes[item.fact.key.node].kind not in ("step", "flow"):
                continue
            if mark(item.cell, item.redrive) in self._host.seen:
                continue
            event = msgspec.structs.replace(item.event, epoch=view.run.epoch)
            news = News(view.run, item.fact, event, envelope.encode(event))
            news.redrive = item.redrive
            turn.draft.publish(news)

    def speaks(self, view: View, fact: AnyFact) -> bool:
        """Whether a fact that somebody else decided before a move is said again by who decides its node now."""
        if isinstance(fact, Undone) and not self._host.role.executes:
            return False  # only services listen for it
        if isinstance(fact, Fact | Token | Undone):
            return fact.key.node in view.mine
        if isinstance(fact, Stop) and fact.scope != RUN:
            return view.run.plan.index.regions[fact.scope].construct in view.mine
        return ENTRY in view.mine
