"""What a NATS URL says: servers, credentials, and options of the topology."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from segue.errors import ConfigError, PluginError
from segue.hooks import redact

DEFAULT_PORT = 4222
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Options(msgspec.Struct, frozen=True):
    """A parsed URL.

    Attributes:
        servers: `scheme://host:port` of each server, without credentials.
        tls: Refuse a server that offers no TLS.
        shown: The URL for messages and logs, without credentials.
        user: User name, or a token if there is no password.
        password: Password of the user.
        creds: Path of a credentials file (JWT and NKEY seed).
        redelivery: Seconds after which an unacknowledged delivery comes again.
        replicas: Replicas of each stream; None leaves it to what exists.
        max_age: Seconds that events are kept; None leaves it to what exists.
    """

    servers: tuple[str, ...]
    tls: bool
    shown: str
    user: str = ""
    password: str = ""
    creds: str = ""
    redelivery: float = 5.0
    replicas: int | None = None
    max_age: float | None = None


def parse(url: str) -> Options:
    """Parse `nats://[user:password@]host[:port][,host[:port]...][?option=value&...]`.

    Args:
        url: Scheme `nats` or `tls`; the latter insists on TLS. Options: `redelivery` and `max_age` (seconds, or with
            a unit: 90s, 5m, 24h, 7d), `replicas` (1 to 5), `creds` (path of a credentials file).

    Raises:
        ConfigError: The URL is malformed, or has an unknown option or a bad value.
        PluginError: Credentials need a package that is not installed.
    """
    shown = redact(url)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _bad(shown, str(error)) from None
    if parts.scheme not in ("nats", "tls"):
        raise _bad(shown, f"its scheme is {parts.scheme!r}, not nats or tls")
    if parts.path not in ("", "/") or parts.fragment:
        raise _bad(shown, "there is something after the servers that is not an option (?option=value)")
    userinfo, _, hosts = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    servers = tuple(f"{parts.scheme}://{_server(host, shown)}" for host in hosts.split(","))
    return Options(
        servers=servers,
        tls=parts.scheme == "tls",
        shown=shown,
        user=unquote(user),
        password=unquote(password),
        **_query(parts.query, shown),
    )


def _server(text: str, shown: str) -> str:
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError as error:
        raise _bad(shown, str(error)) from None
    if not parts.hostname:
        raise _bad(shown, "a server has no host name")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{DEFAULT_PORT if port is None else port}"


def _query(query: str, shown: str) -> dict[str, Any]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError as error:
        raise _bad(shown, str(error)) from None
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key not in _OPTIONS:
            raise ConfigError(f"unknown option {key!r} in {shown}", f"known options: {', '.join(sorted(_OPTIONS))}")
        if key in found:
            raise _bad(shown, f"option {key!r} is given twice")
        try:
            found[key] = _OPTIONS[key](value)
        except ConfigError:
            raise
        except ValueError as error:
            raise _bad(shown, f"option {key}={value}: {error}") from None
    return found


def _bad(shown: str, why: str) -> ConfigError:
    return ConfigError(f"{shown} is not a NATS URL: {why}", "write nats://host:port[,host:port...][?option=value]")


def _duration(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError("write seconds, or a number with s, m, h or d")
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds < 0.1:
        raise ValueError("must be at least 0.1 s")
    return seconds


def _replicas(text: str) -> int:
    if text not in ("1", "2", "3", "4", "5"):
        raise ValueError("must be 1 to 5")
    return int(text)


def _creds(text: str) -> str:
    try:
        content = Path(text).read_bytes()
    except OSError as error:
        raise ValueError(error.strerror or "cannot be read") from None
    # nats-py never returns from reading a file without these lines.
    if b"BEGIN NATS USER JWT" not in content or b"BEGIN USER NKEY SEED" not in content:
        raise ValueError("holds no user JWT and NKEY seed")
    if find_spec("nkeys") is None:
        raise PluginError("credentials files need the package nkeys", "pip install 'nats-py[nkeys]'")
    return text


_OPTIONS: dict[str, Callable[[str], Any]] = {
    "redelivery": _duration,
    "replicas": _replicas,
    "max_age": _duration,
    "creds": _creds,
}
