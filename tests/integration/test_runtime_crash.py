"""Processes that are killed, brokers that are killed, and messages that are lost: all runs end, and end right."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import crashing
import msgspec
import nats
import pytest
from nats.aio.msg import Msg
from orders import LOG, Order, app, place_order
from stage import Stage, eventually, stage

from segue.config import Config
from segue.plan.projection import COORDINATOR, MODES, Mode
from segue.runtime import ends, overdue, reception
from segue.wire.subjects import OBSERVER
from segue_nats.server import NatsServer

each_mode = pytest.mark.parametrize("mode", MODES)
Values = dict[tuple[str, str], set[str]]


class Processes:
    """Participants as child processes, by name."""

    def __init__(self, config: Config, effects: Path) -> None:
        self._arguments = [sys.executable, crashing.__file__, msgspec.json.encode(config).decode()]
        self._environment = {**os.environ, "EFFECTS": str(effects)}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *names: str) -> None:
        """Start each, and wait until all are ready."""
        started = []
        for name in names:
            process = subprocess.Popen(
                [*self._arguments, name],
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            self._running[name] = process
            started.append(process)
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"

    def kill(self, name: str) -> None:
        """End one at once, as a crash would."""
        process = self._running.pop(name)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def processes(config: Config, effects: Path) -> Iterator[Processes]:
    """Processes that do not outlive the test."""
    found = Processes(config, effects)
    with ExitStack() as stack:

        def kill_all() -> None:
            for name in list(found._running):
                found.kill(name)

        stack.callback(kill_all)
        yield found


@asynccontextmanager
async def published(config: Config) -> AsyncIterator[Values]:
    """What was published as completed, by run and node, heard by a plain client."""
    values: Values = defaultdict(set)

    async def on_message(message: Msg) -> None:
        for event in json.loads(message.data):
            values[event["correlationid"], event["node"]].add(json.dumps(event.get("data")))

    client = await nats.connect(config.transport.split("?")[0])
    try:
        await client.subscribe(f"{config.namespace}.*.*.*.completed", cb=on_message)
        await client.flush()
        yield values
    finally:
        await client.close()


@each_mode
async def test_killed_processes(mode: Mode, nats: Config, tmp_path: Path) -> None:
    effects = tmp_path / "effects.db"
    draw = random.Random(f"{mode}")
    names = ["left", "right", "desk", OBSERVER, *([COORDINATOR] if mode == "orchestrated" else [])]
    victims = ["left", COORDINATOR if mode == "orchestrated" else "desk", "right"]
    results: dict[str, str] = {}
    async with stage(crashing.app, nats, mode) as here, published(nats) as values:
        with processes(nats, effects) as running:
            await anyio.to_thread.run_sync(running.start, *names)

            async def order(n: int) -> None:
                run = await here.client.start(crashing.both, n)
                results[run.id] = await run.result(60)

            async with anyio.create_task_group() as tasks:
                for n in range(240):
                    tasks.start_soon(order, n)
                    await anyio.sleep(0.005)
                    if n in (40, 110, 180):
                        victim = victims.pop(0)
                        await anyio.sleep(draw.random() / 20)
                        running.kill(victim)
                        tasks.start_soon(anyio.to_thread.run_sync, running.start, victim)
            assert len(results) == 240
            await here.events(next(reversed(results)))
        _check(results, values, effects, tmp_path)


def _check(results: dict[str, str], values: Values, effects: Path, folder: Path) -> None:
    executed: Values = defaultdict(set)
    with sqlite3.connect(effects) as database:
        for run, node, value in database.execute("select run, node, value from effect"):
            executed[run, node].add(value)
    for run, result in results.items():
        single = {}
        for node in ("one", "further", "other", "merge"):
            assert len(values[run, node]) == 1, (run, node, values[run, node])
            [single[node]] = [json.loads(value) for value in values[run, node]]
            assert executed[run, node]
        assert result == single["merge"]
        number, one, other, last = *result.partition(":")[::2][:1], *result.partition(":")[2].split("|")
        assert number.isdigit()
        assert (one, other) == (single["further"], single["other"])
        assert last in executed[run, "merge"]
        assert one.partition(">")[0] == single["one"]
    for part, nodes in (("left", {"one", "further"}), ("right", {"other"}), ("desk", {"merge"})):
        with sqlite3.connect(folder / f"{part}.db") as database:
            found = database.execute(
                "select lower(hex(run)), node, count(*) from segue_cell where kind = 1 group by 1, 2"
            )
            recorded = {(run, node): count for run, node, count in found if node in nodes}
        assert recorded == {(run, node): 1 for run in results for node in nodes}


@each_mode
async def test_the_broker_is_killed(mode: Mode, tmp_path: Path) -> None:
    """Same directory, same port; who is connected comes back by itself."""
    LOG.clear()
    with NatsServer(tmp_path / "nats") as server:
        config = Config(
            transport=f"{server.url}?redelivery=2",
            store=f"sqlite:///{tmp_path}/{{part}}.db",
            journal=f"sqlite:///{tmp_path}/journal.db",
        )
        async with stage(app, config, mode) as here, here.running():
            results: dict[int, Any] = {}

            async def order(n: int) -> None:
                run = await here.client.start(place_order, Order(f"b{n}", 500))
                results[n] = await run.result(40)

            async with anyio.create_task_group() as tasks:
                for n in range(100):
                    tasks.start_soon(order, n)
                    await anyio.sleep(0.004)
                    if n in (20, 70):
                        await anyio.to_thread.run_sync(server.kill)
                        await anyio.sleep(0.1)
                        await anyio.to_thread.run_sync(server.start)
            assert all(results[n].order == f"b{n}" for n in range(100))
            await here.events((await here.client.get(place_order, "b99")).id)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards and clients that do not wait long."""
    for module in (overdue, reception):
        monkeypatch.setattr(module, "GUARD_FIRST", 0.5)
    monkeypatch.setattr(ends, "ASK_FIRST", 0.3)


async def purge(config: Config) -> None:
    """Lose every message that is stored."""
    client = await nats.connect(config.transport.split("?")[0])
    try:
        manager = client.jsm()
        for stream in await manager.streams_info():
            subjects = stream.config.subjects or []
            if any(subject.startswith(f"{config.namespace}.") for subject in subjects) and not any(
                ".reg." in subject for subject in subjects
            ):
                await manager.purge_stream(str(stream.config.name))
    finally:
        await client.close()


async def waits_for(here: Stage, channel: Any, name: str, count: int) -> None:
    async def there() -> bool:
        backlog = await here.wiring.transport.backlog(channel, name)
        return backlog is not None and backlog.waiting >= count

    await eventually(there)


@each_mode
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("down", ["payments", "email", "inventory"])
async def test_lost_messages_are_found_on_the_guards_way(mode: Mode, nats: Config, down: str) -> None:
    """What waited for a service is lost while it is down; whoever published it repeats it, and the broker takes it."""
    if mode == "choreographed" and down == "email":
        down = "payments"  # the home itself has to be there
    async with stage(app, nats, mode) as here:
        rest = [name for name in here.everybody if name != down]
        async with here.running(*rest):
            runs = [await here.client.start(place_order, Order(f"l{n}", 500)) for n in range(5)]
            await waits_for(here, "commands" if mode == "orchestrated" else "events", down, 1)
            await purge(nats)
            async with here.running(down):
                for n, run in enumerate(runs):
                    assert (await run.result(15)).order == f"l{n}"


@each_mode
@pytest.mark.usefixtures("impatient")
async def test_results_that_nobody_heard_are_found_too(mode: Mode, nats: Config) -> None:
    """Everybody but the home has done its part; then the broker forgets it, within its window for repeats."""
    home = COORDINATOR if mode == "orchestrated" else "email"
    async with stage(app, nats, mode) as here:
        rest = [name for name in here.everybody if name != home]
        async with here.running(*rest):
            async with here.running(home):
                run = await here.client.start(place_order, Order("z", 500))
            await waits_for(here, "events", home, 1)
            await anyio.sleep(0.2)
            await purge(nats)
            async with here.running(home):
                assert (await run.result(15)).order == "z"


@pytest.mark.usefixtures("impatient")
async def test_a_start_whose_home_dies_before_it_says_so(nats: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded, not published: the guard gets it going, whoever started it may be gone."""
    async with stage(app, nats, "choreographed") as here:
        publish = here.wiring.transport.publish

        async def lose(messages: Any) -> None:
            await publish([message for message in messages if not message.subject.endswith("run.started")])

        async with here.running():
            monkeypatch.setattr(here.wiring.transport, "publish", lose)
            run = await here.client.start(place_order, Order("g", 500))
            await anyio.sleep(0.1)
            monkeypatch.undo()
            monkeypatch.setattr(overdue, "GUARD_FIRST", 0.5)
            assert (await run.result(15)).order == "g"
