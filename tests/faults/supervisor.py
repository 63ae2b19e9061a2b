"""Participants as processes that are killed and come back, as under systemd: a supervisor that keeps a log of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import battered
import msgspec
import psutil

from segue.config import Config

READY_TIMEOUT = 60.0


class Death(NamedTuple):
    """A process that was killed, or frozen for a while; `until`: when it went on, or its end."""

    name: str
    pid: int
    at: float
    until: float


class Supervisor:
    """Runs participants by name; `left#2` is a second replica of `left`.

    Args:
        config: What they run on.
        effects: Where their steps leave rows.
    """

    def __init__(self, config: Config, effects: Path) -> None:
        self._arguments = [sys.executable, battered.__file__, msgspec.json.encode(config).decode()]
        self._environment = {**os.environ, "EFFECTS": str(effects)}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.log = effects.with_name("processes.log")
        self.deaths: list[Death] = []

    def start(self, *names: str) -> None:
        """Start each, again if it ends at once because the broker or a database is away, and wait for all."""
        for name in names:
            self._spawn(name)
        deadline = time.monotonic() + READY_TIMEOUT
        for name in names:
            while not self._ready(name):
                assert time.monotonic() < deadline, f"{name} does not come up; see {self.log}"
                self._end(name)
                time.sleep(0.3)
                self._spawn(name)

    def kill(self, name: str) -> None:
        """SIGKILL."""
        pid, at = self._running[name].pid, time.time()
        self._end(name)
        self.deaths.append(Death(name, pid, at, at))

    def stop(self, name: str) -> None:
        """SIGTERM, and wait."""
        self._running[name].terminate()
        self._end(name)

    def freeze(self, name: str, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        process, at = self._running[name], time.time()
        process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        process.send_signal(signal.SIGCONT)
        self.deaths.append(Death(name, process.pid, at, time.time()))

    def measured(self, name: str) -> psutil.Process:
        """The process, to be measured."""
        return psutil.Process(self._running[name].pid)

    def end_all(self) -> None:
        """Nothing outlives the test."""
        for name in list(self._running):
            self._end(name)

    def _spawn(self, name: str) -> None:
        with self.log.open("ab") as log:
            self._running[name] = subprocess.Popen(
                [*self._arguments, name.partition("#")[0]], env=self._environment, stdout=subprocess.PIPE, stderr=log
            )

    def _ready(self, name: str) -> bool:
        stdout = self._running[name].stdout
        assert stdout is not None
        return stdout.readline() == b"ready\n"

    def _end(self, name: str) -> None:
        process = self._running.pop(name)
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def supervised(config: Config, effects: Path) -> Iterator[Supervisor]:
    """A supervisor whose processes end with the block."""
    found = Supervisor(config, effects)
    try:
        yield found
    finally:
        found.end_all()
