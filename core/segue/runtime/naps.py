"""Nodes that wait for time or for a signal (R8): they have a due row, a mark that says that they wait, or both.

A signal and its wait look for each other: the signal is recorded first and then asks who waits, the wait is marked
first and then asks what came before. Whoever of them is second finds the other, so an early signal is not lost.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from segue.machine.facts import Await, Effect, Key, Listen, Signal, Sleep
from segue.machine.scopes import revision as place_revision
from segue.machine.step import decide, inputs
from segue.ports.store import CellKind, Due
from segue.runtime.overdue import newest_end
from segue.runtime.placing import truth
from segue.runtime.view import View
from segue.runtime.work import News, RunRef
from segue.wire import envelope, requests
from segue.wire.envelope import Call
from segue.wire.said import fact_of

if TYPE_CHECKING:
    from segue.runtime.turn import Turn


class Naps:
    """The waiting nodes of a turn.

    Args:
        turn: The turn.
    """

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._host = turn.host
        self._draft = turn.draft

    async def begin(self) -> None:
        """Mark those that begin to wait, unless they did so before, and find signals that came too early for them."""
        naps, self._draft.naps = self._draft.naps, []
        if not naps:
            return
        marks = [run.mark(nap.key.node, nap.key.tag, nap.revision, CellKind.WAITING) for run, nap in naps]
        there = await self._host.insist(partial(self._host.store.load, marks))
        for (run, nap), mark in zip(naps, marks, strict=True):
            if mark not in there:
                self._draft.nap(run, nap)
        await self._turn.commit()
        listening = {
            run.place(Signal(nap.name, nap.slot, None)): (run, nap) for run, nap in naps if isinstance(nap, Listen)
        }
        if listening:
            kept = await self._host.insist(partial(self._host.store.load, list(listening)))
            for cell, raw in kept.items():
                run, nap = listening[cell]
                await self._look(self._turn.view(run), nap.key, nap.revision, signal=await self._signal(raw))

    async def signalled(self, news: News) -> None:
        """A signal has been recorded: who waits for it?"""
        assert isinstance(news.fact, Signal)
        view, slot = self._turn.view(news.run), news.fact.slot
        nodes = news.run.plan.index.nodes
        for mark, waits_for in (await self._turn.whole.read(view)).marks.items():
            node = nodes.get(mark.node)
            if mark.kind != CellKind.WAITING or node is None:
                continue
            if node.step == news.fact.name and requests.decode_nap(waits_for).slot == slot:
                await self._look(view, Key(mark.node, mark.tag), mark.revision, signal=news.fact)

    async def fired(self, row: Due, run: RunRef, call: Call) -> None:
        """The time of a waiting node has come."""
        view = self._turn.view(run)
        key = Key(call.node, call.tag)
        effect = await self._look(view, key, call.revision, due=True)
        if effect is None or not isinstance(effect, Await) or await self._over(view):
            self._draft.after.append(row.key)

    async def _over(self, view: View) -> bool:
        cells = await self._host.insist(partial(self._host.store.scan, [view.run.id]))
        return newest_end(truth(cells)) is not None

    async def _look(
        self, view: View, key: Key, revision: int, signal: Signal | None = None, due: bool = False
    ) -> Effect | None:
        """Decide a waiting node, and carry the decision out; None if it does not wait any more."""
        await self._turn.loads.notices([view])
        if view.noticed:
            state = (await self._turn.whole.read(view)).state
            if key.node not in view.mine:
                return None  # it was moved, and waits elsewhere
        else:
            await self._turn.loads.places(view, lambda: [key, *inputs(view.run.plan, view.state, key)])
            state = view.state
        if signal is not None:
            state = msgspec.structs.replace(state, signals={**state.signals, (signal.name, signal.slot): signal.value})
        if place_revision(view.run.plan, state.resets, key) != revision:
            return None
        effect = decide(view.run.plan, state, key, due)
        if not isinstance(effect, Await | Sleep | Listen):
            item = self._turn.effects.act(view, effect, 0)
            if item is not None:
                self._turn.later.append(item)
        return effect

    async def _signal(self, raw: bytes) -> Signal:
        fact = fact_of(await self._host.opened(envelope.decode(raw)))
        assert isinstance(fact, Signal)
        return fact
