"""Child processes. Each ends when its standard input ends, so none outlives the benchmark, however that ends."""

from __future__ import annotations

import cProfile
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
from anyio.abc import Process

from segue.runtime.process import settle

HERE = Path(__file__).resolve().parent
STOP_TIMEOUT = 15.0
PROFILE = "BENCH_PROFILE"
"""Environment variable with a folder: every process writes what cProfile saw of its event loop, in CPU seconds."""


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
    processes: dict[str, Process] = {}
    try:
        for name, arguments in members.items():
            command = [sys.executable, str(HERE / script), name, *arguments]
            # A session of its own keeps Ctrl-C away from it: we end it in order.
            processes[name] = await anyio.open_process(command, stderr=None, start_new_session=True)
        for name, process in processes.items():
            assert process.stdout is not None
            try:
                await process.stdout.receive()
            except anyio.EndOfStream:
                raise ChildFailed(f"{script} {name} did not get ready; see its messages above") from None
        yield {name: process.pid for name, process in processes.items()}
    finally:
        with anyio.CancelScope(shield=True):
            for process in processes.values():
                assert process.stdin is not None
                await process.stdin.aclose()
            for process in processes.values():
                await _reap(process)


async def _reap(process: Process) -> None:
    with anyio.move_on_after(STOP_TIMEOUT):
        await process.wait()
    if process.returncode is None:
        process.kill()
    await process.aclose()


async def until_told() -> None:
    """Inside a child: say that it is ready and wait for the end."""
    settle()
    print("ready", flush=True)
    # The descriptor itself: the interpreter cannot shut down while a thread holds the lock of `sys.stdin`.
    await anyio.to_thread.run_sync(os.read, 0, 1, abandon_on_cancel=True)


def run(name: str, main: Callable[..., Awaitable[None]], *arguments: object) -> None:
    """Run a coroutine function on uvloop.

    Args:
        name: Of this process, for its profile.
        main: The function.
        *arguments: Its arguments.
    """

    def go() -> None:
        anyio.run(main, *arguments, backend_options={"use_uvloop": True})

    folder = os.environ.get(PROFILE)
    if not folder:
        return go()
    profile = cProfile.Profile(time.thread_time)
    try:
        profile.runcall(go)
    finally:
        profile.dump_stats(Path(folder) / f"{name}.prof")
