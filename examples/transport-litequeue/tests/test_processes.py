"""What only this transport promises: several processes on one file, and one that is killed loses nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from segue.errors import ConfigError, TransportError, TransportUnavailable
from segue.hooks import open_transport
from segue.ports.transport import Delivery, Group, Message, Transport

OTHER = """
import sys, anyio
from segue.hooks import open_transport

async def echo(body):
    return body[::-1]

async def main(url, role):
    transport = await open_transport(url, "shop")
    if role == "member":
        async with transport.consume("commands", "s") as member:
            print(len(await member.receive(10)), flush=True)
            await anyio.sleep_forever()
    async with transport.respond("shop.to.s", echo):
        print("ready", flush=True)
        await anyio.sleep_forever()

anyio.run(main, *sys.argv[1:])
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"litequeue://{tmp_path}/queue.db?redelivery=1"


@pytest.fixture
async def transport(url: str) -> AsyncIterator[Transport]:
    transport = await open_transport(url, "shop")
    await transport.declare(Group("commands", "s", ("shop.do.s.*",)))
    yield transport
    await transport.aclose()


@contextmanager
def other(url: str, role: str) -> Iterator[subprocess.Popen[str]]:
    """Another process, which gets no chance to tidy up when it ends."""
    with subprocess.Popen([sys.executable, "-c", OTHER, url, role], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


async def test_what_a_killed_process_had_comes_again(url: str, transport: Transport) -> None:
    with other(url, "member") as process:
        await transport.publish([Message("shop.do.s.step", b"%d" % i, str(i)) for i in range(3)])
        assert await anyio.to_thread.run_sync(first_line, process) == "3"
    async with transport.consume("commands", "s") as member:
        found: list[Delivery] = []
        with anyio.fail_after(10):
            while len(found) < 3:
                found += await member.receive(10)
    assert [(delivery.body, delivery.deliveries) for delivery in found] == [(b"0", 2), (b"1", 2), (b"2", 2)]


async def test_a_request_reaches_another_process_until_it_is_killed(url: str, transport: Transport) -> None:
    with other(url, "responder") as process:
        assert await anyio.to_thread.run_sync(first_line, process) == "ready"
        assert await transport.request("shop.to.s", b"abc", 5) == b"cba"
    with pytest.raises(TransportUnavailable, match="no answer on"):
        await transport.request("shop.to.s", b"abc", 0.1)
    with anyio.fail_after(10):
        while True:
            try:
                await transport.request("shop.to.s", b"abc", 0.1)
            except TransportUnavailable as error:
                if "nobody responds" in str(error):
                    break


async def test_a_member_hears_of_another_connection_at_once(url: str, transport: Transport) -> None:
    publisher, published = await open_transport(url, "shop"), 0.0

    async def publish() -> None:
        nonlocal published
        await anyio.sleep(0.1)
        published = time.monotonic()
        await publisher.publish([Message("shop.do.s.step", b"1")])

    async with transport.consume("commands", "s") as member, anyio.create_task_group() as tasks:
        tasks.start_soon(publish)
        assert len(await member.receive(1)) == 1
        assert time.monotonic() - published < 0.5
    await publisher.aclose()


async def test_a_failing_handler_fails_the_request(transport: Transport) -> None:
    async def broken(body: bytes) -> bytes:
        raise ValueError("boom")

    async with transport.respond("shop.to.s", broken):
        with pytest.raises(TransportUnavailable, match="boom"):
            await transport.request("shop.to.s", b"", 5)


async def test_those_who_wait_are_told_that_the_connection_is_closed(url: str, transport: Transport) -> None:
    told: list[str] = []

    async def wait() -> None:
        try:
            async with closing.consume("commands", "s") as member:
                await member.receive(1)
        except TransportUnavailable as error:
            told.append(error.message)

    closing = await open_transport(url, "shop")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.sleep(0.05)
        await closing.aclose()
    assert told == ["this connection is closed"]


@pytest.mark.parametrize(
    "url", ["litequeue://queue.db", "litequeue:///", "litequeue:///q.db?redelivery=soon", "litequeue:///q.db?x=1"]
)
async def test_a_bad_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="bad URL"):
        await open_transport(url, "shop")


async def test_a_file_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    with pytest.raises(TransportUnavailable, match="unable to open"):
        await open_transport(f"litequeue://{tmp_path}/missing/queue.db", "shop")
    (tmp_path / "letter.txt").write_text("Dear Sir or Madam, " * 100)
    with pytest.raises(TransportError, match="not a database"):
        await open_transport(f"litequeue://{tmp_path}/letter.txt", "shop")
