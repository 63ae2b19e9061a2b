"""The NATS transport keeps the contract of transports."""

from __future__ import annotations

import pytest
from segue_nats.server import NatsServer

from segue.hooks import open_transport
from segue.ports.transport import Transport
from segue.testing import TransportContract


class TestNatsTransport(TransportContract):
    @pytest.fixture(autouse=True)
    def _server(self, nats_server: NatsServer) -> None:
        self.url = nats_server.url

    async def connect(self, namespace: str) -> Transport:
        return await open_transport(f"{self.url}?redelivery=1", namespace)
