"""Fixtures and options of the tests."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("segue.testing.contracts")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
