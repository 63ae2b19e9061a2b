"""What this process remembers of late, to save work: facts never change, so what is remembered is never stale.

Two generations, so that memory stays bounded; whatever was forgotten is looked up in the store.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Lately(Generic[K, V]):
    """The latest `size` to twice as many items.

    Args:
        size: Items of a generation.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._young or key in self._old

    def get(self, key: K) -> V | None:
        """What is remembered of a key."""
        found = self._young.get(key)
        return self._old.get(key) if found is None else found

    def add(self, items: Iterable[tuple[K, V]]) -> None:
        """Remember items."""
        self._young.update(items)
        if len(self._young) > self._size:
            self._old, self._young = self._young, {}
