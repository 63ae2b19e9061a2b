"""`make demo`, shortened: its table, its exit code, and what it leaves behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

DEMO = Path(__file__).resolve().parents[2] / "examples" / "order" / "demo.py"
ORDERS = 40
TIMEOUT = 120.0


@contextmanager
def demo(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}
    with subprocess.Popen(
        [sys.executable, DEMO, *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return
    pytest.fail(f"the demo ended without saying {words!r}")


def wait_for_end_of(processes: list[psutil.Process]) -> None:
    gone, alive = psutil.wait_procs(processes, timeout=20)
    assert alive == []
    assert len(gone) >= 6, "broker, coordinator, three services, observer"


@pytest.mark.slow
def test_both_modes_come_to_the_same(tmp_path: Path) -> None:
    with demo(tmp_path, "--orders", str(ORDERS)) as process:
        said, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, said
    table = {}
    for line in said.splitlines():
        row = re.fullmatch(r"\s+(\S.*?)\s{2,}(\d+)\s+(\d+)\s+(same|DIFFERENT)\s*", line)
        if row:
            table[row[1]] = (int(row[2]), int(row[3]), row[4])
    assert all(left == right and word == "same" for left, right, word in table.values())
    confirmed, refused = table["confirmed"][0], table["refused"][0]
    assert confirmed + refused == ORDERS
    assert refused >= 5
    assert table["sent"][0] == confirmed
    assert table["confirmed without one"][0] == table["confirmed with two"][0] == table["to refused"][0] == 0
    assert table["notify completed"][0] == confirmed
    assert table["notify aborted"][0] == refused
    assert table["charge completed"][0] + table["charge failed"][0] == ORDERS
    assert sum(table[name][0] for name in ("OutOfStock", "NoDelivery", "CardDeclined", "WrongTotal")) == 4
    assert re.search(r"\$ segue where 4631\n.*running.*orchestrated", said)
    assert re.search(r"\$ segue where 4631-c\n.*running.*choreographed", said)
    assert len(re.findall(r"notify +email +email has not answered", said)) == 2
    assert "What to try next" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    with demo(tmp_path, "--orders", str(ORDERS)) as process:
        read_until(process, "e-mail service")
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 130
        wait_for_end_of(children)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_service_that_dies_is_told_and_its_log_kept(tmp_path: Path) -> None:
    with demo(tmp_path, "--orders", str(ORDERS)) as process:
        read_until(process, "orders placed")
        children = psutil.Process(process.pid).children(recursive=True)
        inventory = next(child for child in children if child.cmdline()[-2:] == ["serve", "inventory"])
        inventory.kill()
        assert process.stdout is not None
        said = process.stdout.read()
        assert process.wait(30) == 1
        wait_for_end_of(children)
    assert "inventory ended with exit code -9" in said
    assert re.search(r"segue-demo-\w+/inventory.log:\n  inventory is ready", said)
    assert len(list(tmp_path.glob("segue-demo-*/*.log"))) == 5


@pytest.mark.parametrize("count", ["7", "201", "some"])
def test_a_bad_number_of_orders_is_refused(tmp_path: Path, count: str) -> None:
    began = time.monotonic()
    with demo(tmp_path, "--orders", count) as process:
        said, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 2
    assert "--orders" in said
    assert time.monotonic() - began < 10
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.delitem(sys.modules, "shop", raising=False)  # another test's app may have that name
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(DEMO.parent))
    import rounds

    yield rounds
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(DEMO.parent)):
            del sys.modules[name]


def two_rounds(rounds: Any) -> tuple[Any, Any]:
    """One order in each mode, the same in both."""
    found = []
    for mode in ("orchestrated", "choreographed"):
        each = rounds.Round(SimpleNamespace(), mode, "")
        each.results["1"] = rounds.Result(rounds.Confirmation("a@example.com", "№ 1", "Thanks"), ())
        each.history["1"] = (("notify", "completed", 1),)
        each.effects["1"] = (("notify", {"to": "a@example.com"}),)
        found.append(each)
    return found[0], found[1]


def test_what_is_the_same_is_no_difference(rounds: Any) -> None:
    assert list(rounds.differences(two_rounds(rounds))) == []


@pytest.mark.parametrize(
    ("what", "value", "said"),
    [
        (
            "results",
            lambda rounds: rounds.Result(None, (("charge", "WrongTotal", "0"),)),
            ["outcome of", "got 1 e-mails"],
        ),
        ("history", lambda _: (("notify", "aborted", 0),), ["history of order 1"]),
        ("effects", lambda _: (), ["effects of order 1", "got 0 e-mails instead of 1"]),
        ("effects", lambda _: (("notify", {}), ("notify", {})), ["effects of", "got 2 e-mails"]),
    ],
)
def test_what_differs_is_told(rounds: Any, what: str, value: Any, said: list[str]) -> None:
    first, second = two_rounds(rounds)
    getattr(second, what)["1"] = value(rounds)
    found = list(rounds.differences((first, second)))
    assert len(found) == len(said)
    assert all(words in text for words, text in zip(said, found, strict=True))
