"""What the suites need beyond `assert`; without pytest, so that they can be shipped."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol, TypeVar

import anyio

LIMIT = 60.0
"""Seconds after which a test fails, whatever it waits for."""


class Closing(Protocol):
    """Anything with `aclose()`."""

    async def aclose(self) -> None:
        """Close it."""
        ...


C = TypeVar("C", bound=Closing)


@asynccontextmanager
async def closing(opened: Awaitable[C]) -> AsyncIterator[C]:
    """Wait for something to open, and close it in the end."""
    resource = await opened
    try:
        yield resource
    finally:
        with anyio.CancelScope(shield=True):
            await resource.aclose()


@contextmanager
def raises(expected: type[Exception]) -> Iterator[None]:
    """Fail unless the body raises `expected`."""
    try:
        yield
    except expected:
        return
    raise AssertionError(f"{expected.__name__} was not raised")


async def eventually(holds: Callable[[], Awaitable[bool]], seconds: float = 5.0) -> None:
    """Fail unless `holds()` becomes true in time."""
    deadline = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < deadline, f"did not become true within {seconds} s"
        await anyio.sleep(0.02)
