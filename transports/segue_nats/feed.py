"""Plumbing between callbacks and `async for`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import anyio

T = TypeVar("T")


class Feed(Generic[T]):
    """An endless iterator over what is put into it."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[T] = asyncio.Queue()

    def put(self, item: T) -> None:
        """Add an item; never blocks."""
        self._queue.put_nowait(item)

    def __aiter__(self) -> Feed[T]:
        return self

    async def __anext__(self) -> T:
        return await self._queue.get()


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `work` beside the block and cancel it at its end.

    A task group would wrap the block's own exceptions in a group.
    """
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([task])
