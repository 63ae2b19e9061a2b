"""A package of somebody else: built, installed, found; it keeps the contract, and flows run over it in both modes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "transport-litequeue"
ORDERS = ROOT / "tests" / "apps" / "litequeue_orders.py"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which Python finds the package, with its metadata, outside of the checkout."""
    target = tmp_path_factory.mktemp("site")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--no-cache-dir")
    run(sys.executable, "-m", "pip", "install", "--quiet", *options, "--target", str(target), str(EXAMPLE))
    assert sorted(path.name.partition("-")[0] for path in target.iterdir()) == ["segue_litequeue", "segue_litequeue"]
    return {**os.environ, "PYTHONPATH": str(target), "PYTHONDONTWRITEBYTECODE": "1"}


def run(*command: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_keeps_the_contract(installed: dict[str, str], tmp_path: Path) -> None:
    pytest_options = ("-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "tests"))
    found = run(sys.executable, "-m", "pytest", *pytest_options, env=installed, cwd=EXAMPLE)
    assert " passed in " in found
    assert "skipped" not in found


def test_flows_run_over_it_the_same_in_both_modes(installed: dict[str, str], tmp_path: Path) -> None:
    printed = run(sys.executable, str(ORDERS), f"litequeue://{tmp_path}/queue.db", env=installed, cwd=tmp_path)
    found: dict[str, dict[str, Any]] = msgspec.json.decode(printed)
    assert found["orchestrated"] == found["choreographed"]
    orders = found["orchestrated"]
    assert {name: (order["status"], order["result"]) for name, order in orders.items()} == {
        "plain": ("completed", "50 paid, from shelf 4"),
        "large": ("completed", "5000 paid, from shelf 4"),
        "refused": ("failed", "run RUN of place_order failed: charge (ValueError: the total is negative)"),
        "retried": ("completed", "7 paid, from shelf 4"),
    }
    states = {name: {node: seen[1:3] for node, seen in order["nodes"].items()} for name, order in orders.items()}
    done, skipped = ["completed", 1], ["skipped", 0]
    assert states == {
        "plain": {"charge": done, "reserve": done, "review": skipped, "notify": done},
        "large": {"charge": done, "reserve": done, "review": done, "notify": done},
        "refused": {"charge": ["failed", 1], "reserve": done, "review": skipped, "notify": ["aborted", 0]},
        "retried": {"charge": ["completed", 2], "reserve": done, "review": skipped, "notify": done},
    }
