"""What a retry by a person does again, and as what the outside world sees it."""

from __future__ import annotations

import again
import pytest
from again import app
from stage import stage

from segue import RunFailed
from segue.config import Config
from segue.plan.projection import MODES, Mode

each_mode = pytest.mark.parametrize("mode", MODES)


@pytest.fixture(autouse=True)
def clean() -> None:
    again.keys.clear()
    again.broken.clear()


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
