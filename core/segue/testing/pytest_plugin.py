"""Gives `run_everywhere` to pytest as a fixture, `everywhere`, with seeds from the command line.

    async def test_checkout(everywhere):
        found = await everywhere(checkout, Order("4711", 4200), signals={"paid": Paid(4200)})
        assert found.value == ...

`--segue-seeds N` makes each such test try so many seeds beside good weather (3 by default); `--segue-seed S` tries only
that one, which is what a failure says. Nothing of Segue is imported before a test asks for the fixture.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from segue.testing.everywhere import Everywhere

SEEDS = 3


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("segue")
    group.addoption("--segue-seeds", type=int, default=SEEDS, help="seeds that `everywhere` tries with each flow")
    group.addoption("--segue-seed", type=int, default=None, help="the only seed that `everywhere` tries")


@pytest.fixture
def everywhere(request: pytest.FixtureRequest) -> Callable[..., Awaitable[Everywhere]]:
    """`run_everywhere`, with the seeds of the command line."""
    from segue.testing.everywhere import run_everywhere

    only = request.config.getoption("--segue-seed")
    seeds = (None, *range(request.config.getoption("--segue-seeds"))) if only is None else (only,)

    def run(*args: Any, **options: Any) -> Awaitable[Everywhere]:
        return run_everywhere(*args, **{"seeds": seeds, **options})

    return run
