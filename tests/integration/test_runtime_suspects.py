"""Calls that kill their process: they are tried again so often and no more, apart from each other; others go on."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import deadly
import msgspec
import pytest
from deadly import How
from stage import stage

from segue.config import Config
from segue.errors import RunFailed
from segue.plan.projection import COORDINATOR, MODES, Mode
from segue.runtime import overdue, whole
from segue.runtime.client import RunHandle

LOST = 2
"""What the app grants: the first attempt of a call is not on record yet when it kills its process."""


@contextmanager
def kept(config: Config, effects: Path, *names: str, **environ: str) -> Iterator[None]:
    """A process that takes part, and that starts again whenever it dies."""
    process = subprocess.Popen(
        [sys.executable, deadly.__file__, msgspec.json.encode(config).decode(), *names],
        env={**os.environ, "EFFECTS": str(effects), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("mode", MODES)
async def test_deadly_calls_fail_and_their_neighbours_go_on(
    mode: Mode, nats: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nats = msgspec.structs.replace(nats, transport=nats.transport.replace("redelivery=2", "redelivery=1"))
    effects = tmp_path / "effects.db"
    results: dict[int, str] = {}
    dead: list[RunHandle[str]] = []
    async with stage(deadly.app, nats, mode) as here, here.running("home", COORDINATOR):
        with kept(nats, effects, "ward"):

            async def well(n: int) -> None:
                run = await here.client.start(deadly.stay, n, "well")
                results[n] = await run.result(20)

            async def ill(n: int, how: How) -> None:
                run = await here.client.start(deadly.stay, n, how)
                with pytest.raises(RunFailed) as caught:
                    await run.result(60)
                assert (
                    f"AttemptsExhausted: the process died {LOST} times in a row while it ran treat"
                    in caught.value.message
                )
                dead.append(run)

            async with anyio.create_task_group() as tasks:
                for n in range(20):
                    tasks.start_soon(well, n)
                tasks.start_soon(ill, 100, "at once")
                tasks.start_soon(ill, 101, "later")
                for n in range(20, 60):
                    tasks.start_soon(well, n)
                    await anyio.sleep(0.1)
        assert len(results) == 60
        for module in (whole, overdue):
            monkeypatch.setattr(module, "GUARD_FIRST", 0.5)
        with kept(nats, effects, "ward", CURED="yes"):
            for run in dead:
                assert (await run.retry()).changed
                assert (await run.result(10)).startswith("home after ")
    with sqlite3.connect(effects) as database:
        tried = Counter(run for (run,) in database.execute("select run from effect"))
    assert len(dead) == 2
    for run in dead:
        assert 1 < tried[run.id] - 1 <= LOST + 1, "and once more when it was cured"
