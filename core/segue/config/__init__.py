"""Configuration: `segue.toml`, then the environment, then flags; the later wins, and every value knows its origin.

Each of the three is flattened to settings (path, value, origin) and checked against one schema. An unknown key or a bad
value is refused before anything happens.

An environment variable cannot spell `-`, so in keys, and in names of flows and services, `-` counts as `_` here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from segue.config import document
from segue.config.document import KeyPath
from segue.config.schema import (
    NAME,
    SCHEMA,
    TABLES,
    Config,
    FlowConfig,
    LimitsConfig,
    ObjectsConfig,
    RetentionConfig,
    ServiceConfig,
    Setting,
    Settings,
    TraceConfig,
    checked,
    dotted,
    duration,
    flag,
    loose,
    pattern,
    printable,
    variable,
)
from segue.errors import ConfigError
from segue.plan.projection import Mode

__all__ = [
    "FILE",
    "Config",
    "FlowConfig",
    "LimitsConfig",
    "ObjectsConfig",
    "RetentionConfig",
    "ServiceConfig",
    "TraceConfig",
    "duration",
    "load",
    "rows",
    "set_mode",
]

FILE = "segue.toml"
ELSEWHERE = frozenset({"SEGUE_CONFIG", "SEGUE_DEBUG"})
"""Variables that are no settings: where the file is, whether tracebacks are shown, and how long soak tests run."""


def load(
    flags: Mapping[str, str | None] = {}, *, cwd: Path | None = None, environ: Mapping[str, str] | None = None
) -> Config:
    """Read the configuration.

    Args:
        flags: Values given on the command line by dotted key (`flows.place_order.mode`); None is "not given". The flag
            `config` names the file, which is else `SEGUE_CONFIG`, else the nearest `segue.toml` from `cwd` upwards.
        cwd: Folder to start from; the current one if None.
        environ: Environment; the process's if None.

    Raises:
        ConfigError: A file cannot be read, a key is unknown or set twice, or a value is bad; names key and origin.
    """
    cwd = (cwd or Path.cwd()).absolute()
    environ = os.environ if environ is None else environ
    file = _find(flags.get("config"), environ.get("SEGUE_CONFIG"), cwd)
    given = _once(_from_file(file, cwd)) if file else {}
    given |= _once(_from_environment(environ))
    given |= _once(_from_flags(flags))
    tree: dict[str, Any] = {}
    for path, setting in given.items():
        value = checked(setting)
        table = tree
        for name in path[:-1]:
            table = table.setdefault(name, {})
        table[path[-1]] = value
    values = msgspec.structs.asdict(_anchored(msgspec.convert(tree, Settings), file.parent if file else cwd))
    return Config(**values, file=file, origins={dotted(path): setting.origin for path, setting in given.items()})


def rows(config: Config) -> list[tuple[str, str, str]]:
    """Every setting as (key, value, origin), in the order of the schema; passwords in URLs are hidden."""
    found = []
    for listed in SCHEMA:
        names = sorted(getattr(config, listed[0])) if NAME in listed else [NAME]
        for name in names:
            value: Any = config
            path = tuple(name if part == NAME else part for part in listed)
            for part in path:
                value = value[part] if isinstance(value, dict) else getattr(value, part)
            key = dotted(path)
            found.append((key, printable(value), config.origins.get(key, "default")))
    return found


def set_mode(path: Path, flow: str, mode: Mode) -> str:
    """Write the mode of a flow into `segue.toml`; comments, order and layout of the rest stay.

    Args:
        path: The file; created if absent.
        flow: Name of the flow.
        mode: The mode from now on.

    Returns:
        Where it stands now, as `file:line`.

    Raises:
        ConfigError: The name or mode is bad, or the file cannot be read, edited or written; it is unchanged then.
    """
    key = ("flows", loose(flow), "mode")
    checked(Setting(key, mode, "argument", dotted(key), dotted))
    text = document.read(path) if path.exists() else ""
    document.parse(text, str(path))
    spellings = (at[:2] for at in document.locate(text) if at[0] == "flows" and len(at) > 1)
    table = next((at for at in spellings if loose(at[1]) == key[1]), ("flows", flow))
    edited = document.with_mode(text, table, mode)
    if edited is None:
        raise ConfigError(f"{path} cannot be edited safely", f'set flows.{flow}.mode = "{mode}" there by hand')
    if edited != text:
        document.write(path, edited)
    return f"{path.name}:{document.locate(edited)[(*table, 'mode')]}"


def _find(given: str | None, set_by_environment: str | None, cwd: Path) -> Path | None:
    for name, origin in ((given, "flag --config"), (set_by_environment, "environment SEGUE_CONFIG")):
        if name is not None:
            path = cwd / name
            if not path.is_file():
                raise ConfigError(
                    f"there is no configuration file {str(path)!r} ({origin})", f"name an existing {FILE}"
                )
            return path
    return next((folder / FILE for folder in (cwd, *cwd.parents) if (folder / FILE).is_file()), None)


def _from_file(file: Path, cwd: Path) -> Iterator[Setting]:
    shown = str(file.relative_to(cwd) if file.is_relative_to(cwd) else file)
    text = document.read(file)
    tree = document.parse(text, shown)
    lines = document.locate(text)
    for path, value in document.flat(tree) if tree else ():
        if value != {} or pattern(path) not in TABLES:
            yield Setting(_canonical(path), value, f"{shown}:{lines[path]}", dotted(path), dotted)


def _from_environment(environ: Mapping[str, str]) -> Iterator[Setting]:
    for name, value in environ.items():
        if name.startswith("SEGUE_") and name not in ELSEWHERE:
            table, _, rest = name.removeprefix("SEGUE_").lower().partition("__")
            middle, _, last = rest.rpartition("__")
            path = tuple(part for part in (table, middle, last) if part)
            yield Setting(path, value, f"environment {name}", name, variable)


def _from_flags(flags: Mapping[str, str | None]) -> Iterator[Setting]:
    for name, value in flags.items():
        if value is not None and name != "config":
            yield Setting(_canonical(tuple(name.split("."))), value, f"flag --{name}", f"--{name}", flag)


def _canonical(path: KeyPath) -> KeyPath:
    return tuple(map(loose, path))


def _once(settings: Iterable[Setting]) -> dict[KeyPath, Setting]:
    found: dict[KeyPath, Setting] = {}
    for setting in settings:
        first = found.setdefault(setting.path, setting)
        if first is not setting:
            raise ConfigError(
                f"{dotted(setting.path)} is set twice: {first.origin} and {setting.origin}",
                "in keys and names - and _ count as the same; keep one of the two",
            )
    return found


def _anchored(settings: Settings, folder: Path) -> Settings:
    services = {
        name: msgspec.structs.replace(service, store=_absolute(service.store, folder))
        for name, service in settings.services.items()
    }
    return msgspec.structs.replace(
        settings,
        services=services,
        store=_absolute(settings.store, folder),
        journal=_absolute(settings.journal, folder),
    )


def _absolute(url: str, folder: Path) -> str:
    match = re.fullmatch(r"(sqlite(?:\+\w+)?:///)(?!:memory:|file:)([^/?][^?]*)(\?.*)?", url)
    return f"{match[1]}{folder / match[2]}{match[3] or ''}" if match else url
