"""Registers the adapters of this package; what they need is imported when the first one is opened."""

from __future__ import annotations

from segue.errors import PluginError
from segue.hooks import Adapters, hookimpl
from segue.ports.journal import Journal
from segue.ports.store import StateStore

SCHEMES = {"sqlite": "sql", "postgresql": "postgres"}
"""URL schemes, and the extra that brings what they need."""


@hookimpl
def segue_register(adapters: Adapters) -> None:
    """Stores and journals on SQLite and PostgreSQL."""
    for scheme in SCHEMES:
        adapters.store(scheme, _open_store)
        adapters.journal(scheme, _open_journal)
        adapters.upgrade(scheme, _upgrade)


async def _open_store(url: str, part: str) -> StateStore:
    _need_sqlalchemy(url)
    from segue_sql.store import open_store

    return await open_store(url, part)


async def _open_journal(url: str) -> Journal:
    _need_sqlalchemy(url)
    from segue_sql.journal import open_journal

    return await open_journal(url)


def _upgrade(url: str) -> tuple[int, int]:
    _need_sqlalchemy(url)
    from segue_sql.migrations import upgrade

    return upgrade(url)


def _need_sqlalchemy(url: str) -> None:
    try:
        import sqlalchemy  # noqa: F401
    except ImportError:
        scheme = url.split(":")[0].split("+")[0]
        raise PluginError(
            f"SQLAlchemy is not installed, {scheme}:// needs it", f"pip install 'segue[{SCHEMES[scheme]}]'"
        ) from None
