"""What people do to live runs by `segue signal`, `cancel`, `move` and the like, and what `where` says meanwhile."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from test_cli import Folder, eventually, free_port

MODES = ("orchestrated", "choreographed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    url = f"nats://127.0.0.1:{free_port()}"
    return Folder(tmp_path_factory.mktemp("desk"), f'app = "desk:app"\ntransport = "{url}"\n')


@pytest.fixture(scope="module")
def dev(folder: Folder) -> Iterator[None]:
    with folder.running("dev") as running:
        running.lines("Ctrl-C stops.")
        yield
        assert running.stop(signal.SIGINT)[0] == 0


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest, folder: Folder, dev: None) -> str:
    """All flows in this mode."""
    for flow in ("support", "parts", "rounds"):
        folder.json("mode", flow, request.param)
    found: str = request.param
    return found


def start(folder: Folder, flow: str, key: str, *parts: str) -> str:
    ticket = msgspec.json.encode({"id": key, "parts": parts}).decode()
    run: str = folder.json("start", flow, "--input", ticket)["run"]
    return run


def screen(folder: Folder, key: str, *words: str) -> list[str]:
    """What `where` shows, once it says all of this."""
    found: list[str] = []

    def there() -> bool:
        found[:] = folder.run("where", key).out.splitlines()
        return all(any(word in line for line in found) for word in words)

    try:
        eventually(there, f"where {key} never says {words}")
    finally:
        print("\n".join(found))  # pytest shows it if the test fails
    return found


def words(line: str) -> str:
    return " ".join(line.split())


def test_a_signal_lets_a_run_go_on(folder: Folder, mode: str) -> None:
    key = f"sig-{mode}"
    run = start(folder, "support", key)
    lines = screen(folder, key, "waits for signal 'answer' since ")
    assert words(lines[3]) == "· fix back waits for answer"
    told = folder.json("signal", key, "answer", '{"by": "ann"}')
    expected = {"run": run, "key": key, "flow": "support", "mode": mode, "changed": True, "note": ""}
    assert told == expected
    assert words(screen(folder, key, "completed")[2]).startswith("✔ answer ")
    again = folder.run("signal", run, "answer", '{"by": "bob"}')
    assert again.code == 1
    assert again.out.startswith("nothing changed: the run has ended\n")


def test_cancel_undoes(folder: Folder, mode: str) -> None:
    key = f"can-{mode}"
    start(folder, "support", key)
    screen(folder, key, "waits for signal")
    done = folder.run("cancel", key)
    assert done.code == 0, done
    assert done.out.startswith("cancelling run ")
    lines = screen(folder, key, "support/can-", "cancelled after")
    assert [words(line) for line in lines[1:]] == [
        "↶ open_ticket front undone",
        "⊘ answer back cancelled",
        "⊘ fix back cancelled because answer was cancelled",
    ]
    assert [run["key"] for run in folder.json("runs", key, "--status", "cancelled")] == [key]


def test_pause_and_resume(folder: Folder, mode: str) -> None:
    key = f"pau-{mode}"
    start(folder, "support", key)
    screen(folder, key, "waits for signal")
    assert folder.run("pause", key).code == 0
    assert folder.run("pause", key).code == 1
    assert folder.json("signal", key, "answer", '{"by": "ann"}')["changed"]
    lines = screen(folder, key, "paused for")
    assert "the run is paused" in "".join(lines[1:])
    assert folder.run("resume", key).out.startswith("resumed run ")
    screen(folder, key, "completed after")


def test_move_and_go_on(folder: Folder, mode: str) -> None:
    key, other = f"mov-{mode}", next(item for item in MODES if item != mode)
    run = start(folder, "support", key)
    screen(folder, key, "waits for signal")
    moved = folder.run("move", key, other)
    assert moved.code == 0, moved
    assert moved.out.startswith(f"moved to {other}: run {run} of support")
    again = folder.run("move", key, other)
    assert (again.code, again.out.splitlines()[0]) == (1, f"nothing changed: the run is {other}")
    assert folder.json("signal", key, "answer", '{"by": "ann"}')["mode"] == other
    assert f"   {other}   plan " in screen(folder, key, "completed after")[0]
    assert [found["mode"] for found in folder.json("runs", key)] == [other]


def test_retry_goes_on_with_what_failed(folder: Folder, mode: str) -> None:
    key = f"ret-{mode}"
    start(folder, "parts", key, "bolt", "missing")
    screen(folder, key, "0 of 2 items over")
    for part in ("bolt", "missing"):
        folder.json("signal", key, "agreed", "--match", part)
    lines = screen(folder, key, "failed after")
    assert words(lines[1]) == "⊘ each back aborted because order failed"
    assert any(words(line).startswith("✖ order back 1/2 done, 1 failed") for line in lines)
    assert any("✖ order/1 back failed at" in words(line) for line in lines)
    (folder.path / "found").write_text("missing")
    done = folder.run("retry", key, "--node", "order")
    assert done.code == 0, done
    assert done.out.startswith("retrying run ")
    lines = screen(folder, key, "completed after", "retried, revision 2")
    (folder.path / "found").unlink()
    assert any(words(line).startswith("✔ order back 2/2 done") for line in lines)
    # The other item would fail again, if it were run again.
    assert folder.run("retry", key, "--node", "order/0").code == 0
    screen(folder, key, "completed after", "retried, revision 3")
    wrong = folder.run("retry", key, "--node", "order/first")
    assert (wrong.code, "is no tag" in wrong.out) == (1, True)


def test_mistakes_are_told(folder: Folder, mode: str) -> None:
    key = f"mis-{mode}"
    start(folder, "support", key)

    def error(*arguments: str) -> tuple[int, Any]:
        done = folder.run(*arguments, "-o", "json")
        return done.code, msgspec.json.decode(done.err)["kind"]

    assert error("signal", key, "answer", "ann") == (2, "ConfigError")
    assert error("signal", key, "answer", '{"yes": 1}') == (1, "InvalidInput")
    assert error("signal", key, "go") == (1, "InvalidInput")
    assert error("cancel", "nobody") == (1, "UnknownRun")
    assert error("cancel", key, "--flow", "none") == (1, "UnknownFlow")
    assert error("retry", key, "--node", "none") == (1, "InvalidInput")
    assert error("pause") == (2, "UsageError")
    assert error("move", key, "sideways") == (2, "UsageError")
    assert error("move", "nobody", mode) == (1, "UnknownRun")
    done = folder.run("retry", key)
    assert (done.code, done.out.splitlines()[0]) == (1, "nothing changed: the run has not ended")


def test_purge_counts_what_is_old_and_refuses_what_is_young(folder: Folder, dev: None) -> None:
    start(folder, "support", "young", "a")
    found = {line["where"]: line for line in folder.json("purge", "--before", "60d", "--dry-run")}
    assert set(found) == {"coordinator", "front", "back", "journal"}
    assert all(line["runs"] == line["rows"] == 0 and not line["error"] for line in found.values())
    refused = folder.run("purge", "--before", "1d")
    assert refused.code == 1
    assert "keeps runs for 30 d after their end (retention.state)" in refused.out
    assert "the journal keeps runs for 30 d after their end (retention.journal)" in refused.out
    assert folder.run("purge", "--before", "soon").code == 2
