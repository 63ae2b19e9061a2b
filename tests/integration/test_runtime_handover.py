"""Moves of runs at their borders: who is only half there decides nothing, and what is lost on the way is found."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import anyio
import msgspec
import pytest
from journeys import Trip, app, asking, done, held, straight
from stage import Stage, eventually, stage

from segue.config import Config
from segue.machine import orders
from segue.machine.facts import Fact, Key, Outcome, Placed, State
from segue.plan.graph import EXIT
from segue.plan.projection import COORDINATOR
from segue.ports.store import CellKey, CellKind
from segue.runtime.moving import Moving
from segue.runtime.placing import corrected, truth
from segue.runtime.saying import make_event
from segue.runtime.work import RunRef
from segue.wire import envelope, requests
from segue.wire.requests import Answer, Cancel, Done, Install, Move, Page, Placing, Refused, Yield, Yielded
from segue.wire.subjects import OBSERVER


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    done.clear()
    held.clear()
    yield
    held.clear()


async def ask(here: Stage, who: str, *questions: requests.Request, to: str = "move") -> list[requests.Reply]:
    answer = await here.wiring.transport.request(f"segue.{to}.{who}", requests.encode(questions), 5)
    return requests.decode_replies(answer)


async def does(what: str) -> None:
    async def there() -> bool:
        return what in done

    await eventually(there)


async def test_a_part_of_a_run_is_no_run(memory: Config) -> None:
    """The home that has got some pages, but not the last, answers for nothing."""
    async with stage(app, memory, "orchestrated") as here, here.running(COORDINATOR, OBSERVER, "desk", "rail"):
        run = await here.client.start(straight, Trip("p"))
        [started] = await here.events(run.id, until="started")
        to = Placing(run.id, straight.plan.hash, straight.name, "p", 2, "choreographed")
        page = Page((msgspec.Raw(envelope.encode(started)),))
        assert await ask(here, "desk", Install(to, page)) == [Done(True)]
        replies = await ask(here, "desk", requests.Ask(run.id), Cancel(run.id), Move(run.id, "orchestrated"), to="to")
        assert replies[0] == Answer(False)
        assert all(isinstance(reply, Refused) and "not known here" in reply.reason for reply in replies[1:])
        assert (await here.client.find("p")).mode == "orchestrated"


async def test_who_has_not_got_it_yet_decides_nothing(memory: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """One service goes on already; the next one hears of that, and waits until it has the run itself."""
    async with stage(app, memory, "orchestrated") as here, here.running():
        held["ride 1"] = anyio.Event()
        run = await here.client.start(straight, Trip("h"))
        await does("ride 1")
        late, request = anyio.Event(), here.wiring.transport.request

        async def slow(subject: str, body: bytes, timeout: float) -> bytes:
            if subject.endswith(".move.hotel"):
                await late.wait()
            return await request(subject, body, timeout)

        monkeypatch.setattr(here.wiring.transport, "request", slow)
        moved = await run.move("choreographed")
        assert moved.note == "it has not got there yet: it waits for hotel"
        held["ride 1"].set()
        events = await here.events(run.id, until="completed")
        assert {event.node for event in events if event.kind == "completed"} == {"ride"}
        await anyio.sleep(0.2)
        assert done == ["ride 1"]
        late.set()
        assert await run.result(10) == "20"
        assert done == ["ride 1", "stay 2", "note"]


async def test_the_guard_finds_a_move_that_nobody_goes_on_with(memory: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever granted it died before anything was behind it."""
    monkeypatch.setattr("segue.runtime.reception.GUARD_FIRST", 0.3)
    go_on, lost = Moving.go_on, []

    def forget(self: Moving, turn: object, run: RunRef) -> None:
        if lost:
            go_on(self, turn, run)  # type: ignore[arg-type]
        lost.append(run)

    monkeypatch.setattr(Moving, "go_on", forget)
    async with stage(app, memory, "orchestrated") as here, here.running():
        run = await here.client.start(asking, Trip("g"))
        await run.move("choreographed")
        assert (await run.signal("answer", 2)).changed
        assert await run.result(10) == "20"
        assert len(lost) > 1


async def test_handing_over_again_gives_the_same(memory: Config) -> None:
    async with stage(app, memory, "choreographed") as here, here.running():
        run = await here.client.start(asking, Trip("y"))
        await does("ride 1")
        to = Placing(run.id, asking.plan.hash, asking.name, "y", 2, "orchestrated")
        for who in ("rail", "desk", "hotel"):
            [first] = await ask(here, who, Yield(to))
            assert isinstance(first, Yielded)
            assert await ask(here, who, Yield(to)) == [first]
        elsewhere = await ask(here, "desk", Yield(to), to="to") + await ask(here, "desk", requests.Ask(run.id))
        assert elsewhere == [Refused("a request of this kind is not answered here")] * 2
        [refused] = await ask(here, "desk", Yield(to, 99))
        assert isinstance(refused, Refused)
        [unknown] = await ask(here, "desk", Yield(msgspec.structs.replace(to, plan="0" * 32)))
        assert isinstance(unknown, Refused)
        assert unknown.retry


def test_what_a_move_needs() -> None:
    going = State()
    over = State({Key(EXIT): Outcome("completed")})
    assert orders.move(going, None, "orchestrated", "choreographed", 0) == Placed(2, "choreographed")
    assert orders.move(going, None, "orchestrated", "orchestrated", 0) == "the run is orchestrated"
    assert orders.move(over, None, "orchestrated", "choreographed", 0) == "the run has ended"
    there = Placed(2, "choreographed")
    assert orders.move(going, there, "orchestrated", "orchestrated", 2) == Placed(3, "orchestrated")
    assert orders.move(going, there, "orchestrated", "orchestrated", 1) == "the run has been moved meanwhile"


def test_what_others_decided_counts_instead_of_what_came_too_late() -> None:
    run = RunRef("0" * 32, straight.plan, "orchestrated", "")
    key = run.cell(Key("stay"))

    def body(kind: str) -> bytes:
        fact = Fact(Key("stay"), Outcome(kind))  # type: ignore[arg-type]
        event = make_event(run, fact, "/segue/desk", datetime(2026, 1, 1, tzinfo=UTC))
        return envelope.encode(event)

    cells: dict[CellKey, bytes] = {key: body("skipped")}
    assert truth(cells) == cells
    cells[corrected(key)] = body("cancelled")
    assert truth(cells) == {key: body("cancelled")}
    # The exit of a region that was stopped has a cell beside that of the stop.
    end = key._replace(kind=CellKind.END)
    cells |= {end: body("failed"), corrected(end): body("aborted")}
    assert truth(cells) == {key: body("cancelled"), end: body("aborted")}
