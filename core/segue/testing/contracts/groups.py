"""Obligations of every transport: durable groups of competing consumers, acknowledgements, the backlog."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle

import anyio

from segue.ports.transport import Backlog, Channel, Consumer, Delivery, Message, Transport
from segue.testing.contracts.expect import LIMIT, eventually
from segue.testing.contracts.stage import PATIENCE, Stage, collect, numbered, receive, silent


class GroupContract:
    """The part of `TransportContract` that is about groups."""

    async def connect(self, namespace: str) -> Transport:
        """Open a connection; connections of one namespace share everything."""
        raise NotImplementedError

    @asynccontextmanager
    async def stage(self) -> AsyncIterator[Stage]:
        """A fresh namespace with one connection; all connections are closed in the end."""
        stage = Stage(self.connect)
        try:
            with anyio.fail_after(LIMIT):
                stage.bus = await stage.another()
                yield stage
        finally:
            with anyio.CancelScope(shield=True):
                await stage.close()

    async def test_every_group_gets_every_event(self) -> None:
        async with self.stage() as stage:
            groups = [await stage.events(name, stage.event("*")) for name in ("a", "b", "c")]
            await stage.bus.publish([Message(stage.event("n"), body, body.decode()) for body in numbered(10)])
            for group in groups:
                async with stage.bus.consume("events", group.name) as member:
                    assert await collect(member, 10) == set(numbered(10))

    async def test_members_share_a_group(self) -> None:
        async with self.stage() as stage:
            group = await stage.events("g", stage.event("*"))
            other = await stage.another()
            async with stage.bus.consume("events", group.name) as a, other.consume("events", group.name) as b:
                await stage.bus.publish([Message(stage.event("n"), body, body.decode()) for body in numbered(40)])
                seen: list[bytes] = []
                members = cycle((a, b))
                while len(set(seen)) < 40:
                    member = next(members)
                    deliveries = await receive(member, 5)
                    assert 0 < len(deliveries) <= 5
                    seen += [delivery.body for delivery in deliveries if delivery.deliveries == 1]
                    await member.ack(deliveries)
                assert sorted(seen) == numbered(40)

    async def test_patterns_choose_subjects(self) -> None:
        async with self.stage() as stage:
            ns = stage.namespace
            subjects = [f"{ns}.c.f.charge.completed", f"{ns}.c.f.charge.attempt.failed", f"{ns}.c.f.pack.completed"]
            subjects += [f"{ns}.c.g.charge.completed", f"{ns}.o.f.charge.completed", f"{ns}.c.f.charge-2.completed"]
            wanted = {
                (f"{ns}.c.f.charge.completed",): {0},
                (f"{ns}.c.f.charge.*",): {0},
                (f"{ns}.c.f.charge.>",): {0, 1},
                (f"{ns}.*.f.charge.completed",): {0, 4},
                (f"{ns}.*.*.charge.completed", f"{ns}.c.f.pack.*"): {0, 2, 3, 4},
                (f"{ns}.c.>",): {0, 1, 2, 3, 5},
                (f"{ns}.c.>", f"{ns}.o.>"): {0, 1, 2, 3, 4, 5},
            }
            for i, patterns in enumerate(wanted):
                await stage.events(f"g{i}", *patterns)
            await stage.bus.publish([Message(subject, b"%d" % i) for i, subject in enumerate(subjects)])
            await stage.bus.publish([Message(subject, b"end") for subject in subjects])
            for i, (patterns, expected) in enumerate(wanted.items()):
                async with stage.bus.consume("events", f"g{i}") as member:
                    bodies = await collect(member, len(expected) + 1, total=2 * len(expected))
                    assert bodies == {b"end", *(b"%d" % j for j in expected)}, patterns
                    backlog = await stage.bus.backlog("events", f"g{i}")
                    assert backlog is not None
                    assert backlog.waiting == 0, patterns

    async def test_a_delivery_carries_subject_body_and_count(self) -> None:
        async with self.stage() as stage:
            group = await stage.events("g", stage.event("*"))
            body = bytes(range(256))
            await stage.bus.publish([Message(stage.event("n"), body, "id")])
            async with stage.bus.consume("events", group.name) as member:
                [delivery] = await receive(member)
                assert (delivery.subject, delivery.body, delivery.deliveries) == (stage.event("n"), body, 1)
                await member.ack([delivery])

    async def test_events_and_commands_are_separate(self) -> None:
        async with self.stage() as stage:
            await stage.events("same", stage.event("*"))
            await stage.commands("same", stage.command("same", "*"))
            await stage.bus.publish([Message(stage.event("n"), b"event"), Message(stage.command("same", "s"), b"cmd")])
            async with stage.bus.consume("events", "same") as events, stage.bus.consume("commands", "same") as commands:
                assert await collect(events, 1) == {b"event"}
                assert await collect(commands, 1) == {b"cmd"}
                assert await silent(events)
                assert await silent(commands)

    async def test_commands_are_gone_when_done(self) -> None:
        async with self.stage() as stage:
            other = await stage.another()
            await stage.commands("s", stage.command("s", "*"))
            await stage.commands("t", stage.command("t", "*"))
            await stage.bus.publish([Message(stage.command("s", "step"), body, body.decode()) for body in numbered(6)])
            async with stage.bus.consume("commands", "s") as a, other.consume("commands", "s") as b:
                # A busy machine may let a delivery come again before it is taken, so both take until all are seen.
                seen: set[bytes] = set()

                async def take(member: Consumer) -> None:
                    while True:
                        deliveries = await member.receive(1)
                        seen.update(delivery.body for delivery in deliveries)
                        await member.ack(deliveries)

                async def all_seen() -> bool:
                    return seen == set(numbered(6))

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(take, a)
                    tasks.start_soon(take, b)
                    await eventually(all_seen)
                    tasks.cancel_scope.cancel()
            await eventually(lambda: _left(stage.bus, "commands", "s", 0))
            async with other.consume("commands", "s") as member, other.consume("commands", "t") as neighbour:
                assert await silent(member)
                assert await silent(neighbour)

    async def test_many_patterns_in_one_group(self) -> None:
        async with self.stage() as stage:
            group = await stage.events("g", *(stage.event(f"n{i}", "*") for i in range(1700)))
            chosen = ("n0", "n850", "n1699", "other")
            await stage.bus.publish([Message(stage.event(node), node.encode()) for node in chosen])
            await stage.bus.publish([Message(stage.event("n1", "skipped"), b"end")])
            async with stage.bus.consume("events", group.name) as member:
                assert await collect(member, 4) == {b"n0", b"n850", b"n1699", b"end"}

    async def test_declaring_again_keeps_the_position(self) -> None:
        async with self.stage() as stage:
            group = await stage.events("g", stage.event("a"))
            await stage.bus.publish([Message(stage.event("a"), b"done", "1")])
            async with stage.bus.consume("events", group.name) as member:
                await collect(member, 1)
            await stage.bus.publish([Message(stage.event("a"), b"waiting", "2")])
            await stage.bus.declare(group)
            await (await stage.another()).declare(group)
            async with stage.bus.consume("events", group.name) as member:
                assert await collect(member, 1) == {b"waiting"}
                assert await silent(member)

    async def test_changed_patterns_keep_the_position(self) -> None:
        async with self.stage() as stage:
            a, b = stage.event("a"), stage.event("b")
            await stage.events("g", a)
            async with stage.bus.consume("events", "g") as member:
                await stage.bus.publish([Message(a, b"1", "1")])
                assert await collect(member, 1) == {b"1"}
                await stage.bus.publish([Message(a, b"2", "2")])
                await stage.events("g", a, b)
                await stage.bus.publish([Message(b, b"3", "3"), Message(a, b"4", "4")])
                assert await collect(member, 3) == {b"2", b"3", b"4"}
                await stage.events("g", b)
                await stage.bus.publish([Message(a, b"5", "5"), Message(b, b"6", "6")])
                assert await collect(member, 1) == {b"6"}
                assert await silent(member)

    async def test_receive_waits_and_does_not_linger(self) -> None:
        async with self.stage() as stage:
            group = await stage.events("g", stage.event("*"))

            async def later() -> None:
                await anyio.sleep(0.1)
                await stage.bus.publish([Message(stage.event("n"), b"1")])

            async with stage.bus.consume("events", group.name) as member, anyio.create_task_group() as tasks:
                began = time.monotonic()
                tasks.start_soon(later)
                deliveries = await receive(member, 1000)
                assert 0.1 <= time.monotonic() - began < 1.0
                assert [delivery.body for delivery in deliveries] == [b"1"]
                await member.ack(deliveries)

    async def test_cancelling_receive_loses_nothing(self) -> None:
        async with self.stage() as stage:
            group = await stage.events("g", stage.event("*"))
            bodies, seen = numbered(150), set[bytes]()

            async def publish() -> None:
                for body in bodies:
                    await stage.bus.publish([Message(stage.event("n"), body, body.decode())])
                    await anyio.sleep(0.001)

            async def take(member: Consumer) -> None:
                wait = 0.0
                while seen != set(bodies):
                    wait = wait % 0.008 + 0.0007
                    with anyio.move_on_after(wait):
                        deliveries = await member.receive(3)
                        seen.update(delivery.body for delivery in deliveries)
                        await member.ack(deliveries)

            async with stage.bus.consume("events", group.name) as a, stage.bus.consume("events", group.name) as b:
                with anyio.fail_after(PATIENCE + 2 * stage.bus.capabilities.redelivery):
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(publish)
                        tasks.start_soon(take, a)
                        tasks.start_soon(take, b)

    async def test_what_is_not_acknowledged_comes_again(self) -> None:
        async with self.stage() as stage:
            group, wait = await stage.events("g", stage.event("*")), stage.bus.capabilities.redelivery
            await stage.bus.publish([Message(stage.event("n"), b"1", "1"), Message(stage.event("n"), b"2", "2")])
            async with stage.bus.consume("events", group.name) as member:
                first: dict[bytes, Delivery] = {}
                while len(first) < 2:
                    first |= {delivery.body: delivery for delivery in await receive(member)}
                await member.ack([first[b"1"]])
                with anyio.fail_after(2 * wait + 3):
                    [again] = await member.receive(10)
                assert (again.body, again.deliveries) == (b"2", 2)
                await member.ack([again])

    async def test_retry_delivers_again_after_the_delay(self) -> None:
        async with self.stage() as stage:
            group = await stage.events("g", stage.event("*"))
            await stage.bus.publish([Message(stage.event("n"), b"1", "1")])
            async with stage.bus.consume("events", group.name) as member:
                [delivery] = await receive(member)
                for attempt, delay in ((2, 0.0), (3, 0.3), (4, 0.1)):
                    began = time.monotonic()
                    await member.retry([delivery], delay)
                    [delivery] = await receive(member)
                    assert delay - 0.01 <= time.monotonic() - began < delay + 2
                    assert (delivery.body, delivery.deliveries) == (b"1", attempt)
                await member.ack([delivery])

    async def test_a_delayed_message_holds_up_nobody(self) -> None:
        async with self.stage() as stage:
            group = await stage.events("g", stage.event("*"))
            await stage.bus.publish([Message(stage.event("n"), b"slow", "1")])
            async with stage.bus.consume("events", group.name) as member:
                began = time.monotonic()
                await member.retry(await receive(member), 0.4)
                await stage.bus.publish([Message(stage.event("n"), b"quick", "2")])
                assert await collect(member, 1) == {b"quick"}
                assert await collect(member, 1) == {b"slow"}
                assert time.monotonic() - began >= 0.39

    async def test_discarded_messages_become_dead_letters(self) -> None:
        async with self.stage() as stage:
            await stage.events("g", stage.event("*"))
            await stage.commands("s", stage.command("s", "*"))
            sent = [Message(stage.event("n"), b"1", "1"), Message(stage.event("n"), b"2", "2")]
            await stage.bus.publish([*sent, Message(stage.command("s", "step"), b"3", "3")])
            async with stage.bus.listen([stage.dead("*")]) as heard:
                async with stage.bus.consume("events", "g") as events, stage.bus.consume("commands", "s") as commands:
                    found: dict[bytes, Delivery] = {}
                    while len(found) < 2:
                        found |= {delivery.body: delivery for delivery in await receive(events)}
                    await events.discard([found[b"1"]], 'cannot be read: expected "{"')
                    await events.ack([found[b"2"]])
                    await commands.discard(await receive(commands), "unknown step")
                with anyio.fail_after(5):
                    letters = {(await anext(heard))[:2] for _ in range(2)}
                assert letters == {(stage.dead("g"), b"1"), (stage.dead("s"), b"3")}
            await eventually(lambda: _left(stage.bus, "events", "g", 0))
            await eventually(lambda: _left(stage.bus, "commands", "s", 0))
            async with stage.bus.consume("events", "g") as events, stage.bus.consume("commands", "s") as commands:
                assert await silent(events, 0.1)
                assert await silent(commands, 0.1)

    async def test_leaving_hands_back_at_once(self) -> None:
        async with self.stage() as stage:
            group, prompt = await stage.events("g", stage.event("*")), 0.75 * stage.bus.capabilities.redelivery
            await stage.bus.publish([Message(stage.event("n"), body, body.decode()) for body in numbered(4)])
            other = await stage.another()
            async with other.consume("events", group.name) as stays:
                async with stage.bus.consume("events", group.name) as leaves:
                    taken = {d.body: d for d in await receive(leaves, 4)}
                    while len(taken) < 4:
                        taken |= {d.body: d for d in await receive(leaves, 4)}
                    await leaves.ack([taken[b"00000"]])
                with anyio.fail_after(prompt):
                    again: set[bytes] = set()
                    while len(again) < 3:
                        deliveries = await stays.receive(10)
                        assert all(delivery.deliveries > 1 for delivery in deliveries)
                        again |= {delivery.body for delivery in deliveries}
                        await stays.ack(deliveries)
                assert again == set(numbered(4)[1:])

    async def test_a_cancelled_member_hands_back_at_once(self) -> None:
        async with self.stage() as stage:
            group, prompt = await stage.events("g", stage.event("*")), 0.75 * stage.bus.capabilities.redelivery
            await stage.bus.publish([Message(stage.event("n"), b"1", "1")])

            async def die() -> None:
                async with stage.bus.consume("events", group.name) as member:
                    await receive(member)
                    tasks.cancel_scope.cancel()
                    await anyio.sleep_forever()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(die)
            async with stage.bus.consume("events", group.name) as member:
                with anyio.fail_after(prompt):
                    assert await collect(member, 1) == {b"1"}

    async def test_the_backlog_counts(self) -> None:
        async with self.stage() as stage:
            assert await stage.bus.backlog("events", "unknown") is None
            await stage.events("g", stage.event("*"))
            assert await stage.bus.backlog("commands", "g") is None
            assert await stage.bus.backlog("events", "g") == Backlog(0, 0)
            await stage.bus.publish([Message(stage.event("n"), body, body.decode()) for body in numbered(5)])
            await eventually(lambda: _left(stage.bus, "events", "g", 5))
            assert await stage.bus.backlog("events", "g") == Backlog(5, 0)
            async with stage.bus.consume("events", "g") as member:
                taken = await receive(member, 2)
                backlog = await stage.bus.backlog("events", "g")
                assert backlog is not None
                assert backlog.waiting + backlog.delivered == 5
                assert backlog.delivered >= len(taken)
                await member.ack(taken)
                await eventually(lambda: _left(stage.bus, "events", "g", 5 - len(taken)))
                await collect(member, 5 - len(taken))
                await eventually(lambda: _left(stage.bus, "events", "g", 0))


async def _left(bus: Transport, channel: Channel, name: str, count: int) -> bool:
    backlog = await bus.backlog(channel, name)
    return backlog is not None and backlog.waiting + backlog.delivered == count
