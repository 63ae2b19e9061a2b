"""The schema's versions, applied in order, under a lock, by whoever opens a database first.

A step that was released never changes. A later change of a table is a step of its own; the step that created the table
then keeps a copy of it as it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sqlalchemy import Connection, Table, func, insert, inspect, select, text

from segue.errors import StoreError
from segue.ports.journal import STAGES
from segue_sql import schema
from segue_sql.database import connect_to
from segue_sql.errors import translated
from segue_sql.link import Link

_LOCK = 0x5E60E
"""The advisory lock that PostgreSQL clients take to migrate."""


def _creates(*tables: Table) -> Callable[[Connection], None]:
    def apply(core: Connection) -> None:
        for table in tables:
            table.create(core)

    return apply


def _stages(core: Connection) -> None:
    """Runs may end more than once, and be held."""
    for name, value in (("stage", STAGES), ("pauses", 0)):
        core.execute(text(f"ALTER TABLE segue_journal_run ADD COLUMN {name} INTEGER NOT NULL DEFAULT {value}"))
    ended = STAGES + STAGES - 1
    core.execute(text(f"UPDATE segue_journal_run SET stage = {ended} WHERE status <> 'running'"))


def _keys_by_run(core: Connection) -> None:
    """The key of a run goes with it."""
    core.execute(text("CREATE INDEX segue_key_run ON segue_key (part, run)"))


def _moves(core: Connection) -> None:
    """Runs may be moved to the other mode."""
    core.execute(text("ALTER TABLE segue_journal_run ADD COLUMN moves INTEGER NOT NULL DEFAULT 0"))


STEPS: tuple[Callable[[Connection], None], ...] = (
    _creates(schema.part, schema.cell, schema.tally, schema.due, schema.key),
    _creates(schema.event, schema.run_2, schema.plan),
    _stages,
    _keys_by_run,
    _moves,
)
"""Step n leads to version n + 1."""


def migrate(link: Link, steps: Sequence[Callable[[Connection], None]] = STEPS) -> tuple[int, int]:
    """Bring the schema up to date. Safe in any number of processes at once; writes nothing if it is.

    Args:
        link: The connection, outside of a transaction.
        steps: All known steps.

    Returns:
        The version before and after.

    Raises:
        StoreError: The schema is newer than this code.
    """
    found = _version(link.core, len(steps))
    if found == len(steps):
        return found, found
    link.begin()
    try:
        if link.core.dialect.name == "postgresql":
            link.core.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        found = _version(link.core, len(steps))
        if found == 0:
            schema.version.create(link.core, checkfirst=True)
        for number in range(found, len(steps)):
            steps[number](link.core)
            link.core.execute(insert(schema.version).values(version=number + 1, applied=int(time.time() * 1000)))
    except BaseException:
        link.rollback()
        raise
    link.commit()
    return found, len(steps)


def _version(core: Connection, known: int) -> int:
    if not inspect(core).has_table(schema.version.name):
        return 0
    found: int = core.execute(select(func.coalesce(func.max(schema.version.c.version), 0))).scalar_one()
    if found > known:
        raise StoreError(
            f"the tables are of version {found}, this Segue knows version {known} at most",
            "upgrade Segue here; tables never go back to an older version",
        )
    return found


def upgrade(url: str) -> tuple[int, int]:
    """Bring the schema of a store or journal up to date, as opening it does.

    Args:
        url: The database; a URL with `{part}` needs one call for each participant's file.

    Returns:
        The version before and after.

    Raises:
        PluginError: The URL is malformed, or a driver is not installed.
        StoreError: The schema is newer than this code, or cannot be changed.
        StoreUnavailable: The database cannot be reached.
    """
    database = connect_to(url)
    try:
        link = database.connect()
        try:
            return migrate(link)
        finally:
            link.close()
    except Exception as error:
        raise translated(error, database.name, database.password) from None
