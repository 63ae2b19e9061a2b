"""`segue signal`, `cancel`, `retry`, `pause`, `resume` and `move`: what people do to a live run.

They exit with 1 if nothing was changed, and say why.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import msgspec
from cyclopts import Parameter

from segue import compose
from segue.cli.options import DEFAULTS, Options, execute
from segue.cli.screen import Screen, clean, whole
from segue.config import Config
from segue.errors import ConfigError
from segue.plan.projection import Mode
from segue.runtime import client as clients
from segue.runtime.handle import RunHandle
from segue.wire.requests import Done

if TYPE_CHECKING:
    from segue.cli.screen import Line

PATIENCE = 2.0
"""Seconds without an answer after which a command says what it waits for."""

UNCHANGED = 1

FlowName = Annotated[str, Parameter(name="--flow", help="The run's flow, if several flows have a run of this key.")]
Act = Callable[[RunHandle[Any]], Awaitable[Done]]


class Acted(msgspec.Struct, frozen=True):
    """What a command did: not `changed` if there was nothing to do; `note` says why."""

    run: str
    key: str
    flow: str
    mode: Mode
    changed: bool
    note: str


def signal(
    run: str,
    name: str,
    value: Annotated[str, Parameter(allow_leading_hyphen=True)] = "null",
    /,
    *,
    match: Annotated[str | None, Parameter(help="Which wait it is for: its match, as JSON or a text.")] = None,
    tag: Annotated[str, Parameter(help="Which item or round it is for, as 3 or 3.0.")] = "",
    id: Annotated[str | None, Parameter(help="The same id again changes nothing.")] = None,
    flow: FlowName = "",
    options: Options = DEFAULTS,
) -> int:
    """Send a signal to a run; it is kept if the run does not wait for it yet.

    Parameters
    ----------
    run
        The run's key or id.
    name
        The signal's name.
    value
        Its value, as JSON.
    """
    given = _json(value, "the value")
    act = partial(_signal, name=name, value=given, match=_loose(match), tag=tag, id=id)
    return _run(options, run, flow, act, f"signal {name!r} sent to")


def cancel(run: str, /, *, flow: FlowName = "", options: Options = DEFAULTS) -> int:
    """Stop a run: nothing starts in it any more, and what it did is undone.

    Parameters
    ----------
    run
        The run's key or id.
    """
    return _run(options, run, flow, lambda handle: handle.cancel(), "cancelling")


def retry(
    run: str,
    /,
    *,
    node: Annotated[
        tuple[str, ...],
        Parameter(
            negative="", help="A node to run again, too, or NODE/TAG for one item or round of it; may be repeated."
        ),
    ] = (),
    flow: FlowName = "",
    options: Options = DEFAULTS,
) -> int:
    """Go on with a run that failed: what failed or was undone is decided anew, and all that follows from it.

    Parameters
    ----------
    run
        The run's key or id.
    """
    return _run(options, run, flow, lambda handle: handle.retry(node), "retrying")


def pause(run: str, /, *, flow: FlowName = "", options: Options = DEFAULTS) -> int:
    """Hold a run: nothing more starts in it until it is resumed.

    Parameters
    ----------
    run
        The run's key or id.
    """
    return _run(options, run, flow, lambda handle: handle.pause(), "paused")


def resume(run: str, /, *, flow: FlowName = "", options: Options = DEFAULTS) -> int:
    """Let a paused run go on.

    Parameters
    ----------
    run
        The run's key or id.
    """
    return _run(options, run, flow, lambda handle: handle.resume(), "resumed")


def move(run: str, mode: Mode, /, *, flow: FlowName = "", options: Options = DEFAULTS) -> int:
    """Let a run that is under way be decided in the other mode from now on.

    Parameters
    ----------
    run
        The run's key or id.
    mode
        orchestrated or choreographed.
    """
    return _run(options, run, flow, lambda handle: handle.move(mode), f"moved to {mode}:")


async def _signal(handle: RunHandle[Any], *, name: str, value: Any, match: Any, tag: str, id: str | None) -> Done:
    return await handle.signal(name, value, match=match, tag=tag, id=id)


def _run(options: Options, run: str, flow: str, act: Act, verb: str) -> int:
    config, screen = options.load(), options.screen
    changed: bool = execute(_act, screen, config, run, flow, act, verb)
    return 0 if changed else UNCHANGED


async def _act(screen: Screen, config: Config, run: str, flow: str, act: Act, verb: str) -> bool:
    async with compose.wired(config, "act") as wiring, clients.client(wiring) as client:

        async def explain() -> None:
            await anyio.sleep(PATIENCE)
            screen.note("waiting for the run's home to answer; is it running?")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(explain)
            handle: RunHandle[Any] = await client.find(run, flow)
            done = await act(handle)
            tasks.cancel_scope.cancel()
        acted = Acted(handle.id, handle.key, handle.flow, handle.mode, done.changed, done.note)
        screen.show(whole(acted), lambda: _lines(acted, verb))
        return done.changed


def _lines(acted: Acted, verb: str) -> list[Line]:
    key = f", key {acted.key}" if acted.key else ""
    run = f"run {acted.run} of {acted.flow}{key}, {acted.mode}"
    if not acted.changed:
        return [clean(f"nothing changed: {acted.note or 'it was so before'}"), clean(f"  {run}")]
    note = [clean(f"  {acted.note}")] if acted.note else []
    return [clean(f"{verb} {run}"), *note]


def _json(text: str, what: str) -> Any:
    try:
        return msgspec.json.decode(text.encode(errors="surrogateescape"))
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ConfigError(f"{what} is not JSON: {error}", "texts need quotes, as in '\"approved\"'") from None


def _loose(text: str | None) -> Any:
    """A match: JSON if it is a number or a boolean, else the text itself."""
    if text is None:
        return None
    try:
        found = msgspec.json.decode(text.encode(errors="surrogateescape"))
    except (msgspec.DecodeError, UnicodeError):
        return text
    return found if isinstance(found, str | int | float | bool) else text
