"""Counters of a system: CPU seconds of its processes, and messages as its broker counts them."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import anyio.to_thread
import psutil  # type: ignore[import-untyped]

from segue_nats.server import HOST, NatsServer

MONITORED = f'http: "{HOST}:-1"'
"""Lines for the config of a server that is to be metered."""


class Counters(NamedTuple):
    """What was counted up to a moment.

    Attributes:
        cpu: Seconds of user and system time, by process.
        stored: Messages stored in streams.
        received: Messages that clients sent to the broker, acknowledgements and requests included.
        delivered: Messages that the broker sent to clients.
        waiting: Messages that consumers have not finished, where somebody consumes.
    """

    cpu: dict[str, float]
    stored: int
    received: int
    delivered: int
    waiting: int

    def since(self, earlier: Counters) -> Counters:
        """What was counted since an earlier moment; `waiting` is what is waiting now."""
        cpu = {name: seconds - earlier.cpu[name] for name, seconds in self.cpu.items()}
        return Counters(
            cpu,
            self.stored - earlier.stored,
            self.received - earlier.received,
            self.delivered - earlier.delivered,
            self.waiting,
        )


class Meter:
    """Reads the counters of a system; what this process does counts as `driver`.

    Args:
        server: The broker, started with the lines of `MONITORED`.
        children: Process ids by name.
        unserved: Durable consumers that no process serves.
    """

    def __init__(self, server: NatsServer, children: Mapping[str, int], unserved: Collection[str] = ()) -> None:
        self._unserved = unserved
        pids = {"driver": os.getpid(), "broker": server.pid, **children}
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._address = _monitoring(server.store_dir)

    async def read(self) -> Counters:
        """The counters now."""
        cpu = {}
        for name, process in self._processes.items():
            times = process.cpu_times()
            cpu[name] = times.user + times.system
        general, streams = await anyio.to_thread.run_sync(self._ask)
        details = [stream for account in streams["account_details"] for stream in account.get("stream_detail", ())]
        consumers = [
            consumer
            for stream in details
            for consumer in stream.get("consumer_detail") or ()
            if consumer["name"] not in self._unserved
        ]
        return Counters(
            cpu,
            sum(stream["state"]["last_seq"] for stream in details),
            general["in_msgs"],
            general["out_msgs"],
            sum(consumer["num_pending"] + consumer["num_ack_pending"] for consumer in consumers),
        )

    def _ask(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return self._get("varz"), self._get("jsz?accounts=true&streams=true&consumers=true")

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self._address}/{path}", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


def _monitoring(store_dir: Path) -> str:
    (file,) = (store_dir / "ports").glob("*.ports")
    address: str = json.loads(file.read_text())["monitoring"][0]
    return address
