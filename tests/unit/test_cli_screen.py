"""What commands print: columns, words for times, and nothing that a terminal would obey."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime, timedelta, timezone

import anyio
import msgspec
import pytest
from rich.text import Text

from segue.cli import failures, hosting
from segue.cli.hosting import count_lines
from segue.cli.options import LogLines
from segue.cli.screen import Screen, clean, clock, count, json_line, json_text, span, table
from segue.errors import ConfigError, DeclarationError, NotAccepted

EVIL = "\x1b[31mred\x9b2J\r\n\t\u202eabc\u2028\x00"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, Ünïcödé ✔ 日本", "plain text, Ünïcödé ✔ 日本"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x9b2J\x7f", "\\x9b2J\\x7f"),
        ("\u202eabc\u2066\u2028", "\\u202eabc\\u2066\\u2028"),
        ("\udcff", "\\udcff"),
    ],
)
def test_control_characters_become_escapes(text: str, shown: str) -> None:
    assert clean(text) == shown


@pytest.mark.parametrize("encode", [json_line, json_text])
def test_json_is_safe_for_terminals_and_says_the_same(encode: type) -> None:
    encoded = str(encode({"key": EVIL, "list": [1, "✔"]}))
    assert clean(encoded.replace("\n", "")) == encoded.replace("\n", "")
    assert "✔" in encoded
    assert msgspec.json.decode(encoded) == {"key": EVIL, "list": [1, "✔"]}


def test_a_table_aligns_by_width_and_reads_no_markup() -> None:
    lines = table(("key", "what"), [("[bold]x[/]", "a\x1b"), ("日本", Text("b", "red")), ("", "")])
    assert [line.plain for line in lines] == [
        "KEY         WHAT",
        "[bold]x[/]  a\\x1b",
        "日本        b",
        "",
    ]


def test_markup_in_a_line_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300
    Screen("table").show(None, lambda: ["[red]no[/] :smile:", long])
    assert capsys.readouterr().out == f"[red]no[/] :smile:\n{long}\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0 ms"),
        (0.0124, "12 ms"),
        (0.9999, "1.0 s"),
        (1.25, "1.2 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3725, "1 h 2 min"),
        (86400 * 3 + 3600 * 4, "3 d 4 h"),
        (86460, "1 d"),
    ],
)
def test_lengths_of_time_in_words(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_times_are_shown_in_the_zone_of_the_reader() -> None:
    zone = timezone(timedelta(hours=2))
    now = datetime(2026, 3, 4, 0, 30, tzinfo=zone)
    assert clock(datetime(2026, 3, 3, 22, 5, 6, tzinfo=UTC), now) == "00:05:06"
    assert clock(datetime(2026, 3, 3, 21, 5, 6, tzinfo=UTC), now) == "2026-03-03 23:05:06"


def test_counts_in_words() -> None:
    assert [count(number, "message") for number in (0, 1, 1234)] == ["0 messages", "1 message", "1,234 messages"]
    assert count_lines({"a": {"calls": 1, "ends": 0}, "b": {"calls": 0}, "c": {"calls": 2000}}, "-") == [
        "- a: 1 call; c: 2,000 calls"
    ]
    assert count_lines({"a": {"calls": 0}}, "-") == []


def test_an_error_is_one_block(capsys: pytest.CaptureFixture[str]) -> None:
    assert failures.report(NotAccepted(f"no\nerror: {EVIL}", "try\nthis"), as_json=False) == 1
    error = capsys.readouterr().err
    lines = error.splitlines()
    assert lines[0] == "error: no"
    assert all(line.startswith(" ") for line in lines[1:])
    assert "  hint: try" in lines
    assert "\x1b" not in error


def test_an_error_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert failures.report(ConfigError("bad \udcff", "do this"), as_json=True) == 2
    told = msgspec.json.decode(capsys.readouterr().err)
    assert told == {"error": "bad \\udcff", "hint": "do this", "kind": "ConfigError"}


def test_groups_are_looked_into_and_nothing_is_said_twice(capsys: pytest.CaptureFixture[str]) -> None:
    inner = ExceptionGroup("tasks", [DeclarationError("a"), ConfigError("b")])
    assert failures.report(ExceptionGroup("tasks", [inner, DeclarationError("a")]), as_json=False) == 2
    assert capsys.readouterr().err == "error: a\nerror: b\n"


def test_a_bug_is_named_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert failures.report(KeyError("x"), as_json=False) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: unexpected KeyError: 'x'\n")
    assert "SEGUE_DEBUG" in error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BrokenPipeError()])
def test_an_end_from_outside_is_no_error(error: BaseException) -> None:
    with pytest.raises(type(error)):
        failures.report(BaseExceptionGroup("tasks", [error]), as_json=False)


async def test_counters_are_told_when_they_change(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = [0, 0, 3, 3, 5]
    stop = anyio.Event()

    def counters() -> dict[str, dict[str, int]]:
        number = looks.pop(0)
        if not looks:
            stop.set()
        return {"payments": {"calls": number}}

    monkeypatch.setattr(hosting, "PROGRESS", 0.001)
    await hosting.report_until(stop, Screen("json"), counters, 0.0)
    told = [msgspec.json.decode(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["event"], line["counts"]) for line in told] == [("progress", {"payments": {"calls": 3}})]


@pytest.mark.parametrize("debug", ["", "1"])
def test_log_messages_are_one_line_without_a_traceback(monkeypatch: pytest.MonkeyPatch, debug: str) -> None:
    monkeypatch.setenv("SEGUE_DEBUG", debug)
    try:
        raise ValueError("bad\x1b")
    except ValueError:
        error = sys.exc_info()
    record = logging.LogRecord("segue.x", logging.WARNING, "", 0, "it %s", ("failed\n",), error)
    lines = LogLines(as_json=False).format(record).splitlines()
    assert lines[0] == "warning: it failed\\n (ValueError: bad\\x1b)"
    assert ("Traceback (most recent call last):" in lines) is bool(debug)
    told = msgspec.json.decode(LogLines(as_json=True).format(record))
    assert told["message"] == "it failed\n (ValueError: bad\x1b)"
    assert (told["event"], told["level"], told["logger"]) == ("log", "warning", "segue.x")
