"""What may be configured: the keys with their types and defaults, and the check of one given value."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin
from urllib.parse import urlsplit

import msgspec

from segue.config.document import KeyPath
from segue.errors import ConfigError, DeclarationError
from segue.hooks import redact
from segue.names import check_name
from segue.plan.projection import Mode

NAME = "<name>"
"""Stands for the name of a flow or service in a path of the schema."""

_DAY = 86400
_UNITS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": _DAY, "w": 7 * _DAY}


class FlowConfig(msgspec.Struct, frozen=True):
    """Settings of one flow.

    Attributes:
        mode: Where its runs are decided.
    """

    mode: Mode = "orchestrated"


class ServiceConfig(msgspec.Struct, frozen=True):
    """Settings of one service.

    Attributes:
        store: URL of its own store; empty: the common one.
        concurrency: Steps that one replica executes at a time.
    """

    store: str = ""
    concurrency: Annotated[int, msgspec.Meta(ge=1)] = 100


class TraceConfig(msgspec.Struct, frozen=True):
    """Settings of tracing.

    Attributes:
        endpoint: OTLP endpoint, `http://` or `https://`; empty: no spans are exported.
        sample: Share of runs that are traced, 0 to 1.
    """

    endpoint: str = ""
    sample: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0


class ObjectsConfig(msgspec.Struct, frozen=True):
    """Where values go that are too large for a message.

    Attributes:
        url: URL of the object store; empty: the transport's own, if it has one; `none`: nowhere.
    """

    url: str = ""


class LimitsConfig(msgspec.Struct, frozen=True):
    """How large values and runs may be, and how many are repeated at a time.

    Attributes:
        inline: Bytes of a value that travel in its message; larger ones go to the object store.
        value: Bytes that a value may have.
        items: Items that one `each` may open.
        nodes: Places of items and rounds that a run may have at one participant.
        guards: Overdue runs whose start one process repeats in a second.
    """

    inline: Annotated[int, msgspec.Meta(ge=1024)] = 32 * 1024
    value: Annotated[int, msgspec.Meta(ge=1024)] = 64 * 1024 * 1024
    items: Annotated[int, msgspec.Meta(ge=1)] = 10_000
    nodes: Annotated[int, msgspec.Meta(ge=1)] = 100_000
    guards: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 100.0


class RetentionConfig(msgspec.Struct, frozen=True):
    """How long runs are remembered after their end; 0 keeps them for ever.

    Attributes:
        state: Seconds for which participants keep what they recorded, and large values. It must be longer than the
            transport keeps events: what is heard again after it is taken for new.
        journal: Seconds for which the journal keeps them.
    """

    state: Annotated[float, msgspec.Meta(ge=0, le=36500 * _DAY)] = 30 * _DAY
    journal: Annotated[float, msgspec.Meta(ge=0, le=36500 * _DAY)] = 30 * _DAY


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All keys.

    Attributes:
        app: `module:attribute` of the application.
        namespace: First token of every subject.
        transport: URL of the transport.
        store: URL of the state store; `{part}` stands for the participant.
        journal: URL of the journal.
        key_lifetime: Seconds for which a key is looked for at the other placement too, after a change of mode.
        flows: By name; see `Config.flow`.
        services: By name; see `Config.service`.
        trace: Tracing.
        objects: Where large values go.
        limits: How large values and runs may be, and how many are repeated at a time.
        retention: How long runs are remembered.
    """

    app: str = ""
    namespace: str = "segue"
    transport: str = "nats://127.0.0.1:4222"
    store: str = "sqlite:///.segue/{part}.db"
    journal: str = "sqlite:///.segue/journal.db"
    key_lifetime: Annotated[float, msgspec.Meta(ge=0, le=36500 * _DAY)] = 7 * _DAY
    flows: dict[str, FlowConfig] = {}
    services: dict[str, ServiceConfig] = {}
    trace: TraceConfig = TraceConfig()
    objects: ObjectsConfig = ObjectsConfig()
    limits: LimitsConfig = LimitsConfig()
    retention: RetentionConfig = RetentionConfig()


class Config(Settings, frozen=True, kw_only=True):
    """The settings in force; `load` has made relative SQLite paths absolute.

    Attributes:
        file: The `segue.toml` that was read, if any.
        origins: Where each key was set, by dotted key; a key that is absent has its default.
    """

    file: Path | None = None
    origins: dict[str, str] = {}

    def flow(self, name: str) -> FlowConfig:
        """Settings of a flow; the defaults if it has none."""
        return self.flows.get(loose(name), FlowConfig())

    def service(self, name: str) -> ServiceConfig:
        """Settings of a service; the defaults if it has none."""
        return self.services.get(loose(name), ServiceConfig())

    def store_for(self, participant: str) -> str:
        """URL of a participant's store: its own, else the common one, with `{part}` filled in."""
        return (self.service(participant).store or self.store).replace("{part}", participant)


class Setting(NamedTuple):
    """One given value: its path in the schema, where it was set, and how keys are spelled there."""

    path: KeyPath
    value: Any
    origin: str
    spelled: str
    spell: Callable[[KeyPath], str]


def dotted(path: KeyPath) -> str:
    """A key as in `segue.toml`."""
    return ".".join(path)


def variable(path: KeyPath) -> str:
    """A key as in the environment."""
    return "SEGUE_" + "__".join(path).upper()


def flag(path: KeyPath) -> str:
    """A key as on the command line."""
    return "--" + ".".join(path)


def loose(name: str) -> str:
    """A name as the environment can spell it."""
    return name.replace("-", "_")


def _keys(struct: type[msgspec.Struct], prefix: KeyPath = ()) -> Iterator[tuple[KeyPath, msgspec.structs.FieldInfo]]:
    for field in msgspec.structs.fields(struct):
        named = get_origin(field.type) is dict
        inner = get_args(field.type)[1] if named else field.type
        path = (*prefix, field.name, NAME) if named else (*prefix, field.name)
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            yield from _keys(inner, path)
        else:
            yield path, field


SCHEMA = dict(_keys(Settings))
TABLES = {path[:end] for path in SCHEMA for end in range(1, len(path))}
_NAMED = {path[0] for path in SCHEMA if NAME in path}


_DURATIONS = {("key_lifetime",), ("retention", "state"), ("retention", "journal")}


def pattern(path: KeyPath) -> KeyPath:
    """A path as the schema lists it, with `<name>` for the name of a flow or service."""
    return (path[0], NAME, *path[2:]) if len(path) > 1 and path[0] in _NAMED else path


def checked(setting: Setting) -> Any:
    """The value of a setting as its key's type.

    Raises:
        ConfigError: The key is unknown or the value is bad; names key and origin.
    """
    found = pattern(setting.path)
    if found not in SCHEMA:
        raise _unknown(setting)
    field = SCHEMA[found]
    value, why, hint = setting.value, "", ""
    if found in _DURATIONS and isinstance(value, str):
        value = duration(value, f" ({setting.origin}: {dotted(setting.path)})")
    try:
        if NAME in found:
            check_name(setting.path[1], setting.path[0].removesuffix("s"), setting.origin)
        value = msgspec.convert(value, field.type, strict=setting.spell is dotted)
    except DeclarationError as error:
        raise ConfigError(error.message, error.hint) from None
    except msgspec.ValidationError as error:
        why = str(error) if setting.spell is dotted else str(error).removesuffix(", got `str`")
        if get_origin(field.type) is Literal:
            why = "Expected " + " or ".join(get_args(field.type))
    if not why and isinstance(value, str) and found[-1] in _CHECKS and value != field.default:
        why, hint = _CHECKS[found[-1]](value)
    if why:
        shown = repr(printable(setting.value)) if isinstance(setting.value, str) else printable(setting.value)
        raise ConfigError(f"{dotted(setting.path)} = {shown} ({setting.origin}) is not allowed: {why}", hint)
    return value


def printable(value: Any) -> str:
    """A value for people: without passwords, whole numbers without a point."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return redact(str(value))


def duration(text: str, where: str = "") -> float:
    """Seconds of a duration such as `90`, `1.5h` or `7d`; units are ms, s, m, h, d and w.

    Args:
        text: A number and a unit; without a unit it counts seconds.
        where: Appended to the message.

    Raises:
        ConfigError: It is no duration.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|[smhdw]?)", text.strip(), re.ASCII)
    if not match:
        raise ConfigError(f"{text!r} is no duration{where}", "write a number and a unit: 500ms, 30s, 5m, 12h, 7d, 2w")
    return float(match[1]) * _UNITS[match[2]]


def _unknown(setting: Setting) -> ConfigError:
    if pattern(setting.path) in TABLES:
        keys = ", ".join(setting.spell(path) for path in SCHEMA if path[0] == setting.path[0])
        return ConfigError(f"{setting.spelled} ({setting.origin}) is a table, not a value", f"its keys: {keys}")
    name = setting.path[1] if len(setting.path) > 2 else NAME
    known = [setting.spell(path) for path in SCHEMA]
    concrete = [setting.spell(tuple(name if part == NAME else part for part in path)) for path in SCHEMA]
    close = difflib.get_close_matches(setting.spelled, concrete, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return ConfigError(f"unknown key {setting.spelled} ({setting.origin})", f"{hint}known: {', '.join(known)}")


def _url(value: str) -> tuple[str, str]:
    if not re.match(r"[a-z][a-z0-9+.-]*://", value):
        return "it has no scheme", "write a URL such as nats://127.0.0.1:4222 or sqlite:///folder/file.db"
    try:
        parts = urlsplit(value)
        if "," not in parts.netloc:
            _ = parts.port
    except ValueError as error:
        return str(error), "check host and port of the URL"
    return "", ""


def _plain_url(value: str) -> tuple[str, str]:
    if "{" in value:
        return "it has a placeholder", "only a store's URL takes one: {part}, the participant"
    return _url(value)


def _objects(value: str) -> tuple[str, str]:
    return ("", "") if value == "none" else _plain_url(value)


def _store(value: str) -> tuple[str, str]:
    placeholder = re.search(r"\{(?!part\})[^}]*\}?", value)
    if placeholder:
        return f"{placeholder[0]} is no placeholder", "the only one is {part}, the participant"
    return _url(value)


def _endpoint(value: str) -> tuple[str, str]:
    if not re.match("https?://", value):
        return "it is no http:// or https:// URL", "write an OTLP endpoint such as http://127.0.0.1:4318"
    return _url(value)


def _app(value: str) -> tuple[str, str]:
    good = re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*", value)
    return ("", "") if good else ("it is no module:attribute", "write it as shop:app")


def _namespace(value: str) -> tuple[str, str]:
    try:
        check_name(value, "namespace")
    except DeclarationError as error:
        return error.message, error.hint
    return "", ""


_CHECKS: dict[str, Callable[[str], tuple[str, str]]] = {
    "app": _app,
    "namespace": _namespace,
    "transport": _plain_url,
    "store": _store,
    "journal": _plain_url,
    "url": _objects,
    "endpoint": _endpoint,
}
