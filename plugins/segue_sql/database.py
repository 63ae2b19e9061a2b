"""From a URL to the database that it names."""

from __future__ import annotations

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from segue.errors import PluginError
from segue.hooks import redact
from segue_sql import postgresql, sqlite
from segue_sql.link import Database


def connect_to(url: str, part: str = "") -> Database:
    """What a URL names; nothing is connected yet.

    Args:
        url: `sqlite:///path` or `postgresql://user:password@host:port/database`.
        part: The participant, for `{part}` in the path of a SQLite file.

    Raises:
        PluginError: The URL is malformed, or the driver is not installed.
        StoreError: The directory of a SQLite file cannot be created.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise PluginError(
            f"{redact(url)!r} is not a database URL",
            "write sqlite:///path/to/file.db or postgresql://user:password@host:port/database",
        ) from None
    if parsed.get_backend_name() == "sqlite":
        return sqlite.database(parsed, part)
    try:
        return postgresql.database(parsed)
    except ImportError:
        raise PluginError("the PostgreSQL driver is not installed", "pip install 'segue[postgres]'") from None
