"""`segue config`, `segue plugins`, `segue db upgrade`: the installation."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from segue import config as configuration
from segue.cli import apps
from segue.cli.options import DEFAULTS, Options
from segue.cli.screen import clean, table
from segue.config import Config
from segue.errors import PluginError
from segue.hooks import Adapters, adapters, redact
from segue.hooks import plugins as plugin_manager
from segue.plan.projection import COORDINATOR


class Setting(msgspec.Struct, frozen=True):
    """A line of `segue config`."""

    key: str
    value: str
    origin: str


class Plugin(msgspec.Struct, frozen=True):
    """A line of `segue plugins`: what it serves, by kind (transport, store, objects ...), and who brings it."""

    plugin: str
    distribution: str
    version: str
    serves: dict[str, tuple[str, ...]]
    observes: tuple[str, ...]


class Upgraded(msgspec.Struct, frozen=True):
    """A line of `segue db upgrade`: the version of a database's tables."""

    database: str
    before: int
    after: int


def config(*, options: Options = DEFAULTS) -> None:
    """Show every setting and where it comes from: a default, segue.toml with the line, the environment, a flag."""
    found = [Setting(*row) for row in configuration.rows(options.load())]
    rows = [(each.key, each.value, each.origin) for each in found]
    options.screen.show(found, lambda: table(("key", "value", "origin"), rows))


def plugins(*, options: Options = DEFAULTS) -> None:
    """Show which plugins serve which URLs, and which packages bring them."""
    found = [_plugin(plugin, name) for name, plugin in sorted(plugin_manager().list_name_plugin())]
    rows = [
        (
            each.plugin,
            "; ".join(f"{kind} {', '.join(names)}" for kind, names in each.serves.items()),
            ", ".join(each.observes),
            f"{each.distribution} {each.version}".strip(),
        )
        for each in found
    ]
    options.screen.show(found, lambda: table(("plugin", "serves", "observes", "from"), rows))


def upgrade(*urls: str, options: Options = DEFAULTS) -> None:
    """Bring stores and journal up to date. Opening them does it too; this does it at a time of your choice.

    Parameters
    ----------
    urls
        Databases; default: the journal and the stores of the configured application, or what is configured without one.
    """
    settings, screen = options.load(), options.screen
    known = adapters().upgrades
    found = []
    for url in urls or _databases(settings):
        scheme = url.partition(":")[0].partition("+")[0].lower()
        if scheme in known:
            found.append(Upgraded(redact(url), *known[scheme](url)))
        elif urls:
            raise PluginError(
                f"{redact(url)} has no tables to upgrade", f"these have: {', '.join(sorted(known)) or 'none'}"
            )
    lines = [
        clean(f"{each.database}: version {each.before} -> {each.after}")
        if each.before != each.after
        else clean(f"{each.database}: version {each.after}, as it was")
        for each in found
    ]
    screen.show(found, lambda: lines or ["nothing here has tables to upgrade"])


def _databases(settings: Config) -> list[str]:
    app = apps.maybe(settings)
    names = (COORDINATOR, *(app.services if app is not None else settings.services))
    return list(dict.fromkeys([*(settings.store_for(name) for name in names), settings.journal]))


def _plugin(plugin: object, name: str) -> Plugin:
    manager = plugin_manager()
    distribution = next((dist for found, dist in manager.list_plugin_distinfo() if found is plugin), None)
    brought = Adapters()
    register = getattr(plugin, "segue_register", None)
    if register is not None:
        register(adapters=brought)
    kinds: dict[str, Mapping[str, object]] = {
        "transport": brought.transports,
        "store": brought.stores,
        "journal": brought.journals,
        "objects": brought.object_stores,
        "broker": brought.brokers,
    }
    callers = manager.get_hookcallers(plugin) or []
    return Plugin(
        plugin=name,
        distribution=distribution.project_name if distribution is not None else "",
        version=distribution.version if distribution is not None else "",
        serves={kind: tuple(found) for kind, found in kinds.items() if found},
        observes=tuple(caller.name for caller in callers if caller.name != "segue_register"),
    )
