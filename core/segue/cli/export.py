"""`segue export`: what others need to know of the flows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from segue import compose
from segue.cli import apps
from segue.cli.options import DEFAULTS, Options, execute
from segue.cli.screen import clean
from segue.config import Config
from segue.errors import ConfigError, PluginError
from segue.hooks import adapters
from segue.plan.graph import Plan
from segue.wire.rights import rights
from segue.wire.subjects import Subjects

Form = Literal["nats-conf", "json"]


def nats_permissions(
    *,
    format: Annotated[Form, Parameter(help="A block for the server's config, or JSON for programs.")] = "nats-conf",
    deployed: Annotated[bool, Parameter(help="Add all plans that were ever deployed.", negative="")] = False,
    save: Annotated[Path | None, Parameter(help="Write it to this file.")] = None,
    options: Options = DEFAULTS,
) -> None:
    """Write the permissions of NATS users: for each participant what it needs, and nothing else.

    They follow from the flows of the application. Where older versions of flows have open runs, add --deployed; without
    an application, the deployed plans are all that counts.
    """
    config, screen = options.load(), options.screen
    plans, services = _local(config)
    if deployed or not config.app:
        found, offered = execute(_deployed, config)
        plans, services = {**found, **plans}, services | offered
    if not services and not plans:
        raise ConfigError("there are no services and no flows", "name an application with --app, or deploy one")
    render = adapters().permits.get("nats")
    if render is None:
        raise PluginError("no plugin knows the permissions of NATS", "pip install 'segue[nats]'")
    form = "json" if screen.as_json else format
    text = render(rights(plans.values(), Subjects(config.namespace), services), config.namespace, form)
    if save is None:
        print(text, end="")
        return
    try:
        save.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{save} cannot be written: {error.strerror}") from None
    screen.note(f"wrote {clean(str(save))}")


def _local(config: Config) -> tuple[dict[str, Plan], set[str]]:
    app = apps.maybe(config)
    if app is None:
        return {}, set()
    plans = [apps.plan_of(flow) for flow in app.flows.values()]
    return {plan.hash: plan for plan in plans}, set(app.services)


async def _deployed(config: Config) -> tuple[dict[str, Plan], set[str]]:
    async with compose.wired(config) as wiring:
        return dict(wiring.catalog.plans), set(wiring.catalog.services)
