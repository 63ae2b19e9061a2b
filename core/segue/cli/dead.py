"""`segue dead`: messages that could not be handled; they are looked at, published again, or removed.

`requeue` and `discard` exit with 1 if one of the letters is not there, or nothing was done.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from segue.cli.options import DEFAULTS, Options, execute
from segue.cli.screen import Screen, clean, clock, count, table, whole
from segue.config import Config
from segue.errors import ConfigError, UnknownDeadLetter
from segue.hooks import open_transport
from segue.ports.transport import DeadLetter, DeadLetters
from segue.runtime.letters import Contents, contents, letters

if TYPE_CHECKING:
    from segue.cli.screen import Line

INCOMPLETE = 1
SHOWN = 50
"""Letters that are listed if nobody asks for another number."""

REASON, PAYLOAD = 60, 100_000
"""Characters of a reason in a list, and of a payload."""

Flow = Annotated[str, Parameter(help="Only letters about this flow.")]
Reason = Annotated[str, Parameter(help="Only letters whose reason has this text in it.")]
All = Annotated[bool, Parameter(name="--all", negative="", help="All letters that --flow and --reason leave.")]
Yes = Annotated[bool, Parameter(negative="", help="Do it; without this, --all only shows what it would do.")]
Id = Annotated[str, Parameter(help="Ids of letters, as `segue dead list` shows them.")]


class LetterLine(msgspec.Struct, frozen=True):
    """A line of `segue dead list`; `runs` and `flows`: what it is about, as far as it can be read."""

    id: str
    time: datetime
    participant: str
    subject: str
    deliveries: int
    reason: str
    flows: tuple[str, ...]
    runs: tuple[str, ...]


class LetterShown(msgspec.Struct, frozen=True):
    """`segue dead show`: the letter with its payload; `base64` says that the payload is no text, and so encoded."""

    letter: dict[str, Any]
    payload: str | bytes
    base64: bool


class LettersDone(msgspec.Struct, frozen=True):
    """What `segue dead requeue` or `discard` did; `preview`: nothing, only these would have been `ids`."""

    action: str
    preview: bool
    count: int
    ids: tuple[str, ...]
    missing: tuple[str, ...]


def listing(
    *,
    flow: Flow = "",
    reason: Reason = "",
    limit: Annotated[int, Parameter(help="How many, at most; the oldest come first.")] = SHOWN,
    options: Options = DEFAULTS,
) -> None:
    """List dead letters, oldest first."""
    if limit < 1:
        raise ConfigError("--limit must be at least 1")
    config, screen = options.load(), options.screen
    found, more = execute(_listed, config, flow, reason, limit)
    screen.show(found, lambda: _list_lines(found, more))


def show(id: str, /, *, options: Options = DEFAULTS) -> None:
    """Show a dead letter with its payload.

    Parameters
    ----------
    id
        Its id, as `segue dead list` shows it.
    """
    config, screen = options.load(), options.screen
    letter: DeadLetter = execute(_shown, config, id)
    text = _text(letter.body)
    line = whole(_line(letter, contents(letter)))
    screen.show(
        LetterShown(line, letter.body if text is None else text, text is None), lambda: _show_lines(letter, text)
    )


def requeue(
    *ids: Id, flow: Flow = "", reason: Reason = "", all: All = False, yes: Yes = False, options: Options = DEFAULTS
) -> int:
    """Publish the messages of dead letters again, and remove the letters."""
    return _change("requeue", ids, flow, reason, all, yes, options)


def discard(
    *ids: Id, flow: Flow = "", reason: Reason = "", all: All = False, yes: Yes = False, options: Options = DEFAULTS
) -> int:
    """Remove dead letters for good."""
    return _change("discard", ids, flow, reason, all, yes, options)


def _change(
    action: str, ids: tuple[str, ...], flow: str, reason: str, all_letters: bool, yes: bool, options: Options
) -> int:
    if bool(ids) == all_letters:
        raise ConfigError("name letters, or give --all", "`segue dead list` shows their ids")
    if (flow or reason or yes) and not all_letters:
        raise ConfigError("--flow, --reason and --yes belong to --all")
    config, screen = options.load(), options.screen
    done: LettersDone = execute(_changed, screen, config, action, ids, flow, reason, yes or not all_letters)
    screen.show(whole(done), lambda: _done_lines(done))
    return INCOMPLETE if done.missing or done.preview or not done.count else 0


@asynccontextmanager
async def _dead(config: Config) -> AsyncIterator[DeadLetters]:
    async with aclosing(await open_transport(config.transport, config.namespace)) as transport:
        yield transport.dead


async def _listed(config: Config, flow: str, reason: str, limit: int) -> tuple[list[LetterLine], bool]:
    found: list[LetterLine] = []
    async with _dead(config) as dead, aclosing(letters(dead, flow, reason)) as known:
        async for letter, about in known:
            if len(found) == limit:
                return found, True
            found.append(_line(letter, about))
    return found, False


async def _shown(config: Config, id: str) -> DeadLetter:
    async with _dead(config) as dead:
        letter = await dead.get(id)
        if letter is None:
            raise UnknownDeadLetter(f"there is no dead letter {id!r}", "list them with `segue dead list`")
        return letter


async def _changed(
    screen: Screen, config: Config, action: str, ids: tuple[str, ...], flow: str, reason: str, sure: bool
) -> LettersDone:
    async with _dead(config) as dead:
        if not ids:
            # What a requeued message comes to may be a letter again, so the list is made before anything is done.
            found = [letter async for letter, _ in letters(dead, flow, reason)]
            ids = tuple(letter.id for letter in found if letter.subject or action == "discard")
        if not sure:
            return LettersDone(action, True, len(ids), ids, ())
        act = dead.requeue if action == "requeue" else dead.discard
        done: list[str] = []
        missing: list[str] = []
        for id in dict.fromkeys(ids):
            (done if await act(id) else missing).append(id)
        return LettersDone(action, False, len(done), tuple(done), tuple(missing))


def _line(letter: DeadLetter, about: Contents) -> LetterLine:
    return LetterLine(
        letter.id,
        datetime.fromtimestamp(letter.time, UTC),
        letter.group,
        letter.subject,
        letter.deliveries,
        letter.reason,
        about.flows,
        about.runs,
    )


def _list_lines(found: list[LetterLine], more: bool) -> list[Line]:
    if not found:
        return ["no dead letters"]
    now = datetime.now().astimezone()
    head = ("id", "time", "participant", "flow", "runs", "deliveries", "reason")
    rows = [
        (
            line.id,
            clock(line.time, now),
            line.participant,
            ", ".join(line.flows) or "-",
            _runs(line.runs),
            str(line.deliveries),
            line.reason if len(line.reason) <= REASON else f"{line.reason[:REASON]} ...",
        )
        for line in found
    ]
    lines: list[Line] = [*table(head, rows)]
    return [*lines, "there are more; --limit shows them" if more else count(len(found), "dead letter")]


def _runs(runs: tuple[str, ...]) -> str:
    return "-" if not runs else runs[0] + (f" and {len(runs) - 1} more" if len(runs) > 1 else "")


def _show_lines(letter: DeadLetter, text: str | None) -> list[Line]:
    about = contents(letter)
    time = datetime.fromtimestamp(letter.time, UTC).astimezone()
    rows = [
        ("dead letter", letter.id),
        ("time", time.isoformat(" ", "seconds")),
        ("participant", letter.group),
        ("subject", letter.subject or "(the message is gone)"),
        ("deliveries", str(letter.deliveries)),
        ("reason", letter.reason),
        ("flows", ", ".join(about.flows) or "-"),
        ("runs", ", ".join(about.runs) or "-"),
        ("payload", count(len(letter.body), "byte")),
    ]
    shown = repr(letter.body)[2:-1] if text is None else text
    rest = [] if len(shown) <= PAYLOAD else [f"... {len(shown) - PAYLOAD:,} more characters; -o json shows them"]
    return [*table((), rows), *(clean(line) for line in shown[:PAYLOAD].split("\n")), *rest]


def _text(body: bytes) -> str | None:
    """A payload as people read it: indented if it is JSON; None if it is no text."""
    try:
        return msgspec.json.format(body).decode()
    except (msgspec.MsgspecError, UnicodeError):
        pass
    try:
        return body.decode()
    except UnicodeError:
        return None


def _done_lines(done: LettersDone) -> list[Line]:
    if done.preview:
        would = f"would {done.action} {count(done.count, 'dead letter')}"
        ids = f": {', '.join(done.ids[:SHOWN])}{' ...' if done.count > SHOWN else ''}" if done.count else ""
        return [clean(would + ids), "nothing was done; --yes does it"]
    lines: list[Line] = [f"{done.action}{'ed' if done.action == 'discard' else 'd'} {count(done.count, 'dead letter')}"]
    if done.missing:
        lines.append(clean(f"not there: {', '.join(done.missing)}"))
    return lines
