"""Obligations of every object store: what is put is there, whole, until its run is deleted."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio

from segue.ports.objects import ObjectStore, digest
from segue.testing.contracts.expect import LIMIT, closing
from segue.testing.contracts.purging import fresh_run

LARGE = 3_000_000


class ObjectsContract:
    """What the port `ObjectStore` promises.

    Subclass it, name the class `Test...`, and define `connect`. Namespaces are fresh, so tests can share a store.
    How to run the tests: see `TransportContract`.
    """

    async def connect(self, namespace: str) -> ObjectStore:
        """Open the objects of a namespace; whoever opens the same one shares them."""
        raise NotImplementedError

    @asynccontextmanager
    async def opened(self, number: int = 1, namespace: str = "") -> AsyncIterator[list[ObjectStore]]:
        """Several openings of one namespace, fresh unless named."""
        namespace = namespace or f"n{uuid.uuid4().hex[:12]}"
        async with AsyncExitStack() as stack:
            stack.enter_context(anyio.fail_after(LIMIT))
            yield [await stack.enter_async_context(closing(self.connect(namespace))) for _ in range(number)]

    async def test_what_is_put_is_there_for_everybody(self) -> None:
        async with self.opened(2) as (mine, theirs):
            run, body = fresh_run(), bytes(range(256)) * 100
            assert await theirs.get(run, digest(body)) is None
            await mine.put(run, digest(body), body)
            assert await theirs.get(run, digest(body)) == body
            assert await mine.get(fresh_run(), digest(body)) is None
            assert await mine.get(run, digest(b"other")) is None

    async def test_any_size(self) -> None:
        async with self.opened() as (store,):
            run = fresh_run()
            bodies = [b"", b"x", b"\0" * 100_000, *(bytes([n]) * (LARGE + n) for n in range(2))]
            for body in bodies:
                await store.put(run, digest(body), body)
            for body in bodies:
                assert await store.get(run, digest(body)) == body

    async def test_putting_again_changes_nothing(self) -> None:
        async with self.opened(2) as stores:
            run, body = fresh_run(), b"z" * LARGE
            async with anyio.create_task_group() as tasks:
                for i in range(6):
                    tasks.start_soon(stores[i % 2].put, run, digest(body), body)
            await stores[0].put(run, digest(body), body)
            assert [await store.get(run, digest(body)) for store in stores] == [body, body]

    async def test_objects_go_with_their_run(self) -> None:
        async with self.opened() as (store,):
            gone, stays = (fresh_run(), fresh_run()), fresh_run()
            for run in (*gone, stays):
                for body in (b"a", b"b" * LARGE):
                    await store.put(run, digest(body), body)
            await store.delete([*gone, fresh_run()])
            await store.delete(gone)
            await store.delete([])
            for run in gone:
                assert await store.get(run, digest(b"a")) is None
                assert await store.get(run, digest(b"b" * LARGE)) is None
            assert await store.get(stays, digest(b"b" * LARGE)) == b"b" * LARGE
            await store.put(gone[0], digest(b"a"), b"a")
            assert await store.get(gone[0], digest(b"a")) == b"a"

    async def test_namespaces_are_apart(self) -> None:
        async with self.opened() as (mine,), self.opened() as (theirs,):
            run = fresh_run()
            await mine.put(run, digest(b"a"), b"a")
            assert await theirs.get(run, digest(b"a")) is None
            await theirs.delete([run])
            assert await mine.get(run, digest(b"a")) == b"a"
