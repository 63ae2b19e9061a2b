"""The transport keeps the contract of the port; this is all that an adapter needs to be tested against it."""

from __future__ import annotations

from pathlib import Path

import pytest
from segue.hooks import open_transport
from segue.ports.transport import Transport
from segue.testing import TransportContract


class TestLiteTransport(TransportContract):
    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.url = f"litequeue://{tmp_path}/queue.db?redelivery=1"

    async def connect(self, namespace: str) -> Transport:
        return await open_transport(self.url, namespace)
