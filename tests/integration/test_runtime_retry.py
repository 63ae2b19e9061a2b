"""What a retry by a person does again, and as what the outside world sees it."""

from __future__ import annotations

import again
import pytest
from again import app
from stage import stage

from segue import InvalidInput, RunFailed
from segue.config import Config
from segue.plan.projection import MODES, Mode

each_mode = pytest.mark.parametrize("mode", MODES)


@pytest.fixture(autouse=True)
def clean() -> None:
    again.keys.clear()
    again.broken.clear()


def picked(*items: str) -> list[str]:
    return sorted(f"{node}/{item}/1" for item in items for node in ("pick", "weigh"))


def made() -> list[str]:
    """The keys of the calls since the last time."""
    found = sorted(again.keys)
    again.keys.clear()
    return found


@each_mode
async def test_a_call_keeps_its_key_unless_it_was_undone(mode: Mode, config: Config) -> None:
    async with stage(app, config, mode) as here, here.running():
        again.broken.add("ship")
        run = await here.client.start(again.sale, "x")
        with pytest.raises(RunFailed):
            await run.result(10)
        assert made() == ["charge//1", "charge//1/undo", "label//1", "ship//1"]
        await run.retry()
        with pytest.raises(RunFailed):
            await run.result(10)
        assert made() == ["charge//2", "charge//2/undo", "ship//1"]
        again.broken |= {"charge"}
        await run.retry()
        with pytest.raises(RunFailed):
            await run.result(10)
        assert made() == ["charge//3"]
        again.broken.clear()
        await run.retry()
        assert await run.result(10) == "x for 1"
        assert made() == ["charge//3", "ship//1"]
        await run.retry(["label"])
        assert await run.result(10) == "x for 1"
        assert made() == ["label//1", "ship//1"]


@each_mode
async def test_one_item_of_a_map_is_chosen_by_its_tag(mode: Mode, config: Config) -> None:
    async with stage(app, config, mode) as here, here.running():
        run = await here.client.start(again.parcels, ["a", "bb", "ccc"])
        assert await run.result(10) == 6
        assert made() == [*picked("0", "1", "2")[:3], "total//1", *picked("0", "1", "2")[3:]]
        assert (await run.retry(["pick/1"])).changed
        assert await run.result(10) == 6
        assert made() == ["pick/1/1", "total//1", "weigh/1/1"]
        await run.retry(["weigh/2", "pick/0"])
        assert await run.result(10) == 6
        assert made() == ["pick/0/1", "total//1", "weigh/0/1", "weigh/2/1"]
        await run.retry(["weigh"])
        assert await run.result(10) == 6
        assert len(made()) == 7, "without a tag all items are meant"


@each_mode
async def test_an_item_that_failed_is_the_only_one_that_is_retried(mode: Mode, memory: Config) -> None:
    async with stage(app, memory, mode) as here, here.running():
        again.broken.add("BB")
        run = await here.client.start(again.parcels, ["a", "bb", "ccc"])
        with pytest.raises(RunFailed):
            await run.result(5)
        made()
        again.broken.clear()
        await run.retry()
        assert await run.result(5) == 6
        assert made() == ["total//1", "weigh/1/1"]


@each_mode
async def test_a_round_of_a_loop_is_chosen_with_those_that_follow(mode: Mode, memory: Config) -> None:
    async with stage(app, memory, mode) as here, here.running():
        run = await here.client.start(again.rounds, 0)
        assert await run.result(5) == "x for 3"
        assert made() == ["grow/0/1", "grow/1/1", "grow/2/1", "ship//1"]
        await run.retry(["grow/1"])
        assert await run.result(5) == "x for 3"
        assert made() == ["grow/1/1", "grow/2/1", "ship//1"]


@each_mode
async def test_a_place_that_there_is_not_is_refused(mode: Mode, memory: Config) -> None:
    """Choreographed, the home does not know the items of the map, which another service holds."""
    async with stage(app, memory, mode) as here, here.running():
        run = await here.client.start(again.parcels, ["a"])
        assert await run.result(5) == 1
        for place, why in {
            "pick/first": "'first' is no tag",
            "pick/0.1": "lies in 1 maps and loops",
            "total/0": "lies in 0 maps and loops",
            **({"pick/7": "has no item or round 7"} if mode == "orchestrated" else {}),
        }.items():
            done = await run.retry([place])
            assert not done.changed
            assert why in done.note
        with pytest.raises(InvalidInput, match="no node 'pack'"):
            await run.retry(["pack/0"])
