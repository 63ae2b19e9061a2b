"""SQLite: query plans, several processes, kills, and what goes wrong with files."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import anyio
import pytest

from segue.errors import PluginError, StoreError, StoreUnavailable
from segue.hooks import open_journal, open_store
from segue.ports.journal import JournalEntry, RunQuery
from segue.ports.store import Cell, CellKey, CellKind, Due, DueKey
from segue_sql import purge, schema
from segue_sql.database import connect_to
from segue_sql.errors import translated
from segue_sql.sqlite import PIECE, SCAN, lookup_text
from segue_sql.statements import StoreStatements

PRELUDE = """
import sys, uuid
from datetime import datetime, timedelta, UTC
import anyio
from segue.hooks import open_store, open_journal
from segue.ports.store import Cell, CellKey, CellKind, Join
from segue.ports.journal import JournalEntry, RunRecord

def key(run, node):
    return CellKey(run, node, "", 1, CellKind.OUTCOME)
"""


def key(run: str, node: str) -> CellKey:
    return CellKey(run, node, "", 1, CellKind.OUTCOME)


@contextmanager
def process(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs `main()` of a script, killed in the end."""
    code = f"{PRELUDE}\n{script}\nanyio.run(main)"
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


def lines(started: subprocess.Popen[str]) -> IO[str]:
    assert started.stdout is not None
    return started.stdout


@pytest.mark.parametrize("lookup", ["load", "tally", "find"])
async def test_lookups_search_by_the_whole_primary_key(tmp_path: Path, lookup: str) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    await (await open_store(url, "a")).aclose()
    wanted = getattr(StoreStatements(1), lookup)
    with sqlite3.connect(tmp_path / "x.db") as database:
        found = database.execute(
            "EXPLAIN QUERY PLAN " + lookup_text(wanted, 2), [b""] * 2 * len(wanted.columns)
        ).fetchall()
        [indexed] = [row[3] for row in found if " t " in row[3]]
        keys = [row[1] for row in database.execute(f"PRAGMA table_info({wanted.table})") if row[5]]
    database.close()
    assert indexed == f"SEARCH t USING PRIMARY KEY ({' AND '.join(f'{name}=?' for name in keys)})"


async def test_old_runs_are_found_and_deleted_by_the_primary_key(tmp_path: Path) -> None:
    await (await open_store(f"sqlite:///{tmp_path}/x.db", "a")).aclose()
    link = connect_to(f"sqlite:///{tmp_path}/x.db").connect()
    steps = {}
    for name, statement in (
        ("oldest", purge.oldest(1, b"0", b"1")),
        *((table.name, purge.some(table, 10, part=1, run=b"0")) for table in (schema.cell, schema.tally, schema.due)),
        ("history", purge.some(schema.event, 10, run="0")),
        ("key", purge.bound(1, b"0")),
    ):
        text = str(statement.compile(dialect=link.core.dialect, compile_kwargs={"render_postcompile": True}))
        values = [b"0"] * text.count("?")
        steps[name] = [row[3] for row in link.core.exec_driver_sql("EXPLAIN QUERY PLAN " + text, tuple(values))]
    link.close()
    for name, found in steps.items():
        assert not any("SCAN segue" in step or "B-TREE FOR ORDER" in step for step in found), (name, found)
        assert any(step.startswith("SEARCH segue_") for step in found), (name, found)


async def test_the_cells_of_a_run_are_a_range_of_the_primary_key(tmp_path: Path) -> None:
    await (await open_store(f"sqlite:///{tmp_path}/x.db", "a")).aclose()
    with sqlite3.connect(tmp_path / "x.db") as database:
        found = database.execute("EXPLAIN QUERY PLAN " + SCAN, (1, b"", "", "", 0, 0)).fetchall()
    database.close()
    steps = [row[3] for row in found]
    assert any(step.startswith("SEARCH segue_cell USING PRIMARY KEY (part=? AND run=?") for step in steps), steps
    assert not any("B-TREE" in step for step in steps), steps


@pytest.mark.parametrize("count", [1, 2, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 5])
async def test_any_number_of_rows(tmp_path: Path, count: int) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/x.db", "a")
    run = uuid.uuid4().hex
    cells = {key(run, f"n{i}"): b"%d" % i for i in range(count)}
    await store.commit([Cell(*item) for item in cells.items()])
    assert await store.load([*cells, key(run, "absent")]) == cells
    assert await store.scan([run]) == cells
    rows = [DueKey(run, f"n{i}", "") for i in range(count)]
    await store.commit(due=[Due(row, 1.0, 0, b"") for row in rows])
    await store.commit(done=rows[1:])
    assert [due.key for due in await store.claim(2.0, 1.0, count, "me")] == rows[:1]
    await store.aclose()


async def test_one_of_two_processes_sees_each_join_complete(tmp_path: Path) -> None:
    script = """
async def main():
    url, mine, runs = sys.argv[1], sys.argv[2], sys.argv[3].split(",")
    store = await open_store(url, "a")
    async def arrive(run):
        join = Join(run, "j", "", 1)
        found = await store.commit([Cell(key(run, mine), b"", (join,))])
        if found.tallies[join] == 2:
            print(run, flush=True)
    async with anyio.create_task_group() as tasks:
        for run in runs if mine == "a" else runs[::-1]:
            tasks.start_soon(arrive, run)
            await anyio.sleep(0)
    await store.aclose()
"""
    url, runs = f"sqlite:///{tmp_path}/x.db", [uuid.uuid4().hex for _ in range(300)]
    with process(script, url, "a", ",".join(runs)) as one, process(script, url, "b", ",".join(runs)) as other:
        completed = [line.strip() for started in (one, other) for line in lines(started)]
        assert (one.wait(), other.wait()) == (0, 0)
    assert sorted(completed) == sorted(runs)


async def test_what_was_committed_survives_a_kill(tmp_path: Path) -> None:
    script = """
async def main():
    store = await open_store(sys.argv[1], "a")
    while True:
        run = uuid.uuid4().hex
        await store.commit([Cell(key(run, f"n{i}"), b"x" * 500) for i in range(50)])
        print(run, flush=True)
"""
    url = f"sqlite:///{tmp_path}/x.db"
    with process(script, url) as started:
        runs = [lines(started).readline().strip() for _ in range(30)]
        started.send_signal(signal.SIGKILL)
        runs += [line.strip() for line in lines(started) if line.endswith("\n")]
    store = await open_store(url, "a")
    for run in runs:
        cells = [key(run, f"n{i}") for i in range(50)]
        assert await store.load(cells) == dict.fromkeys(cells, b"x" * 500)
    await store.commit([Cell(key(runs[0], "after"), b"")])
    await store.aclose()
    with sqlite3.connect(tmp_path / "x.db") as database:
        counts = {n for (n,) in database.execute("SELECT count(*) FROM segue_cell WHERE node <> 'after' GROUP BY run")}
    database.close()
    assert counts == {50}, "a commit is all or nothing"


async def test_a_journal_is_read_while_another_process_writes(tmp_path: Path) -> None:
    script = """
async def main():
    journal = await open_journal(sys.argv[1])
    noon = datetime(2026, 3, 1, tzinfo=UTC)
    for i in range(1_000_000):
        run = f"{i:032x}"
        record = RunRecord(run, "flow", "plan", "orchestrated", str(i), noon + timedelta(seconds=i))
        entries = [JournalEntry(f"{run}/{n}", run, "n", "completed", noon, b"") for n in range(20)]
        await journal.append(entries, [record])
        print(i, flush=True)
"""
    url = f"sqlite:///{tmp_path}/journal.db"
    with process(script, url) as started:
        lines(started).readline()
        journal, seen = await open_journal(url), 0
        while seen < 50:
            newest = (await journal.runs(RunQuery(limit=1)))[0]
            assert int(newest.key) >= seen
            seen = int(newest.key)
            assert len(await journal.history(newest.run)) == 20
            assert await journal.find("0") == [(await journal.find(f"{0:032x}"))[0]]
        assert started.poll() is None
        await journal.aclose()


async def test_part_in_the_path_gives_each_participant_a_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/deep/er/{{part}}.db"
    for part in ("payments", "stock"):
        await (await open_store(url, part)).aclose()
    assert sorted(path.name for path in (tmp_path / "deep" / "er").iterdir()) == ["payments.db", "stock.db"]
    with pytest.raises(PluginError, match="part"):
        await open_journal(url)


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://host/x.db", "sqlite:///file:x"]
)
async def test_a_url_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(PluginError, match="names no file"):
        await open_store(url, "a")


async def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "junk.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match=r"junk\.db: file is not a database") as junk:
        await open_store(f"sqlite:///{tmp_path}/junk.db", "a")
    assert not junk.value.retryable
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(StoreError, match=r"folder\.db: unable to open") as folder:
        await open_journal(f"sqlite:///{tmp_path}/folder.db")
    assert "directory" in folder.value.hint
    with pytest.raises(StoreError, match="cannot create the directory"):
        await open_store(f"sqlite:///{tmp_path}/junk.db/x.db", "a")


def test_a_file_that_may_not_be_written(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "x.db") as database:
        database.execute("CREATE TABLE t (n)")
    database.close()
    database = sqlite3.connect(f"file:{tmp_path}/x.db?mode=ro", uri=True)
    with pytest.raises(sqlite3.OperationalError) as refused:
        database.execute("INSERT INTO t VALUES (1)")
    database.close()
    error = translated(refused.value, "sqlite:///x.db")
    assert isinstance(error, StoreError)
    assert "readonly" in error.message
    assert "able to write" in error.hint


def test_a_full_disk_may_get_better() -> None:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE t (n)")
    database.execute("PRAGMA max_page_count = 2")
    with pytest.raises(sqlite3.OperationalError) as full:
        database.execute("INSERT INTO t VALUES (zeroblob(100000))")
    database.close()
    error = translated(full.value, "sqlite:///x.db")
    assert isinstance(error, StoreUnavailable)
    assert "space" in error.hint


async def test_a_writer_that_holds_the_lock_is_waited_for(tmp_path: Path) -> None:
    patient = await open_store(f"sqlite:///{tmp_path}/x.db", "a")
    hasty = await open_store(f"sqlite:///{tmp_path}/x.db?timeout=0.01", "a")
    database, cell = sqlite3.connect(tmp_path / "x.db", isolation_level=None), key(uuid.uuid4().hex, "n")
    database.execute("BEGIN IMMEDIATE")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(patient.commit, [Cell(cell, b"1")])
        with pytest.raises(StoreUnavailable, match="locked"):
            await hasty.commit([Cell(cell, b"2")])
        assert await hasty.load([cell]) == {}, "readers do not wait for writers"
        database.execute("COMMIT")
    database.close()
    assert (await hasty.commit([Cell(cell, b"2")])).lost == {cell: b"1"}
    await patient.aclose()
    await hasty.aclose()


async def test_one_opening_at_a_time_migrates(tmp_path: Path) -> None:
    url, names = f"sqlite:///{tmp_path}/x.db", [f"p{i}" for i in range(8)]

    async def open_and_close(name: str) -> None:
        await (await open_store(url, name)).aclose()

    async with anyio.create_task_group() as tasks:
        for name in names * 2:
            tasks.start_soon(open_and_close, name)
    with sqlite3.connect(tmp_path / "x.db") as database:
        assert sorted(name for (name,) in database.execute("SELECT name FROM segue_part")) == names
    database.close()


async def test_bad_run_ids_are_refused(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/x.db", "a")
    with pytest.raises(StoreError, match="hex"):
        await store.commit([Cell(key("order-4711", "n"), b"")])
    await store.aclose()


async def test_naive_times_are_refused(tmp_path: Path) -> None:
    journal = await open_journal(f"sqlite:///{tmp_path}/x.db")
    naive = datetime.now(UTC).replace(tzinfo=None)
    with pytest.raises(StoreError, match="naive"):
        await journal.append([JournalEntry("id", "0" * 32, "n", "completed", naive, b"")], [])
    await journal.aclose()
