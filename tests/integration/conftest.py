"""Fixtures of the integration tests: where a stage runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from segue.config import Config

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "apps")]

from stage import NAMES, in_memory  # noqa: E402


@pytest.fixture
def memory() -> Config:
    """Memory adapters of this test's own."""
    return in_memory()


@pytest.fixture
def nats(request: pytest.FixtureRequest, tmp_path: Path) -> Config:
    """The shared NATS server, a namespace of this test's own, and SQLite."""
    url = request.getfixturevalue("nats_server").url
    return Config(
        transport=f"{url}?redelivery=2",
        namespace=f"t{next(NAMES)}",
        store=f"sqlite:///{tmp_path}/{{part}}.db",
        journal=f"sqlite:///{tmp_path}/journal.db",
    )


@pytest.fixture
def postgres(request: pytest.FixtureRequest, nats: Config) -> Config:
    """NATS and PostgreSQL; whoever uses it twice finds the rows of the time before."""
    import msgspec

    url = request.getfixturevalue("postgres_url")
    return msgspec.structs.replace(nats, store=url, journal=url)


@pytest.fixture(params=["memory", "nats"])
def config(request: pytest.FixtureRequest) -> Config:
    """Memory adapters, then NATS with SQLite."""
    found: Config = request.getfixturevalue(request.param)
    return found
