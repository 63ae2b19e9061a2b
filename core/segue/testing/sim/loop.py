"""An asyncio event loop of virtual time: what sleeps in it lets the simulation's time pass, and takes none."""

from __future__ import annotations

import asyncio
import contextvars
import selectors
from collections.abc import Callable
from typing import TypeVarTuple, Unpack

from segue.testing.sim.timeline import Timeline

Given = TypeVarTuple("Given")


class _Idle(selectors.DefaultSelector):
    """Stops the loop instead of waiting."""

    loop: SimLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            self.loop.stop()
        return super().select(0)


class SimLoop(asyncio.SelectorEventLoop):
    """Runs coroutines of the world outside: nothing moves but when the timeline says so.

    Args:
        timeline: The time.
    """

    def __init__(self, timeline: Timeline) -> None:
        idle = _Idle()
        super().__init__(idle)
        idle.loop = self
        self._timeline = timeline

    def time(self) -> float:
        """Virtual seconds."""
        return self._timeline.now

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Given]], object],
        *args: *Given,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Let something happen at a time: the timeline must stop there."""
        self._timeline.at(when, self.pump)
        return super().call_at(when, callback, *args, context=context)

    def pump(self) -> None:
        """Run everything that need not wait."""
        if not self.is_closed():
            self.run_forever()
