"""The reference object store: what every other one must do, in a dictionary."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from anyio.lowlevel import checkpoint

from segue_memory.shared import parse, shared


class MemoryObjects:
    """The objects of a namespace, by run and digest."""

    def __init__(self) -> None:
        self.objects: defaultdict[str, dict[str, bytes]] = defaultdict(dict)

    async def put(self, run: str, name: str, body: bytes) -> None:
        """Keep an object."""
        await checkpoint()
        self.objects[run].setdefault(name, body)

    async def get(self, run: str, name: str) -> bytes | None:
        """The bytes of an object."""
        await checkpoint()
        return self.objects[run].get(name) if run in self.objects else None

    async def delete(self, runs: Sequence[str]) -> None:
        """Forget all objects of these runs."""
        await checkpoint()
        for run in runs:
            self.objects.pop(run, None)

    async def aclose(self) -> None:
        """Nothing to close; the objects stay."""


async def open_objects(url: str, namespace: str) -> MemoryObjects:
    """Open the objects of a name and namespace."""
    name, _ = parse(url)
    return shared("objects", name, namespace, MemoryObjects)
