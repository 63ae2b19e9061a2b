"""What people do to a run of a simulation: cancel it, hold it for a while, move it, retry it when it has ended."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import msgspec

from segue.plan.projection import Mode
from segue.runtime.placing import other
from segue.testing.sim.log import Said
from segue.wire.requests import Cancel, Done, Hold, Move, Reply, Retry

if TYPE_CHECKING:
    from segue.testing.sim.world import World


class Orders(msgspec.Struct, frozen=True):
    """What is asked of a run, and when, in virtual seconds.

    Attributes:
        cancel: When it is cancelled.
        hold: From when to when it is held.
        retries: How often it is retried after it has ended.
        chosen: Nodes (`name` or `name/tag`) that are run again with the first retry, whatever came of them.
        moves: When it is moved to the other mode, and how long after it got there back, and so on.
    """

    cancel: float | None = None
    hold: tuple[float, float] | None = None
    retries: int = 0
    chosen: tuple[str, ...] = ()
    moves: tuple[float, ...] = ()

    @classmethod
    def draw(cls, rng: random.Random, retries: int = 2) -> Orders:
        """Some of it, at times when much happens."""
        cancel = rng.choice((0.02, 0.1, 1.0, 30.0)) * rng.random() if rng.random() < 0.5 else None
        begin = rng.choice((0.02, 0.1, 1.0)) * rng.random()
        hold = (begin, begin + rng.choice((0.1, 10.0, 1000.0)) * rng.random()) if rng.random() < 0.3 else None
        return cls(cancel, hold, rng.randint(0, retries))


class Person:
    """Gives the orders.

    Args:
        world: The simulation.
        flow: The run's flow.
        run: The run.
        orders: What to ask.
    """

    def __init__(self, world: World, flow: str, run: str, orders: Orders) -> None:
        self._world = world
        self._flow = flow
        self._run = run
        self._orders = orders
        self._left = orders.retries
        self._ended: set[int] = set()
        world.log.listeners.append(self._heard)

    def begin(self) -> None:
        """The run was accepted."""
        ask, orders = self._world.clients.ask, self._orders
        mode = self._world.log.modes[self._run]
        if orders.moves:
            self._move(0, other(mode), orders.moves[0])
        if orders.cancel is not None:
            ask(self._flow, Cancel(self._run), orders.cancel)
        if orders.hold is not None:
            begin, end = orders.hold
            ask(
                self._flow, Hold(self._run, True), begin, lambda _: ask(self._flow, Hold(self._run, False), end - begin)
            )

    def _move(self, number: int, mode: Mode, after: float) -> None:
        def go_on(reply: Reply) -> None:
            changed = isinstance(reply, Done) and reply.changed
            if not changed and not (isinstance(reply, Done) and "moved" in reply.note):
                return  # it has ended
            left = self._orders.moves[number + changed :]
            if left:
                self._move(number + changed, other(mode) if changed else mode, left[0] if changed else 0.1)

        self._world.clients.ask(self._flow, Move(self._run, mode), after, go_on)

    def _heard(self, said: Said) -> None:
        event = said.event
        if event.run != self._run or event.kind != "ended" or event.revision in self._ended or not self._left:
            return
        self._ended.add(event.revision)
        chosen = self._orders.chosen if self._left == self._orders.retries else ()
        self._left -= 1
        ask, dice = self._world.clients.ask, self._world.dice

        def go_on(_: Reply) -> None:
            if self._orders.hold is not None:  # it may have ended while it was held, and still is
                ask(self._flow, Hold(self._run, False), dice.travel())

        ask(self._flow, Retry(self._run, chosen, event.revision), 100.0 * dice.rng.random() ** 3, go_on)
