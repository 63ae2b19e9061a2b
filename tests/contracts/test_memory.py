"""The memory adapters keep the contracts, and do what only they promise."""

from __future__ import annotations

from itertools import product

import anyio
import pytest

import segue_memory
from segue.errors import TransportError, TransportUnavailable
from segue.hooks import open_journal, open_objects, open_store, open_transport
from segue.ports.journal import Journal, RunQuery, RunRecord
from segue.ports.objects import ObjectStore
from segue.ports.store import Cell, CellKey, CellKind, StateStore
from segue.ports.transport import Backlog, Group, Message, Transport, matches
from segue.testing import JournalContract, ObjectsContract, StoreContract, TransportContract
from segue_memory.queue import Patterns
from segue_memory.transport import MemoryTransport

NS = "shop"


class TestMemoryTransport(TransportContract):
    async def connect(self, namespace: str) -> Transport:
        return await open_transport("memory://contract?redelivery=1", namespace)


class TestMemoryStore(StoreContract):
    async def connect(self, part: str) -> StateStore:
        return await open_store("memory://contract", part)


class TestMemoryJournal(JournalContract):
    async def connect(self) -> Journal:
        return await open_journal("memory://contract")


class TestMemoryObjects(ObjectsContract):
    async def connect(self, namespace: str) -> ObjectStore:
        found = await open_objects("", "memory://contract", namespace)
        assert found is not None
        return found


async def drain(transport: Transport, name: str = "g", limit: int = 10) -> list[tuple[bytes, int]]:
    """Receive and acknowledge until nothing is left: bodies and delivery counts, in order."""
    found = []
    async with transport.consume("events", name) as member:
        while (backlog := await transport.backlog("events", name)) and backlog.waiting:
            deliveries = await member.receive(limit)
            found += [(delivery.body, delivery.deliveries) for delivery in deliveries]
            await member.ack(deliveries)
    return found


async def shaken(name: str, seed: str) -> list[tuple[bytes, int]]:
    transport = await open_transport(f"memory://{name}{seed}", NS)
    await transport.declare(Group("events", "g", (f"{NS}.c.>",)))
    await transport.publish([Message(f"{NS}.c.f.n.completed", b"%03d" % i, str(i)) for i in range(200)])
    found = await drain(transport)
    segue_memory.forget(name)
    return found


async def test_without_a_seed_messages_keep_their_order() -> None:
    assert await shaken("calm", "") == [(b"%03d" % i, 1) for i in range(200)]


async def test_a_seed_shakes_the_same_way_each_time() -> None:
    one, again, other = await shaken("s", "?seed=1"), await shaken("s", "?seed=1"), await shaken("s", "?seed=2")
    assert one == again
    assert one != other


@pytest.mark.parametrize("seed", range(5))
async def test_a_shaken_broker_reorders_and_repeats_but_loses_nothing(seed: int) -> None:
    found = await shaken("s", f"?seed={seed}")
    bodies = [body for body, _ in found]
    first = list(dict.fromkeys(bodies))
    assert sorted(first) == [b"%03d" % i for i in range(200)]
    assert first != sorted(first)
    assert len(bodies) > 220
    assert any(deliveries > 1 for _, deliveries in found), "some acknowledgements are lost"
    assert any(bodies.count(body) > 1 and (body, 2) not in found for body in first), "some messages come twice anew"


async def test_ids_are_remembered_for_the_window() -> None:
    transport = await open_transport("memory://window?window=0.2", NS)
    await transport.declare(Group("events", "g", (f"{NS}.c.>", f"{NS}.o.>")))
    await transport.declare(Group("commands", "s", (f"{NS}.do.>",)))
    for _ in range(3):
        await transport.publish([Message(f"{NS}.c.f.n.completed", b"1", "id"), Message(f"{NS}.do.s.step", b"2", "id")])
    assert await transport.backlog("events", "g") == Backlog(1, 0)
    assert await transport.backlog("commands", "s") == Backlog(1, 0)
    await anyio.sleep(0.25)
    await transport.publish([Message(f"{NS}.c.f.n.completed", b"1", "id")])
    assert await transport.backlog("events", "g") == Backlog(2, 0)


async def test_dead_letters_are_kept_with_their_reason() -> None:
    transport = await open_transport("memory://dead", NS)
    assert isinstance(transport, MemoryTransport)
    await transport.declare(Group("events", "g", (f"{NS}.c.>",)))
    await transport.declare(Group("events", "undertaker", (f"{NS}.dead.>",)))
    await transport.publish([Message(f"{NS}.c.f.n.completed", b"junk", "id")])
    async with transport.consume("events", "g") as member:
        await member.discard(await member.receive(1), "not JSON")
    await transport.aclose()
    again = await open_transport("memory://dead", NS)
    assert isinstance(again, MemoryTransport)
    [letter] = await again.dead.page(10)
    found = (letter.group, letter.subject, letter.body, letter.reason, letter.deliveries)
    assert found == ("g", f"{NS}.c.f.n.completed", b"junk", "not JSON", 1)
    assert await drain(again, "undertaker") == [(b"junk", 1)]


async def test_commands_wait_for_their_group() -> None:
    transport = await open_transport("memory://early", NS)
    await transport.publish([Message(f"{NS}.do.{service}.step", service.encode()) for service in ("a", "b", "c")])
    await transport.declare(Group("commands", "b", (f"{NS}.do.b.*",)))
    await transport.declare(Group("commands", "rest", (f"{NS}.do.a.*", f"{NS}.do.c.*")))
    assert await transport.backlog("commands", "b") == Backlog(1, 0)
    assert await transport.backlog("commands", "rest") == Backlog(2, 0)


async def test_namespaces_and_names_are_apart() -> None:
    openings = [("memory://one", "a"), ("memory://one", "b"), ("memory://two", "a")]
    transports = [await open_transport(*opening) for opening in openings]
    await transports[0].registry.put("flow.f", b"1")
    await transports[0].declare(Group("events", "g", ("a.c.>",)))
    assert [await transport.registry.get("flow.f") for transport in transports] == [b"1", None, None]
    assert [await transport.backlog("events", "g") for transport in transports] == [Backlog(0, 0), None, None]


async def test_a_forgotten_name_starts_empty() -> None:
    key, run = CellKey("0" * 32, "n", "", 1, CellKind.OUTCOME), RunRecord("0" * 32, "f", "p", "orchestrated")
    for _ in range(2):
        transport, store = await open_transport("memory://x", NS), await open_store("memory://x", "part")
        journal = await open_journal("memory://x")
        assert await transport.registry.get("flow.f") is None
        assert await store.load([key]) == {}
        assert await journal.runs(RunQuery()) == []
        await transport.registry.put("flow.f", b"1")
        await store.commit([Cell(key, b"1")])
        await journal.append([], [run])
        segue_memory.forget("x")


async def test_a_closed_connection_says_so() -> None:
    transport = await open_transport("memory://closed", NS)
    await transport.aclose()
    with pytest.raises(TransportUnavailable, match="closed"):
        await transport.publish([])


async def test_consuming_an_undeclared_group_says_so() -> None:
    transport = await open_transport("memory://undeclared", NS)
    with pytest.raises(TransportError, match="'g' is not declared"):
        async with transport.consume("events", "g"):
            raise AssertionError("joined")


async def test_a_request_fails_with_its_handler() -> None:
    transport = await open_transport("memory://responder", NS)

    async def broken(body: bytes) -> bytes:
        raise ValueError("boom")

    async with transport.respond(f"{NS}.to.a", broken):
        with pytest.raises(TransportUnavailable, match="boom"):
            await transport.request(f"{NS}.to.a", b"", 5)


@pytest.mark.parametrize("killed", [False, True])
async def test_a_responder_that_leaves_finishes_and_one_that_is_cancelled_does_not(killed: bool) -> None:
    transport, begun, go = await open_transport("memory://responder", NS), anyio.Event(), anyio.Event()
    answers: list[bytes | TransportUnavailable] = []

    async def answer(body: bytes) -> bytes:
        begun.set()
        await go.wait()
        return body

    async def ask() -> None:
        try:
            answers.append(await transport.request(f"{NS}.to.a", b"x", 5))
        except TransportUnavailable as error:
            answers.append(error)

    async def finish() -> None:
        go.set()

    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as responder:
            async with transport.respond(f"{NS}.to.a", answer):
                tasks.start_soon(ask)
                await begun.wait()
                if killed:
                    responder.cancel()
                else:
                    tasks.start_soon(finish)
    [found] = answers
    if killed:
        assert isinstance(found, TransportUnavailable)
        assert "left" in str(found)
    else:
        assert found == b"x"


async def test_a_caller_that_gives_up_does_not_stop_the_handler() -> None:
    transport, done = await open_transport("memory://responder", NS), anyio.Event()

    async def answer(body: bytes) -> bytes:
        await anyio.sleep(0.05)
        done.set()
        return body

    async with transport.respond(f"{NS}.to.a", answer):
        with anyio.move_on_after(0.01):
            await transport.request(f"{NS}.to.a", b"", 5)
        with anyio.move_on_after(5):
            await done.wait()
    assert done.is_set(), "the handler was stopped with its caller"


def test_patterns_fit_as_the_port_says() -> None:
    tokens = ("a", "b", "*", ">")
    subjects = [".".join(parts) for n in (1, 2, 3) for parts in product("ab", repeat=n)]
    patterns = [".".join(parts) for n in (1, 2, 3) for parts in product(tokens, repeat=n) if ">" not in parts[:-1]]
    for pattern in patterns:
        for subject in subjects:
            assert Patterns([pattern]).fit(subject) == matches(pattern, subject), (pattern, subject)
    for subject in subjects:
        assert Patterns(["b.b", "a.*.b"]).fit(subject) == (matches("b.b", subject) or matches("a.*.b", subject))
