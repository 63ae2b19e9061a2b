"""Foreign errors, translated at this package's edge."""

from __future__ import annotations

import sqlite3

from segue.errors import SegueError, StoreError, StoreUnavailable

_SQLITE_AGAIN = {
    sqlite3.SQLITE_BUSY: "another process holds the write lock; it may be stuck in a transaction",
    sqlite3.SQLITE_LOCKED: "another process holds the write lock; it may be stuck in a transaction",
    sqlite3.SQLITE_IOERR: "check the disk",
    sqlite3.SQLITE_FULL: "free some space on the disk",
    sqlite3.SQLITE_INTERRUPT: "",
    sqlite3.SQLITE_NOMEM: "",
}
_SQLITE_NEVER = {
    sqlite3.SQLITE_CANTOPEN: "check that the directory exists and that this user may write to it",
    sqlite3.SQLITE_READONLY: "this user must be able to write to the file and to its directory",
    sqlite3.SQLITE_PERM: "this user must be able to write to the file and to its directory",
    sqlite3.SQLITE_NOTADB: "the file is something else; name another one",
    sqlite3.SQLITE_CORRUPT: "restore it from a backup",
}
_POSTGRES_AGAIN = ("08", "25006", "40", "53", "55P03", "57")
"""Connection, standby, rolled back, out of resources, locked, shut down."""


def translated(error: BaseException, name: str, password: str = "") -> SegueError:
    """What to raise instead of a driver's error.

    Args:
        error: What the driver or SQLAlchemy raised.
        name: The database, without credentials.
        password: What to strike out of the message.
    """
    if isinstance(error, SegueError):
        return error
    cause = getattr(error, "orig", None) or error
    text = " ".join(str(cause).split())
    text = f"{name}: {text.replace(password, '***') if password else text}"
    if isinstance(cause, sqlite3.Error):
        return _sqlite(cause, text)
    if hasattr(cause, "sqlstate"):
        return _postgres(cause, text)
    bad = StoreError(f"{text} ({type(cause).__name__})")
    bad.__cause__ = cause
    return bad


def _sqlite(error: sqlite3.Error, message: str) -> StoreError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _SQLITE_AGAIN:
        return StoreUnavailable(message, _SQLITE_AGAIN[code])
    return StoreError(message, _SQLITE_NEVER.get(code, ""))


def _postgres(error: BaseException, message: str) -> StoreError:
    state = getattr(error, "sqlstate", None)
    if state is None and type(error).__name__ in ("OperationalError", "ConnectionTimeout", "InterfaceError"):
        return StoreUnavailable(message, "check that the server runs, and host, user, password and database in the URL")
    if state is not None and state.startswith(_POSTGRES_AGAIN):
        return StoreUnavailable(message)
    if state == "42501":
        return StoreError(message, "grant this user the right to use (and, to upgrade, to create) the segue_ tables")
    return StoreError(message)
