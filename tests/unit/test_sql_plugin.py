"""What the plugin says when something is not installed."""

from __future__ import annotations

import sys

import pytest

from segue.errors import PluginError
from segue.hooks import open_journal, open_store


@pytest.mark.parametrize(
    ("missing", "url", "extra"),
    [
        ("sqlalchemy", "sqlite:///x.db", r"segue\[sql\]"),
        ("sqlalchemy", "postgresql://h/db", r"segue\[postgres\]"),
        ("psycopg", "postgresql://h/db", r"segue\[postgres\]"),
    ],
)
async def test_a_missing_driver_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, missing: str, url: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(PluginError, match=extra):
        await open_store(url, "a")
    with pytest.raises(PluginError, match=extra):
        await open_journal(url)
