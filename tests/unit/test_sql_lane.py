"""The store thread: group commit, bad neighbours, cancelled callers, lost commits."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from segue.errors import StoreError, StoreUnavailable
from segue_sql.database import connect_to
from segue_sql.lane import Lane
from segue_sql.link import Link


class Writer:
    """Inserts numbers, one transaction at a time, and waits where it is told to."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.gate = threading.Event()
        self.reached = threading.Event()

    def apply(self, link: Link, writes: Sequence[int]) -> list[int]:
        driver: Any = link.core.connection.driver_connection
        self.groups.append(list(writes))
        if 0 in writes:
            self.reached.set()
            assert self.gate.wait(10)
        for number in writes:
            driver.execute("INSERT INTO t VALUES (?)", (number,))
        return [-number for number in writes]


@asynccontextmanager
async def lane_of(writer: Writer, path: Path) -> AsyncIterator[Lane[int]]:
    lane = Lane(connect_to(f"sqlite:///{path}/x.db"), writer.apply)
    await lane.read(lambda link: link.core.exec_driver_sql("CREATE TABLE t (n INTEGER PRIMARY KEY, CHECK (n <> 99))"))
    try:
        yield lane
    finally:
        with anyio.CancelScope(shield=True):
            await lane.aclose()


def numbers(link: Link) -> list[int]:
    return list(link.core.exec_driver_sql("SELECT n FROM t ORDER BY n").scalars())


async def answers(lane: Lane[int], writer: Writer, writes: Sequence[int]) -> dict[int, Any]:
    """Let a write of 0 hold the thread until all others wait, then what each was told."""
    found: dict[int, Any] = {}

    async def write(number: int) -> None:
        try:
            found[number] = await lane.write(number)
        except StoreError as error:
            found[number] = error

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write, 0)
        await anyio.to_thread.run_sync(writer.reached.wait)
        for number in writes:
            tasks.start_soon(write, number)
        await anyio.wait_all_tasks_blocked()
        writer.gate.set()
    return found


async def test_commits_that_wait_share_a_transaction(tmp_path: Path) -> None:
    writer = Writer()
    async with lane_of(writer, tmp_path) as lane:
        assert await answers(lane, writer, range(1, 21)) == {n: -n for n in range(21)}
        assert writer.groups == [[0], list(range(1, 21))]
        assert await lane.read(numbers) == list(range(21))


async def test_bad_data_fails_only_its_own_commit(tmp_path: Path) -> None:
    writer = Writer()
    async with lane_of(writer, tmp_path) as lane:
        found = await answers(lane, writer, [1, 99, 2])
        assert isinstance(found.pop(99), StoreError)
        assert found == {0: 0, 1: -1, 2: -2}
        assert writer.groups == [[0], [1, 99, 2], [1], [99], [2]]
        assert await lane.read(numbers) == [0, 1, 2]


async def test_a_cancelled_commit_does_not_land_later(tmp_path: Path) -> None:
    writer = Writer()
    async with lane_of(writer, tmp_path) as lane, anyio.create_task_group() as tasks:
        tasks.start_soon(lane.write, 0)
        await anyio.to_thread.run_sync(writer.reached.wait)
        with anyio.CancelScope() as caller:
            tasks.start_soon(_release, caller)
            await lane.write(1)
        assert caller.cancelled_caught
        writer.gate.set()
        assert await lane.write(2) == -2
        assert await lane.read(numbers) == [0, 2]


async def _release(caller: anyio.CancelScope) -> None:
    await anyio.wait_all_tasks_blocked()
    caller.cancel()


async def test_a_failed_commit_is_unknown_and_the_next_one_connects_again(tmp_path: Path) -> None:
    writer = Writer()
    async with lane_of(writer, tmp_path) as lane:

        def deferred(link: Link) -> None:
            for text in (
                "CREATE TABLE p (n INTEGER PRIMARY KEY)",
                "CREATE TABLE c (n REFERENCES p (n) DEFERRABLE INITIALLY DEFERRED)",
                "CREATE TRIGGER bad AFTER INSERT ON t WHEN new.n = 7 BEGIN INSERT INTO c VALUES (1); END",
                "PRAGMA foreign_keys = ON",
            ):
                link.core.exec_driver_sql(text)

        await lane.read(deferred)
        with pytest.raises(StoreUnavailable, match="may or may not"):
            await lane.write(7)
        assert await lane.write(8) == -8
        assert await lane.read(numbers) == [8]


async def test_a_failed_read_leaves_the_others_alone(tmp_path: Path) -> None:
    async with lane_of(Writer(), tmp_path) as lane:
        with pytest.raises(StoreError, match="no such table"):
            await lane.read(lambda link: link.core.exec_driver_sql("SELECT * FROM missing"))
        assert await lane.read(numbers) == []


async def test_a_closed_lane_says_so(tmp_path: Path) -> None:
    async with lane_of(Writer(), tmp_path) as lane:
        await lane.aclose()
        with pytest.raises(StoreError, match="closed"):
            await lane.write(1)
