"""The private nats-server starts, stops and never outlives its owner."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segue.errors import TransportError
from segue_nats.server import NatsServer

OWNER = """
import sys, time
from segue_nats.server import NatsServer
server = NatsServer(sys.argv[1])
server.start()
print(server.pid, server.url, flush=True)
time.sleep(60)
"""


def reachable(url: str) -> bool:
    host, _, port = url.removeprefix("nats://").rpartition(":")
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex((host, int(port))) == 0


def gone(url: str) -> bool:
    deadline = time.monotonic() + 10
    while reachable(url):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_it_starts_stops_and_keeps_its_port(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "new")
    with server:
        url = server.url
        assert server.running
        assert reachable(url)
    assert not server.running
    assert not reachable(url)
    server.start()
    assert server.url == url
    assert reachable(url)
    server.kill()
    assert not reachable(url)


def test_it_has_no_pid_when_it_does_not_run(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="not running"):
        _ = NatsServer(tmp_path).pid


def test_it_ends_when_its_owner_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, tmp_path], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        _, url = owner.stdout.readline().split()
        assert reachable(url)
        owner.kill()
        assert gone(url)


def test_interrupting_the_owner_does_not_reach_it(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        assert os.getpgid(server.pid) != os.getpgid(0)
        assert os.getsid(server.pid) != os.getsid(0)


def test_a_directory_has_one_server(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as first:
        with pytest.raises(TransportError, match="another nats-server uses"):
            NatsServer(tmp_path).start()
        assert reachable(first.url)


def test_a_server_that_cannot_run_says_why(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = NatsServer(tmp_path, port=taken.getsockname()[1])
        with pytest.raises(TransportError, match="address already in use"):
            server.start()
    assert not server.running


def test_a_broken_config_says_why(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, config="colour = [")
    with pytest.raises(TransportError, match="ended at once"):
        server.start()


def test_a_server_that_died_can_be_started_again(tmp_path: Path) -> None:
    with NatsServer(tmp_path, sync_interval="always") as server:
        os.kill(server.pid, signal.SIGKILL)
        assert gone(server.url)
        server.start()
        assert reachable(server.url)
