"""Reading what a turn needs to know: outcomes, parked calls, counts, and whether a run has notices here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from segue.machine.facts import Fact, Key
from segue.machine.step import limited, wanted
from segue.plan.graph import ENTRY
from segue.ports.store import CellKey, CellKind, Join
from segue.runtime.view import View
from segue.runtime.work import News
from segue.wire import envelope
from segue.wire.said import fact_of

if TYPE_CHECKING:
    from segue.runtime.turn import Turn


_ENTRY = Key(ENTRY)


class Loader:
    """Reads for a turn.

    Args:
        turn: The turn.
    """

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._host = turn.host

    async def notices(self, views: Iterable[View]) -> None:
        """Learn whether runs have notices here."""
        asked: dict[CellKey, View] = {}
        for view in views:
            self.notice(view, asked)
        await self.load(asked)

    async def places(self, view: View, places: Callable[[], list[Key]]) -> None:
        """Load outcomes; `places` is asked again as long as what it names depends on what was loaded."""
        asked: set[Key] = set()
        while missing := [key for key in places() if key not in view.outcomes and key not in asked]:
            asked.update(missing)
            await self.load({view.run.cell(key): view for key in missing})

    def notice(self, view: View, asked: dict[CellKey, View]) -> None:
        """Ask whether a run has notices here, unless that is known."""
        if view.noticed is None:
            if view.run.id in self._host.noticed:
                view.noticed = True
            elif view.run.cell(_ENTRY) in self._turn.counted:
                view.noticed = False  # this turn has just made it a run, and who is not running is not stopped
            else:
                asked[view.run.noticed] = view

    def ask(self, view: View, item: News, fact: Fact, asked: dict[CellKey, View]) -> None:
        """What must be read before a fact can be heard.

        Facts are final, so those that this process recorded lately are at hand; only what may be absent is read. What
        rests on a fact that this turn recorded first is not recorded anywhere.
        """
        run = item.run
        first = item.cell in self._turn.counted
        if first and fact.key.node == ENTRY:
            return
        ups = run.plan.index.ups
        for key in wanted(run.plan, fact.key, view.mine):
            if key in view.known or key in view.news or (first and fact.key.node in ups[key.node]):
                continue
            cell = run.cell(key, fact.revision)
            view.known[key] = None
            if (known := self._host.facts.get(cell)) is not None:
                view.take(*known)
            else:
                asked[cell] = view
        if item.again and not first:
            if self._host.role.executes:
                # A call that may follow from it may have been parked when it was heard before.
                for node in run.plan.index.fed(view.mine)[fact.key.node]:
                    if run.plan.index.nodes[node].kind in ("step", "flow"):
                        asked[run.parking(Key(node, fact.key.tag), fact.revision)] = view
            counting = limited(run.plan, fact.key)
            if counting is not None:
                view.counts.setdefault(counting, -1)

    async def load(self, asked: dict[CellKey, View]) -> None:
        """Read cells into the views of their runs."""
        if not asked:
            return
        found = await self._host.insist(partial(self._host.store.load, asked))
        for key, raw in found.items():
            if key.kind == CellKind.PARKED:
                asked[key].parked.add(Key(key.node, key.tag))
            elif key.kind == CellKind.NOTICED:
                asked[key].noticed = True
            else:
                event = envelope.decode(raw)
                fact = fact_of(await self._host.opened(event))
                if isinstance(fact, Fact):
                    asked[key].take(fact, event, raw)
        for key, view in asked.items():
            if key.kind == CellKind.NOTICED and view.noticed is None:
                view.noticed = False

    async def counts(self, views: Iterable[View]) -> None:
        """Read the counts that were asked for: how many items of a limited map are over."""
        for view in views:
            joins = [Join(view.run.id, *key, 1) for key, count in view.counts.items() if count < 0]
            if joins:
                found = await self._host.insist(partial(self._host.store.tally, joins))
                view.counts |= {Key(join.node, join.tag): found.get(join, 0) for join in joins}
