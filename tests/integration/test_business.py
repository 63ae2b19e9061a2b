"""The business flows of the examples: what each comes to, in both modes, in real and in virtual time."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from segue.testing import QUIET, World, run_everywhere

PATH = Path(__file__).parents[2] / "examples" / "business" / "flows.py"
spec = importlib.util.spec_from_file_location("business_flows", PATH)
assert spec is not None
assert spec.loader is not None
business = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = business
spec.loader.exec_module(business)

MODES = ["orchestrated", "choreographed"]
ORDER = business.Order("4711", 120)
DAY = 24 * 3600


def called(found: Any) -> list[str]:
    """Which calls were executed, by node."""
    return sorted(call.partition("/")[2].removesuffix("/1") for call in found.effects)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("flow", "given", "signal", "sent", "value"),
    [
        ("checkout", ORDER, "paid", business.Payment(True, "P1"), "4711 shipped, paid by P1"),
        ("either_or", ORDER, "cancelled", "too late", "4711 cancelled: too late"),
        ("either_or", ORDER, "courier", "bike", "4711 shipped, paid by bike"),
        ("approval", business.Claim("c", 50), "decision", business.Decision(True, "Ada"), "50 paid back"),
        ("approval", business.Claim("c", 50), "decision", business.Decision(False, "Ada"), "claim c refused"),
    ],
)
async def test_somebody_signals(mode: Any, flow: str, given: Any, signal: str, sent: Any, value: str) -> None:
    async with World(business.app, mode=mode) as world:
        run = await world.start(business.app.flows[flow], given)
        await world.client.signal(given.id, signal, sent, flow=flow)
        assert await run.result(timeout=10) == value


async def test_an_order_that_is_not_paid_is_released() -> None:
    found = await run_everywhere(business.checkout, ORDER, signals={"paid": business.Payment(False)}, faults=QUIET)
    assert [cause.error.type for cause in found.ended.causes if cause.error] == ["Declined"]
    assert found.undone == ("reserve",)


async def test_an_order_that_nobody_pays_is_released() -> None:
    found = await run_everywhere(business.checkout, ORDER, signals={"paid": lambda slot: None})
    assert [cause.error.type for cause in found.ended.causes if cause.error] == ["Timeout"]
    assert found.undone == ("reserve",)
    assert min(found.seconds.values()) > 30 * 60


@pytest.mark.parametrize(("amount", "value"), [(50, "50 paid back"), (5000, "claim c refused")])
async def test_two_of_three_decide(amount: int, value: str) -> None:
    found = await run_everywhere(business.quorum, business.Claim("c", amount))
    assert found.value == value


async def test_nobody_decides_and_is_reminded() -> None:
    silence = {"decision": lambda slot: None}
    found = await run_everywhere(
        business.approval, business.Claim("c", 50), signals=silence, seeds=(None, 1), same=True
    )
    assert found.value == "claim c refused"
    assert called(found) == ["refuse/", "remind/0", "remind/1", "remind/2"]
    assert all(3 * DAY < seconds < 4 * DAY for seconds in found.seconds.values())


async def test_a_journey_that_is_too_dear_is_cancelled() -> None:
    found = await run_everywhere(business.saga, business.Trip("t", nights=3, budget=450))
    assert [cause.error.type for cause in found.ended.causes if cause.error] == ["TooDear"]
    assert found.undone == ("book_flight", "book_hotel")
    assert (await run_everywhere(business.saga, business.Trip("t", nights=2, budget=450))).value == 410


@pytest.mark.parametrize(("left", "looks", "value"), [(3, 3, "j done"), (99, 10, "j given up: LoopCap")])
async def test_a_job_is_looked_at_until_it_is_done(left: int, looks: int, value: str) -> None:
    found = await run_everywhere(business.poll, business.Job("j", left))
    assert found.value == value
    assert called(found) == [f"look/{n}" for n in range(looks)]
    assert all(seconds > (looks - 1) * 300 for seconds in found.seconds.values())
