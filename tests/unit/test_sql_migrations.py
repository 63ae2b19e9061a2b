"""The schema's versions, on both databases."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import anyio
import msgspec
import psycopg
import pytest
from sqlalchemy import insert, inspect, make_url

from segue.errors import StoreError
from segue.hooks import open_journal, open_store
from segue.ports.journal import RunQuery, RunRecord
from segue.ports.store import Cell, CellKey, CellKind
from segue_sql.database import connect_to
from segue_sql.migrations import STEPS, migrate, upgrade
from segue_sql.schema import metadata, run_2

KEY = CellKey("0" * 32, "n", "", 1, CellKind.OUTCOME)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database that is empty."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/x.db"
        return
    server, name = request.getfixturevalue("postgres_url"), f"db_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
        admin.execute(f"DROP DATABASE {name}")


def test_upgrade_creates_all_tables_once(url: str) -> None:
    assert upgrade(url) == (0, len(STEPS))
    assert upgrade(url) == (len(STEPS), len(STEPS))
    link = connect_to(url).connect()
    assert set(inspect(link.core).get_table_names()) == set(metadata.tables)
    link.close()


async def test_an_older_version_is_upgraded_and_keeps_its_rows(url: str) -> None:
    link = connect_to(url).connect()
    assert migrate(link, STEPS[:1]) == (0, 1)
    old = metadata.tables["segue_part"]
    link.core.execute(insert(old).values(id=7, name="payments"))
    link.close()
    journal = await open_journal(url)
    assert await journal.runs(RunQuery()) == []
    await journal.append([], [RunRecord("0" * 32, "flow", "plan", "orchestrated")])
    store = await open_store(url, "payments")
    await store.commit([Cell(KEY, b"1")])
    await store.aclose()
    await journal.aclose()
    link = connect_to(url).connect()
    assert link.core.exec_driver_sql("SELECT part FROM segue_cell").scalars().all() == [7]
    link.close()
    assert upgrade(url) == (len(STEPS), len(STEPS))


async def test_runs_of_version_2_can_be_retried(url: str) -> None:
    link = connect_to(url).connect()
    assert migrate(link, STEPS[:2]) == (0, 2)
    rows = [
        {"run": name * 32, "flow": "f", "plan": "p", "mode": "orchestrated", "key": "", "started": 1, "ended": ended}
        | {"status": status, "error": "", "at": 1}
        for name, status, ended in (("a", "running", None), ("b", "failed", 2))
    ]
    link.core.execute(insert(run_2), rows)
    link.close()
    journal = await open_journal(url)
    told = [RunRecord(name * 32, "f", "p", "orchestrated", status="completed") for name in "ab"]
    await journal.append([], told)
    assert {found.run[0]: found.status for found in await journal.runs(RunQuery())} == {"a": "completed", "b": "failed"}
    await journal.append([], [msgspec.structs.replace(record, revision=2) for record in told])
    assert {found.status for found in await journal.runs(RunQuery())} == {"completed"}
    await journal.aclose()


async def test_a_newer_version_is_refused(url: str) -> None:
    upgrade(url)
    link = connect_to(url).connect()
    link.core.execute(insert(metadata.tables["segue_schema"]).values(version=99, applied=0))
    link.close()
    for attempt in (lambda: open_store(url, "a"), lambda: open_journal(url)):
        with pytest.raises(StoreError, match=rf"version 99.*version {len(STEPS)}") as refused:
            await attempt()
        assert "upgrade Segue" in refused.value.hint
    with pytest.raises(StoreError, match="version 99"):
        upgrade(url)


async def test_concurrent_openings(url: str) -> None:
    async def open_and_close(name: str) -> None:
        await (await open_store(url, name)).aclose()

    async with anyio.create_task_group() as tasks:
        for i in range(12):
            tasks.start_soon(open_and_close, f"p{i % 4}")
    link = connect_to(url).connect()
    names = link.core.exec_driver_sql("SELECT name FROM segue_part ORDER BY name").scalars().all()
    link.close()
    assert names == ["p0", "p1", "p2", "p3"]


def test_a_step_that_fails_leaves_nothing(url: str) -> None:
    link = connect_to(url).connect()

    def bad(core: object) -> None:
        raise RuntimeError("bad step")

    with pytest.raises(RuntimeError, match="bad step"):
        migrate(link, (*STEPS, bad))
    assert inspect(link.core).get_table_names() == []
    link.close()
