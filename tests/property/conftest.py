"""Seeds for the property tests: as many as a quick run allows; `make soak` tries more."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from segue.testing.soak import watched


@pytest.fixture(params=[64, 1], ids=["loaded", "counted"])
def joins(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How small joins learn that they are complete: by loading their inputs, or by their tally alone."""
    monkeypatch.setattr("segue.machine.routes.LOADED_JOIN", request.param)
    monkeypatch.setattr("segue.runtime.turn.LOADED_JOIN", request.param)
    return int(request.param)


@pytest.fixture
def patience() -> Iterator[None]:
    """Something that never waits fails the test instead of hanging it."""
    with watched(120.0):
        yield


@pytest.fixture
def seeds() -> Callable[[int], range]:
    """`seeds(n)`: 0 to n-1."""
    return range
