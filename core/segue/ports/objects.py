"""The object store port: values that are too large for a message, kept apart and named by what they contain.

Objects belong to a run and go with it, so nothing has to count who refers to one. Only their digest tells them apart:
putting one twice changes nothing, and whoever reads one can tell whether it is whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol


def digest(body: bytes) -> str:
    """The name of an object: the SHA-256 of its bytes, as 64 hex digits."""
    return hashlib.sha256(body).hexdigest()


class ObjectStore(Protocol):
    """Objects by run and digest. Raises `StoreUnavailable` where trying again may help."""

    async def put(self, run: str, name: str, body: bytes) -> None:
        """Keep an object; durable when this returns. Putting the same again changes nothing.

        Args:
            run: The run that it belongs to, 32 hex digits.
            name: What `digest` says of the bytes.
            body: The bytes.
        """
        ...

    async def get(self, run: str, name: str) -> bytes | None:
        """The bytes of an object, as they are; None if there is none, or not all of it."""
        ...

    async def delete(self, runs: Sequence[str]) -> None:
        """Forget all objects of these runs."""
        ...

    async def aclose(self) -> None:
        """Close what this adapter opened."""
        ...
