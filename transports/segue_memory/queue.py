"""One group's messages: ready, delayed, or taken by a member; synchronous, told the time.

A delivery is known by a token that is used once, so an acknowledgement that comes after the message was taken again
does nothing. All deliveries expire after the same time, so `taken` is in the order of its deadlines.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import NamedTuple, TypeAlias

import anyio

from segue.ports.transport import Backlog, Delivery, Group


class Item:
    """A message in a queue. `deliveries` counts those that were made."""

    __slots__ = ("body", "deliveries", "subject")

    def __init__(self, subject: str, body: bytes, deliveries: int = 0) -> None:
        self.subject = subject
        self.body = body
        self.deliveries = deliveries


class Taken(NamedTuple):
    """An item with a member, until the deadline."""

    item: Item
    deadline: float
    member: object


Tree: TypeAlias = dict[str, "Tree"]


class Patterns:
    """Patterns as a tree of tokens: matching costs as much as the subject is long, however many there are."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._root: Tree = {}
        for pattern in patterns:
            tree = self._root
            for token in pattern.split("."):
                tree = tree.setdefault(token, {})
            tree[""] = {}

    def fit(self, subject: str) -> bool:
        """Whether one of them fits."""
        trees = [self._root]
        for token in subject.split("."):
            if any(">" in tree for tree in trees):
                return True
            trees = [tree[part] for tree in trees for part in (token, "*") if part in tree]
        return any("" in tree for tree in trees)


class Shake:
    """Reorders and repeats, as a seed says."""

    REACH, REPEAT = 64, 0.15

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def repeats(self) -> bool:
        """Whether to deliver this once more."""
        return self._random.random() < self.REPEAT

    def draw(self, ready: deque[Item], limit: int) -> Iterator[Item]:
        """Some of what is ready, in some order."""
        for _ in range(self._random.randint(1, min(limit, len(ready)))):
            at = self._random.randrange(min(len(ready), self.REACH))
            yield ready[at]
            del ready[at]


class Queue:
    """A group."""

    def __init__(self, group: Group, redelivery: float, shake: Shake | None) -> None:
        self.name = group.name
        self.patterns = Patterns(group.patterns)
        self._redelivery = redelivery
        self._shake = shake
        self._ready: deque[Item] = deque()
        self._delayed: list[tuple[float, int, Item]] = []
        self._taken: dict[int, Taken] = {}
        self._tokens = count()
        self._waiting = 0
        self._changed = anyio.Event()

    def put(self, item: Item) -> None:
        """Add a message; call `wake` afterwards."""
        self._ready.append(item)
        if self._shake is not None and self._shake.repeats():
            self._ready.append(Item(item.subject, item.body))

    def wake(self) -> None:
        """Let those look again who wait."""
        if self._waiting:
            self._changed.set()
            self._changed = anyio.Event()

    async def changed(self, now: float) -> None:
        """Wait until there may be something to take."""
        self._waiting += 1
        try:
            with anyio.move_on_after(self._next() - now):
                await self._changed.wait()
        finally:
            self._waiting -= 1

    def take(self, limit: int, member: object, now: float) -> list[Delivery]:
        """Up to `limit` messages, now with this member."""
        self._ripen(now)
        ready, found = self._ready, []
        if not ready:
            return []
        if self._shake is None:
            drawn: Iterable[Item] = (ready.popleft() for _ in range(min(limit, len(ready))))
        else:
            drawn = self._shake.draw(ready, limit)
        deadline = now + self._redelivery
        for item in drawn:
            item.deliveries += 1
            token = next(self._tokens)
            self._taken[token] = Taken(item, deadline, member)
            found.append(Delivery(item.subject, item.body, item.deliveries, token))
        return found

    def done(self, deliveries: Sequence[Delivery]) -> list[Item]:
        """Forget these; returns those that were still out."""
        taken = [self._taken.pop(delivery.token, None) for delivery in deliveries]  # type: ignore[call-overload]
        return [found.item for found in taken if found is not None]

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """These are done; a shaken queue loses some of the acknowledgements."""
        done = self.done(deliveries)
        if self._shake is not None:
            self._ready.extend([item for item in done if self._shake.repeats()])
            self.wake()

    def retry(self, deliveries: Sequence[Delivery], at: float) -> None:
        """Deliver these again at that time."""
        for item in self.done(deliveries):
            heapq.heappush(self._delayed, (at, next(self._tokens), item))
        self.wake()

    def leave(self, member: object) -> None:
        """Hand back what this member has."""
        self._hand_back([token for token, taken in self._taken.items() if taken.member is member])
        self.wake()

    def backlog(self, now: float) -> Backlog:
        """How many messages are where."""
        self._ripen(now)
        return Backlog(len(self._ready) + len(self._delayed), len(self._taken))

    def _next(self) -> float:
        """When something becomes ready by itself."""
        delayed = self._delayed[0][0] if self._delayed else float("inf")
        expires = next((taken.deadline for taken in self._taken.values()), float("inf"))
        return min(delayed, expires)

    def _ripen(self, now: float) -> None:
        while self._delayed and self._delayed[0][0] <= now:
            self._ready.append(heapq.heappop(self._delayed)[2])
        expired = []
        for token, taken in self._taken.items():
            if taken.deadline > now:
                break
            expired.append(token)
        self._hand_back(expired)

    def _hand_back(self, tokens: list[int]) -> None:
        self._ready.extendleft([self._taken.pop(token).item for token in reversed(tokens)])
