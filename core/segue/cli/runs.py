"""`segue start` and `segue runs`."""

from __future__ import annotations

import itertools
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import anyio
import msgspec
from cyclopts import Parameter

from segue import compose
from segue.cli import apps
from segue.cli.options import DEFAULTS, Options, execute
from segue.cli.screen import Screen, clean, clock, json_text, span, table, whole
from segue.config import Config
from segue.errors import ConfigError, InvalidInput, ResultTimeout, TransportUnavailable
from segue.hooks import redact
from segue.machine.facts import Cause
from segue.model.flow import Flow
from segue.plan.graph import Plan
from segue.plan.projection import Mode, holder
from segue.ports.journal import RunQuery, RunRecord
from segue.runtime import client as clients
from segue.runtime.client import Client
from segue.runtime.handle import RunHandle
from segue.runtime.serving import Wiring

if TYPE_CHECKING:
    from segue.cli.screen import Line

Status = Literal["running", "paused", "moving", "cancelling", "compensating", "completed", "failed", "cancelled"]
_JSON = ("{", "[", '"')
PATIENCE = 2.0
"""Seconds without an answer after which a start says what it waits for."""


class Started(msgspec.Struct, frozen=True):
    """`segue start`: `existing` if the key had this run already; `status` is `running` unless it was waited for.

    `value` is the result if completed, `causes` say why if not.
    """

    run: str
    key: str
    flow: str
    mode: Mode
    existing: bool
    status: Status = "running"
    value: msgspec.Raw = msgspec.Raw(b"null")
    causes: tuple[Cause, ...] = ()


def start(
    flow: str,
    /,
    *,
    input: Annotated[
        str, Parameter(allow_leading_hyphen=True, help="JSON, or a file (@FILE, if its name is JSON), or - for stdin.")
    ] = "{}",
    key: Annotated[str | None, Parameter(help="Business key; default: what the flow says. Same key, same run.")] = None,
    wait: Annotated[bool, Parameter(help="Wait for the end and print the result.", negative="")] = False,
    timeout: Annotated[float | None, Parameter(help="Seconds to wait in all.")] = None,
    options: Options = DEFAULTS,
) -> None:
    """Start a run. When this returns, its home has committed it.

    The input is an object of the flow's parameters; if there is only one, its value will do. It is checked against the
    types of the application if one is named, else by who accepts the start.

    Parameters
    ----------
    flow
        Name of a deployed flow.
    """
    config, screen = options.load(), options.screen
    given = read_input(input)
    app = apps.maybe(config)
    declared = app.flows.get(flow) if app is not None else None
    execute(_start, screen, config, declared or flow, given, key, timeout, wait)


def runs(
    text: str = "",
    /,
    *,
    flow: Annotated[str, Parameter(help="Only of this flow.")] = "",
    status: Annotated[Status | None, Parameter(help="Only with this status.")] = None,
    limit: Annotated[int, Parameter(help="How many at most.")] = 50,
    options: Options = DEFAULTS,
) -> None:
    """List runs, newest first.

    Parameters
    ----------
    text
        A part of their key or id.
    """
    config, screen = options.load(), options.screen
    if limit < 1:
        raise ConfigError(f"--limit {limit} is not allowed", "it must be 1 or more")
    found = execute(_runs, config, RunQuery(flow, status or "", text, limit))
    now = datetime.now().astimezone()
    screen.show([whole(run) for run in found], lambda: run_lines(found, limit, now) or [_none(config)])


def run_lines(found: list[RunRecord], limit: int, now: datetime) -> list[Line]:
    """Runs for people."""
    if not found:
        return []
    rows = [
        (
            run.key or "-",
            run.flow,
            run.status,
            run.mode,
            clock(run.started, now) if run.started else "",
            span(((run.ended or now) - run.started).total_seconds()) if run.started else "",
            run.run,
            run.error,
        )
        for run in found
    ]
    lines: list[Line] = [*table(("key", "flow", "status", "mode", "started", "took", "run", "error"), rows)]
    if len(found) == limit:
        lines.append(f"the newest {limit:,}; --limit shows more")
    return lines


def arguments(plan: Plan, given: Any) -> dict[str, Any]:
    """The input as an object of parameters: an only parameter's value stands for itself.

    Raises:
        InvalidInput: It is no object, and the flow has several parameters or none.
    """
    names = [param.name for param in plan.inputs]
    if isinstance(given, dict) and (len(names) != 1 or list(given) == names or (not given and not _needs(plan))):
        return given
    if len(names) != 1:
        listed = ", ".join(names) or "none"
        raise InvalidInput(f"the input of {plan.flow!r} must be an object of its parameters", f"they are: {listed}")
    return {names[0]: given}


def _ordered(plan: Plan, values: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Arguments by position as far as they go, the others by name: a parameter may be called `key`, too."""
    names = [param.name for param in plan.inputs]
    unknown = sorted(values.keys() - set(names))
    if unknown:
        listed = ", ".join(names) or "none"
        raise InvalidInput(f"flow {plan.flow!r} has no parameter {unknown[0]!r}", f"its parameters: {listed}")
    first = list(itertools.takewhile(values.__contains__, names))
    return [values[name] for name in first], {name: values[name] for name in values if name not in first}


def _needs(plan: Plan) -> bool:
    return any(param.required for param in plan.inputs)


def read_input(text: str) -> Any:
    """The value of `--input`: JSON, the name of a file that holds it, or `-` for stdin.

    Raises:
        ConfigError: It is none of these.
    """
    origin, content = "--input", text.encode(errors="surrogateescape")
    if text == "-":
        origin, content = "stdin", sys.stdin.buffer.read()
    elif text.startswith("@") or (not _is_json(content) and os.path.isfile(text)):
        origin = text.removeprefix("@")
        try:
            content = Path(origin).read_bytes()
        except (OSError, ValueError) as error:
            raise ConfigError(f"--input: {origin!r} cannot be read: {error}") from None
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeError) as error:
        wrong = "names no file, and is not JSON" if origin == "--input" and text[:1] not in _JSON else "is not JSON"
        hint = "give JSON, the name of a file that holds it, or - for stdin"
        raise ConfigError(f"{origin} {wrong}: {error}", hint) from None


def _is_json(content: bytes) -> bool:
    try:
        msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeError):
        return False
    return True


async def _start(
    screen: Screen,
    config: Config,
    flow: Flow[..., Any] | str,
    given: Any,
    key: str | None,
    timeout: float | None,
    wait: bool,
) -> None:
    async with compose.wired(config, "start") as wiring, clients.client(wiring) as client:
        began = anyio.current_time()
        handle = await _accepted(screen, wiring, client, flow, given, key, timeout)
        told = Started(handle.id, handle.key, handle.flow, handle.mode, handle.existing)
        if not wait:
            screen.show(whole(told), lambda: _started_lines(told))
            return
        if not screen.as_json:
            screen.lines(_started_lines(told))
        try:
            left = None if timeout is None else max(began + timeout - anyio.current_time(), 0.0)
            ended = await handle.outcome(left)
        except ResultTimeout:
            if screen.as_json:
                print(json_text(whole(told)))
            raise
        told = msgspec.structs.replace(told, status=ended.status, value=ended.value, causes=ended.causes)
        if screen.as_json:
            print(json_text(whole(told)))
        elif ended.status == "completed":
            seconds = anyio.current_time() - began
            screen.lines(
                [f"{'completed' if told.existing else f'completed in {span(seconds)}'}", json_text(ended.value)]
            )
        if ended.status != "completed":
            await handle.result()


async def _accepted(
    screen: Screen,
    wiring: Wiring,
    client: Client,
    flow: Flow[..., Any] | str,
    given: Any,
    key: str | None,
    timeout: float | None,
) -> RunHandle[Any]:
    name = flow if isinstance(flow, str) else flow.name
    record = wiring.catalog.flow(name)
    plan = await wiring.catalog.plan(record.plan)
    if plan is None:
        raise TransportUnavailable(f"plan {record.plan} of flow {name!r} is not in the registry", "deploy it again")
    home = holder(plan, record.mode)
    command = "segue coordinator" if record.mode == "orchestrated" else f"segue serve {home}"

    async def explain() -> None:
        await anyio.sleep(PATIENCE)
        screen.note(clean(f"waiting for {home} to accept the start; is it running? `{command}`"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(explain)
        with anyio.move_on_after(timeout) as scope:
            first, others = _ordered(plan, arguments(plan, given))
            handle: RunHandle[Any] = await client.start(flow, *first, key=key, **others)
        tasks.cancel_scope.cancel()
    if scope.cancelled_caught:
        raise TransportUnavailable(
            f"{home} did not accept the start within {timeout:g} s; the run may exist", "start it again, with a key"
        )
    return handle


def _started_lines(told: Started) -> list[Line]:
    key = f", key {told.key}" if told.key else ""
    found = "this key has a run already: " if told.existing else ""
    return [clean(f"{found}run {told.run} of {told.flow}{key}, {told.mode}")]


async def _runs(config: Config, query: RunQuery) -> list[RunRecord]:
    async with compose.journal(config) as journal:
        return await journal.runs(query)


def _none(config: Config) -> str:
    return clean(f"no such run in {redact(config.journal)}")
