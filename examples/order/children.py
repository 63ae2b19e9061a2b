"""The processes of the demo: the broker, and what `segue` runs, each with a log of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio

from segue_nats.server import NatsServer

READY_TIMEOUT, STOP_TIMEOUT = 30.0, 15.0
SEGUE = (sys.executable, "-m", "segue.cli")


class Broken(Exception):
    """The demo cannot go on."""


class Children:
    """Child processes by name; all of them work in one folder.

    Args:
        folder: Where they find `segue.toml` and the app, and keep their state.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str) -> int:
        """Start `segue COMMAND` and return its process id."""
        with self.log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                [*SEGUE, *command], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        return self._running[name].pid

    async def ready(self) -> None:
        """Wait until every child has said so.

        Raises:
            Broken: One ended, or took too long.
        """
        for name in self._running:
            with anyio.move_on_after(READY_TIMEOUT) as scope:
                while self.log(name).read_text(errors="replace").count(" is ready: ") <= self._ends(name):
                    self.check()
                    await anyio.sleep(0.02)
            if scope.cancelled_caught:
                raise Broken(f"{name} was not ready after {READY_TIMEOUT:g} s")

    async def stop(self, name: str) -> int:
        """Stop a child as an operator would, with SIGTERM, wait for its end, and return its process id.

        Raises:
            Broken: It did not end in time or in order.
        """
        child = self._running.pop(name)
        child.terminate()
        try:
            code = await anyio.to_thread.run_sync(child.wait, STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            raise Broken(f"{name} did not stop within {STOP_TIMEOUT:g} s") from None
        if code:
            raise Broken(f"{name} ended with exit code {code} when it was stopped")
        return child.pid

    def check(self) -> None:
        """Look whether all are alive.

        Raises:
            Broken: One is not.
        """
        for name, child in self._running.items():
            if child.poll() is not None:
                raise Broken(f"{name} ended with exit code {child.returncode}")

    async def segue(self, *command: str) -> str:
        """Run `segue COMMAND` to its end and return what it printed.

        Raises:
            Broken: It failed.
        """
        done = await anyio.run_process([*SEGUE, *command], cwd=self.folder, check=False)
        if done.returncode:
            raise Broken(f"`segue {' '.join(command)}` failed: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout.decode()

    def close(self) -> None:
        """End all that still run, all at once, by force if they take their time."""
        for child in self._running.values():
            child.terminate()
        deadline = time.monotonic() + STOP_TIMEOUT
        for child in self._running.values():
            try:
                child.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._running.clear()

    def log(self, name: str) -> Path:
        """Where a child writes what it says."""
        return self.folder / f"{name}.log"

    def _ends(self, name: str) -> int:
        """How often a child of this name was stopped before: a log has one `is ready` for each start."""
        return self.log(name).read_text(errors="replace").count("stopped after ")


@contextmanager
def children(folder: Path) -> Iterator[Children]:
    """A broker and children, all of them ended with the block, however it is left."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    for name in [name for name in os.environ if name.startswith("SEGUE_")]:
        del os.environ[name]  # settings of the caller's own
    with NatsServer(folder / "nats") as server:
        os.environ["SEGUE_TRANSPORT"] = server.url
        os.environ["SHOP_EFFECTS"] = str(folder / "effects")
        found = Children(folder)
        try:
            yield found
        finally:
            found.close()
