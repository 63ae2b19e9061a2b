"""Registers the NATS transport; nats-py is imported when the first URL is opened."""

from __future__ import annotations

from segue.errors import PluginError
from segue.hooks import Adapters, hookimpl
from segue.ports.transport import Transport


async def _open(url: str, namespace: str) -> Transport:
    try:
        from segue_nats.transport import open_transport
    except ModuleNotFoundError as error:
        if error.name != "nats":
            raise
        raise PluginError("the NATS transport needs the package nats-py", "pip install 'segue[nats]'") from None
    return await open_transport(url, namespace)


@hookimpl
def segue_register(adapters: Adapters) -> None:
    """Register `nats://` and `tls://`."""
    adapters.transport("nats", _open)
    adapters.transport("tls", _open)
