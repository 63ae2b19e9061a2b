"""Memory adapters that fail as a seed says: `faulty://name?seed=7`. Everything they raise, the ports allow."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import segue_memory.store
import segue_memory.transport
from segue.errors import StoreError, StoreUnavailable, TransportError, TransportUnavailable
from segue.hooks import adapters
from segue.ports.store import StateStore
from segue.ports.transport import Consumer, Message, Transport


class Chance:
    """Draws what goes wrong."""

    def __init__(self, url: str, part: str = "") -> None:
        query = {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}
        self._random = random.Random(f"{query.get('seed')}/{part}")
        self._rates = {key: float(rate) for key, rate in query.items() if key != "seed"}

    def of(self, what: str) -> bool:
        """Whether it happens now."""
        return self._random.random() < self._rates.get(what, 0.0)


class Faulty:
    """Passes everything on that it does not spoil."""

    def __init__(self, inner: Any, chance: Chance) -> None:
        self._inner = inner
        self._chance = chance

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class FaultyStore(Faulty):
    """`down`: nothing happened; `lost`: it did, and the answer was lost; `broken`: a load that fails a whole turn."""

    async def load(self, keys: Any) -> Any:
        if self._chance.of("down"):
            raise StoreUnavailable("faulty: down")
        if self._chance.of("broken"):
            raise StoreError("faulty: broken")
        return await self._inner.load(keys)

    async def scan(self, runs: Any) -> Any:
        if self._chance.of("down"):
            raise StoreUnavailable("faulty: down")
        return await self._inner.scan(runs)

    async def commit(self, *args: Any, **kwargs: Any) -> Any:
        if self._chance.of("down"):
            raise StoreUnavailable("faulty: down")
        result = await self._inner.commit(*args, **kwargs)
        if self._chance.of("lost"):
            raise StoreUnavailable("faulty: the answer was lost")
        return result

    async def bind(self, *args: Any) -> Any:
        result = await self._inner.bind(*args)
        if self._chance.of("lost"):
            raise StoreUnavailable("faulty: the answer was lost")
        return result

    async def claim(self, *args: Any) -> Any:
        result = await self._inner.claim(*args)
        if self._chance.of("lost"):
            raise StoreUnavailable("faulty: the answer was lost")
        return result


class FaultyTransport(Faulty):
    """`down`, `lost` as in stores; `refused`: for good, which fails a turn; `swallowed`: acknowledged and gone."""

    async def publish(self, messages: Sequence[Message]) -> None:
        if self._chance.of("down"):
            raise TransportUnavailable("faulty: down")
        if self._chance.of("refused"):
            raise TransportError("faulty: refused")
        await self._inner.publish([message for message in messages if not self._chance.of("swallowed")])
        if self._chance.of("lost"):
            raise TransportUnavailable("faulty: the answer was lost")

    def consume(self, *args: Any) -> Any:
        return FaultyEntering(self._inner.consume(*args), self._chance)


class FaultyEntering:
    """Gives a faulty consumer."""

    def __init__(self, inner: Any, chance: Chance) -> None:
        self._inner = inner
        self._chance = chance

    async def __aenter__(self) -> Any:
        return FaultyConsumer(await self._inner.__aenter__(), self._chance)

    async def __aexit__(self, *args: Any) -> Any:
        return await self._inner.__aexit__(*args)


class FaultyConsumer(Faulty):
    """Acknowledgements get lost, with and without a word."""

    async def ack(self, deliveries: Any) -> None:
        if self._chance.of("down"):
            raise TransportUnavailable("faulty: down")
        if not self._chance.of("unacked"):
            inner: Consumer = self._inner
            await inner.ack(deliveries)


async def open_transport(url: str, namespace: str) -> Transport:
    """A memory transport under faults."""
    name, chance = urlsplit(url).netloc, Chance(url, "transport")
    found: Any = FaultyTransport(
        await segue_memory.transport.open_transport(f"memory://{name}?redelivery=0.3", namespace), chance
    )
    return found  # type: ignore[no-any-return]


async def open_store(url: str, part: str) -> StateStore:
    """A memory store under faults."""
    name, chance = urlsplit(url).netloc, Chance(url, part)
    found: Any = FaultyStore(await segue_memory.store.open_store(f"memory://{name}", part), chance)
    return found  # type: ignore[no-any-return]


adapters().transport("faulty", open_transport)
adapters().store("faulty", open_store)
