"""`segue where`: the one-screen answer, from the journal; the broker adds how much waits for whom."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import msgspec
from cyclopts import Parameter

from segue import compose
from segue.cli.options import DEFAULTS, Options, execute
from segue.cli.runview import Broker, view_lines
from segue.cli.screen import Screen, whole
from segue.config import Config
from segue.errors import SegueError
from segue.hooks import open_transport, redact
from segue.ports.journal import Journal
from segue.ports.transport import Transport
from segue.runtime.values import Values
from segue.runtime.where import RunView
from segue.runtime.where import where as look

if TYPE_CHECKING:
    from segue.cli.screen import Line

EVERY = 1.0
"""Seconds between two looks with --watch."""
AGAIN = 5.0
"""Seconds after which an unreachable broker is tried again."""
BROKER_TIMEOUT = 2.0


class Where(msgspec.Struct, frozen=True):
    """`segue where -o json`: all fields of the run and its nodes.

    `broker` is reachable, unreachable or not asked; `stop` says why the run was stopped, if it was; `unread` is how
    many large values could not be read.
    """

    run: dict[str, Any]
    nodes: tuple[dict[str, Any], ...]
    broker: Broker
    stop: str
    unread: int = 0


def where(
    text: str,
    /,
    *,
    watch: Annotated[bool, Parameter(help="Look again until the run has ended.", negative="")] = False,
    all: Annotated[bool, Parameter(help="Show every node of a large plan.", negative="")] = False,
    traceback: Annotated[bool, Parameter(help="Show where errors were raised.", negative="")] = False,
    options: Options = DEFAULTS,
) -> None:
    """Where is a run, and why is it not further?

    Works from the journal alone; if the broker answers, it adds how many messages wait.

    Parameters
    ----------
    text
        The run's key or id, or a part of either that fits one run only.
    """
    execute(_where, options.screen, options.load(), text, watch, all, traceback)


class _Asked:
    """The broker, opened when it is needed and tried again now and then; it may be down."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._transport: Transport | None = None
        self._next = 0.0
        self._stack = AsyncExitStack()
        self._values: Values | None = None

    async def transport(self) -> Transport | None:
        """The open transport, or None if it cannot be reached."""
        if self._transport is None and anyio.current_time() >= self._next:
            try:
                with anyio.move_on_after(BROKER_TIMEOUT):
                    self._transport = await open_transport(self._config.transport, self._config.namespace)
            except SegueError:
                pass
            self._next = anyio.current_time() + AGAIN
        return self._transport

    async def values(self) -> Values | None:
        """The open object store, or None if it cannot be reached."""
        if self._values is None:
            try:
                with anyio.move_on_after(BROKER_TIMEOUT):
                    self._values = await self._stack.enter_async_context(compose.values(self._config))
            except SegueError:
                pass
        return self._values

    async def aclose(self) -> None:
        """Close what was opened."""
        await self._stack.aclose()
        if self._transport is not None:
            await self._transport.aclose()


@asynccontextmanager
async def _asking(config: Config) -> AsyncIterator[_Asked]:
    asked = _Asked(config)
    try:
        yield asked
    finally:
        await asked.aclose()


async def _where(screen: Screen, config: Config, text: str, watch: bool, all_nodes: bool, traceback: bool) -> None:
    async with compose.journal(config) as journal, _asking(config) as asked:
        shown: list[str] = []
        while True:
            view, broker = await _look(journal, text, asked)
            text = view.run.run  # a fragment may fit another run, too, by and by

            def lines(view: RunView = view, broker: Broker = broker) -> list[Line]:
                now = datetime.now().astimezone()
                return view_lines(view, now, broker, redact(config.transport), None if all_nodes else 40, traceback)

            answer = Where(whole(view.run), tuple(map(whole, view.nodes)), broker, view.stop, view.unread)
            if not watch:
                screen.show(answer, lines)
                return
            shown = _again(screen, answer, lines(), shown)
            if view.run.ended is not None:
                return
            await anyio.sleep(EVERY)


def _again(screen: Screen, answer: Where, lines: list[Line], shown: list[str]) -> list[str]:
    """Print the screen if it is another one than before; on a terminal in the place of the one before."""
    plain = [msgspec.json.encode(answer).decode()] if screen.as_json else [str(line) for line in lines]
    if plain == shown:
        return shown
    if screen.as_json:
        screen.event(answer, list)
        return plain
    if screen.console.is_terminal:
        screen.console.clear()
    elif shown:
        lines = ["", *lines]
    screen.lines(lines)
    return plain


async def _look(journal: Journal, text: str, asked: _Asked) -> tuple[RunView, Broker]:
    view = await look(journal, text)
    values = await asked.values() if view.unread else None
    if values is not None:
        view = await look(journal, view.run.run, values=values)
    if not any(node.state == "open" for node in view.nodes):
        return view, "not asked"
    transport = await asked.transport()
    if transport is None:
        return view, "unreachable"
    view = await look(journal, view.run.run, transport, values)
    counted = [node.backlog is not None for node in view.nodes if node.state == "open"]
    return view, "reachable" if all(counted) else "unreachable"
