"""Seeds for the property tests: kept failures first, then as many as the time allows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

KEPT = Path(__file__).parent / "seeds.txt"
Seeds = Callable[[int], Iterator[int]]


@pytest.fixture
def seeds() -> Iterator[Seeds]:
    """`seeds(n)`: the kept seeds, then 0 to n-1; with SEGUE_SOAK_SECONDS set, new ones for so long.

    The seed at which a test fails is printed, and kept in `seeds.txt` for every later run.
    """
    running: list[int] = []

    def draw(count: int) -> Iterator[int]:
        kept = [int(line) for line in KEPT.read_text().split() if line.isdigit()]
        soak = float(os.environ.get("SEGUE_SOAK_SECONDS", "0"))
        until = time.monotonic() + soak
        fresh = time.time_ns() // 1_000_000 if soak else 0
        for seed in (*kept, *range(count)):
            running[:] = [seed]
            yield seed
        while soak and time.monotonic() < until:
            fresh += 1
            running[:] = [fresh]
            yield fresh
        running.clear()

    yield draw
    if running:
        print(f"failed at seed {running[0]}")
        if str(running[0]) not in KEPT.read_text().split():
            with KEPT.open("a") as kept:
                kept.write(f"{running[0]}\n")


@pytest.fixture(params=[64, 1], ids=["loaded", "counted"])
def joins(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How small joins learn that they are complete: by loading their inputs, or by their tally alone."""
    monkeypatch.setattr("segue.machine.step.LOADED_JOIN", request.param)
    return int(request.param)
