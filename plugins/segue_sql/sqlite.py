"""SQLite: one file, one writer at a time, several processes.

Every commit is on disk before it returns (WAL, synchronous=FULL). A transaction takes the write lock at its beginning,
so that it never has to be given up half way, and what it reads is exact.

What a statement gives comes back as one JSON array: the driver releases the interpreter's lock for every row otherwise.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import URL, Connection, create_engine
from sqlalchemy.pool import NullPool

from segue.errors import PluginError, StoreError
from segue.ports.store import Due, DueKey
from segue_sql.link import Database, Link, Row, Take
from segue_sql.statements import Kind, Lookup, Statement, StoreStatements

BUSY_SECONDS = 10.0
"""How long to wait for another process's transaction, unless the URL says `?timeout=`."""
CACHE_KIBIBYTES = 16 * 1024
PIECE = 256
"""Most rows in one statement."""

_log = logging.getLogger("segue.sql")
_pairs = msgspec.json.Decoder(list[tuple[int, Any]])
_cells = msgspec.json.Decoder(list[tuple[str, str, int, int, str]])
_dues = msgspec.json.Decoder(list[tuple[int, str, str, str, int, str]])


def database(url: URL, part: str) -> Database:
    """The file that a URL names; `{part}` in it stands for the participant.

    Raises:
        PluginError: The URL names no file, or has a `{part}` where there is no participant.
        StoreError: The directory cannot be created.
    """
    name = url.database or ""
    if not name or url.host or name == ":memory:" or name.startswith("file:"):
        raise PluginError(
            f"{url.render_as_string()!r} names no file",
            "write sqlite:///relative/path.db or sqlite:////absolute/path.db; what need not last: memory://",
        )
    if "{part}" in name and not part:
        raise PluginError(f"sqlite:///{name}: a journal is one for all, so {{part}} stands for nothing here")
    path = Path(name.replace("{part}", part)).absolute()
    _create(path)
    if sqlite3.sqlite_version_info < (3, 51, 3):
        _log.debug("SQLite %s may damage a WAL that several processes reset at once", sqlite3.sqlite_version)
    options = {"timeout": str(BUSY_SECONDS), "cached_statements": str(PIECE), **url.query}
    engine = create_engine(url.set(database=str(path), query=options), isolation_level="AUTOCOMMIT", poolclass=NullPool)

    def connect() -> Link:
        return SqliteLink(engine.connect())

    return Database(f"sqlite:///{path}", "", connect)


def _create(path: Path) -> None:
    """Make the file and its directory, if they are not there, for this user alone; SQLite's other files follow suit."""
    try:
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot create the directory {path.parent}: {error.strerror}") from error
    # What is wrong with an existing file, SQLite says better.
    with suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))


class SqliteLink:
    """A connection to a file."""

    def __init__(self, core: Connection) -> None:
        self.core = core
        driver = core.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        self._driver = driver
        try:
            self._enter_wal()
            driver.execute("PRAGMA synchronous = FULL")
            driver.execute(f"PRAGMA cache_size = -{CACHE_KIBIBYTES}")
        except BaseException:
            self.close()
            raise

    def _enter_wal(self) -> None:
        """Switch to WAL. SQLite does not wait for others that do the same, so we do."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                if self._driver.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
                    return
                self._driver.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def run(self, run: str) -> object:
        return bytes.fromhex(run)

    def begin(self) -> None:
        self._driver.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._driver.execute("COMMIT")

    def rollback(self) -> bool:
        try:
            if self._driver.in_transaction:
                self._driver.execute("ROLLBACK")
        except sqlite3.Error:
            return False
        return True

    def execute(self, statement: Statement, rows: Sequence[Row]) -> None:
        for _, piece in pieces(rows):
            self._execute(change_text(statement, len(piece)), piece)

    def lookup(self, lookup: Lookup, rows: Sequence[Row]) -> dict[int, Any]:
        found: dict[int, Any] = {}
        for start, piece in pieces(rows):
            [(text,)] = self._execute(lookup_text(lookup, len(piece)), piece)
            if lookup.gives == "bytes":
                found |= {start + i: bytes.fromhex(value) for i, value in _pairs.decode(text)}
            else:
                found |= {start + i: value for i, value in _pairs.decode(text)}
        return found

    def scan(self, part: int, runs: Sequence[str]) -> list[Row]:
        """Page by page, so that what comes back as one text stays far from SQLite's limit; in one transaction."""
        found: list[Row] = []
        self._driver.execute("BEGIN")
        for run in runs:
            place: Row | None = ("", "", 0, 0)
            while place is not None:
                [(text,)] = self._driver.execute(SCAN, (part, bytes.fromhex(run), *place))
                page = _cells.decode(text)
                found += [(run, *key, bytes.fromhex(value)) for *key, value in page]
                place = page[-1][:-1] if len(page) == PIECE else None
        self._driver.execute("COMMIT")
        return found

    def insert_cells(self, statements: StoreStatements, rows: Sequence[Row]) -> dict[int, Any]:
        there: dict[int, Any] = {}
        for start, piece in pieces(rows):
            try:
                self._execute(change_text(statements.cells, len(piece)), piece)
            except sqlite3.IntegrityError:
                found = self.lookup(statements.load, [row[:-1] for row in piece])
                self.execute(statements.cells, [row for i, row in enumerate(piece) if i not in found])
                there |= {start + i: value for i, value in found.items()}
        return there

    def count(self, statements: StoreStatements, rows: Sequence[Row]) -> dict[int, int]:
        self.execute(statements.count, rows)
        return self.lookup(statements.tally, [row[:-1] for row in rows])

    def change_due(self, statements: StoreStatements, rows: Sequence[Row], done: Sequence[Row]) -> None:
        self.execute(statements.due, rows)
        for _, piece in pieces(done):
            places = ",".join(["(?,?,?)"] * len(piece))
            self._execute(_DELETE.format(part=statements.part, places=places), piece)

    def overdue(self, part: int, now: int) -> bool:
        return bool(self._driver.execute(_IS_OVERDUE, (part, now)).fetchall())

    def claim(self, statements: StoreStatements, take: Take) -> list[Due]:
        [(text,)] = self._driver.execute(_OVERDUE, (statements.part, take.now, take.limit))
        found = sorted(_dues.decode(text))
        rows = [
            (bytes.fromhex(run), node, tag, take.until, take.owner, attempt, bytes.fromhex(body))
            for _, run, node, tag, attempt, body in found
        ]
        self.execute(statements.due, sorted(rows))
        return [
            Due(DueKey(run, node, tag), take.until / 1000, attempt, bytes.fromhex(body), take.owner)
            for _, run, node, tag, attempt, body in found
        ]

    def close(self) -> None:
        with suppress(Exception):
            self.core.invalidate()
            self.core.close()

    def _execute(self, text: str, piece: Sequence[Row]) -> sqlite3.Cursor:
        return self._driver.execute(text, [value for row in piece for value in row])


_DELETE = """
WITH k(run, node, tag) AS (VALUES {places})
DELETE FROM segue_due WHERE part = {part} AND (run, node, tag) IN (SELECT run, node, tag FROM k)
"""
_IS_OVERDUE = "SELECT 1 FROM segue_due WHERE part = ? AND due_at <= ? LIMIT 1"
SCAN = f"""
SELECT json_group_array(json_array(node, tag, rev, kind, hex(value))) FROM
(SELECT * FROM segue_cell WHERE part = ? AND run = ? AND (node, tag, rev, kind) > (?, ?, ?, ?)
ORDER BY part, run, node, tag, rev, kind LIMIT {PIECE})
"""
_OVERDUE = """
SELECT json_group_array(json_array(due_at, lower(hex(run)), node, tag, attempt, hex(body))) FROM
(SELECT * FROM segue_due WHERE part = ? AND due_at <= ? ORDER BY due_at LIMIT ?)
"""
_JSON: dict[Kind, str] = {"bytes": "hex({})", "run": "lower(hex({}))", "integer": "{}", "text": "{}"}


def pieces(rows: Sequence[Row]) -> Iterator[tuple[int, Sequence[Row]]]:
    """Slices and where they begin. Their lengths are powers of two, so that few statements are ever prepared."""
    start = 0
    while start < len(rows):
        size = min(PIECE, 1 << (len(rows) - start).bit_length() - 1)
        yield start, rows[start : start + size]
        start += size


@lru_cache(maxsize=1024)
def change_text(statement: Statement, size: int) -> str:
    names = ",".join(column.name for column in statement.columns)
    row = f"({','.join('?' * len(statement.columns))})"
    return f"WITH k({names}) AS (VALUES {','.join([row] * size)}) {statement.text}"


@lru_cache(maxsize=1024)
def lookup_text(lookup: Lookup, size: int) -> str:
    """One row with all that is found, as JSON. A cross join is the one that SQLite does not turn round."""
    names = ",".join(column.name for column in lookup.columns)
    marks = ",?" * len(lookup.columns)
    values = ",".join(f"({i}{marks})" for i in range(size))
    value = _JSON[lookup.gives].format(lookup.value)
    return (
        f"WITH k(i,{names}) AS (VALUES {values}) SELECT json_group_array(json_array(k.i, {value})) "
        f"FROM k CROSS JOIN {lookup.table} t WHERE {lookup.where}"
    )
