"""What commands print: lines and tables for people, JSON for programs; never what a terminal would obey.

Keys, payloads and errors come from anywhere. Control characters in them, and those that reorder text, are shown as
escapes. Nothing is read as markup.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    Line = Text | str

Output = Literal["table", "json"]

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def clean(text: str) -> str:
    """Text that a terminal shows and does not obey, on one line."""
    return _UNSAFE.sub(lambda match: _escape(match[0]), text)


def _escape(letter: str) -> str:
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return named.get(letter) or (f"\\x{ord(letter):02x}" if ord(letter) < 256 else f"\\u{ord(letter):04x}")


def json_line(value: Any) -> str:
    """A value as one line of JSON; outside of strings JSON has none of the characters that need an escape."""
    return _json_safe(msgspec.json.encode(value))


def json_text(value: Any) -> str:
    """A value as indented JSON."""
    return _json_safe(msgspec.json.format(msgspec.json.encode(value)))


def _json_safe(encoded: bytes) -> str:
    return _UNSAFE.sub(lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", encoded.decode())


def whole(struct: msgspec.Struct) -> dict[str, Any]:
    """A struct with all of its fields, so that programs find those with default values too."""
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


class Screen:
    """Where a command prints.

    Args:
        output: `table` for people, `json` for programs.
    """

    def __init__(self, output: Output) -> None:
        self.as_json = output == "json"

    @cached_property
    def console(self) -> Console:
        """The terminal, or whatever stdout is."""
        from rich.console import Console

        class Plain(Console):
            def on_broken_pipe(self) -> None:
                raise BrokenPipeError

        return Plain(highlight=False, markup=False, emoji=False, soft_wrap=True)

    def show(self, value: Any, lines: Callable[[], Iterable[Line]]) -> None:
        """Print one answer.

        Args:
            value: It as JSON.
            lines: It for people; called only for them.
        """
        if self.as_json:
            print(json_text(value))
        else:
            self.lines(lines())
        sys.stdout.flush()

    def event(self, value: Any, lines: Callable[[], Iterable[Line]]) -> None:
        """Print one of several answers: a line of JSON, or lines."""
        if self.as_json:
            print(json_line(value))
        else:
            self.lines(lines())
        sys.stdout.flush()

    def lines(self, lines: Iterable[Line]) -> None:
        """Print lines for people; plain text must be clean."""
        for line in lines:
            self.console.print(line, soft_wrap=True)

    def note(self, text: str) -> None:
        """Tell people something that is no part of the answer."""
        if not self.as_json:
            print(text, file=sys.stderr, flush=True)


def table(head: Sequence[str], rows: Iterable[Sequence[Line]]) -> list[Text]:
    """Rows in columns, two spaces apart, never wrapped; cells are made clean.

    Args:
        head: Column titles; none: no line of titles.
        rows: Cells; a `Text` keeps its style and must be clean.
    """
    from rich.text import Text

    cells = [[Text(title.upper(), "bold") for title in head]] if head else []
    cells += [[cell if isinstance(cell, Text) else Text(clean(cell)) for cell in row] for row in rows]
    widths = [max(cell.cell_len for cell in column) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        line = Text()
        for cell, width in zip(row, widths, strict=True):
            line.append_text(cell).append(" " * (width - cell.cell_len + 2))
        line.rstrip()
        lines.append(line)
    return lines


def span(seconds: float) -> str:
    """A length of time in words: `350 ms`, `1.2 s`, `42 s`, `5 min 3 s`, `2 h 10 min`."""
    seconds = max(seconds, 0.0)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    left = round(seconds)
    if left < 60:
        return f"{left} s"
    parts: list[str] = []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
    parts.append(f"{left} s" if left else "")
    return " ".join(part for part in parts[:2] if part)


def clock(time: datetime, now: datetime) -> str:
    """A time for people, in the time zone of `now`; with its date if that is another day."""
    local = time.astimezone(now.tzinfo)
    return local.strftime("%H:%M:%S" if local.date() == now.date() else "%Y-%m-%d %H:%M:%S")


def count(number: int, what: str) -> str:
    """A number of things: `1 message`, `57 messages`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
