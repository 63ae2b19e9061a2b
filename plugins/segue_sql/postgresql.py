"""PostgreSQL, through psycopg.

Rows travel as one JSON array: one parameter, built and read at a fraction of what arrays or single values cost here.
The plans of the statements must not depend on statistics, which lag far behind tables that grow from nothing: this
connection always walks the indexes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, cast

import msgspec
from sqlalchemy import URL, Connection, create_engine
from sqlalchemy.pool import NullPool

from segue.errors import PluginError
from segue.ports.store import Due, DueKey
from segue_sql.link import Database, Link, Row, Take
from segue_sql.statements import Column, Kind, Lookup, Statement, StoreStatements

_CONNECT = {
    "application_name": "segue",
    "connect_timeout": "10",
    "target_session_attrs": "read-write",
    "tcp_user_timeout": "15000",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "2",
}
"""A host that vanished must be noticed in seconds, and a standby must never be asked. The URL may say otherwise."""
_SETTINGS = (
    "SET synchronous_commit = on; SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off"
)
_encode = msgspec.json.Encoder().encode


def database(url: URL) -> Database:
    """The database that a URL names.

    Raises:
        PluginError: The URL asks for another driver.
    """
    if url.drivername not in ("postgresql", "postgresql+psycopg"):
        raise PluginError(f"{url.drivername}:// is not supported", "write postgresql://; the driver is psycopg")
    url = url.set(drivername="postgresql+psycopg")
    engine = create_engine(
        url.update_query_dict({**_CONNECT, **url.query}),
        isolation_level="AUTOCOMMIT",
        poolclass=NullPool,
    )

    def connect() -> Link:
        return PostgresLink(engine.connect())

    place = f"{url.host or ''}{f':{url.port}' if url.port else ''}/{url.database or ''}"
    password = str(url.password or url.query.get("password") or "")
    return Database(f"postgresql://{place}", password, connect)


class PostgresLink:
    """A connection to a server."""

    def __init__(self, core: Connection) -> None:
        self.core = core
        self._driver = cast(Any, core.connection.driver_connection)
        try:
            self._driver.execute(_SETTINGS)
        except BaseException:
            self.close()
            raise

    def run(self, run: str) -> object:
        return run

    def begin(self) -> None:
        self._driver.execute("BEGIN")

    def commit(self) -> None:
        self._driver.execute("COMMIT")

    def rollback(self) -> bool:
        try:
            if not self._driver.closed:
                self._driver.execute("ROLLBACK")
        except Exception:
            return False
        return not self._driver.closed

    def execute(self, statement: Statement, rows: Sequence[Row]) -> None:
        if rows:
            self._execute(change_text(statement), rows)

    def lookup(self, lookup: Lookup, rows: Sequence[Row]) -> dict[int, Any]:
        if not rows:
            return {}
        found = self._execute(lookup_text(lookup), rows).fetchall()
        if lookup.gives == "run":
            return {i - 1: value.hex for i, value in found}
        return {i - 1: value for i, value in found}

    def scan(self, part: int, runs: Sequence[str]) -> list[Row]:
        cursor = self._driver.cursor(binary=True)
        cursor.execute(SCAN, (part, list(runs)))
        return [(run.hex, *rest) for run, *rest in cursor.fetchall()]

    def insert_cells(self, statements: StoreStatements, rows: Sequence[Row]) -> dict[int, Any]:
        if not rows:
            return {}
        cursor = self._execute(change_text(statements.cells) + _UNLESS_THERE, rows)
        if cursor.rowcount == len(rows):
            return {}
        inserted = {(run.hex, *rest) for run, *rest in cursor.fetchall()}
        there = [i for i, row in enumerate(rows) if tuple(row[:-1]) not in inserted]
        found = self.lookup(statements.load, [rows[i][:-1] for i in there])
        return {there[i]: value for i, value in found.items()}

    def count(self, statements: StoreStatements, rows: Sequence[Row]) -> dict[int, int]:
        cursor = self._execute(change_text(statements.count) + " RETURNING run, node, tag, rev, n", rows)
        found = {(run.hex, *rest): n for run, *rest, n in cursor.fetchall()}
        return {i: found[tuple(row[:-1])] for i, row in enumerate(rows)}

    def change_due(self, statements: StoreStatements, rows: Sequence[Row], done: Sequence[Row]) -> None:
        """What is to be deleted is written first, too: one statement that locks all rows in the order of their keys."""
        if rows:
            self.execute(
                statements.due, sorted([*rows, *((*place, 0, "", 0, b"") for place in done)]) if done else rows
            )
        if done:
            self._execute(_DELETE, [(statements.part, *place) for place in done])

    def overdue(self, part: int, now: int) -> bool:
        return bool(self._driver.execute(_IS_OVERDUE, (part, now)).fetchall())

    def claim(self, statements: StoreStatements, take: Take) -> list[Due]:
        cursor = self._driver.cursor(binary=True)
        cursor.execute(_CLAIM, (statements.part, take.now, take.limit, take.until, take.owner))
        found = sorted(cursor.fetchall())
        return [
            Due(DueKey(run.hex, node, tag), take.until / 1000, attempt, body, take.owner)
            for _, run, node, tag, attempt, body in found
        ]

    def close(self) -> None:
        with suppress(Exception):
            self.core.invalidate()
            self.core.close()

    def _execute(self, text: str, rows: Sequence[Row]) -> Any:
        cursor = self._driver.cursor(binary=True)
        cursor.execute(text, (_encode(rows).decode(),))
        return cursor


_UNLESS_THERE = " ON CONFLICT DO NOTHING RETURNING run, node, tag, rev, kind"
_CLAIM = """
WITH c AS MATERIALIZED (
    SELECT part, run, node, tag, due_at FROM segue_due WHERE part = %s AND due_at <= %s
    ORDER BY due_at LIMIT %s FOR UPDATE SKIP LOCKED
)
UPDATE segue_due d SET due_at = %s, owner = %s FROM c
WHERE d.part = c.part AND d.run = c.run AND d.node = c.node AND d.tag = c.tag
RETURNING c.due_at, d.run, d.node, d.tag, d.attempt, d.body
"""
SCAN = "SELECT run, node, tag, rev, kind, value FROM segue_cell WHERE part = %s AND run = ANY(%s::uuid[])"
_IS_OVERDUE = "SELECT 1 FROM segue_due WHERE part = %s AND due_at <= %s LIMIT 1"
_CASTS: dict[Kind, str] = {
    "text": "j->>{i}",
    "integer": "(j->>{i})::bigint",
    "bytes": "decode(j->>{i}, 'base64')",
    "run": "(j->>{i})::uuid",
}


def _rows(columns: Sequence[Column]) -> str:
    """The table k, which is the parameter. Materialized, so that the planner cannot look into it."""
    names = ", ".join(column.name for column in columns)
    values = ", ".join(_CASTS[column.kind].format(i=i) for i, column in enumerate(columns))
    rows = f"SELECT r.i, {values} FROM jsonb_array_elements(%s::jsonb) WITH ORDINALITY AS r(j, i)"
    return f"WITH k(i, {names}) AS MATERIALIZED ({rows})"


@lru_cache(maxsize=1024)
def change_text(statement: Statement) -> str:
    return f"{_rows(statement.columns)} {statement.text}"


@lru_cache(maxsize=1024)
def lookup_text(lookup: Lookup) -> str:
    """With a limit in it, a lateral join stays what it is: one search of the index for each row of k."""
    found = f"SELECT {lookup.value} AS v FROM {lookup.table} t WHERE {lookup.where} LIMIT 1"
    return f"{_rows(lookup.columns)} SELECT k.i, t.v FROM k CROSS JOIN LATERAL ({found}) t"


_DELETE = (
    _rows([Column("part", "integer"), Column("uuid", "run"), Column("node", "text"), Column("tag", "text")])
    + " DELETE FROM segue_due d USING k WHERE d.part = k.part AND d.run = k.uuid AND d.node = k.node AND d.tag = k.tag"
)
