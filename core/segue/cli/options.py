"""Flags that all commands take, and how commands run."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from cyclopts import Group, Parameter

from segue import config as configuration
from segue.cli.screen import Output, Screen, clean, json_line
from segue.config import Config

_GROUP = Group("Settings", sort_key=9)
FLAGS = ("transport", "store", "journal", "namespace", "app")


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    """Flags that all commands take; those that name settings win over the environment and `segue.toml`."""

    output: Annotated[
        Output, Parameter(name=["--output", "-o"], group=_GROUP, help="For people, or JSON for programs.")
    ] = "table"
    config: Annotated[
        str | None, Parameter(group=_GROUP, help="The configuration file; else the nearest segue.toml upwards.")
    ] = None
    transport: Annotated[str | None, Parameter(group=_GROUP, help="URL of the broker.")] = None
    store: Annotated[
        str | None, Parameter(group=_GROUP, help="URL of the state stores; {part} is the participant.")
    ] = None
    journal: Annotated[str | None, Parameter(group=_GROUP, help="URL of the journal.")] = None
    namespace: Annotated[str | None, Parameter(group=_GROUP, help="First token of every subject.")] = None
    app: Annotated[str | None, Parameter(group=_GROUP, help="The application, as module:attribute.")] = None

    def load(self) -> Config:
        """The configuration in force.

        Raises:
            ConfigError: It is not good.
        """
        given: dict[str, str | None] = {name: getattr(self, name) for name in FLAGS}
        return configuration.load({"config": self.config, **given})

    @property
    def screen(self) -> Screen:
        """Where the command prints; log messages go to stderr from now on."""
        screen = Screen(self.output)
        _log_to_stderr(screen.as_json)
        return screen


DEFAULTS = Options()


def execute(command: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Run a coroutine function to its end, on uvloop if it is there."""
    import anyio

    try:
        import uvloop  # noqa: F401
    except ImportError:
        fast = False
    else:
        fast = True
    if threading.current_thread() is not threading.main_thread():
        return anyio.run(command, *args, backend_options={"use_uvloop": fast})  # signals go to the main one
    result, interrupted = anyio.run(_interruptible, partial(command, *args), backend_options={"use_uvloop": fast})
    if interrupted:
        raise KeyboardInterrupt
    return result


async def _interruptible(command: Callable[[], Awaitable[Any]]) -> tuple[Any, bool]:
    """Run a command until Ctrl-C; a cancellation that a library swallows is delivered again, until the command ends."""
    import anyio

    results: list[Any] = []
    errors: list[Exception] = []
    interrupted: list[bool] = []

    async def watch() -> None:
        with anyio.open_signal_receiver(signal.SIGINT) as signals:
            async for _ in signals:
                interrupted.append(True)
                tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        try:
            results.append(await command())
        except Exception as error:
            errors.append(error)
        tasks.cancel_scope.cancel()
    if errors and not interrupted:
        raise errors[0]
    return (results[0] if results else None), bool(interrupted)


def _log_to_stderr(as_json: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogLines(as_json))
    debug = bool(os.environ.get("SEGUE_DEBUG"))
    logging.basicConfig(level=logging.INFO if debug else logging.WARNING, handlers=[handler])


class LogLines(logging.Formatter):
    """One line to a log message; tracebacks only when debugging."""

    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        level, text = record.levelname.lower(), record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            text = f"{text} ({type(error).__name__}: {error})"
        if self._as_json:
            return json_line({"event": "log", "level": level, "logger": record.name, "message": text})
        trace = ""
        if record.exc_info and os.environ.get("SEGUE_DEBUG"):
            trace = "\n" + "\n".join(clean(line) for line in self.formatException(record.exc_info).splitlines())
        return f"{level}: {clean(text)}{trace}"
