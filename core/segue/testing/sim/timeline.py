"""Virtual time: what is to happen, in order. Nothing waits: time jumps to the next thing that happens."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

EPOCH = 1_790_000_000.0
"""The wall clock's time at the beginning, in seconds since 1970."""


class Timeline:
    """Things to happen.

    Attributes:
        now: Seconds since the beginning.
        steps: Things that happened.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = count()

    def after(self, seconds: float, action: Callable[..., None], *args: Any) -> None:
        """Let something happen in some seconds."""
        heapq.heappush(self._queue, (self.now + seconds, next(self._number), action, args))

    def at(self, when: float, action: Callable[..., None], *args: Any) -> None:
        """Let something happen at a time, or now if that is over."""
        heapq.heappush(self._queue, (max(when, self.now), next(self._number), action, args))

    def step(self) -> bool:
        """Let the next thing happen; False if there is none."""
        if not self._queue:
            return False
        self.now, _, action, args = heapq.heappop(self._queue)
        self.steps += 1
        action(*args)
        return True
