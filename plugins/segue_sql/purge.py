"""Walking the oldest runs, and deleting them piece by piece: every statement is a range of a primary key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Delete, Select, Table, delete, select, tuple_

from segue.ports.store import LAST
from segue_sql.link import Link
from segue_sql.schema import cell, due, event, key, run, tally


class Purge(NamedTuple):
    """A run of which up to `limit` rows are deleted."""

    run: str
    limit: int


def oldest(part: int, after: Any, before: Any) -> Select[Any]:
    """The first run between two ids."""
    found = select(cell.c.run).where(cell.c.part == part, cell.c.run > after, cell.c.run < before)
    return found.order_by(cell.c.run).limit(1)


def walk(link: Link, part: int, after: str, before: str, limit: int) -> list[str]:
    """Runs between two ids, the oldest first. One search of the index each: a run may have any number of rows."""
    found: list[str] = []
    while len(found) < limit:
        row = link.core.execute(oldest(part, _id(link, after or "0" * 32), _id(link, before))).scalar()
        if row is None:
            break
        after = row.hex if isinstance(row, UUID) else bytes(row).hex()
        found.append(after)
    return found


def some(table: Table, limit: int, **place: Any) -> Delete:
    """Delete up to `limit` rows of a run, but not those that say that it began and ended."""
    mine = [table.c[name] == value for name, value in place.items()]
    rest = [column for column in table.primary_key.columns if column.name not in place]
    spared = [table.c.node.not_in(LAST)] if table is cell else []
    return delete(table).where(*mine, tuple_(*rest).in_(select(*rest).where(*mine, *spared).limit(limit)))


def bound(part: int, name: Any) -> Delete:
    """Delete the key of a run."""
    return delete(key).where(key.c.part == part, key.c.run == name)


def purge(link: Link, part: int, purges: Sequence[Any]) -> list[int]:
    """Delete rows of runs, within a transaction; how many of each."""
    found = []
    for name, limit in purges:
        place = {"part": part, "run": _id(link, name)}
        count = 0
        for table in (cell, tally, due):
            if count < limit:
                count += link.core.execute(some(table, limit - count, **place)).rowcount
        if count < limit:
            link.core.execute(delete(cell).where(cell.c.part == part, cell.c.run == place["run"]))
            link.core.execute(bound(part, place["run"]))
        found.append(count)
    return found


def purge_history(link: Link, purges: Sequence[Any]) -> list[int]:
    """Delete events of runs, and what is left of a run last; how many rows of each."""
    found = []
    for name, limit in purges:
        count = link.core.execute(some(event, limit, run=name)).rowcount
        if count < limit:
            link.core.execute(delete(run).where(run.c.run == name))
        found.append(count)
    return found


def _id(link: Link, name: str) -> Any:
    return UUID(name) if link.core.dialect.name == "postgresql" else bytes.fromhex(name)
