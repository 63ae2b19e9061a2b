"""The program: its commands, and what every command has in common: exit codes, errors in one block, no tracebacks.

Commands are named by import path, and loaded when they are called: `segue --help` stays fast.

Exit codes: 0 done; 1 it failed; 2 the command line or the configuration is wrong; 130 interrupted; 141 nobody reads
the output any more.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import cyclopts
from cyclopts import CycloptsError, Group

BROKEN_PIPE, INTERRUPTED = 141, 130
_WORK = Group("Work", sort_key=1)
_CHANGE = Group("Change", sort_key=2)
_LOOK = Group("Look", sort_key=3)
_RUN = Group("Run", sort_key=4)
_MORE = Group("More", sort_key=5)

_SCHEDULE = {
    "list": ("listing", "List schedules, with their next and last due times."),
    "show": ("show", "Show a schedule, and what came of its due times."),
    "next": ("upcoming", "List due times to come."),
    "add": ("add", "Add a schedule by hand."),
    "remove": ("remove", "Remove a schedule."),
    "pause": ("pause", "Pause a schedule."),
    "resume": ("resume", "Resume a schedule."),
    "run": ("run", "Start a run of a schedule now."),
}
_DEAD = {
    "list": ("listing", "List dead letters, oldest first."),
    "show": ("show", "Show a dead letter with its payload."),
    "requeue": ("requeue", "Publish the messages of dead letters again."),
    "discard": ("discard", "Remove dead letters for good."),
}
"""Commands of commands: where they are, and their lines in the list."""


def run(arguments: Sequence[str]) -> int:
    """Run a command and report what goes wrong.

    Args:
        arguments: The command line without the program's name.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Python flushes once more at exit; there is nobody to read that either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(arguments: Sequence[str]) -> int:
    try:
        result: Any = _tree(arguments)(
            list(arguments), exit_on_error=False, print_error=False, verbose=False, result_action="return_value"
        )
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        from segue.cli import failures

        if os.environ.get("SEGUE_DEBUG") and not isinstance(error, CycloptsError):
            import traceback

            traceback.print_exception(error)
        return failures.report(error, as_json=_wants_json(arguments))
    return result if isinstance(result, int) else 0


def _wants_json(arguments: Sequence[str]) -> bool:
    """Whether JSON was asked for; also of a command line that cannot be parsed."""
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    return any(
        (first in ("--output", "-o") and second == "json") or first in ("--output=json", "-o=json", "-ojson")
        for first, second in pairs
    )


def _tree(arguments: Sequence[str]) -> cyclopts.App:
    app = cyclopts.App(
        name="segue",
        help="Declare a flow once; run it orchestrated or choreographed, and see it the same way in both.",
        help_epilogue="Settings come from segue.toml, then the environment (SEGUE_TRANSPORT ...), then flags.",
        help_format="plaintext",
        version=_version,
        suppress_keyboard_interrupt=False,
    )
    for name, where, group, text in (
        ("dev", "dev:dev", _WORK, "Run a whole app here: broker, coordinator, services, observer."),
        ("plan", "planning:plan", _WORK, "Show a flow's plan, and who hears whom in each mode."),
        ("deploy", "planning:deploy", _CHANGE, "Check flows and publish them; new runs take them."),
        ("mode", "planning:mode", _CHANGE, "List the modes of flows, or set one for new runs."),
        ("start", "runs:start", _CHANGE, "Start a run."),
        ("signal", "actions:signal", _CHANGE, "Send a signal to a run."),
        ("cancel", "actions:cancel", _CHANGE, "Stop a run, and undo what it did."),
        ("retry", "actions:retry", _CHANGE, "Go on with a run that failed."),
        ("pause", "actions:pause", _CHANGE, "Hold a run."),
        ("resume", "actions:resume", _CHANGE, "Let a paused run go on."),
        ("move", "actions:move", _CHANGE, "Let a run go on in the other mode."),
        ("runs", "runs:runs", _LOOK, "List runs, newest first."),
        ("where", "where:where", _LOOK, "Where is a run, and why is it not further?"),
        ("serve", "hosting:serve", _RUN, "Run a replica of a service."),
        ("coordinator", "hosting:coordinator", _RUN, "Run a coordinator, which orchestrated runs need."),
        ("scheduler", "hosting:schedule", _RUN, "Run a scheduler, which starts what is due; coordinators do, too."),
        ("observe", "hosting:observe", _RUN, "Run the observer, which writes the journal."),
        ("purge", "purging:purge", _MORE, "Forget runs that are long over."),
        ("restore", "restoring:restore_part", _MORE, "Make a store good that came from a backup."),
        ("config", "about:config", _MORE, "Show every setting and where it comes from."),
        ("plugins", "about:plugins", _MORE, "Show which plugins serve which URLs."),
    ):
        # A line for the list of commands, which then need not be loaded; the one that is asked for has more to say.
        app.command(f"segue.cli.{where}", name=name, group=group, help=None if name in arguments[:1] else text)
    for name, module, group, text, commands in (
        ("schedule", "schedules", _CHANGE, "When flows are started by themselves.", _SCHEDULE),
        ("dead", "dead", _LOOK, "Messages that could not be handled.", _DEAD),
    ):
        family = cyclopts.App(name=name, help=text, group=group)
        for command, (function, line) in commands.items():
            asked = command in arguments[1:2]
            family.command(f"segue.cli.{module}:{function}", name=command, help=None if asked else line)
        app.command(family)
    export = cyclopts.App(name="export", help="Write what others need to know of the flows.", group=_MORE)
    asked = "nats-permissions" in arguments[1:2]
    text = "Write least-privilege permissions of NATS users."
    export.command("segue.cli.export:nats_permissions", name="nats-permissions", help=None if asked else text)
    app.command(export)
    database = cyclopts.App(name="db", help="Look after databases.", group=_MORE)
    database.command("segue.cli.about:upgrade", name="upgrade")
    app.command(database)
    app["--help"].group = app["--version"].group = _MORE
    return app


def _version() -> str:
    from importlib.metadata import version

    return f"segue {version('segue')}"
