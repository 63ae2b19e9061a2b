"""`segue.toml` as text: on which line a value stands, and how one value is changed without touching the rest.

tomllib gives values without positions. But a statement (a header, or a key with its value) is a whole number of lines
and is itself a TOML document, so the lines are gathered until tomllib takes them. That finds the statement of every
value, however it is written: dotted, inline, over several lines.

An edit is proposed by pattern and proved by parsing: the new text must differ in the one value, or it is not written.
"""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from segue.errors import ConfigError

KeyPath = tuple[str, ...]

_MODE = re.compile(r"""(["']?mode["']?\s*=\s*)(?:"[^"\n]*"|'[^'\n]*')""")


class Statement(NamedTuple):
    """A header or an assignment: its lines `first` to `last` (from 0), and the full paths of what it sets."""

    first: int
    last: int
    header: bool
    values: tuple[tuple[KeyPath, Any], ...]


def read(path: Path) -> str:
    """The text of a file, line ends as they are.

    Raises:
        ConfigError: It cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {_reason(error)}") from error


def parse(text: str, shown: str) -> dict[str, Any]:
    """The values of a document.

    Args:
        text: TOML.
        shown: Name of the file, for the message.

    Raises:
        ConfigError: It is not TOML; the message gives line and column.
    """
    try:
        return tomllib.loads(f"{text}\n")  # a line end, so that an unfinished last line has a number
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{shown} is not valid TOML: {error}") from error


def flat(tree: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """The leaves of nested tables with their paths; an empty table is a leaf."""
    if not isinstance(tree, dict) or not tree:
        yield path, tree
        return
    for key, value in tree.items():
        yield from flat(value, (*path, key))


def statements(text: str) -> Iterator[Statement]:
    """The statements of a valid document, in order."""
    table: KeyPath = ()
    chunk: list[str] = []
    for number, line in enumerate(text.split("\n")):
        chunk.append(line)
        try:
            tree = tomllib.loads("\n".join(chunk) + "\n")
        except tomllib.TOMLDecodeError:
            continue
        first, header = number - len(chunk) + 1, chunk[0].lstrip().startswith("[")
        chunk = []
        if not tree:
            continue
        if header:
            ((table, _),) = flat(tree)
        values = ((table, {}),) if header else tuple((table + path, value) for path, value in flat(tree))
        yield Statement(first, number, header, values)


def locate(text: str) -> dict[KeyPath, int]:
    """The line, from 1, of every value and table of a valid document."""
    found: dict[KeyPath, int] = {}
    for statement in statements(text):
        for path, _ in statement.values:
            found.setdefault(path, statement.first + 1)
    return found


def with_mode(text: str, table: KeyPath, mode: str) -> str | None:
    """The document with `mode` set in `table`, everything else as it was.

    Args:
        text: A valid document.
        table: Path of the flow's table, as the document spells it.
        mode: The new value.

    Returns:
        The new text, or None if no small edit does it.
    """
    path = (*table, "mode")
    wanted = {key: value for key, value in flat(tomllib.loads(text)) if value != {} or path[: len(key)] != key}
    wanted[path] = mode
    for proposal in _proposals(text, table, mode):
        try:
            tree = tomllib.loads(proposal)
        except tomllib.TOMLDecodeError:
            continue
        if dict(flat(tree)) == wanted:
            return proposal
    return None


def _proposals(text: str, table: KeyPath, mode: str) -> Iterator[str]:
    lines = text.split("\n")
    end = "\r" if "\r\n" in text else ""
    section = None
    for statement in statements(text):
        if any(path == (*table, "mode") for path, _ in statement.values):
            before, after = lines[: statement.first], lines[statement.last + 1 :]
            inside = "\n".join(lines[statement.first : statement.last + 1])
            for match in _MODE.finditer(inside):
                edited = f'{inside[: match.start()]}{match[1]}"{mode}"{inside[match.end() :]}'
                yield "\n".join([*before, edited, *after])
            return
        if statement.header and statement.values[0][0] == table:
            section = statement
    if section:
        if section.last == len(lines) - 1:
            lines[-1] += end
            lines.append("")
        yield "\n".join([*lines[: section.last + 1], f'mode = "{mode}"{end}', *lines[section.last + 1 :]])
        return
    body = text if not text or text.endswith("\n") else f"{text}{end}\n"
    gap = f"{end}\n" if body.strip() else ""
    yield f'{body}{gap}[{".".join(table)}]{end}\nmode = "{mode}"{end}\n'


def write(path: Path, text: str) -> None:
    """Replace a file in one step, keeping its permissions.

    Raises:
        ConfigError: It cannot be written; the old file is untouched.
    """
    path = path.resolve()
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.write_bytes(text.encode())
        if path.exists():
            shutil.copymode(path, fresh)
        os.replace(fresh, path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise ConfigError(f"{path} cannot be written: {_reason(error)}") from error


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
