"""The SQL adapters keep the contracts, on both databases."""

from __future__ import annotations

import pytest

from segue.hooks import open_journal, open_store
from segue.ports.journal import Journal
from segue.ports.store import StateStore
from segue.testing import JournalContract, StoreContract


@pytest.fixture(scope="module")
def sqlite_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('sql')}/new/segue.db"


class OnSqlite:
    @pytest.fixture(autouse=True)
    def _url(self, sqlite_url: str) -> None:
        self.url = sqlite_url


class OnPostgres:
    @pytest.fixture(autouse=True)
    def _url(self, postgres_url: str) -> None:
        self.url = postgres_url


class TestSqliteStore(OnSqlite, StoreContract):
    async def connect(self, part: str) -> StateStore:
        return await open_store(self.url, part)


class TestSqliteJournal(OnSqlite, JournalContract):
    async def connect(self) -> Journal:
        return await open_journal(self.url)


class TestPostgresStore(OnPostgres, StoreContract):
    async def connect(self, part: str) -> StateStore:
        return await open_store(self.url, part)


class TestPostgresJournal(OnPostgres, JournalContract):
    async def connect(self) -> Journal:
        return await open_journal(self.url)
