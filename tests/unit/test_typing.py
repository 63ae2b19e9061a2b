"""What type checkers see is part of the interface, so mypy is part of its test."""

from __future__ import annotations

from pathlib import Path

from mypy import api

FILES = sorted(Path(__file__).parents[1].joinpath("typing").glob("*.py"))


def test_type_checkers_see_the_real_types_in_a_flow_body() -> None:
    """Strict mode reports an unused `type: ignore`, so the wrong calls in the files are tested too."""
    report, errors, code = api.run([*map(str, FILES), "--strict"])
    assert (code, errors) == (0, ""), report
