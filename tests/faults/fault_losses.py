"""What a broker or a network loses: data, streams, consumers, a leader, connections. Every accepted run still ends.

What the broker forgets after everybody has heard it is lost for the observer alone, if it was behind; so where data is
deleted, the journal is not compared.
"""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import msgspec
import nats
import pytest
from anyio.abc import ByteStream, SocketAttribute
from arena import RATE, RUNS, Arena, arena, meanwhile, report
from nats.js import JetStreamContext

from segue.config import Config
from segue.plan.projection import MODES, Mode
from segue_nats.server import NatsServer

each_mode = pytest.mark.parametrize("mode", MODES)
GUARD = 30 + 60
"""Seconds until a guard has repeated a start twice."""
TIMEOUT = RUNS / RATE * 3 + 60 + 3 * GUARD


@asynccontextmanager
async def jetstream(url: str) -> AsyncIterator[JetStreamContext]:
    """An operator's access to the broker."""
    servers = url.partition("?")[0].removeprefix("nats://").split(",")
    client = await nats.connect([f"nats://{server}" for server in servers])
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def loaded(here: Arena, fault: Any) -> Any:
    """Run a load, and let a fault happen in its middle."""
    load = here.load

    async def in_the_middle() -> None:
        await anyio.sleep(RUNS / RATE / 2)
        await fault()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(in_the_middle)
        await load.run(RUNS, RATE, TIMEOUT)
    return load


@each_mode
async def test_the_data_of_the_broker_is_deleted(
    mode: Mode, sqlite: Config, broker: NatsServer, tmp_path: Path
) -> None:
    """It is killed while much waits in it, loses everything, plans and consumers included, and starts empty."""
    async with arena(sqlite, mode, tmp_path) as here:
        await here.start()
        at = []

        async def wipe() -> None:
            await anyio.to_thread.run_sync(here.people.kill, "right")
            await anyio.sleep(2)
            at.append(time.time())
            await anyio.to_thread.run_sync(broker.kill)
            await anyio.to_thread.run_sync(shutil.rmtree, broker.store_dir / "jetstream")
            await anyio.to_thread.run_sync(broker.start)
            await here.start("right")

        load = await loaded(here, wipe)
        figures = await here.judge(load, history=False)
        report("broker wiped", mode, {**figures, "recovery": round(load.recovery(at[0]), 1)})


@each_mode
async def test_the_streams_are_purged(mode: Mode, sqlite: Config, tmp_path: Path) -> None:
    """All that waits for somebody is gone, several times."""
    async with arena(sqlite, mode, tmp_path) as here:
        await here.start()
        at = []

        async def purge() -> None:
            await anyio.to_thread.run_sync(here.people.kill, "right")
            await anyio.sleep(2)
            async with jetstream(here.config.transport) as manager:
                for _ in range(5):
                    at.append(time.time())
                    await manager.purge_stream("segue-events")
                    await manager.purge_stream("segue-commands")
                    await anyio.sleep(0.2)
            await here.start("right")

        load = await loaded(here, purge)
        figures = await here.judge(load, history=False)
        report("streams purged", mode, {**figures, "recovery": round(load.recovery(at[0]), 1)})


@each_mode
async def test_the_consumers_are_deleted(mode: Mode, sqlite: Config, tmp_path: Path) -> None:
    """An operator deletes all durable consumers; they are made again, where they are missed."""
    async with arena(sqlite, mode, tmp_path) as here:
        await here.start()
        at = []

        async def delete() -> None:
            at.append(time.time())
            async with jetstream(here.config.transport) as manager:
                for stream in ("segue-events", "segue-commands"):
                    for info in await manager.consumers_info(stream):
                        await manager.delete_consumer(stream, info.name)

        load = await loaded(here, delete)
        figures = await here.judge(load, history=False)
        report("consumers deleted", mode, {**figures, "recovery": round(load.recovery(at[0]), 1)})


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now."""
    with ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in found]


@each_mode
async def test_a_leader_is_killed(mode: Mode, tmp_path: Path) -> None:
    """Of three brokers, the leader of the events stream dies, comes back, and then the next one."""
    ports = free_ports(6)
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports[3:])
    servers = [
        NatsServer(
            tmp_path / f"nats{n}",
            ports[n],
            config=f"server_name: n{n}\ncluster {{ name: c, listen: 127.0.0.1:{ports[3 + n]}, routes: [{routes}] }}",
        )
        for n in range(3)
    ]
    addresses = ",".join(f"127.0.0.1:{port}" for port in ports[:3])
    config = Config(
        transport=f"nats://{addresses}?redelivery=2&replicas=3",
        store=f"sqlite:///{tmp_path}/{{part}}.db",
        journal=f"sqlite:///{tmp_path}/journal.db",
    )
    with ExitStack() as stack:
        for server in servers:
            stack.enter_context(server)
        await _meta_leader(config)
        async with arena(config, mode, tmp_path) as here:
            await here.start()
            at: list[float] = []

            async def depose() -> None:
                for _ in range(2):
                    # Not through the one that is about to die.
                    async with jetstream(config.transport) as manager:
                        info = await manager.stream_info("segue-events")
                    assert info.cluster is not None
                    leader = servers[int(str(info.cluster.leader)[1:])]
                    at.append(time.time())
                    await anyio.to_thread.run_sync(leader.kill)
                    await anyio.sleep(8)
                    await anyio.to_thread.run_sync(leader.start)
                    await anyio.sleep(8)

            load = here.load
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(depose)
                await load.run(int(RATE * 20), RATE, TIMEOUT)
            figures = await here.judge(load)
            report("leader killed", mode, {**figures, "recovery": max(round(load.recovery(one), 1) for one in at)})


async def _meta_leader(config: Config) -> None:
    """Wait until the three have agreed on who leads."""
    with anyio.fail_after(30):
        while True:
            async with jetstream(config.transport) as manager:
                with suppress(nats.js.errors.Error, nats.errors.Error):
                    await manager.account_info()
                    return
            await anyio.sleep(0.2)


class Proxy:
    """A way to the broker that can be cut.

    Args:
        url: Of the broker.
    """

    def __init__(self, url: str) -> None:
        self._target = int(url.rpartition(":")[2])
        self._open: set[ByteStream] = set()
        self.port = 0
        self.flowing = anyio.Event()
        self.flowing.set()

    async def serve(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Pass on what comes, for ever."""
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            self.port = listener.extra(SocketAttribute.local_port)
            task_status.started()
            await listener.serve(self._serve)

    async def stall(self, seconds: float) -> None:
        """Let nothing through in either direction, without a word to anybody."""
        self.flowing = anyio.Event()
        await anyio.sleep(seconds)
        self.flowing.set()

    async def cut(self) -> None:
        """Break all connections."""
        for stream in list(self._open):
            await anyio.aclose_forcefully(stream)

    async def _serve(self, near: ByteStream) -> None:
        with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            async with near, await anyio.connect_tcp("127.0.0.1", self._target) as far:
                self._open |= {near, far}
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._pass, near, far, tasks.cancel_scope)
                    tasks.start_soon(self._pass, far, near, tasks.cancel_scope)
                self._open -= {near, far}

    async def _pass(self, source: ByteStream, target: ByteStream, scope: anyio.CancelScope) -> None:
        with suppress(OSError, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                data = await source.receive()
                await self.flowing.wait()
                await target.send(data)
        scope.cancel()


@each_mode
async def test_the_network_is_cut(mode: Mode, sqlite: Config, broker: NatsServer, tmp_path: Path) -> None:
    """Connections of all participants break now and then, or stand still for some seconds."""
    proxy = Proxy(broker.url)
    async with anyio.create_task_group() as tasks:
        await tasks.start(proxy.serve)
        config = msgspec.structs.replace(sqlite, transport=f"nats://127.0.0.1:{proxy.port}?redelivery=2")
        async with arena(config, mode, tmp_path, sqlite.transport) as here:
            await here.start()

            async def trouble() -> None:
                for _ in range(4):
                    await anyio.sleep(1)
                    await proxy.cut()
                    await anyio.sleep(1)
                    await proxy.stall(4)

            load = here.load
            async with meanwhile(trouble):
                await load.run(int(RATE * 20), RATE, TIMEOUT)
            report("network cut", mode, await here.judge(load))
        tasks.cancel_scope.cancel()
