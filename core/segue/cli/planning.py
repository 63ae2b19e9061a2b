"""`segue plan`, `segue deploy`, `segue mode`: what the flows are, and how they run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from cyclopts import Parameter

from segue import compose
from segue import config as configuration
from segue.cli import apps
from segue.cli.options import DEFAULTS, Options, execute
from segue.cli.schedules import schedule_lines
from segue.cli.screen import clean, clock, json_text, table
from segue.config import FILE, Config
from segue.config.schema import loose
from segue.errors import ConfigError
from segue.model.app import App
from segue.plan import cost
from segue.plan.draw import draw
from segue.plan.graph import Plan
from segue.plan.mermaid import mermaid
from segue.plan.projection import Mode
from segue.plan.svg import svg
from segue.runtime import deploy as deployment
from segue.runtime import schedules
from segue.runtime.catalog import Catalog
from segue.runtime.deploy import Deployed
from segue.runtime.schedules import ScheduleDeployed
from segue.runtime.serving import Wiring
from segue.wire import describe
from segue.wire.subjects import Subjects

if TYPE_CHECKING:
    from segue.cli.screen import Line

Format = Literal["text", "mermaid", "svg", "json"]
_SUFFIXES: dict[str, Format] = {".svg": "svg", ".mmd": "mermaid", ".mermaid": "mermaid", ".json": "json"}


class PlanShown(msgspec.Struct, frozen=True):
    """`segue plan -o json`: `plan` is the hash, `document` is the plan itself.

    `wire` says who hears whom, `branches` what it costs that everybody learns which way a branch went.
    """

    flow: str
    plan: str
    home: str
    wire: describe.Report
    branches: tuple[cost.Cost, ...]
    document: msgspec.Raw


class FlowMode(msgspec.Struct, frozen=True):
    """A line of `segue mode`: `mode` is in force; `configured` and `origin`: what the configuration says, or empty."""

    flow: str
    mode: Mode
    plan: str
    changed: datetime | None
    configured: str
    origin: str


class ModeSet(msgspec.Struct, frozen=True):
    """`segue mode FLOW MODE`: `saved` is the file and line that says so now, or empty."""

    flow: str
    mode: Mode
    previous: Mode
    saved: str
    note: str


class FlowDeployed(msgspec.Struct, frozen=True):
    """A line of `segue deploy`: `unknown` are services that never ran, so that nothing could be checked."""

    flow: str
    plan: str
    previous_plan: str
    mode: Mode
    previous_mode: str
    changed: bool
    unknown: tuple[str, ...]


def plan(
    flow: str,
    /,
    *,
    format: Annotated[
        Format | None, Parameter(help="Of the drawing; default: by the suffix of --save, else text.")
    ] = None,
    save: Annotated[Path | None, Parameter(help="Write it to this file.")] = None,
    options: Options = DEFAULTS,
) -> None:
    """Show a flow's plan, who hears whom in each mode, and what its branches cost in messages.

    Without an application the deployed plan is shown.

    Parameters
    ----------
    flow
        Name of the flow.
    """
    config, screen = options.load(), options.screen
    found = apps.plan_of(apps.flow_of(apps.load(config), flow)) if config.app else execute(_deployed, config, flow)
    chosen = format or _SUFFIXES.get(save.suffix if save else "", "text")
    if save is not None:
        try:
            save.write_text(_drawn(found, chosen, config), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{save} cannot be written: {error.strerror}") from None
        screen.note(f"wrote {clean(str(save))}")
    elif screen.as_json and chosen == "text":
        report = describe.describe(found, Subjects(config.namespace))
        print(json_text(PlanShown(flow, found.hash, found.home, report, cost.costs(found), msgspec.Raw(found.json))))
    else:
        print(_drawn(found, chosen, config), end="")


def deploy(
    *flows: str,
    mode: Annotated[Mode | None, Parameter(help="For these flows, whatever the configuration says.")] = None,
    options: Options = DEFAULTS,
) -> None:
    """Check flows and publish them; new runs take them, runs under way end on the plan that they began with.

    The mode is what the configuration says; where it says nothing, a deployed flow keeps its mode. The schedules of the
    flows are set, too; those that the application declares no more are removed.

    Parameters
    ----------
    flows
        Names of flows; default: all of the application.
    """
    config, screen = options.load(), options.screen
    app = apps.load(config)
    done, planned = execute(_deploy, config, app, flows, mode)
    screen.show(
        [*map(deployed, done), *planned],
        lambda: [*deployed_lines(done), *(["", *schedule_lines(planned)] if planned else [])],
    )


def mode(
    flow: str = "",
    mode: Mode | None = None,
    /,
    *,
    save: Annotated[bool, Parameter(help="Also write it into segue.toml.", negative="")] = False,
    options: Options = DEFAULTS,
) -> None:
    """List the modes of the deployed flows, or set the mode of one. Runs under way end in the mode they began in.

    Parameters
    ----------
    flow
        Name of a deployed flow.
    mode
        Its mode for new runs.
    """
    config, screen = options.load(), options.screen
    if mode is None:
        if save:
            raise ConfigError("--save needs a flow and a mode", f"segue mode {flow or 'FLOW'} choreographed --save")
        found = execute(_modes, config, flow)
        screen.show(found, lambda: _mode_lines(found))
        return
    done: Deployed = execute(_set_mode, config, flow, mode)
    told = _saved(config, done, save)
    screen.show(told, lambda: _mode_set_lines(told))


async def deploy_flows(
    config: Config, wiring: Wiring, app: App, names: Sequence[str] = (), mode: Mode | None = None
) -> list[Deployed]:
    """Deploy flows of an app, all or those named, with the modes that `segue deploy` promises."""
    chosen = [apps.flow_of(app, name) for name in dict.fromkeys(names or app.flows)]
    plans = [apps.plan_of(flow) for flow in chosen]
    pairs = [(plan, mode or _mode_for(config, wiring.catalog, plan.flow)) for plan in plans]
    return await deployment.deploy(wiring.transport, wiring.catalog, wiring.subjects, pairs, config.key_lifetime)


def deployed(done: Deployed) -> FlowDeployed:
    """A deployed flow, for programs."""
    return FlowDeployed(
        done.flow, done.plan, done.previous_plan, done.mode, done.previous_mode, done.changed, done.unknown
    )


def deployed_lines(done: Sequence[Deployed]) -> list[Line]:
    """Deployed flows, for people."""
    if not done:
        return ["this app has no flows"]
    rows = [
        (
            each.flow,
            _change(each.previous_plan[:12], each.plan[:12]),
            _change(each.previous_mode, each.mode),
            "new" if not each.previous_plan else "changed" if each.changed else "as it was",
        )
        for each in done
    ]
    notes = [
        f"{each.flow}: not checked against {', '.join(each.unknown)}: never ran yet" for each in done if each.unknown
    ]
    return [*table(("flow", "plan", "mode", ""), rows), *map(clean, notes)]


def _drawn(plan: Plan, format: Format, config: Config) -> str:
    if format == "mermaid":
        return mermaid(plan)
    if format == "svg":
        return svg(plan)
    if format == "json":
        return msgspec.json.format(plan.json).decode() + "\n"
    report = describe.text(describe.describe(plan, Subjects(config.namespace)))
    text = "\n".join(part for part in (draw(plan), report, cost.text(plan)) if part)
    return "\n".join(map(clean, text.splitlines())) + "\n"


async def _deployed(config: Config, flow: str) -> Plan:
    async with compose.wired(config) as wiring:
        record = wiring.catalog.flow(flow)
        found = await wiring.catalog.plan(record.plan)
    if found is None:
        raise ConfigError(f"plan {record.plan} of flow {flow!r} is not in the registry", "deploy the flow again")
    return found


async def _deploy(
    config: Config, app: App, names: Sequence[str], mode: Mode | None
) -> tuple[list[Deployed], list[ScheduleDeployed]]:
    async with compose.wired(config) as wiring:
        done = await deploy_flows(config, wiring, app, names, mode)
        return done, await schedules.deploy(wiring.catalog, app, names)


def _mode_for(config: Config, catalog: Catalog, flow: str) -> Mode:
    """What the configuration says, else what is in force: deploying new code must not switch modes by the way."""
    if not _origin(config, flow) and flow in catalog.flows:
        return catalog.flows[flow].mode
    return config.flow(flow).mode


def _origin(config: Config, flow: str) -> str:
    return config.origins.get(f"flows.{loose(flow)}.mode", "")


async def _modes(config: Config, flow: str) -> list[FlowMode]:
    async with compose.wired(config) as wiring:
        catalog = wiring.catalog
        names = [catalog.flow(flow).flow] if flow else sorted(catalog.flows)
        return [_flow_mode(config, catalog, name) for name in names]


def _flow_mode(config: Config, catalog: Catalog, name: str) -> FlowMode:
    record, origin = catalog.flows[name], _origin(config, name)
    configured = config.flow(name).mode if origin else ""
    return FlowMode(name, record.mode, record.plan, record.changed, configured, origin)


async def _set_mode(config: Config, flow: str, mode: Mode) -> Deployed:
    async with compose.wired(config) as wiring:
        return await deployment.set_mode(wiring.catalog, flow, mode, config.key_lifetime)


def _saved(config: Config, done: Deployed, save: bool) -> ModeSet:
    origin = _origin(config, done.flow)
    before = done.mode if done.previous_mode == "" else done.previous_mode
    saved = note = ""
    if save:
        saved = configuration.set_mode(config.file or Path.cwd() / FILE, done.flow, done.mode)
        if origin.startswith(("environment", "flag")) and config.flow(done.flow).mode != done.mode:
            note = f"{origin} wins over the file: the next deploy sets it back to {config.flow(done.flow).mode}"
    elif origin and config.flow(done.flow).mode != done.mode:
        note = f"{origin} says {config.flow(done.flow).mode}: the next deploy sets it back; --save keeps it"
    elif not origin:
        note = f"in force until it is set again; --save also writes it into {FILE}"
    return ModeSet(done.flow, done.mode, "choreographed" if before == "choreographed" else "orchestrated", saved, note)


def _mode_set_lines(told: ModeSet) -> list[str]:
    now = f"new runs of {told.flow} are {told.mode}"
    lines = [f"{now}, as before" if told.previous == told.mode else f"{now}, they were {told.previous}"]
    if told.saved:
        lines.append(f"saved in {told.saved}")
    if told.note:
        lines.append(told.note)
    return [clean(line) for line in lines]


def _mode_lines(found: Sequence[FlowMode]) -> list[Line]:
    if not found:
        return ["no flow is deployed; see `segue deploy`"]
    now = datetime.now().astimezone()
    rows = [
        (
            each.flow,
            each.mode,
            f"since {clock(each.changed, now)}" if each.changed else "",
            f"{each.origin} says {each.configured}" if each.configured not in ("", each.mode) else each.origin,
        )
        for each in found
    ]
    return [*table(("flow", "mode", "", "configured"), rows)]


def _change(before: str, after: str) -> str:
    return after if before in ("", after) else f"{before} -> {after}"
