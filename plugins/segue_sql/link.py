"""One open connection to a database: transactions, and statements over many rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Connection

from segue.ports.store import Due
from segue_sql.statements import Lookup, Statement, StoreStatements

Row = tuple[Any, ...]


class Link(Protocol):
    """A connection, used by one thread. Errors are the driver's or SQLAlchemy's own."""

    core: Connection
    """The same connection for SQLAlchemy Core, in autocommit: for what is not on a hot path."""

    def run(self, run: str) -> object:
        """A run id as this database takes it in a row."""
        ...

    def begin(self) -> None:
        """Begin a transaction that is to write."""
        ...

    def commit(self) -> None:
        """Make it durable."""
        ...

    def rollback(self) -> bool:
        """Leave a failed transaction; False if the connection is of no more use."""
        ...

    def execute(self, statement: Statement, rows: Sequence[Row]) -> None:
        """Run a statement over rows that are sorted by their key."""
        ...

    def lookup(self, lookup: Lookup, rows: Sequence[Row]) -> dict[int, Any]:
        """What a lookup finds, by the number of the row."""
        ...

    def scan(self, part: int, runs: Sequence[str]) -> list[Row]:
        """All cells of some runs, as (run, node, tag, rev, kind, value)."""
        ...

    def insert_cells(self, statements: StoreStatements, rows: Sequence[Row]) -> dict[int, Any]:
        """Insert the cells that are not there yet; the recorded values of those that are, by the number of the row."""
        ...

    def count(self, statements: StoreStatements, rows: Sequence[Row]) -> dict[int, int]:
        """Add to tallies, within a transaction; what they are then, by the number of the row."""
        ...

    def change_due(self, statements: StoreStatements, rows: Sequence[Row], done: Sequence[Row]) -> None:
        """Write due rows, and delete others, which are given by (run, node, tag)."""
        ...

    def overdue(self, part: int, now: int) -> bool:
        """Whether there is something to claim."""
        ...

    def claim(self, statements: StoreStatements, take: Take) -> list[Due]:
        """Move overdue rows, within a transaction."""
        ...

    def close(self) -> None:
        """Close the connection. Never raises."""
        ...


class Take(NamedTuple):
    """Which due rows to claim, and for whom; instants in milliseconds."""

    now: int
    until: int
    limit: int
    owner: str


class Database(NamedTuple):
    """Something to connect to. `name` is its URL without credentials; `password` must not appear in messages."""

    name: str
    password: str
    connect: Callable[[], Link]
