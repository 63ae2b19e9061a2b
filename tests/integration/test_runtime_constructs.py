"""Every construct over the real runtime, in both modes: the same results, effects and compensation."""

from __future__ import annotations

import anyio
import pytest
import trips
from stage import eventually, stage
from trips import Trip, app

from segue import RunFailed

MODES = ["orchestrated", "choreographed"]


@pytest.fixture(params=MODES)
async def running(request, config):
    trips.done.clear()
    async with stage(app, config, request.param) as found, found.running():
        yield found


CASES = [
    (trips.book, Trip("a", price=1), "paid", ["fly a", "lodge a", "pay a"]),
    (trips.book_or_stay, Trip("b", price=1), "paid", ["fly b", "lodge b", "pay b"]),
    (trips.book_or_stay, Trip("c", price=200), "too dear", ["fly c", "lodge c", "unfly c seat", "unlodge c room"]),
    (trips.visit, Trip("d", [1, 2, 3, 4, 5]), [4, 6, 8, 10, 12], []),
    (trips.visit, Trip("e", []), [], []),
    (trips.visit_odd, Trip("f", [1, 2, 3]), [1, None, 3], []),
    (trips.climb, Trip("g", price=1), 4, []),
    (trips.fastest, Trip("h", price=1), 2, []),
    (trips.two_of, Trip("i"), [2, 6], []),
    (trips.ask_briefly, Trip("j"), "nobody", []),
    (trips.nap, Trip("k", price=1), 2, []),
    (trips.free, Trip("l", price=0), "free", []),
    (trips.free, Trip("m", price=1), "paid", ["fly m", "lodge m", "pay m"]),
    (trips.round_trip, Trip("n", price=1), 5, []),
    (trips.failing_child, Trip("o", price=200), "caught", ["fly o", "lodge o", "unfly o seat", "unlodge o room"]),
]


async def test_every_construct(running):
    for flow, trip, value, effects in CASES:
        trips.done.clear()
        run = await running.client.start(flow, trip)
        assert await run.result(timeout=20) == value, flow.name
        assert sorted(trips.done) == effects, flow.name


async def test_a_limited_map_runs_so_many_items_at_a_time(running):
    trips.together.clear()
    run = await running.client.start(trips.visit_slowly, Trip("l", list(range(7))))
    assert await run.result(timeout=20) == list(range(7))
    assert max(trips.together) == 2


FAILURES = [
    (trips.book, Trip("a", price=200), "Declined", ["fly a", "lodge a", "unfly a seat", "unlodge a room"]),
    (trips.visit_odd, Trip("b", [2, 4, 6]), "ValueError", []),
    (trips.climb, Trip("c", price=-9), "LoopCap", []),
    (trips.free, Trip("d", price=-1), "Declined", []),
]


async def test_failures_are_undone_in_reverse_order(running):
    for flow, trip, error, effects in FAILURES:
        trips.done.clear()
        run = await running.client.start(flow, trip)
        with pytest.raises(RunFailed, match=error):
            await run.result(timeout=20)
        assert sorted(trips.done) == effects, flow.name


async def test_a_signal_is_kept_if_early_and_counts_once(running):
    run = await running.client.start(trips.ask, Trip("early"))
    await running.client.signal(run.id, "answer", "yes")
    await running.client.signal("early", "answer", "no")
    assert await run.result(timeout=20) == "yes"
    run = await running.client.start(trips.ask, Trip("late"))
    await eventually(lambda: _did("fly late"))
    await anyio.sleep(0.1)
    await running.client.signal("late", "answer", "later")
    assert await run.result(timeout=20) == "later"


async def test_cancelling_undoes_what_was_done(running):
    run = await running.client.start(trips.ask, Trip("x"))
    await eventually(lambda: _did("fly x"))
    await running.client.cancel("x")
    with pytest.raises(RunFailed, match="cancelled"):
        await run.result(timeout=20)
    assert trips.done == ["fly x", "unfly x seat"]


async def test_a_failed_run_is_retried_under_a_new_revision(running):
    run = await running.client.start(trips.book, Trip("y", price=200))
    with pytest.raises(RunFailed):
        await run.result(timeout=20)
    trips.done.clear()
    await running.client.retry("y")
    with pytest.raises(RunFailed, match="Declined"):
        await run.result(timeout=20)
    assert sorted(trips.done) == ["fly y", "lodge y", "unfly y seat", "unlodge y room"]


async def test_a_paused_run_starts_nothing_until_it_is_resumed(running):
    run = await running.client.start(trips.ask, Trip("z"))
    await eventually(lambda: _did("fly z"))
    await running.client.pause("z")
    await running.client.signal("z", "answer", "go")
    await anyio.sleep(0.3)
    await running.client.resume("z")
    assert await run.result(timeout=20) == "go"


async def _did(what: str) -> bool:
    return what in trips.done
