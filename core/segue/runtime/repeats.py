"""Saying again what was decided in a run that is looked at as a whole: it was lost, or nobody listened then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from segue.machine.facts import AnyFact, Fact, Placed, Repeat, Reset, State, Stop
from segue.machine.whole import renewed
from segue.plan.graph import EXIT
from segue.ports.store import CellKey
from segue.runtime.view import View
from segue.runtime.work import News
from segue.wire.envelope import Event

if TYPE_CHECKING:
    from segue.runtime.turn import Turn


class Seen(NamedTuple):
    """All that is recorded of a run here."""

    state: State
    facts: list[AnyFact]
    events: dict[CellKey, tuple[AnyFact, Event, bytes]]
    marks: Mapping[CellKey, bytes]


class Repeats:
    """What a turn says again.

    Args:
        turn: The turn.
    """

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._host = turn.host
        self._draft = turn.draft

    def all(self, view: View, seen: Seen, redrive: int) -> None:
        """The guard woke up, or somebody may have died: say everything that was decided here once more."""
        if self._said(view, redrive):
            return
        for fact, event, raw in seen.events.values():
            if isinstance(fact, Placed):
                continue
            if event.source != self._host.source and not self._adopted(view, fact):
                continue
            if isinstance(fact, Fact) and not self._turn.effects.said(view, fact):
                continue
            if isinstance(fact, Fact) and fact.key.node == EXIT and fact.revision != seen.state.revision:
                continue
            self._publish(view, fact, event, raw, redrive)

    def renew(self, view: View, seen: Seen) -> None:
        """After a reset: say again what reset nodes of others wait for."""
        for effect in renewed(view.run.plan, seen.state, view.mine):
            if isinstance(effect, Repeat):
                known = seen.events.get(view.run.cell(effect.key, effect.revision))
                if known is not None:
                    self._publish(view, *known, seen.state.revision)

    def because(self, view: View, seen: Seen) -> None:
        """An end is not told without the stops and resets that led to it, should whoever recorded them have died."""
        for fact, event, raw in seen.events.values():
            own = event.source == self._host.source
            if isinstance(fact, Stop | Reset) and (own or self._adopted(view, fact)):
                self._publish(view, fact, event, raw, 0)

    def _adopted(self, view: View, fact: AnyFact) -> bool:
        """Whether what others said is said again here: their placement is over, or the subflow that said it is."""
        flow = isinstance(fact, Fact) and view.run.plan.index.nodes[fact.key.node].kind == "flow"
        return (flow or view.run.epoch > 1) and self._host.placing.speaks(view, fact)

    def _said(self, view: View, redrive: int) -> bool:
        cell = view.run.noticed
        key = (cell.run, cell.node, cell.tag, cell.revision, int(cell.kind), redrive)
        if key in self._host.seen:
            return True
        self._draft.seen.append(key)
        return False

    def _publish(self, view: View, fact: AnyFact, event: Event, raw: bytes, redrive: int) -> None:
        news = News(view.run, fact, event, raw)
        news.redrive = redrive
        self._draft.publish(news)
