"""What nobody can read, or handle: it goes to the dead letters, and its neighbours go on."""

from __future__ import annotations

import msgspec
import nats
import pytest
from orders import LOG, Order, Summary, app, place_order
from stage import Stage, eventually, stage

from segue.config import Config
from segue.plan.projection import MODES, Mode
from segue.ports.transport import Message
from segue.runtime.letters import contents
from segue.runtime.participant import POISONOUS
from segue.runtime.reader import Reader
from segue.runtime.turn import Turn
from segue.runtime.work import Arrived, News
from segue.wire import envelope
from segue.wire.subjects import OBSERVER
from segue_memory.queue import Item
from segue_nats import topology

each_mode = pytest.mark.parametrize("mode", MODES)


def spoil(here: Stage, mode: Mode) -> list[Message]:
    """Messages that somebody else may have sent."""
    ns, letter = here.config.namespace, mode[0]
    subjects = [f"{ns}.{letter}.place_order.charge.completed", f"{ns}.do.payments.charge"]
    if mode == "choreographed":
        subjects[0] = f"{ns}.c.place_order.run.started"
    bodies = [b"", b"{", b"[{}]", b"null", b"\xff\xfe", b"[[[[", b'[{"id": "x", "type": "segue.completed"}]']
    return [Message(subject, body) for subject in subjects for body in bodies]


@each_mode
async def test_garbage_goes_to_the_dead_letters(mode: Mode, memory: Config) -> None:
    async with stage(app, memory, mode) as here, here.running():
        transport = here.wiring.transport
        await transport.publish(spoil(here, mode))
        runs = [await here.client.start(place_order, Order(f"p{n}", 5)) for n in range(20)]
        for n, run in enumerate(runs):
            assert await run.result(10) == Summary(f"p{n}", 5, f"small shelf-p{n}")

        async def buried() -> bool:
            return len(await transport.dead.page(100)) >= 21

        await eventually(buried)
        letters = await transport.dead.page(100)
    assert all(letter.reason for letter in letters)
    reader = "coordinator" if mode == "orchestrated" else "email"
    # Events have two readers, commands one; "null" and an empty message are no batches either.
    assert {letter.group for letter in letters} >= {"payments", OBSERVER}
    assert reader != OBSERVER


@each_mode
async def test_garbage_between_good_events_of_one_message(mode: Mode, memory: Config) -> None:
    async with stage(app, memory, mode) as here:
        transport = here.wiring.transport
        async with here.running(), transport.listen(["segue.>"]) as heard:
            run = await here.client.start(place_order, Order("m", 5))
            await run.result(5)
            batches = []
            async for message in heard:
                batches.append(message)
                if message.subject.endswith("run.ended"):
                    break
        for message in batches:
            parts = [bytes(part) for part in envelope.split(message.body)]
            if ".do." in message.subject or ".run.started" in message.subject:
                await transport.publish([Message(message.subject, envelope.batch([b"{}", *parts, b'{"id": 7}']))])
        async with here.running():
            again = await here.client.start(place_order, Order("n", 5))
            assert await again.result(5) == Summary("n", 5, "small shelf-n")


@each_mode
@pytest.mark.parametrize(
    "change",
    [
        {"run": "not-an-id"},
        {"tag": "\x00"},
        {"revision": 2**70},
        {"revision": -1},
        {"node": "nowhere"},
        {"data": msgspec.Raw(b'{"deep": [1, {"x": null}]}')},
        {"tag": "t" * 100_000},
        {"attempt": 2**65},
    ],
    ids=["run", "nul", "huge", "negative", "node", "data", "tag", "attempt"],
)
async def test_well_formed_nonsense_hurts_nobody(mode: Mode, nats: Config, change: dict[str, object]) -> None:
    """Events that decode, but cannot be true: the store refuses some of them."""
    async with stage(app, nats, mode) as here:
        transport = here.wiring.transport
        async with here.running(), transport.listen([f"{nats.namespace}.>"]) as heard:
            await (await here.client.start(place_order, Order("m", 5))).result(10)
            samples: dict[str, bytes] = {}
            async for message in heard:
                samples[message.subject] = bytes(envelope.split(message.body)[0])
                if message.subject.endswith("run.ended"):
                    break
            forged = []
            for subject, raw in samples.items():
                if ".to." not in subject:
                    decode = envelope.decode_call if ".do." in subject else envelope.decode
                    if ".do." in subject and "attempt" in change:
                        continue
                    body = envelope.encode(msgspec.structs.replace(decode(raw), **change))
                    forged.append(Message(subject, b"[" + body + b"]"))
            await transport.publish(forged)
            runs = [await here.client.start(place_order, Order(f"n{n}", 5)) for n in range(5)]
            for n, run in enumerate(runs):
                assert await run.result(10) == Summary(f"n{n}", 5, f"small shelf-n{n}")
            for run in runs:
                await here.events(run.id)


@each_mode
async def test_an_unknown_plan_waits_until_it_is_published(mode: Mode, memory: Config) -> None:
    """A deploy in another place may be heard of late."""
    async with stage(app, memory, None) as here:
        await here.deploy(mode)
        async with here.running():
            hidden = here.wiring.catalog.plans.pop(place_order.plan.hash)
            stored = await here.wiring.transport.registry.get(f"plan.{hidden.hash}")
            assert stored is not None
        broker = here.wiring.transport._broker  # type: ignore[attr-defined]
        del broker.registry[f"plan.{hidden.hash}"]
        async with stage(app, memory, None) as other:
            home = "coordinator" if mode == "orchestrated" else "email"
            rest = [name for name in here.everybody if name != home]
            other.wiring.catalog.plans[hidden.hash] = hidden
            async with other.running(home), here.running(*rest):
                run = await other.client.start(place_order, Order("u", 5))
                channel = "commands" if mode == "orchestrated" else "events"

                async def handed_back() -> bool:
                    backlog = await here.wiring.transport.backlog(channel, "payments")
                    return backlog is not None and backlog.waiting > 0

                await eventually(handed_back)
                assert not [event for event in await here.events(run.id, until="") if event.node == "charge"]
                await here.wiring.transport.registry.put(f"plan.{hidden.hash}", hidden.json)
                assert await run.result(10) == Summary("u", 5, "small shelf-u")
        assert not await here.wiring.transport.dead.page(100)


@each_mode
async def test_what_comes_again_and_again_has_turns_of_its_own(
    mode: Mode, memory: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that kills the process in its turn takes no other input with it."""
    batches: list[list[Arrived]] = []
    read = Reader.read

    async def watched(self: Reader, turn: Turn, arrived: list[Arrived]) -> list[News]:
        if arrived:
            batches.append(arrived)
        return await read(self, turn, arrived)

    monkeypatch.setattr(Reader, "read", watched)
    async with stage(app, memory, mode) as here, here.running():
        broker = here.wiring.transport._broker  # type: ignore[attr-defined]
        queue = broker.require("commands", "payments")
        for n in range(3):
            queue.put(Item(f"{memory.namespace}.do.payments.charge", b"%d" % n, POISONOUS))
        for n in range(3):
            queue.put(Item(f"{memory.namespace}.do.payments.charge", b"fresh %d" % n))
        queue.wake()
        run = await here.client.start(place_order, Order("a", 5))
        assert await run.result(10) == Summary("a", 5, "small shelf-a")
        assert len(await here.wiring.transport.dead.page(10)) == 6
    worn = [batch for batch in batches if any(item.ticket.delivery.deliveries > POISONOUS for item in batch)]
    assert [len(batch) for batch in worn] == [1, 1, 1]
    [fresh] = [batch for batch in batches if any(b"fresh" in item.ticket.delivery.body for item in batch)]
    assert len(fresh) == 3
    assert batches.index(fresh) < batches.index(worn[0]), "its neighbours come first"


@each_mode
async def test_what_was_given_up_completes_once_its_plan_is_there(
    mode: Mode, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker gives up what nobody can read; later somebody deploys, and publishes the dead letters again."""
    monkeypatch.setattr(topology, "MAX_DELIVER", 2)
    config: Config = request.getfixturevalue("nats")
    LOG.clear()
    async with stage(app, config, mode) as here:
        hidden = here.wiring.catalog.plans.pop(place_order.plan.hash)
        client = await nats.connect(config.transport.split("?")[0])
        try:
            entry = f"{config.namespace}.reg.plan.{hidden.hash}"
            await client.jsm().purge_stream(f"{config.namespace}-registry", subject=entry)
        finally:
            await client.close()
        async with stage(app, config, None) as other:
            home = "coordinator" if mode == "orchestrated" else "email"
            rest = [name for name in here.everybody if name != home]
            other.wiring.catalog.plans[hidden.hash] = hidden
            async with other.running(home), here.running(*rest):
                run = await other.client.start(place_order, Order("u", 5))
                dead = here.wiring.transport.dead
                expected = {"payments"} if mode == "orchestrated" else {"payments", "inventory"}

                async def given_up() -> bool:
                    return {letter.group for letter in await dead.page(100)} >= expected

                await eventually(given_up)
                assert all(run.id in contents(letter).runs for letter in await dead.page(100))
                await here.wiring.transport.registry.put(f"plan.{hidden.hash}", hidden.json)
                for letter in await dead.page(100):
                    assert await dead.requeue(letter.id)
                assert await run.result(10) == Summary("u", 5, "small shelf-u")
                assert not await dead.page(100)
    assert LOG["u", "charge"] == 1


@each_mode
async def test_dead_letters_on_nats(mode: Mode, request: pytest.FixtureRequest) -> None:
    config: Config = request.getfixturevalue("nats")
    async with stage(app, config, mode) as here, here.running():
        client = await nats.connect(config.transport.split("?")[0])
        try:
            dead = await client.subscribe(f"{config.namespace}.dead.>")
            await here.wiring.transport.publish(spoil(here, mode))
            run = await here.client.start(place_order, Order("d", 5))
            assert await run.result(10) == Summary("d", 5, "small shelf-d")
            reasons = set()
            while len(reasons) < 3:
                message = await dead.next_msg(5)
                assert message.headers is not None
                reasons.add(message.headers["Segue-Reason"])
        finally:
            await client.close()
