"""Child processes. Each ends when its standard input ends, so none outlives the benchmark, however that ends."""

from __future__ import annotations

import cProfile
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread

HERE = Path(__file__).resolve().parent
STOP_TIMEOUT = 15.0
PROFILE = "BENCH_PROFILE"
"""Names the environment variable with a folder: children write what cProfile saw of their event loop there, in CPU seconds."""


class ChildFailed(Exception):
    """A child process did not get ready."""


@asynccontextmanager
async def team(script: str, members: Mapping[str, Sequence[str]]) -> AsyncIterator[dict[str, int]]:
    """Run a script of this folder in several processes beside us, until the context is left.

    Args:
        script: File name.
        members: Further arguments of each process, by its name, which is the first argument.

    Returns:
        Process ids by name; all have said that they are ready.

    Raises:
        ChildFailed: One ended before it was ready.
    """
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, arguments in members.items():
            processes[name] = subprocess.Popen(
                [sys.executable, str(HERE / script), name, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        for name, process in processes.items():
            assert process.stdout is not None
            line = await anyio.to_thread.run_sync(process.stdout.readline, abandon_on_cancel=True)
            if line.strip() != b"ready":
                raise ChildFailed(f"{script} {name} did not get ready; see its messages above")
        yield {name: process.pid for name, process in processes.items()}
    finally:
        for process in processes.values():
            assert process.stdin is not None
            process.stdin.close()
        with anyio.CancelScope(shield=True):
            for process in processes.values():
                await anyio.to_thread.run_sync(_reap, process)


def _reap(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()


async def until_told() -> None:
    """Inside a child: say that it is ready and wait for the end."""
    print("ready", flush=True)
    # The descriptor itself: the interpreter may not shut down while a thread holds the lock of `sys.stdin`.
    await anyio.to_thread.run_sync(os.read, 0, 1, abandon_on_cancel=True)


def run(main: Callable[..., Awaitable[None]], *arguments: object) -> None:
    """Run a coroutine function on uvloop, under a profiler if one is asked for."""

    def go() -> None:
        anyio.run(main, *arguments, backend_options={"use_uvloop": True})

    folder = os.environ.get(PROFILE)
    if not folder:
        return go()
    profile = cProfile.Profile(time.thread_time)
    try:
        profile.runcall(go)
    finally:
        profile.dump_stats(Path(folder) / f"{Path(sys.argv[0]).stem}-{'-'.join(sys.argv[1:2]) or 'main'}.prof")
