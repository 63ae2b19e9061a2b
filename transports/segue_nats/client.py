"""nats-py's client, with two gaps closed."""

from __future__ import annotations

import nats.errors
from nats.aio.client import Client as NatsClient


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
            await super()._close(status, do_cbs)
        except OSError:
            self._status = NatsClient.DISCONNECTED
            await super()._close(status, do_cbs)
