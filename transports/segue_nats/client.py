"""nats-py's client, with three gaps closed."""

from __future__ import annotations

import asyncio

import nats.errors
from nats.aio.client import Client as NatsClient

CLOSING, GIVING_UP = 5.0, 0.2
"""Seconds to close a connection, and one that never came about."""


class Client(NatsClient):
    """A connection that is not replaced by itself.

    Args:
        tls: Refuse a server that offers no TLS.
    """

    def __init__(self, tls: bool) -> None:
        super().__init__()
        self._insist_on_tls = tls

    def _connect_command(self) -> bytes:
        # The library takes the server's word for whether to encrypt, and sends the password next.
        if self._insist_on_tls and not self._server_info.get("tls_required"):
            raise nats.errors.Error("the server offers no TLS, and tls:// insists on it")
        return super()._connect_command()

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        try:
            # After a failed TLS handshake nobody tells the library that its socket is closed, and it waits for that.
            async with asyncio.timeout(CLOSING if self.is_connected else GIVING_UP):
                await super()._close(status, do_cbs)
        except TimeoutError:
            return
        except OSError:
            self._status = NatsClient.DISCONNECTED
            await super()._close(status, do_cbs)
