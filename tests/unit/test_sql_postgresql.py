"""PostgreSQL: query plans, lost connections, replicas that collide, and what goes wrong with servers."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import anyio
import psycopg
import pytest

from segue.errors import PluginError, StoreError, StoreUnavailable
from segue.hooks import open_journal, open_store
from segue.ports.store import Cell, CellKey, CellKind, Committed, Due, DueKey, StateStore
from segue.testing.contracts.expect import eventually
from segue_sql import purge, schema
from segue_sql.database import connect_to
from segue_sql.postgresql import SCAN, lookup_text
from segue_sql.statements import StoreStatements

RUN = "0" * 32


@pytest.fixture
def admin(postgres_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        yield connection


def key(node: str, run: str = RUN) -> CellKey:
    return CellKey(run, node, "", 1, CellKind.OUTCOME)


def fresh_part() -> str:
    return f"part-{uuid.uuid4().hex[:12]}"


def kill(admin: psycopg.Connection) -> None:
    """End all other connections of Segue."""
    admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'segue' AND pid <> pg_backend_pid()"
    )


@pytest.mark.parametrize("lookup", ["load", "tally", "find"])
@pytest.mark.parametrize("filled", [False, True])
async def test_lookups_search_by_the_whole_primary_key(postgres_url: str, lookup: str, filled: bool) -> None:
    """Whatever the planner believes of the tables: a plan that was made for an empty table is kept for a full one."""
    await (await open_store(postgres_url, "a")).aclose()
    wanted = getattr(StoreStatements(1), lookup)
    link = connect_to(postgres_url).connect()
    link.begin()
    if filled:
        link.core.exec_driver_sql(
            "INSERT INTO segue_cell SELECT 1, gen_random_uuid(), 'n', '', 1, 1, '' FROM generate_series(1, 5000)"
        )
        link.core.exec_driver_sql("ANALYZE segue_cell")
    found = link.core.exec_driver_sql("EXPLAIN " + lookup_text(wanted), ("[]",)).scalars().all()
    link.rollback()
    link.close()
    [condition] = [line for line in found if "Index Cond" in line]
    assert any(f"Index Scan using {wanted.table}_pkey" in line for line in found), found
    assert condition.count(" = ") == wanted.where.count(" = "), found


async def test_old_runs_are_found_and_deleted_by_indexes(postgres_url: str) -> None:
    await (await open_store(postgres_url, "a")).aclose()
    link = connect_to(postgres_url).connect()
    run = uuid.UUID(RUN)
    for statement in (
        purge.oldest(1, run, uuid.UUID("f" * 32)),
        *(purge.some(table, 10, part=1, run=run) for table in (schema.cell, schema.tally, schema.due)),
        purge.some(schema.event, 10, run=RUN),
        purge.bound(1, run),
    ):
        text = str(statement.compile(dialect=link.core.dialect, compile_kwargs={"literal_binds": True}))
        found = link.core.exec_driver_sql("EXPLAIN " + text).scalars().all()
        assert any("Index Cond" in line and "run" in line for line in found), found
        assert not any("Seq Scan" in line for line in found), found
    link.close()


@pytest.mark.parametrize("filled", [False, True])
async def test_the_cells_of_a_run_are_a_range_of_the_primary_key(postgres_url: str, filled: bool) -> None:
    await (await open_store(postgres_url, "a")).aclose()
    link = connect_to(postgres_url).connect()
    link.begin()
    if filled:
        link.core.exec_driver_sql(
            "INSERT INTO segue_cell SELECT 1, gen_random_uuid(), n::text, '', 1, 1, '' FROM generate_series(1, 5000) n"
        )
        link.core.exec_driver_sql("ANALYZE segue_cell")
    found = link.core.exec_driver_sql("EXPLAIN " + SCAN, (1, [RUN, "1" * 32])).scalars().all()
    link.rollback()
    link.close()
    [condition] = [line for line in found if "Index Cond" in line]
    assert any("segue_cell_pkey" in line for line in found), found
    assert "part = " in condition, found
    assert "run = ANY" in condition, found


async def test_a_killed_connection_is_unavailable_then_replaced(postgres_url: str, admin: psycopg.Connection) -> None:
    store = await open_store(postgres_url, fresh_part())
    await store.commit([Cell(key("before"), b"1")])
    for _ in range(2):
        kill(admin)
        with pytest.raises(StoreUnavailable):
            await store.commit([Cell(key("lost"), b"1")])
        assert await store.load([key("before"), key("lost")]) == {key("before"): b"1"}
        kill(admin)
        with pytest.raises(StoreUnavailable):
            await store.load([key("before")])
        assert await store.commit([Cell(key("before"), b"2")]) == Committed({key("before"): b"1"}, {})
    await store.aclose()


async def test_calls_in_flight_fail_when_the_connection_is_killed(postgres_url: str, admin: psycopg.Connection) -> None:
    store = await open_store(postgres_url, fresh_part())
    failed = []

    async def commit(node: str) -> None:
        try:
            await store.commit([Cell(key(node), b"")])
        except StoreUnavailable as error:
            failed.append((node, error.retryable))

    async def blocked() -> bool:
        return bool(admin.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall())

    with admin.transaction():
        admin.execute("LOCK TABLE segue_cell IN EXCLUSIVE MODE")
        async with anyio.create_task_group() as tasks:
            for node in ("a", "b"):
                tasks.start_soon(commit, node)
            await eventually(blocked)
            kill(admin)
    assert ("a", True) in failed
    assert await store.commit([Cell(key("a"), b"")]) == Committed({}, {})
    await store.aclose()


async def test_replicas_that_collide_do_not_block_each_other_for_ever(postgres_url: str) -> None:
    """Same rows, opposite orders, many tables: no deadlock reaches a caller."""
    part = fresh_part()
    stores = [await open_store(postgres_url, part) for _ in range(3)]
    runs = [uuid.uuid4().hex for _ in range(20)]

    async def work(store: StateStore, turn: int) -> None:
        order = runs[::-1] if turn % 2 else runs
        for i in range(15):
            cells = [Cell(key(f"n{i}", run), b"") for run in order]
            due = [Due(DueKey(run, "n", ""), float(i), i, b"") for run in order[:10]]
            await store.commit(cells, due=due, done=[DueKey(run, "n", "") for run in order[10:]])
            await store.bind("flow", [(f"{i}-{run}", run) for run in order])
            await store.claim(1e6, 1.0, 5, str(turn))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for turn in range(6):
                tasks.start_soon(work, stores[turn % 3], turn)
    found = await stores[0].load([key(f"n{i}", run) for i in range(15) for run in runs])
    assert len(found) == 15 * len(runs)
    for store in stores:
        await store.aclose()


async def test_a_nul_in_a_text_fails_only_its_own_commit(postgres_url: str) -> None:
    store = await open_store(postgres_url, fresh_part())
    failed = []

    async def commit(node: str) -> None:
        try:
            await store.commit([Cell(key(node), b"")])
        except StoreError:
            failed.append(node)

    async with anyio.create_task_group() as tasks:
        for node in ("a", "b\0", "c"):
            tasks.start_soon(commit, node)
    assert failed == ["b\0"]
    assert (await store.load([key("a"), key("c")])).keys() == {key("a"), key("c")}
    await store.aclose()


async def test_a_server_that_cannot_be_reached() -> None:
    with pytest.raises(StoreUnavailable) as refused:
        await open_store("postgresql://segue:hunter2@127.0.0.1:1/shop", "a")
    assert "127.0.0.1:1/shop" in refused.value.message
    assert "hunter2" not in str(refused.value)
    assert "server runs" in refused.value.hint


async def test_a_database_that_does_not_exist(postgres_url: str) -> None:
    with pytest.raises(StoreUnavailable, match='"nowhere" does not exist'):
        await open_journal(postgres_url.replace("/postgres?", "/nowhere?"))


async def test_a_user_without_rights(postgres_url: str, admin: psycopg.Connection) -> None:
    await (await open_store(postgres_url, "a")).aclose()
    admin.execute("CREATE ROLE guest LOGIN")
    with pytest.raises(StoreError, match="permission denied") as refused:
        await open_store(postgres_url.replace("//postgres:", "//guest:"), fresh_part())
    admin.execute("DROP ROLE guest")
    assert not refused.value.retryable
    assert "grant" in refused.value.hint


@pytest.mark.parametrize("url", ["postgresql+asyncpg://h/db", "postgresql://h:port/db"])
async def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(PluginError, match="postgresql"):
        await open_store(url, "a")


async def test_the_driver_may_be_named(postgres_url: str) -> None:
    store = await open_store(postgres_url.replace("postgresql:", "postgresql+psycopg:"), "a")
    assert await store.load([key("n", uuid.uuid4().hex)]) == {}
    await store.aclose()
