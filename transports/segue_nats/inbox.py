"""Answers: one subscription for everything that comes back, be it acks of published messages or replies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from secrets import token_hex
from typing import TypeAlias

from nats.aio.msg import Msg

Handler: TypeAlias = Callable[[str, Msg | None], None]
"""Called once with the reply subject and the answer; None if the connection was lost before it came."""


class Inbox:
    """Open questions by reply subject.

    Args:
        prefix: Subject under which answers arrive; nobody else's.
    """

    def __init__(self, prefix: str) -> None:
        self.pattern = f"{prefix}.*"
        self._prefix = prefix
        self._waiting: dict[str, Handler] = {}
        self._full: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def subject(self) -> str:
        """A reply subject that was not used before, and that nobody can foretell.

        Whoever answers us learns the prefix, and may publish wherever answers are wanted.
        """
        return f"{self._prefix}.{token_hex(8)}"

    def expect(self, subject: str, handler: Handler) -> None:
        """Call `handler` with the next answer on `subject`."""
        self._waiting[subject] = handler

    def forget(self, subjects: Iterable[str]) -> None:
        """Ignore answers on these subjects."""
        for subject in subjects:
            self._waiting.pop(subject, None)
        self._make_room()

    async def room(self, limit: int) -> None:
        """Wait until fewer than `limit` answers are awaited."""
        while len(self._waiting) >= limit:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._full.append(waiter)
            await waiter

    async def deliver(self, message: Msg) -> None:
        """An answer came."""
        handler = self._waiting.pop(message.subject, None)
        if handler is not None:
            handler(message.subject, message)
        if self._full:
            self._make_room()

    def lost(self) -> None:
        """The connection was lost: what was asked on it stays unanswered."""
        waiting, self._waiting = self._waiting, {}
        for subject, handler in waiting.items():
            handler(subject, None)
        self._make_room()

    def _make_room(self) -> None:
        full, self._full = self._full, []
        for waiter in full:
            if not waiter.done():
                waiter.set_result(None)
