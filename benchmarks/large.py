"""Runs of very many items, one after the other: wall time, CPU, messages and memory of each.

    python benchmarks/large.py [--items N] [--replicas N] [--database URL] [--only NAME,...]

Every participant is a process of its own, the service that does the items several. Stores are SQLite in a temporary
folder, unless a database is named.
"""

from __future__ import annotations

import argparse
import fnmatch
import math
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import psutil  # type: ignore[import-untyped]
import segue_node
from children import team
from meter import MONITORED, Meter
from segue_app import LARGE, app

from segue import compose
from segue.plan.projection import COORDINATOR, MODES
from segue.runtime import deploy
from segue.runtime.client import Client
from segue_nats.server import run_server

TIMEOUT = 1800.0
NAMES = tuple(flow.name for flow in LARGE)


def given(name: str, items: int) -> dict[str, Any]:
    """What a flow starts with."""
    if name == "large_loop":
        return {"number": items}
    if name == "large_nested":
        side = math.isqrt(items)
        return {"rows": [list(range(side))] * side}
    return {"numbers": list(range(items))}


async def run(client: Client, name: str, items: int) -> str:
    """Run a flow once; how it ended."""
    started = await client.start(app.flows[name], **given(name, items))
    if name == "large_cancelled":
        await anyio.sleep(items / 5000)
        await client.cancel(started.id)
    return (await started.outcome(TIMEOUT)).status


async def main(names: list[str], items: int, replicas: int, database: str) -> None:
    """Measure all in both modes."""
    print(f"{'':34}{'wall s':>8}{'CPU s':>8}{'us/item':>9}{'stored':>8}{'MB':>6}  (MB: of the largest process)")
    for mode in MODES:
        async with AsyncExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="segue-bench-"))
            server = await stack.enter_async_context(run_server(Path(folder) / "broker", config=MONITORED))
            config = segue_node.settings(server.url, database or folder)
            async with compose.wired(config, "deploy") as wiring:
                plans = [(app.flows[name].plan, mode) for name in names]
                await deploy.deploy(wiring.transport, wiring.catalog, wiring.subjects, plans)
            roles = [COORDINATOR, "email", "inventory", *(f"inventory.{number}" for number in range(2, replicas + 1))]
            arguments = (server.url, database or folder)
            children = await stack.enter_async_context(team("segue_node.py", dict.fromkeys(roles, arguments)))
            client = await stack.enter_async_context(compose.connect(config=config))
            meter = Meter(server, children, unserved={"observer", "payments"})
            for name in names:
                before, since = await meter.read(), time.perf_counter()
                status = await run(client, name, items)
                wall = time.perf_counter() - since
                counted = (await meter.read()).since(before)
                cpu = sum(counted.cpu.values())
                size = max(psutil.Process(pid).memory_info().rss for pid in children.values()) >> 20
                row = f"{wall:8.1f}{cpu:8.1f}{cpu / items * 1e6:9.0f}{counted.stored:8,}{size:6}  {status}"
                print(f"{name:20}{mode:14}{row}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure runs of very many items.")
    parser.add_argument("--items", type=int, default=10_000, help="items, or rounds (default: 10,000)")
    parser.add_argument("--replicas", type=int, default=3, help="of the service that does the items (default: 3)")
    parser.add_argument("--database", default="", metavar="URL", help="for all stores (default: SQLite files)")
    parser.add_argument("--only", default="*", metavar="NAME,...", help=f"patterns of {', '.join(NAMES)}")
    options = parser.parse_args()
    wanted = [name for name in NAMES if any(fnmatch.fnmatch(name, part) for part in options.only.split(","))]
    if not wanted:
        parser.error(f"--only fits none of {', '.join(NAMES)}")
    sys.exit(anyio.run(main, wanted, options.items, options.replicas, options.database))
