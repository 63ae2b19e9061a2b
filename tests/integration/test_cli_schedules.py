"""`segue schedule` and `segue scheduler`, beside a `segue dev` that starts what is due."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from test_cli import Folder, eventually, free_port


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    url = f"nats://127.0.0.1:{free_port()}"
    return Folder(tmp_path_factory.mktemp("ticking"), f'app = "ticking:app"\ntransport = "{url}"\n')


@pytest.fixture(scope="module")
def dev(folder: Folder) -> Iterator[list[str]]:
    """What `segue dev` says, while it runs in the folder."""
    with folder.running("dev") as running:
        yield running.lines("Ctrl-C stops.")
        code, rest = running.stop(signal.SIGINT)
    assert code == 0, rest
    assert "; schedules: " in rest


def line(folder: Folder, name: str) -> Any:
    (found,) = (each for each in folder.json("schedule", "list") if each["schedule"] == name)
    return found


def test_dev_says_what_is_scheduled_and_starts_it(folder: Folder, dev: list[str]) -> None:
    assert [row.split() for row in dev if "new" in row][-2:] == [["tick", "tick", "new"], ["mornings", "tick", "new"]]
    started = eventually(lambda: line(folder, "tick")["last"], "nothing is started")
    assert started["what"] == "started"
    assert eventually(lambda: folder.run("where", started["run"]).code == 0, "the journal never heard of it")
    assert folder.run("where", started["run"]).out.startswith("tick/tick@20")


def test_list_and_show(folder: Folder, dev: list[str]) -> None:
    mornings = line(folder, "mornings")
    assert (mornings["when"], mornings["state"]) == ("0 9 * * mon-fri Europe/Berlin", "active")
    shown = folder.json("schedule", "show", "mornings")
    assert shown["next"][0] == mornings["next"]
    assert shown["schedule"]["timing"] == {
        "type": "cron",
        "expression": "0 9 * * mon-fri",
        "timezone": "Europe/Berlin",
    }
    assert (shown["schedule"]["overlap"], shown["schedule"]["app"], shown["handled"]) == ("skip", "ticking", [])
    text = folder.run("schedule", "show", "tick").out
    assert "declared by  app ticking" in text
    assert "every 1 s" in folder.run("schedule", "list").out


def test_next(folder: Folder, dev: list[str]) -> None:
    found = folder.json("schedule", "next", "tick", "--count", "2")
    first, second = (datetime.fromisoformat(each["due"]) for each in found)
    assert second - first == timedelta(seconds=1)
    assert found[0]["key"] == f"tick@{first:%Y-%m-%dT%H:%M:%SZ}"
    everything = folder.json("schedule", "next")
    assert [each["due"] for each in everything] == sorted(each["due"] for each in everything)
    assert {each["schedule"] for each in everything} == {"tick", "mornings"}
    assert folder.run("schedule", "next", "--count", "0").code == 2


def test_add_and_remove(folder: Folder, dev: list[str]) -> None:
    later = (datetime.now(UTC) + timedelta(days=2)).strftime("%Y-%m-%dT09:00")
    for name, *when in (
        ("hand-cron", "--cron", "*/5 8-17 * * *", "--timezone", "Asia/Tokyo", "--overlap", "buffer"),
        ("hand-every", "--every", "5m", "--anchor", later, "--catch-up", "1h"),
        ("hand-at", "--at", later, "--timezone", "America/New_York"),
    ):
        added = folder.json("schedule", "add", name, "tick", *when, "--input", '"there"', "--due-as", "due")
        assert added["state"] == "active"
        assert folder.json("schedule", "show", name)["schedule"]["input"] == {"place": "there"}
    assert folder.json("schedule", "show", "hand-every")["schedule"]["catch_up"] == 3600
    assert line(folder, "hand-every")["next"] == line(folder, "hand-every")["when"].split()[-1].replace("+00:00", "Z")
    assert line(folder, "hand-at")["when"].startswith("once, ")
    for name in ("hand-cron", "hand-every", "hand-at"):
        assert folder.json("schedule", "remove", name)["change"] == "removed"
    assert folder.run("schedule", "remove", "hand-at").code == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("x", "tick"), 2, "one of --cron, --every and --at must be given"),
        (("x", "tick", "--cron", "* * * * *", "--every", "5s"), 2, "one of --cron, --every and --at"),
        (("x", "tick", "--cron", "* * *"), 1, "does not have five fields"),
        (("x", "tick", "--cron", "* * * * *", "--anchor", "2026-01-01"), 2, "--anchor belongs to --every"),
        (("x", "tick", "--at", "yesterday"), 2, "is no time"),
        (("x", "tick", "--at", "2020-01-01T00:00"), 2, "is over"),
        (("x", "tick", "--every", "500ms"), 1, "whole number of seconds"),
        (("x", "nowhere", "--every", "5s"), 1, "flow 'nowhere' is not deployed"),
        (("x", "tick", "--every", "5s"), 1, "needs 'due'"),
        (("x", "tick", "--every", "5s", "--due-as", "due", "--input", "7"), 1, "does not fit at $.place"),
        (("tick", "tick", "--every", "5s", "--due-as", "due"), 1, "there is a schedule 'tick' already"),
    ],
)
def test_what_cannot_be_added(
    folder: Folder, dev: list[str], arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = folder.run("schedule", "add", *arguments)
    assert (done.code, message in done.err) == (code, True), done.err


def test_pause_resume_and_run(folder: Folder, dev: list[str]) -> None:
    paused = folder.json("schedule", "pause", "mornings")
    assert (paused["state"], paused["next"]) == ("paused", None)
    started = folder.json("schedule", "run", "mornings")
    assert started["key"].startswith("mornings@20")
    eventually(lambda: (line(folder, "mornings")["last"] or {}).get("run") == started["run"], "it is not told")
    assert line(folder, "mornings")["last"]["what"] == "manual"
    assert folder.json("schedule", "resume", "mornings")["state"] == "active"
    assert folder.run("schedule", "pause", "nowhere").code == 1


def test_deploy_tells_of_schedules(folder: Folder, dev: list[str]) -> None:
    done = folder.json("deploy")
    assert [(each["schedule"], each["change"]) for each in done if "schedule" in each] == [
        ("tick", "as it was"),
        ("mornings", "as it was"),
    ]
    assert "mornings  tick  as it was" in folder.run("deploy").out


def test_a_scheduler_of_its_own(folder: Folder, dev: list[str]) -> None:
    with folder.running("scheduler") as running:
        (ready,) = running.lines("scheduler is ready")
        assert ready.endswith("2 schedules")
        code, rest = running.stop(signal.SIGTERM)
    assert code == 0
    assert rest.startswith("stopped after")


def test_without_schedules_it_says_so(tmp_path: Path) -> None:
    done = Folder(tmp_path).run("schedule", "list", "--transport", "memory://none", "--app", "")
    assert done.code == 0, done.err
    assert done.out.startswith("no schedule is deployed")
