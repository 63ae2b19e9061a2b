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
_TOKEN = re.compile(r"[A-Za-z0-9_-]+")
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
        password_file: File that holds the password of the user.
        token_file: File that holds a token.
        nkey: File that holds an NKEY seed.
        creds: Path of a credentials file (JWT and NKEY seed).
        ca: File with the certificates of the authorities that may vouch for a server; empty: those of this machine.
        cert: File with this client's certificate, and those that vouch for it.
        key: File with the private key of `cert`; empty: it is in `cert`.
        tls_name: Name that the server's certificate must have; empty: the host in the URL.
        inbox: Token under which answers come, `_INBOX.<inbox>.>`; empty: the user, if it can be one.
        redelivery: Seconds after which an unacknowledged delivery comes again.
        replicas: Replicas of each stream; None leaves it to what exists.
        max_age: Seconds that events are kept; None leaves it to what exists.
    """

    servers: tuple[str, ...]
    tls: bool
    shown: str
    user: str = ""
    password: str = ""
    password_file: str = ""
    token_file: str = ""
    nkey: str = ""
    creds: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""
    tls_name: str = ""
    inbox: str = ""
    redelivery: float = 5.0
    replicas: int | None = None
    max_age: float | None = None

    def __repr__(self) -> str:
        return f"Options({self.shown!r})"


def parse(url: str) -> Options:
    """Parse `nats://[user:password@]host[:port][,host[:port]...][?option=value&...]`.

    Args:
        url: Scheme `nats` or `tls`; the latter insists on TLS, as `ca`, `cert` and `tls_name` do. Options: `redelivery`
            and `max_age` (seconds, or with a unit: 90s, 5m, 24h, 7d), `replicas` (1 to 5), and those attributes of
            `Options` that name files, `tls_name` and `inbox`. Files are read again at every connect.

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
    user, _, password = map(unquote, userinfo.partition(":"))
    found = _query(parts.query, shown)
    servers = tuple(f"{parts.scheme}://{_server(host, shown)}" for host in hosts.split(","))
    _check(found, user, password, shown)
    found.setdefault("inbox", user if (password or "password_file" in found) and _TOKEN.fullmatch(user) else "")
    tls = parts.scheme == "tls" or any(name in found for name in ("ca", "cert", "tls_name"))
    return Options(servers=servers, tls=tls, shown=shown, user=user, password=password, **found)


def _check(found: dict[str, Any], user: str, password: str, shown: str) -> None:
    """There is one way to say who one is."""
    given: list[str] = [name for name in ("password_file", "token_file", "nkey", "creds") if name in found]
    if password or (user and "password_file" not in found):
        given.append("the one before @")
    if len(given) > 1:
        raise _bad(shown, f"it has several credentials: {', '.join(given)}")
    if "password_file" in found and not user:
        raise _bad(shown, "password_file needs a user: nats://user@host?password_file=...")
    if "key" in found and "cert" not in found:
        raise _bad(shown, "key needs cert, the certificate that it belongs to")


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


def _file(text: str) -> str:
    _read(text)
    return str(Path(text).absolute())


def _read(text: str) -> bytes:
    try:
        return Path(text).read_bytes()
    except OSError as error:
        raise ValueError(error.strerror or "cannot be read") from None


def _secret(text: str) -> str:
    if not _read(text).strip():
        raise ValueError("the file is empty")
    return _file(text)


def _nkey(text: str) -> str:
    if not _read(text).strip().startswith(b"SU"):
        raise ValueError("holds no seed of a user's NKEY, which begins with SU")
    return _with_nkeys(text, "NKEYs")


def _token(text: str) -> str:
    if not _TOKEN.fullmatch(text):
        raise ValueError("use letters, digits, _ and -")
    return text


def _creds(text: str) -> str:
    content = _read(text)
    # nats-py never returns from reading a file without these lines.
    if b"BEGIN NATS USER JWT" not in content or b"BEGIN USER NKEY SEED" not in content:
        raise ValueError("holds no user JWT and NKEY seed")
    return _with_nkeys(text, "credentials files")


def _with_nkeys(text: str, what: str) -> str:
    if find_spec("nkeys") is None:
        raise PluginError(f"{what} need the package nkeys", "pip install 'segue[nkeys]'")
    return _file(text)


_OPTIONS: dict[str, Callable[[str], Any]] = {
    "redelivery": _duration,
    "replicas": _replicas,
    "max_age": _duration,
    "creds": _creds,
    "password_file": _secret,
    "token_file": _secret,
    "nkey": _nkey,
    "ca": _file,
    "cert": _file,
    "key": _file,
    "tls_name": str,
    "inbox": _token,
}
