"""Gives `run_everywhere` to pytest as a fixture, `everywhere`, with seeds from the command line.

    def test_checkout(everywhere):
        found = everywhere(checkout, Order("4711", 4200), signals={"paid": Paid(4200)})
        assert found.value == ...

`--segue-seeds N` makes each such test try so many seeds beside good weather (3 by default); `--segue-seed S` tries only
that one: a failure says which. Nothing else of Segue is imported before a test asks for the fixture.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
def everywhere(request: pytest.FixtureRequest) -> Callable[..., Everywhere]:
    """`run_everywhere`, to be called without `await`, with the seeds of the command line."""
    from segue.testing import everywhere as testing

    only = request.config.getoption("--segue-seed")
    seeds = (None, *range(request.config.getoption("--segue-seeds"))) if only is None else (only,)

    def run(*args: Any, **options: Any) -> Everywhere:
        # In a thread, so that it may be called by tests that run in an event loop.
        with ThreadPoolExecutor(1) as threads:
            return threads.submit(testing.everywhere, *args, **{"seeds": seeds, **options}).result()

    return run
