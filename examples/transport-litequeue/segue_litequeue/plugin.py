"""Registers the adapter: the entry point in the group `segue` names this module."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

from segue.errors import ConfigError
from segue.hooks import Adapters, hookimpl
from segue.ports.transport import Transport

from segue_litequeue.file import QueueFile
from segue_litequeue.transport import LiteTransport


@hookimpl
def segue_register(adapters: Adapters) -> None:
    """Serve `litequeue://` as a transport."""
    adapters.transport("litequeue", open_transport)


async def open_transport(url: str, namespace: str) -> Transport:
    """Open the file that a URL names.

    Raises:
        ConfigError: The URL has no absolute path, or has an unknown option or a bad value.
        TransportUnavailable: The file cannot be opened.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    try:
        redelivery = float(options.pop("redelivery", "5"))
    except ValueError:
        redelivery = 0.0
    if parts.netloc or len(parts.path) < 2 or options or not 0 < redelivery < 1e6:
        raise ConfigError(f"bad URL {url!r}", "write litequeue:///absolute/path/to/file.db?redelivery=SECONDS")
    file = QueueFile(unquote(parts.path))
    await file.connect()
    return LiteTransport(file, namespace, redelivery)
