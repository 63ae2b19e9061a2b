"""The tables, for both databases.

Cells are written once and never change; the tally and the due rows are the only rows of a store that do. A participant
("part") is a small integer, so that it costs nothing in every key. Run ids are 16 bytes and time-ordered: rows of one
time lie together, which makes inserts into SQLite many times cheaper than random ids. Due rows count milliseconds since
the epoch, the journal microseconds. The journal keeps run ids as text, because people search for fragments of them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text, Uuid

metadata = MetaData()

_WORDS = Text().with_variant(Text(collation="C"), "postgresql")
"""Text compared byte by byte: fast, and in the same order for every client."""
_RUN = LargeBinary().with_variant(Uuid(), "postgresql")


def _key(name: str, kind: Any = _WORDS) -> Column[Any]:
    return Column(name, kind, primary_key=True, autoincrement=False)


def _value(name: str, kind: Any = _WORDS, *, null: bool = False) -> Column[Any]:
    return Column(name, kind, nullable=null)


def _table(name: str, *columns: Column[Any], **options: Any) -> Table:
    return Table(f"segue_{name}", metadata, *columns, sqlite_with_rowid=False, **options)


part = Table(
    "segue_part",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", _WORDS, nullable=False, unique=True),
)
cell = _table(
    "cell",
    _key("part", Integer),
    _key("run", _RUN),
    _key("node"),
    _key("tag"),
    _key("rev", Integer),
    _key("kind", Integer),
    _value("value", LargeBinary),
)
tally = _table(
    "tally",
    _key("part", Integer),
    _key("run", _RUN),
    _key("node"),
    _key("tag"),
    _key("rev", Integer),
    _value("n", Integer),
    postgresql_with={"fillfactor": 70},
)
due = _table(
    "due",
    _key("part", Integer),
    _key("run", _RUN),
    _key("node"),
    _key("tag"),
    _value("due_at", BigInteger),
    _value("owner"),
    _value("attempt", Integer),
    _value("body", LargeBinary),
    postgresql_with={"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.01},
)
Index("segue_due_at", due.c.part, due.c.due_at)
key = _table("key", _key("part", Integer), _key("flow"), _key("key"), _value("run", _RUN))

event = _table(
    "journal_event",
    _key("run"),
    _key("id"),
    _value("node"),
    _value("kind"),
    _value("time", BigInteger),
    _value("body", LargeBinary),
)


def _runs(metadata: MetaData, *columns: Column[Any]) -> Table:
    """`at` orders the list: when the run started, or while that is unknown when it ended."""
    table = Table(
        "segue_journal_run",
        metadata,
        _key("run"),
        _value("flow"),
        _value("plan"),
        _value("mode"),
        _value("key"),
        _value("started", BigInteger, null=True),
        _value("ended", BigInteger, null=True),
        _value("status"),
        _value("error"),
        _value("at", BigInteger),
        *columns,
        sqlite_with_rowid=False,
    )
    Index("segue_journal_run_key", table.c.key)
    Index("segue_journal_run_at", table.c.at)
    return table


run = _runs(metadata, _value("stage", Integer), _value("pauses", Integer), _value("moves", Integer))
"""`stage`: of two records of a run the one with the greater says what `ended`, `status` and `error` are."""
run_2 = _runs(MetaData())
"""As it was in versions 2 and before."""
plan = _table("journal_plan", _key("hash"), _value("body", LargeBinary))

version = Table(
    "segue_schema",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("applied", BigInteger, nullable=False),
)
