"""The NATS transport keeps the contract of transports, and what it promises beyond it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec
import nats
import pytest
from nats.aio.client import Client

from segue.errors import ConfigError, PayloadTooLarge, TransportError, TransportUnavailable
from segue.hooks import open_objects, open_transport
from segue.ports.objects import ObjectStore
from segue.ports.transport import Backlog, Channel, Consumer, Entry, Group, Message, Transport
from segue.testing import ObjectsContract, TransportContract
from segue.testing.contracts.expect import eventually
from segue_nats import topology
from segue_nats.server import NatsServer, run_server

EVENT = "segue.o.flow.node.completed"
GROUP = Group("events", "g", ("segue.o.*.*.completed",))


class TestNatsTransport(TransportContract):
    @pytest.fixture(autouse=True)
    def _server(self, nats_server: NatsServer) -> None:
        self.url = nats_server.url

    async def connect(self, namespace: str) -> Transport:
        return await open_transport(f"{self.url}?redelivery=1", namespace)


class TestNatsObjects(ObjectsContract):
    @pytest.fixture(autouse=True)
    def _server(self, nats_server: NatsServer) -> None:
        self.url = nats_server.url

    async def connect(self, namespace: str) -> ObjectStore:
        found = await open_objects("", self.url, namespace)
        assert found is not None
        return found


@asynccontextmanager
async def transport(url: str, namespace: str = "segue") -> AsyncIterator[Transport]:
    opened = await open_transport(url, namespace)
    try:
        yield opened
    finally:
        await opened.aclose()


@asynccontextmanager
async def plain_client(url: str) -> AsyncIterator[Client]:
    client = await nats.connect(url)
    try:
        yield client
    finally:
        await client.close()


async def api(client: Client, endpoint: str, body: bytes = b"") -> dict[str, Any]:
    answer = await client.request(f"$JS.API.{endpoint}", body, timeout=5)
    found: dict[str, Any] = msgspec.json.decode(answer.data)
    return found


def numbered(first: int, last: int) -> list[Message]:
    return [Message(EVENT, b"%d" % i, f"id-{i}") for i in range(first, last)]


async def bodies(member: Consumer, wanted: int, limit: int = 100) -> set[bytes]:
    found: set[bytes] = set()
    with anyio.fail_after(30):
        while len(found) < wanted:
            deliveries = await member.receive(limit)
            found.update(delivery.body for delivery in deliveries)
            await member.ack(deliveries)
    return found


@pytest.fixture
def namespace() -> str:
    return f"t{uuid.uuid4().hex[:12]}"


async def test_streams_are_as_promised(nats_server: NatsServer, namespace: str) -> None:
    async with transport(nats_server.url, namespace), plain_client(nats_server.url) as client:
        config = {
            kind: (await api(client, f"STREAM.INFO.{namespace}-{kind}"))["config"]
            for kind in ("events", "commands", "dead", "registry", "advisories")
        }
    day = 86_400_000_000_000
    assert config["events"]["subjects"] == [f"{namespace}.o.>", f"{namespace}.c.>"]
    assert (config["events"]["retention"], config["events"]["max_age"]) == ("limits", 7 * day)
    assert config["commands"]["subjects"] == [f"{namespace}.do.>"]
    assert config["commands"]["retention"] == "workqueue"
    assert config["dead"]["subjects"] == [f"{namespace}.dead.>"]
    assert config["dead"]["max_age"] == 30 * day
    assert config["registry"]["subjects"] == [f"{namespace}.reg.>"]
    assert (config["registry"]["max_msgs_per_subject"], config["registry"]["discard"]) == (1, "old")
    assert len(config["advisories"]["subjects"]) == 2
    for kind, found in config.items():
        assert found["storage"] == "file"
        assert not found.get("allow_rollup_hdrs")
        if kind != "registry":
            assert (found["discard"], found["deny_delete"]) == ("new", kind != "dead")


async def test_options_of_the_url_reach_the_streams(nats_server: NatsServer, namespace: str) -> None:
    async with plain_client(nats_server.url) as client:

        async def max_age() -> int:
            found: int = (await api(client, f"STREAM.INFO.{namespace}-events"))["config"]["max_age"]
            return found

        async with transport(f"{nats_server.url}?max_age=1h", namespace):
            assert await max_age() == 3_600_000_000_000
        async with transport(nats_server.url, namespace):
            assert await max_age() == 3_600_000_000_000, "what exists is left alone"
        async with transport(f"{nats_server.url}?max_age=60", namespace):
            assert await max_age() == 60_000_000_000


async def test_somebody_elses_stream_is_left_alone(nats_server: NatsServer, namespace: str) -> None:
    async with plain_client(nats_server.url) as client:
        await api(
            client,
            f"STREAM.CREATE.{namespace}-events",
            msgspec.json.encode({"name": f"{namespace}-events", "subjects": [f"{namespace}.mine"]}),
        )
    with pytest.raises(TransportError, match="not Segue's"):
        await open_transport(nats_server.url, namespace)


async def test_a_plain_client_sees_the_messages(nats_server: NatsServer, namespace: str) -> None:
    subject = f"{namespace}.c.flow.charge.completed"
    async with transport(nats_server.url, namespace) as bus, plain_client(nats_server.url) as client:
        await bus.publish([Message(subject, b'{"amount": 1}', "an/id")])
        stored = await client.jetstream().get_last_msg(f"{namespace}-events", subject)
    assert stored.data == b'{"amount": 1}'
    assert stored.headers == {"Nats-Msg-Id": "an/id"}


async def test_dead_letters_say_why(nats_server: NatsServer, namespace: str) -> None:
    subject = f"{namespace}.o.flow.node.completed"
    async with transport(nats_server.url, namespace) as bus, plain_client(nats_server.url) as client:
        await bus.declare(Group("events", "g", (subject,)))
        await bus.publish([Message(subject, b"poison")])
        async with bus.consume("events", "g") as member:
            deliveries = await member.receive(1)
            await member.discard(deliveries, "not\nreadable")
            await member.discard(deliveries, "said twice")
        letter = await client.jetstream().get_last_msg(f"{namespace}-dead", f"{namespace}.dead.g")
        stored = (await api(client, f"STREAM.INFO.{namespace}-dead"))["state"]["messages"]
    assert letter.data == b"poison"
    assert letter.headers is not None
    assert letter.headers["Segue-Reason"] == "not readable"
    assert letter.headers["Segue-Subject"] == subject
    assert letter.headers["Segue-Deliveries"] == "1"
    assert stored == 1


@pytest.mark.parametrize("channel", ["events", "commands"])
async def test_what_the_broker_gives_up_becomes_a_dead_letter(
    nats_server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch, channel: Channel
) -> None:
    monkeypatch.setattr(topology, "MAX_DELIVER", 3)
    subject = f"{namespace}.o.flow.node.completed" if channel == "events" else f"{namespace}.do.s.step"
    async with transport(nats_server.url, namespace) as bus, plain_client(nats_server.url) as client:
        await bus.declare(Group(channel, "s", (subject,)))
        await bus.publish([Message(subject, b"nobody wants it", "id"), Message(subject, b"good", "other")])

        async def letters() -> bool:
            return len(await bus.dead.page(10)) == 1

        async with bus.consume(channel, "s") as member, anyio.create_task_group() as tasks:

            async def refuse() -> None:
                while True:
                    for delivery in await member.receive(10):
                        if delivery.body == b"good":
                            await member.ack([delivery])
                        else:
                            await member.retry([delivery], 0)

            tasks.start_soon(refuse)
            await eventually(letters)
            tasks.cancel_scope.cancel()
        [letter] = await bus.dead.page(10)
        assert (letter.group, letter.subject, letter.body) == ("s", subject, b"nobody wants it")
        assert letter.deliveries == 3
        assert "the broker gave up" in letter.reason
        if channel == "commands":

            async def empty() -> bool:
                found = await api(client, f"STREAM.INFO.{namespace}-commands")
                return not found["state"]["messages"]

            await eventually(empty)
        assert await bus.dead.requeue(letter.id)
        async with bus.consume(channel, "s") as member:
            assert await bodies(member, 1) == {b"nobody wants it"}
        assert await bus.dead.page(10) == []


async def test_what_is_given_up_and_gone_is_a_letter_without_a_message(
    nats_server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topology, "MAX_DELIVER", 1)
    subject = f"{namespace}.o.flow.node.completed"
    async with transport(nats_server.url, namespace) as bus, plain_client(nats_server.url) as client:
        await bus.declare(Group("events", "g", (subject,)))
        await bus.publish([Message(subject, b"x")])
        advisory = {"stream": f"{namespace}-events", "consumer": "g", "stream_seq": 1, "deliveries": 1}
        await api(client, f"STREAM.PURGE.{namespace}-events")
        place = f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{namespace}-events.g"
        await client.publish(place, b"not an advisory")
        await client.publish(place, msgspec.json.encode(advisory))
        async with bus.consume("events", "g"):

            async def letters() -> bool:
                return len(await bus.dead.page(10)) == 1

            await eventually(letters)
        [letter] = await bus.dead.page(10)
        assert (letter.group, letter.subject, letter.body) == ("g", "", b"")
        assert "is gone by now" in letter.reason
        with pytest.raises(TransportError, match="no message any more"):
            await bus.dead.requeue(letter.id)
        assert await bus.dead.discard(letter.id)


async def test_commands_published_before_anybody_declared_wait(nats_server: NatsServer, namespace: str) -> None:
    async with transport(nats_server.url, namespace) as bus:
        await bus.publish([Message(f"{namespace}.do.payments.charge", b"early")])
        await bus.declare(Group("commands", "payments", (f"{namespace}.do.payments.*",)))
        async with bus.consume("commands", "payments") as member:
            assert await bodies(member, 1) == {b"early"}


async def test_overlapping_commands_are_refused(nats_server: NatsServer, namespace: str) -> None:
    async with transport(nats_server.url, namespace) as bus:
        await bus.declare(Group("commands", "a", (f"{namespace}.do.a.*",)))
        with pytest.raises(TransportError, match="'b' cannot be declared on commands"):
            await bus.declare(Group("commands", "b", (f"{namespace}.do.a.charge",)))


async def test_a_group_without_patterns_gets_nothing(nats_server: NatsServer, namespace: str) -> None:
    async with transport(nats_server.url, namespace) as bus:
        await bus.declare(Group("events", "g", ()))
        await bus.publish([Message(f"{namespace}.o.flow.node.completed", b"1")])
        assert await bus.backlog("events", "g") == Backlog(0, 0)


@pytest.mark.parametrize("name", ["a.b", "a b", "", "*"])
async def test_bad_group_names_are_refused(nats_server: NatsServer, namespace: str, name: str) -> None:
    async with transport(nats_server.url, namespace) as bus:
        with pytest.raises(ConfigError, match="group name"):
            await bus.declare(Group("events", name, (f"{namespace}.o.>",)))


async def test_an_undeclared_group_cannot_be_joined(nats_server: NatsServer, namespace: str) -> None:
    async with transport(nats_server.url, namespace) as bus:
        with pytest.raises(TransportError, match="not declared"):
            async with bus.consume("events", "nobody"):
                pass


async def test_large_registry_entries_are_compressed(nats_server: NatsServer, namespace: str) -> None:
    plan = msgspec.json.encode([{"node": f"charge_{i}", "inputs": ["order", i]} for i in range(80_000)])
    noise = os.urandom(1_100_000)
    assert len(plan) > 3_000_000
    async with transport(nats_server.url, namespace) as bus:
        with pytest.raises(PayloadTooLarge, match=r"plan\.noise"):
            await bus.registry.put("plan.noise", noise)
        await bus.registry.put("plan.large", plan)
        await bus.registry.put("plan.opaque", noise[:900_000])
        assert await bus.registry.get("plan.large") == plan
        assert await bus.registry.get("plan.opaque") == noise[:900_000]
        async with bus.registry.follow() as entries:
            with anyio.fail_after(10):
                found = {await anext(entries), await anext(entries)}
                assert await anext(entries) is None
    assert found == {Entry("plan.large", plan), Entry("plan.opaque", noise[:900_000])}


async def test_a_failing_responder_is_told_to_the_caller(nats_server: NatsServer, namespace: str) -> None:
    async def fail(body: bytes) -> bytes:
        raise ValueError(body.decode())

    async with transport(nats_server.url, namespace) as bus, bus.respond(f"{namespace}.to.a", fail):
        with pytest.raises(TransportUnavailable, match="ValueError: no such thing"):
            await bus.request(f"{namespace}.to.a", b"no such thing", 5)


async def test_a_request_waits_for_a_responder_that_restarts(nats_server: NatsServer, namespace: str) -> None:
    async def echo(body: bytes) -> bytes:
        return body

    async with transport(nats_server.url, namespace) as bus:
        asked = asyncio.create_task(bus.request(f"{namespace}.to.a", b"hello", 10))
        await anyio.sleep(0.2)
        async with bus.respond(f"{namespace}.to.a", echo):
            assert await asked == b"hello"


async def test_a_cancelled_publish_leaves_the_connection_whole(nats_server: NatsServer, namespace: str) -> None:
    subject = f"{namespace}.o.flow.node.completed"
    async with transport(nats_server.url, namespace) as bus:
        for i in range(20):
            with anyio.move_on_after(0.0002 * i):
                await bus.publish([Message(subject, b"x" * 1000, f"{i}-{j}") for j in range(200)])
        with anyio.move_on_after(5) as late:
            await bus.publish([Message(subject, b"after")])
    assert not late.cancelled_caught, "the connection is stuck"


async def test_a_crash_while_publishing_loses_nothing(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server, transport(f"{server.url}?redelivery=1") as bus:
        await bus.declare(GROUP)

        async def publish(first: int) -> None:
            for i in range(first, first + 4000, 40):
                await bus.publish(numbered(i, i + 40))

        async with anyio.create_task_group() as tasks:
            for first in (0, 4000, 8000):
                tasks.start_soon(publish, first)
            for count in (500, 4000):
                await eventually(partial(_stored, bus, count))
                await anyio.to_thread.run_sync(server.kill)
                await anyio.to_thread.run_sync(server.start)
        async with bus.consume("events", "g") as member:
            assert await bodies(member, 12_000, 1000) == {b"%d" % i for i in range(12_000)}


async def test_a_crash_while_consuming_loses_nothing(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server, transport(f"{server.url}?redelivery=1") as bus:
        await bus.declare(GROUP)
        await bus.publish(numbered(0, 3000))
        async with bus.consume("events", "g") as a, bus.consume("events", "g") as b:
            seen = await bodies(a, 500, 20) | await bodies(b, 500, 20)
            server.kill()
            lost = await a.receive(20)
            await a.ack(lost)
            await anyio.to_thread.run_sync(server.start)
            with anyio.fail_after(30):
                while not await _done(bus):
                    for member in (a, b):
                        with anyio.move_on_after(0.1):
                            deliveries = await member.receive(100)
                            seen |= {delivery.body for delivery in deliveries}
                            await member.ack(deliveries)
        assert seen == {b"%d" % i for i in range(3000)}


async def test_everything_survives_a_restart(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server, transport(server.url) as bus:
        await bus.declare(GROUP)
        await bus.registry.put("flow.a", b"1")

        async def echo(body: bytes) -> bytes:
            return body

        async with (
            bus.consume("events", "g") as member,
            bus.respond("segue.to.a", echo),
            bus.listen(["segue.>"]) as heard,
            bus.registry.follow() as entries,
        ):
            assert await anext(entries) == Entry("flow.a", b"1")
            assert await anext(entries) is None
            with anyio.move_on_after(0.1):
                await member.receive(1)
            await anyio.to_thread.run_sync(server.stop)
            await anyio.to_thread.run_sync(server.start)
            with anyio.fail_after(20):
                await bus.publish([Message(EVENT, b"after", "x")])
                assert await bodies(member, 1) == {b"after"}
                assert (await anext(heard)).body == b"after"
                assert await bus.request("segue.to.a", b"hello", 10) == b"hello"
                await bus.registry.put("flow.b", b"2")
                assert await anext(entries) == Entry("flow.b", b"2")


async def test_a_wiped_server_is_furnished_again(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server, transport(server.url) as bus:
        await bus.declare(GROUP)
        async with bus.consume("events", "g") as member, bus.registry.follow() as entries:
            assert await anext(entries) is None
            with anyio.move_on_after(0.1):
                await member.receive(1)
            await anyio.to_thread.run_sync(server.stop)
            shutil.rmtree(tmp_path / "jetstream")
            await anyio.to_thread.run_sync(server.start)
            await eventually(lambda: _done(bus))
            with anyio.fail_after(20):
                await bus.publish([Message(EVENT, b"after", "x")])
                assert await bodies(member, 1) == {b"after"}
                await bus.registry.put("flow.a", b"1")
                assert await anext(entries) == Entry("flow.a", b"1")


async def test_a_changed_password_is_survived(tmp_path: Path) -> None:
    async with run_server(tmp_path, config="authorization { user: me, password: s3cret }") as server:
        url = server.url.replace("//", "//me:s3cret@")
        config = tmp_path / "nats-server.conf"
        right = config.read_text()
        async with transport(url) as bus:
            config.write_text(right.replace("s3cret", "other"))
            os.kill(server.pid, signal.SIGHUP)
            said = ""
            with anyio.fail_after(10):
                while "Authorization Violation" not in said:
                    with pytest.raises(TransportUnavailable) as caught:
                        await bus.request("segue.to.nobody", b"", 0.2)
                    said = str(caught.value)
            assert "s3cret" not in said
            config.write_text(right)
            os.kill(server.pid, signal.SIGHUP)
            await bus.publish([Message(EVENT, b"again")])


async def test_a_wrong_password_is_not_shown(tmp_path: Path) -> None:
    async with run_server(tmp_path, config="authorization { user: me, password: right }") as server:
        # The server says why and hangs up at once; now and then the connection's end is seen first.
        said = r"(?s)(Authorization Violation|Connection reset by peer).*nats-server"
        with pytest.raises(TransportUnavailable, match=said) as caught:
            await open_transport(server.url.replace("//", "//me:s3cret@"), "segue")
        assert "s3cret" not in repr(caught.value)
        assert "s3cret" not in str(caught.value)


async def test_tls_is_not_given_up_silently(nats_server: NatsServer) -> None:
    with pytest.raises(TransportUnavailable, match="offers no TLS"):
        await open_transport(nats_server.url.replace("nats://", "tls://"), "segue")


async def test_an_unreachable_server_is_said_with_a_hint() -> None:
    with pytest.raises(TransportUnavailable, match=r"(?s)cannot connect to nats://\*\*\*@127\.0\.0\.1:1.*segue dev"):
        await open_transport("nats://me:s3cret@127.0.0.1:1", "segue")


async def test_another_server_of_the_list_is_tried(nats_server: NatsServer, namespace: str) -> None:
    for _ in range(3):
        async with transport(f"nats://127.0.0.1:1,{nats_server.url.removeprefix('nats://')}", namespace) as bus:
            await bus.publish([Message(f"{namespace}.o.flow.node.completed", b"1")])
            assert await bus.registry.get("flow.none") is None


async def test_bad_namespaces_are_refused(nats_server: NatsServer) -> None:
    with pytest.raises(ConfigError, match="namespace"):
        await open_transport(nats_server.url, "a.b")


async def _stored(bus: Transport, count: int) -> bool:
    backlog = await bus.backlog("events", "g")
    return backlog is not None and backlog.waiting >= count


async def _done(bus: Transport) -> bool:
    return await bus.backlog("events", "g") == Backlog(0, 0)
