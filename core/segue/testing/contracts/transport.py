"""Obligations of every transport: publishing, requests, listening, the registry.

Groups are in `groups.py`, dead letters in `dead.py`.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator

import anyio
from anyio.abc import TaskStatus

from segue.errors import PayloadTooLarge, TransportUnavailable
from segue.ports.transport import Entry, Message
from segue.testing.contracts.dead import DeadLetterContract
from segue.testing.contracts.expect import eventually, raises
from segue.testing.contracts.stage import collect, numbered


class TransportContract(DeadLetterContract):
    """What the port `Transport` promises.

    Subclass it in a test module of your adapter, name the class `Test...`, and define `connect`:

        class TestRedis(TransportContract):
            async def connect(self, namespace: str) -> Transport:
                return await open_transport("redis://localhost", namespace)

    The tests are `async def`: run them with anyio's pytest plugin in auto mode (or mark the class with
    `pytest.mark.anyio`), on the asyncio backend. Every test takes a fresh namespace, so they can share a broker. To see
    values in failures, call `pytest.register_assert_rewrite("segue.testing.contracts")` in a conftest. Open the adapter
    with a short redelivery time if you can; below 0.5 s a slow machine sees redeliveries that no test expects.
    """

    async def test_all_messages_are_stored_when_publish_returns(self) -> None:
        async with self.stage() as stage:
            group = await stage.events("g", stage.event("*"))
            await stage.bus.publish([Message(stage.event("n"), body, body.decode()) for body in numbered(50)])
            await stage.close()
            other = await stage.another()
            async with other.consume("events", group.name) as member:
                assert await collect(member, 50) == set(numbered(50))

    async def test_a_batch_of_thousands_arrives_whole(self) -> None:
        async with self.stage() as stage:
            group = await stage.events("g", stage.event("*"))
            bodies = numbered(3000)
            messages = [Message(stage.event(f"n{i % 7}"), body, body.decode()) for i, body in enumerate(bodies)]
            await stage.bus.publish(messages)
            async with stage.bus.consume("events", group.name) as member:
                assert await collect(member, 3000, limit=500) == set(bodies)

    async def test_a_colon_in_a_name_is_a_letter_like_others(self) -> None:
        async with self.stage() as stage:
            group = await stage.events("g", stage.event("x:item:entry", "*"), stage.event("run", "notice"))
            nodes = ["x:item:entry", "x:item:exit", "x:item", "x", "x:item:entry"]
            await stage.bus.publish([Message(stage.event(node), b"%d" % i) for i, node in enumerate(nodes)])
            await stage.bus.publish([Message(stage.event("run", "notice"), b"notice")])
            await stage.bus.publish([Message(stage.event("run", "started"), b"started")])
            async with stage.bus.consume("events", group.name) as member:
                assert await collect(member, 3) == {b"0", b"4", b"notice"}

    async def test_publishing_nothing_is_harmless(self) -> None:
        async with self.stage() as stage:
            await stage.bus.publish([])

    async def test_the_largest_body_passes(self) -> None:
        async with self.stage() as stage:
            group = await stage.events("g", stage.event("*"))
            body = b"x" * stage.bus.capabilities.max_bytes
            await stage.bus.publish([Message(stage.event("n"), body, "an-id/of/some-length/1/completed")])
            async with stage.bus.consume("events", group.name) as member:
                assert await collect(member, 1) == {body}

    async def test_too_large_a_body_is_refused_before_anything_is_published(self) -> None:
        async with self.stage() as stage:
            group = await stage.events("g", stage.event("*"))
            large = b"x" * (stage.bus.capabilities.max_bytes + 1)
            with raises(PayloadTooLarge):
                await stage.bus.publish([Message(stage.event("n"), b"small"), Message(stage.event("n"), large)])
            await stage.bus.publish([Message(stage.event("n"), b"marker")])
            async with stage.bus.consume("events", group.name) as member:
                assert await collect(member, 1) == {b"marker"}

    async def test_equal_bodies_without_id_are_different_messages(self) -> None:
        async with self.stage() as stage:
            group = await stage.events("g", stage.event("*"))
            await stage.bus.publish([Message(stage.event("n"), b"same"), Message(stage.event("n"), b"same")])
            async with stage.bus.consume("events", group.name) as member:
                await collect(member, 1, total=2)

    async def test_publishing_again_is_harmless(self) -> None:
        async with self.stage() as stage:
            group = await stage.events("g", stage.event("*"))
            messages = [Message(stage.event("n"), body, body.decode()) for body in numbered(10)]
            await stage.bus.publish(messages[:6])
            await stage.bus.publish(messages)
            await stage.bus.publish(messages)
            async with stage.bus.consume("events", group.name) as member:
                assert await collect(member, 10) == set(numbered(10))

    async def test_requests_are_answered(self) -> None:
        async with self.stage() as stage:
            other = await stage.another()

            async def reverse(body: bytes) -> bytes:
                return body[::-1]

            async with other.respond(stage.request("a"), reverse):
                assert await stage.bus.request(stage.request("a"), b"abc", 5) == b"cba"
                assert await stage.bus.request(stage.request("a"), b"", 5) == b""
                large = bytes(range(256)) * 256
                assert await stage.bus.request(stage.request("a"), large, 5) == large[::-1]

    async def test_responders_share_the_requests(self) -> None:
        async with self.stage() as stage:
            other, calls = await stage.another(), {"one": 0, "two": 0}

            async def one(body: bytes) -> bytes:
                calls["one"] += 1
                return body

            async def two(body: bytes) -> bytes:
                calls["two"] += 1
                return body

            async with stage.bus.respond(stage.request("a"), one), other.respond(stage.request("a"), two):
                for body in numbered(60):
                    assert await stage.bus.request(stage.request("a"), body, 5) == body
            assert calls["one"] + calls["two"] == 60
            assert min(calls.values()) > 0

    async def test_requests_are_handled_concurrently(self) -> None:
        async with self.stage() as stage:
            met = anyio.Event()

            async def meet(body: bytes) -> bytes:
                if body == b"second":
                    met.set()
                await met.wait()
                return body

            async def ask(body: bytes) -> None:
                assert await stage.bus.request(stage.request("a"), body, 5) == body

            async with stage.bus.respond(stage.request("a"), meet), anyio.create_task_group() as tasks:
                tasks.start_soon(ask, b"first")
                await anyio.sleep(0.05)
                tasks.start_soon(ask, b"second")

    async def test_a_request_that_nobody_answers_fails(self) -> None:
        async with self.stage() as stage:
            with raises(TransportUnavailable):
                await stage.bus.request(stage.request("nobody"), b"", 0.5)

            async def echo(body: bytes) -> bytes:
                return body

            async with stage.bus.respond(stage.request("a"), echo):
                assert await stage.bus.request(stage.request("a"), b"x", 5) == b"x"
            with raises(TransportUnavailable):
                await stage.bus.request(stage.request("a"), b"x", 0.5)

    async def test_a_slow_answer_fails_in_time(self) -> None:
        async with self.stage() as stage:
            done = anyio.Event()

            async def slow(body: bytes) -> bytes:
                await done.wait()
                return body

            async with stage.bus.respond(stage.request("a"), slow):
                began = time.monotonic()
                with raises(TransportUnavailable):
                    await stage.bus.request(stage.request("a"), b"x", 0.2)
                assert time.monotonic() - began < 2
                done.set()

    async def test_listeners_hear_copies(self) -> None:
        async with self.stage() as stage:
            other = await stage.another()
            group = await stage.events("g", stage.event("*"))
            patterns = [stage.event("one"), stage.command("s", "*")]
            async with other.listen(patterns) as heard, stage.bus.listen([f"{stage.namespace}.>"]) as all_heard:
                sent = [
                    Message(stage.event("one"), b"1", "a"),
                    Message(stage.event("two"), b"2", "b"),
                    Message(stage.command("s", "step"), b"3", "c"),
                ]
                await stage.bus.publish(sent)
                with anyio.fail_after(5):
                    first = {message[:2] async for message in _take(heard, 2)}
                    every = {message[:2] async for message in _take(all_heard, 3)}
            assert first == {sent[0][:2], sent[2][:2]}
            assert every == {message[:2] for message in sent}
            async with stage.bus.consume("events", group.name) as member:
                assert await collect(member, 2) == {b"1", b"2"}

    async def test_listeners_hear_only_what_comes_after(self) -> None:
        async with self.stage() as stage:
            await stage.bus.publish([Message(stage.event("n"), b"before", "a")])
            async with stage.bus.listen([stage.event("n")]) as heard:
                await stage.bus.publish([Message(stage.event("n"), b"after", "b")])
                with anyio.fail_after(5):
                    assert [message.body async for message in _take(heard, 1)] == [b"after"]

    async def test_the_registry_keeps_the_last_value(self) -> None:
        async with self.stage() as stage:
            registry, other = stage.bus.registry, (await stage.another()).registry
            assert await registry.get("plan.abc") is None
            await registry.put("plan.abc", b"1")
            await registry.put("flow.place_order", b"{}")
            await registry.put("plan.abc", b"2")
            assert await registry.get("plan.abc") == b"2"
            assert await other.get("plan.abc") == b"2"
            assert await other.get("flow.place_order") == b"{}"
            assert await other.get("plan") is None
            assert await other.get("plan.abc.d") is None
            await other.put("plan.big", b"x" * 100_000)
            assert await registry.get("plan.big") == b"x" * 100_000

    async def test_following_an_empty_registry(self) -> None:
        async with self.stage() as stage, stage.bus.registry.follow() as entries:
            with anyio.fail_after(5):
                assert await anext(entries) is None
                await stage.bus.registry.put("flow.a", b"1")
                assert await anext(entries) == Entry("flow.a", b"1")

    async def test_following_tells_all_then_each_change(self) -> None:
        async with self.stage() as stage:
            other = await stage.another()
            for i in range(200):
                await other.registry.put(f"plan.p{i}", b"old")
            await other.registry.put("plan.p7", b"new")
            async with stage.bus.registry.follow() as entries:
                found: dict[str, bytes] = {}
                with anyio.fail_after(10):
                    while (entry := await anext(entries)) is not None:
                        found[entry.key] = entry.value
                assert found == {f"plan.p{i}": b"new" if i == 7 else b"old" for i in range(200)}
                for value in (b"1", b"2", b"3"):
                    await other.registry.put("flow.a", value)
                changes = []
                with anyio.fail_after(5):
                    while b"3" not in changes:
                        entry = await anext(entries)
                        assert entry is not None, "caught up twice"
                        assert entry.key == "flow.a"
                        changes.append(entry.value)
                assert changes == sorted(changes), "changes of one key arrive in order"

    async def test_followers_do_not_disturb_each_other(self) -> None:
        async with self.stage() as stage:
            seen: list[int] = []

            async def follow(*, task_status: TaskStatus[None]) -> None:
                async with stage.bus.registry.follow() as entries:
                    assert await anext(entries) is None
                    task_status.started()
                    entry = await anext(entries)
                    assert entry == Entry("flow.a", b"1")
                    seen.append(1)

            with anyio.fail_after(10):
                async with anyio.create_task_group() as tasks:
                    for _ in range(3):
                        await tasks.start(follow)
                    await stage.bus.registry.put("flow.a", b"1")
            assert len(seen) == 3

    async def test_a_new_connection_finds_everything(self) -> None:
        async with self.stage() as stage:
            group = await stage.events("g", stage.event("*"))
            await stage.bus.registry.put("flow.a", b"1")
            await stage.bus.publish([Message(stage.event("n"), body, body.decode()) for body in numbered(4)])
            async with stage.bus.consume("events", group.name) as member:
                await collect(member, 4)
            await stage.bus.publish([Message(stage.event("n"), b"last", "last")])
            await stage.close()
            other = await stage.another()
            assert await other.registry.get("flow.a") == b"1"

            async def one_left() -> bool:
                backlog = await other.backlog("events", group.name)
                return backlog is not None and backlog.waiting + backlog.delivered == 1

            await eventually(one_left)
            async with other.consume("events", group.name) as member:
                assert await collect(member, 1) == {b"last"}

    async def test_capabilities_are_sane(self) -> None:
        async with self.stage() as stage:
            capabilities = stage.bus.capabilities
            assert capabilities.max_bytes >= 100_000
            assert 0 < capabilities.redelivery < math.inf


async def _take(messages: AsyncIterator[Message], count: int) -> AsyncIterator[Message]:
    for _ in range(count):
        yield await anext(messages)
