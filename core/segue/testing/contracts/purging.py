"""Obligations of every state store about runs that are over: found by age, and purged without a trace."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio

from segue.ports.store import LAST, Cell, CellKey, CellKind, Committed, Due, DueKey, Join, StateStore
from segue.runtime.ids import earliest_run_id, new_run_id
from segue.runtime.marks import mark_cell
from segue.testing.contracts.expect import LIMIT, closing


class PurgeContract:
    """The part of `StoreContract` that is about old runs, and what all of it needs."""

    async def connect(self, part: str) -> StateStore:
        """Open a part; whoever opens the same part shares its rows."""
        raise NotImplementedError

    @asynccontextmanager
    async def opened(self, replicas: int = 1, part: str = "") -> AsyncIterator[list[StateStore]]:
        """Several openings of one part, fresh unless named."""
        part = part or fresh_part()
        async with AsyncExitStack() as stack:
            stack.enter_context(anyio.fail_after(LIMIT))
            yield [await stack.enter_async_context(closing(self.connect(part))) for _ in range(replicas)]

    async def test_runs_are_walked_in_the_order_of_their_ids(self) -> None:
        async with self.opened() as (store,), self.opened() as (other,):
            runs = sorted(fresh_run() for _ in range(7))
            for run in reversed(runs):
                await store.commit([Cell(key(run, f"n{i}"), b"") for i in range(5)])
            await other.commit([Cell(key(fresh_run(), "n"), b"")])
            assert await store.runs("", "f" * 32, 100) == runs
            assert await store.runs("", "f" * 32, 3) == runs[:3]
            assert await store.runs(runs[2], runs[6], 100) == runs[3:6]
            assert await store.runs(runs[6], "f" * 32, 100) == []

    async def test_marks_are_later_than_all_runs(self) -> None:
        async with self.opened() as (store,):
            assert store.durable in (True, False)
            run, marks = new_run_id(), [mark_cell(number) for number in (1, 2, 10, 2**40)]
            await store.commit([Cell(key(run, "n"), b"")])
            for mark in marks:
                assert await store.commit([Cell(mark, b"x")]) == Committed({}, {})
            assert await store.runs("", earliest_run_id(1e10), 100) == [run]
            assert await store.runs(mark_cell(1).run, "f" * 32, 100) == [mark.run for mark in marks[1:]]
            assert await store.purge(marks[0].run, 10) < 10
            assert await store.load(marks) == dict.fromkeys(marks[1:], b"x")

    async def test_a_purged_run_leaves_nothing(self) -> None:
        async with self.opened() as (store,), self.opened() as (other,):
            run, stays = fresh_run(), fresh_run()
            for mine in (run, stays):
                join = Join(mine, "j", "", 1)
                cells = [Cell(key(mine, f"n{i}"), b"x", (join,)) for i in range(5)]
                await store.commit(cells, due=[Due(DueKey(mine, "n", ""), 1.0, 0, b"")])
                await store.bind("flow", [(f"key-{mine}", mine)])
            await other.commit([Cell(key(run, "n"), b"")])
            assert await store.purge(run, 1000) < 1000
            assert await store.scan([run]) == {}
            assert await store.tally([Join(run, "j", "", 1)]) in ({}, {Join(run, "j", "", 1): 0})
            assert await store.find("flow", [f"key-{run}", f"key-{stays}"]) == {f"key-{stays}": stays}
            assert [due.key.run for due in await store.claim(10.0, 5.0, 10, "me")] == [stays]
            assert await store.runs("", "f" * 32, 10) == [stays]
            assert len(await store.scan([stays])) == 5
            assert await store.tally([Join(stays, "j", "", 1)]) == {Join(stays, "j", "", 1): 5}
            assert len(await other.scan([run])) == 1
            assert await store.purge(run, 10) < 10
            assert (await store.commit([Cell(key(run, "n0"), b"new")])).lost == {}

    async def test_a_run_is_purged_piece_by_piece_and_its_ends_go_last(self) -> None:
        async with self.opened() as (store,):
            run = fresh_run()
            ends = [key(run, node) for node in LAST]
            inner = [key(run, "a"), *(key(run, "n", str(i)) for i in range(21)), key(run, "zz")]
            await store.commit([Cell(cell, b"") for cell in (*inner, *ends)])
            left = len(inner)
            while (deleted := await store.purge(run, 5)) == 5:
                left -= 5
                found = await store.scan([run])
                assert set(ends) <= found.keys()
                assert len(found) == left + len(ends)
            assert deleted < 5
            assert left < 5
            assert await store.scan([run]) == {}


def fresh_run() -> str:
    """A run id that no other test uses."""
    return uuid.uuid4().hex


def fresh_part() -> str:
    """A part that no other test uses."""
    return f"part-{uuid.uuid4().hex[:12]}"


def key(run: str, node: str, tag: str = "") -> CellKey:
    """The key of an outcome."""
    return CellKey(run, node, tag, 1, CellKind.OUTCOME)
