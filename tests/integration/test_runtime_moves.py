"""Runs that are moved to the other mode while they are under way: they end as if they had stayed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from journeys import Trip, app, asking, circles, done, full, held, impatient, outing, patient, straight, tour
from stage import Stage, eventually, stage

from segue import Flow, InvalidInput, RunFailed
from segue.config import Config
from segue.plan.projection import COORDINATOR, MODES, Mode
from segue.runtime.handle import RunHandle
from segue.runtime.placing import other
from segue.wire import requests
from segue.wire.requests import Done
from segue.wire.subjects import OBSERVER

each_mode = pytest.mark.parametrize("mode", MODES)
Run = RunHandle[Any]


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    done.clear()
    held.clear()
    yield
    held.clear()


async def does(*what: str) -> None:
    """Wait until steps are under way."""

    async def there() -> bool:
        return set(done) >= set(what)

    await eventually(there)


def hold(*what: str) -> None:
    held.update({name: anyio.Event() for name in what})


def release(*what: str) -> None:
    for name in what:
        held[name].set()


async def begin(here: Stage, what: Flow[..., Any], key: str, stops: list[int] | None = None) -> Run:
    found: Run = await here.client.start(what, Trip(key, stops or []))
    return found


async def told(here: Stage, run: Run, mode: Mode, status: str) -> None:
    """The journal says so."""

    async def there() -> bool:
        found = (await here.client.where(run.id)).run
        return (found.mode, found.status) == (mode, status)

    await eventually(there)


async def seen(here: Stage, run: Run, mode: Mode) -> dict[str, str]:
    """What the journal says of a run that has ended in this mode, and that whoever asks for it finds it there."""
    ended = next(event for event in await here.events(run.id) if event.kind == "ended")
    await told(here, run, mode, "completed" if b"completed" in bytes(ended.data) else "failed")
    found = await here.client.find(run.key, run.flow)
    assert (found.id, found.mode) == (run.id, mode)
    assert (await found.outcome(5)).status in ("completed", "failed")
    again = await here.client.start(run.flow, {"id": run.key})
    assert (again.id, again.existing) == (run.id, True)
    view = await here.client.where(run.id)
    return {node.node + (f"/{node.tag}" if node.tag else ""): node.state for node in view.nodes}


async def moves(run: Run, mode: Mode) -> None:
    """Move it, and see that it gets there."""
    assert await run.move(mode) == Done(True)
    assert (await run.move(mode)).note == f"the run is {mode}"


@each_mode
async def test_while_a_step_runs(mode: Mode, config: Config) -> None:
    async with stage(app, config, mode) as here, here.running():
        hold("stay 2")
        run = await begin(here, straight, "s")
        await does("stay 2")
        await moves(run, other(mode))
        release("stay 2")
        assert await run.result(10) == "20"
        assert done == ["ride 1", "stay 2", "note"]
        states = await seen(here, run, other(mode))
        assert states == dict.fromkeys(("ride", "stay", "note"), "completed")


@each_mode
async def test_there_and_back_and_there(mode: Mode, config: Config) -> None:
    async with stage(app, config, mode) as here, here.running():
        hold("ride 1", "stay 2", "note")
        run = await begin(here, straight, "b")
        for number, step in enumerate(("ride 1", "stay 2", "note")):
            await does(step)
            await moves(run, mode if number % 2 else other(mode))
            release(step)
        assert await run.result(10) == "20"
        assert done == ["ride 1", "stay 2", "note"]
        await seen(here, run, other(mode))
        kinds = Counter(event.kind for event in await here.events(run.id))
        assert (kinds["moving"], kinds["moved"]) == (3, 3)


@each_mode
async def test_while_it_waits_and_sleeps(mode: Mode, config: Config) -> None:
    """An early signal, a wait that is open, and the end of a sleep move along."""
    async with stage(app, config, mode) as here, here.running():
        hold("ride 1")
        early, late = await begin(here, asking, "e"), await begin(here, asking, "l")
        await does("ride 1")
        assert (await early.signal("answer", 3)).changed
        await moves(early, other(mode))
        release("ride 1")
        assert await early.result(10) == "30"
        await moves(late, other(mode))
        assert (await here.client.signal("l", "answer", 4)).changed
        assert not (await late.signal("answer", 5)).changed

        async def sleeps() -> bool:
            states = {node.node: node.state for node in (await here.client.where(late.id)).nodes}
            return states["sleep"] == "sleeping"

        await eventually(sleeps)
        began = time.monotonic()
        await moves(late, mode)
        assert await late.result(10) == "40"
        assert time.monotonic() - began < 1.6, "it began to sleep anew"
        await seen(here, early, other(mode))
        await seen(here, late, mode)


@each_mode
async def test_a_timeout_keeps_its_time(mode: Mode, memory: Config) -> None:
    async with stage(app, memory, mode) as here, here.running():
        began = time.monotonic()
        run = await begin(here, impatient, "i")
        await anyio.sleep(0.5)
        await moves(run, other(mode))
        assert await run.result(10) == "70"
        assert 0.9 < time.monotonic() - began < 1.9
        await seen(here, run, other(mode))


@each_mode
async def test_in_a_map_and_in_a_loop(mode: Mode, config: Config) -> None:
    async with stage(app, config, mode) as here, here.running():
        hold("stay 2", "ride 2")
        wide, long = await begin(here, tour, "w", list(range(6))), await begin(here, circles, "c")
        await does("stay 1", "stay 2", "ride 2")
        await moves(wide, other(mode))
        await moves(long, other(mode))
        release("stay 2", "ride 2")
        assert await wide.result(10) == "10-20-30-40-50-60"
        assert await long.result(10) == "6"
        assert set(Counter(done).values()) <= {1, 2}, done
        assert sum(what.startswith("stay") for what in done) == 6
        await seen(here, wide, other(mode))
        await seen(here, long, other(mode))


@each_mode
async def test_what_does_not_fit_into_one_message(mode: Mode, memory: Config) -> None:
    """Every item of the map brings the luggage along, and 1 MB is the most that may travel at a time."""
    async with stage(app, memory, mode) as here, here.running():
        hold("stay 6")
        run: Run = await here.client.start(tour, Trip("x", [0, 1, 2, 3, 4, 5], "x" * 200_000))
        await does("stay 6")
        await moves(run, other(mode))
        await moves(run, mode)
        release("stay 6")
        assert await run.result(10) == "10-20-30-40-50-60"
        assert sum(what.startswith("stay") for what in done) == 6


@each_mode
async def test_while_it_is_undone(mode: Mode, config: Config) -> None:
    async with stage(app, config, mode) as here, here.running():
        hold("back 2")
        run = await begin(here, full, "f")
        await does("back 2")
        await moves(run, other(mode))
        release("back 2")
        with pytest.raises(RunFailed, match=r"stay .NoRoom: 13."):
            await run.result(10)
        assert done == ["ride 1", "ride 2", "stay 13", "back 2", "back 1"]
        states = await seen(here, run, other(mode))
        assert states == {"ride": "undone", "ride_2": "undone", "stay": "failed", "note": "aborted"}


@each_mode
async def test_between_two_attempts(mode: Mode, config: Config) -> None:
    async with stage(app, config, mode) as here, here.running():
        run = await begin(here, patient, "p")
        await does("nap 2 1")
        await moves(run, other(mode))
        assert await run.result(10) == "2"
        assert done == ["ride 1", "nap 2 1", "nap 2 2", "note"]
        await seen(here, run, other(mode))


@each_mode
async def test_with_another_flow_in_it(mode: Mode, memory: Config) -> None:
    async with stage(app, memory, mode) as here, here.running():
        hold("stay 2")
        run = await begin(here, outing, "o")
        await does("stay 2")
        await moves(run, other(mode))
        release("stay 2")
        assert await run.result(10) == "50"
        await told(here, run, other(mode), "completed")


@each_mode
async def test_what_is_done_to_it_afterwards(mode: Mode, config: Config) -> None:
    """Held, let go, cancelled and retried where it is now; by a handle that found it where it was."""
    async with stage(app, config, mode) as here, here.running():
        run = await begin(here, asking, "h")
        await does("ride 1")
        assert (await run.pause()).changed
        await moves(run, other(mode))
        assert not (await run.pause()).changed
        assert (await run.resume()).changed
        assert (await run.cancel()).changed
        assert (await run.outcome(10)).status == "cancelled"
        assert done == ["ride 1", "back 1"]
        assert (await run.retry()).changed
        await run.signal("answer", 2)
        assert await run.result(10) == "20"
        late = await run.move(mode)
        assert (late.changed, late.note) == (False, "the run has ended")


async def test_what_is_refused(memory: Config) -> None:
    async with stage(app, memory, "orchestrated") as here, here.running():
        run = await begin(here, asking, "r")
        with pytest.raises(InvalidInput, match=r"no mode 'sideways'\n  modes: orchestrated, choreographed"):
            await run.move("sideways")  # type: ignore[arg-type]
        assert await run.move("orchestrated") == Done(False, "the run is orchestrated")
        await moves(run, "choreographed")
        [reply] = await ask(here, app.flows["asking"].plan.home, requests.Move(run.id, "orchestrated", 1))
        assert reply == Done(False, "the run has been moved meanwhile")


async def ask(here: Stage, who: str, *questions: requests.Request) -> list[requests.Reply]:
    answer = await here.wiring.transport.request(f"segue.to.{who}", requests.encode(questions), 2)
    return requests.decode_replies(answer)


@each_mode
async def test_a_service_that_is_down_holds_it_up(mode: Mode, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage(app, config, mode) as here:
        async with here.running(COORDINATOR, OBSERVER, "rail", "desk"):
            run = await begin(here, straight, "d")
            await does("ride 1")
            monkeypatch.setattr("segue.runtime.actions.SETTLED", 0.5)
            monkeypatch.setattr("segue.runtime.reader.SETTLED", 0.2)
            moved = await run.move(other(mode))
            assert moved == Done(True, "it has not got there yet: it waits for hotel")
            assert await run.move(other(mode)) == Done(False, f"the run is being moved, and will be {other(mode)}")
            await told(here, run, other(mode), "moving")
            assert "note" not in done
            async with here.running("hotel"):
                assert await run.result(15) == "20"
                assert done == ["ride 1", "stay 2", "note"]
                await seen(here, run, other(mode))


@each_mode
async def test_whoever_grants_it_dies_on_the_way(mode: Mode, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed when one service has it and the others do not; another replica goes on with it."""
    monkeypatch.setattr("segue.runtime.overdue.LEASE", 0.5)
    grantor = COORDINATOR if mode == "orchestrated" else straight.plan.home
    async with stage(app, config, mode) as here, here.running(OBSERVER, "rail", "hotel"):
        hold("stay 2")
        transport, stuck = here.wiring.transport, anyio.Event()
        request = transport.request

        async def never(subject: str, body: bytes, timeout: float) -> bytes:
            if subject.endswith(".move.hotel") and not stuck.is_set():
                stuck.set()
                await anyio.sleep_forever()
            return await request(subject, body, timeout)

        others = {COORDINATOR, "desk"} - {grantor}
        async with here.running(*others):
            with anyio.CancelScope() as life:
                async with here.running(grantor):
                    run = await begin(here, straight, "k")
                    await does("stay 2")
                    monkeypatch.setattr(transport, "request", never)
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(run.move, other(mode))
                        await stuck.wait()
                        life.cancel()
            async with here.running(grantor):
                release("stay 2")
                assert await run.result(15) == "20"
                assert done == ["ride 1", "stay 2", "note"]
                await seen(here, run, other(mode))
