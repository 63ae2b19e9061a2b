"""Registers the NATS transport; nats-py is imported when the first URL is opened."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from segue.errors import PluginError, TransportError
from segue.hooks import Adapters, hookimpl
from segue.ports.objects import ObjectStore
from segue.ports.transport import Transport
from segue_nats.permissions import render


async def _open(url: str, namespace: str) -> Transport:
    try:
        from segue_nats.transport import open_transport
    except ModuleNotFoundError as error:
        if error.name != "nats":
            raise
        raise PluginError("the NATS transport needs the package nats-py", "pip install 'segue[nats]'") from None
    return await open_transport(url, namespace)


async def _open_objects(url: str, namespace: str) -> ObjectStore:
    from segue_nats.objects import open_objects

    return await open_objects(url, namespace)


@asynccontextmanager
async def _run(folder: Path, url: str) -> AsyncIterator[str]:
    from segue_nats.server import find_binary, run_server

    try:
        find_binary()
    except TransportError as error:
        raise PluginError(error.message, error.hint) from None
    port = _free_port(url)
    async with run_server(folder, port) as server:
        yield url if port else server.url


def _free_port(url: str) -> int:
    """The port that a URL names, if it is on this machine, takes connections as they are, and is free; else 0."""
    from segue_nats.options import DEFAULT_PORT, parse

    options = parse(url)
    if options.tls or len(options.servers) > 1:
        return 0
    parts = urlsplit(options.servers[0])
    host, port = parts.hostname or "", parts.port or DEFAULT_PORT
    try:
        local = host == "localhost" or ip_address(host) == ip_address("127.0.0.1")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    except (ValueError, OSError):
        return 0
    return port if local else 0


@hookimpl
def segue_register(adapters: Adapters) -> None:
    """Register `nats://` and `tls://`, for messages and for large values, and the server for `segue dev`."""
    adapters.transport("nats", _open)
    adapters.transport("tls", _open)
    adapters.objects("nats", _open_objects)
    adapters.objects("tls", _open_objects)
    adapters.broker("nats", _run)
    adapters.permissions("nats", render)
