"""Retention: runs that are long over are forgotten everywhere, open ones never, and nothing before its time."""

from __future__ import annotations

import anyio
import msgspec
import pytest
from stage import Stage, eventually, stage

from segue import App, Service, flow, wait_for
from segue.config import Config, RetentionConfig
from segue.errors import UnknownRun
from segue.hooks import open_objects, open_store
from segue.plan.projection import COORDINATOR, MODES, Mode
from segue.runtime import purge
from segue.runtime.locate import ask
from segue.runtime.purge import purge_journal
from segue.wire.requests import Purge, Purged, Refused, Reply

each_mode = pytest.mark.parametrize("mode", MODES)
ALL = (COORDINATOR, "desk", "press")
KEEP = RetentionConfig(state=0.2, journal=0.2)
SIZE = 100_000

desk, press = Service("desk"), Service("press")


@desk.step
async def edit(text: str) -> str:
    return text * SIZE


@press.step
async def print_it(text: str) -> int:
    return len(text)


@flow(home=desk, key=lambda name: name)
def publish(name: str) -> int:
    return print_it(edit(name))


@flow(home=desk)
def later(name: str) -> int:
    said = wait_for("go", str)
    return print_it(edit(said))


app = App("paper", [publish, later], [desk, press])


async def asked(here: Stage, name: str, request: Purge) -> Reply:
    [reply] = await ask(here.wiring, name, [request], 5.0)
    return reply


async def swept(here: Stage, request: Purge, names: tuple[str, ...] = ALL) -> dict[str, Purged]:
    found = {}
    for name in names:
        reply = await asked(here, name, request)
        assert isinstance(reply, Purged), reply
        found[name] = reply
    return found


async def traces(here: Stage, run: str) -> int:
    """Rows and objects that are left of a run."""
    count = 0
    for part in ALL:
        store = await open_store(here.config.store_for(part), part)
        count += len(await store.scan([run])) + len((await store.find("publish", ["x"])).keys())
        await store.aclose()
    return count


@each_mode
async def test_what_is_over_goes_and_what_is_open_stays(mode: Mode, config: Config) -> None:
    config = msgspec.structs.replace(config, retention=KEEP)
    async with stage(app, config, mode) as here, here.running():
        done = await here.client.start(publish, "x")
        assert await done.result(10) == SIZE
        waiting = await here.client.start(later, "y")
        await here.events(done.id)
        assert await traces(here, done.id) > 3
        await anyio.sleep(0.5)
        counted = await swept(here, Purge(0.2, dry=True))
        assert sum(found.runs for found in counted.values()) >= 2
        assert not any(found.rows for found in counted.values())
        assert await traces(here, done.id) > 3
        found = await swept(here, Purge(0.2))
        assert [found[name].runs for name in ALL] == [counted[name].runs for name in ALL]
        assert sum(part.open for part in found.values()) >= 1
        assert not any(part.unsure for part in found.values())
        assert await traces(here, done.id) == 0
        objects = await open_objects("", config.transport, config.namespace)
        assert objects is not None
        reference = next(event.dataref for event in await here.events(done.id) if event.node == "edit")
        assert await objects.get(done.id, reference.removeprefix("sha256:")) is None
        await objects.aclose()
        assert all(part.runs == 0 for part in (await swept(here, Purge(0.2))).values())
        with pytest.raises(UnknownRun):
            await here.client.find(done.id)
        again = await here.client.start(publish, "x")
        assert (again.id != done.id, await again.result(10)) == (True, SIZE)
        await waiting.signal("go", "abc")
        assert await waiting.result(10) == 3 * SIZE


@each_mode
async def test_one_flow_alone(mode: Mode, memory: Config) -> None:
    config = msgspec.structs.replace(memory, retention=KEEP)
    async with stage(app, config, mode) as here, here.running():
        runs = [await here.client.start(publish, f"n{i}") for i in range(3)]
        assert [await run.result(10) for run in runs] == [2 * SIZE] * 3
        await anyio.sleep(0.5)
        home = COORDINATOR if mode == "orchestrated" else "desk"
        assert (await swept(here, Purge(0.2, flow="later"), (home,)))[home].runs == 0
        assert (await swept(here, Purge(0.2, flow="publish"), (home,)))[home].runs == 3


async def test_nothing_goes_before_its_time(memory: Config) -> None:
    async with stage(app, memory) as here, here.running():
        run = await here.client.start(publish, "x")
        await run.result(10)
        for before in (0.0, -1.0, 3600.0):
            reply = await asked(here, COORDINATOR, Purge(before))
            assert isinstance(reply, Refused)
            assert "keeps runs for 30 d after their end (retention.state)" in reply.reason
        assert (await swept(here, Purge(40 * 86400.0)))[COORDINATOR] == Purged(0)
        assert await traces(here, run.id) > 3


@each_mode
async def test_while_a_home_is_silent_nobody_is_sure(mode: Mode, memory: Config) -> None:
    config = msgspec.structs.replace(memory, retention=KEEP)
    async with stage(app, config, mode) as here:
        async with here.running():
            run = await here.client.start(publish, "x")
            await run.result(10)
        await anyio.sleep(0.5)
        before = await traces(here, run.id)
        async with here.running("press"):
            found = (await swept(here, Purge(0.2), ("press",)))["press"]
            assert (found.runs, found.unsure) == (0, 1)
        assert await traces(here, run.id) == before


async def test_participants_and_the_observer_forget_by_themselves(
    memory: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge, "FIRST", 0.05)
    monkeypatch.setattr(purge, "EVERY", 0.05)
    monkeypatch.setattr("segue.runtime.observer.FIRST", 0.05)
    monkeypatch.setattr("segue.runtime.observer.EVERY", 0.05)
    monkeypatch.setattr(purge, "RUNS", 2)
    monkeypatch.setattr(purge, "ROWS", 2)
    config = msgspec.structs.replace(memory, retention=KEEP)
    async with stage(app, config) as here, here.running():
        waiting = await here.client.start(later, "y")
        runs = [await here.client.start(publish, f"n{i}") for i in range(5)]
        for run in runs:
            await run.result(10)

        async def gone() -> bool:
            left = [await traces(here, run.id) + len(await here.journal.find(run.id)) for run in runs]
            return not any(left)

        await eventually(gone)
        assert len(await here.journal.find(waiting.id)) == 1
        await waiting.signal("go", "abc")
        assert await waiting.result(10) == 3 * SIZE


async def test_the_journal_keeps_what_is_open_or_young(memory: Config) -> None:
    async with stage(app, memory) as here, here.running():
        run = await here.client.start(publish, "x")
        waiting = await here.client.start(later, "y")
        await run.result(10)
        events = await here.events(run.id)
        ended = next(event.time.timestamp() for event in events if event.kind == "ended")
        await anyio.sleep(0.1)
        assert await purge_journal(here.journal, ended) == Purged(0, open=2)
        assert await purge_journal(here.journal, ended + 0.05, "later") == Purged(0, open=1)
        assert await purge_journal(here.journal, ended + 0.05, dry=True) == Purged(1, open=1)
        assert await purge_journal(here.journal, ended + 0.05) == Purged(1, len(events), 1)
        assert await here.journal.find(run.id) == []
        assert len(await here.journal.find(waiting.id)) == 1
