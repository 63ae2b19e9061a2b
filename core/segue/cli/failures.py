"""From an exception to one clear block on stderr, and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
from cyclopts import CycloptsError

from segue.cli.screen import clean, json_line
from segue.errors import ConfigError, SegueError

FAILED, MISUSED = 1, 2


class Problem(NamedTuple):
    """What is told about an exception."""

    kind: str
    error: str
    hint: str
    code: int


class Told(msgspec.Struct, frozen=True):
    """A failure with `--output json`, one line on stderr. `kind` is the name of its class."""

    error: str
    hint: str
    kind: str


def report(error: BaseException, as_json: bool) -> int:
    """Tell what went wrong.

    Args:
        error: What was raised; groups are looked into.
        as_json: One JSON document to a problem.

    Returns:
        The exit code.

    Raises:
        BrokenPipeError: The reader of the output went away; told to nobody.
        KeyboardInterrupt: Somebody stopped the command.
    """
    problems = list(dict.fromkeys(_problem(leaf) for leaf in leaves(error)))
    for problem in problems:
        if as_json:
            # What came from the command line may not be Unicode, which JSON must be.
            told, hint = (text.encode(errors="backslashreplace").decode() for text in (problem.error, problem.hint))
            print(json_line(Told(told, hint, problem.kind)), file=sys.stderr)
            continue
        print(f"error: {_block(problem.error)}", file=sys.stderr)
        if problem.hint:
            print(f"  hint: {_block(problem.hint)}", file=sys.stderr)
    sys.stderr.flush()
    return max((problem.code for problem in problems), default=FAILED)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions in a group; task groups wrap what comes out of them."""
    if not isinstance(error, BaseExceptionGroup):
        if isinstance(error, BrokenPipeError | KeyboardInterrupt):
            raise error
        yield error
        return
    for inner in error.exceptions:
        yield from leaves(inner)


def _problem(error: BaseException) -> Problem:
    kind = type(error).__name__
    if isinstance(error, CycloptsError):
        chain = " ".join(error.command_chain or ())
        text = str(error).strip().removeprefix("Error: ")
        return Problem("UsageError", text, f"segue {chain} --help".replace("  ", " "), MISUSED)
    if isinstance(error, SegueError):
        return Problem(kind, error.message, error.hint, MISUSED if isinstance(error, ConfigError) else FAILED)
    text = f"unexpected {kind}: {error}" if str(error) else f"unexpected {kind}"
    return Problem(kind, text, "this is a bug of Segue or of a plugin; SEGUE_DEBUG=1 shows the traceback", FAILED)


def _block(text: str) -> str:
    """Text of any origin, each line after the first indented, so that none of them can pose as another message."""
    return "\n    ".join(clean(line) for line in text.splitlines())
