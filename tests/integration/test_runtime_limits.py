"""Limits of runs: what is too large is not begun, in either mode, and the run says why; never a hang."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from stage import stage

from segue import App, Service, attempt, each, flow, repeat
from segue.config import Config, LimitsConfig
from segue.model.flow import Flow
from segue.plan.projection import MODES, Mode
from segue.runtime.where import where

each_mode = pytest.mark.parametrize("mode", MODES)
CALLED: list[int] = []

worker = Service("worker")


@worker.step
async def work(n: int) -> int:
    CALLED.append(n)
    return n + 1


@flow
def mapped(numbers: list[int]) -> list[int]:
    return each(numbers, work)


@flow
def tables(rows: list[list[int]]) -> list[list[int]]:
    return each(rows, lambda row: each(row, work))


@flow
def rounds(n: int) -> int:
    return repeat(lambda value: work(value), n, until=lambda value: value > 1_000, cap=2_000)


@flow
def caught(numbers: list[int]) -> list[int]:
    return attempt(lambda: each(numbers, work), handlers={"TooManyItems": lambda error: numbers})


app = App("limited", [mapped, tables, rounds, caught], [worker])


async def ended(flow: Flow[..., Any], given: Any, limits: LimitsConfig, config: Config, mode: Mode) -> tuple[str, str]:
    """How a run ended: its status, and the first error; the journal agrees."""
    CALLED.clear()
    config = msgspec.structs.replace(config, limits=limits)
    async with stage(app, config, mode) as here, here.running():
        run = await here.client.start(flow, given)
        found = await run.outcome(20)
        await here.events(run.id)
        view = await where(here.journal, run.id)
        assert view.run.status == found.status
        assert not any(node.state in ("open", "running") for node in view.nodes)
    error = next((cause.error for cause in found.causes if cause.error), None)
    return found.status, f"{error.type}: {error.message}" if error else ""


@each_mode
async def test_a_map_of_too_many_items_does_not_open(mode: Mode, config: Config) -> None:
    limits = LimitsConfig(items=20)
    assert await ended(mapped, list(range(20)), limits, config, mode) == ("completed", "")
    status, error = await ended(mapped, list(range(21)), limits, config, mode)
    assert (status, CALLED) == ("failed", [])
    assert error.startswith("TooManyItems: each has 21 items; limits.items allows 20: ")


@each_mode
async def test_maps_within_maps_have_one_limit_together(mode: Mode, memory: Config) -> None:
    rows = [[0] * 10 for _ in range(10)]
    assert (await ended(tables, rows, LimitsConfig(nodes=500), memory, mode))[0] == "completed"
    status, error = await ended(tables, rows, LimitsConfig(nodes=300), memory, mode)
    assert status == "failed"
    assert error.startswith("TooManyNodes: with 10 items of each_2 the run has ")
    assert "limits.nodes allows 300" in error
    assert 0 < len(CALLED) < 100


@each_mode
async def test_rounds_count(mode: Mode, memory: Config) -> None:
    limits = LimitsConfig(nodes=150)
    status, error = await ended(rounds, 0, limits, memory, mode)
    assert (status, len(CALLED)) == ("failed", 50)
    assert error.startswith("TooManyNodes: with round 51 of repeat the run has 153 places; ")


@each_mode
async def test_a_flow_may_catch_it(mode: Mode, memory: Config) -> None:
    assert await ended(caught, [1, 2, 3], LimitsConfig(items=2), memory, mode) == ("completed", "")
    assert CALLED == []
