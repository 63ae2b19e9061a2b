"""The observer and what it writes: the same history in both modes, whatever is down, and `where` reads it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import desk
import pytest
import trips
from orders import Order, Summary, app, place_order
from stage import Stage, eventually, in_memory, stage

from segue import UnknownRun
from segue.config import Config
from segue.errors import AmbiguousRun, SegueError, StoreUnavailable
from segue.plan.projection import COORDINATOR, MODES, Mode
from segue.ports.transport import Message
from segue.runtime.handle import RunHandle
from segue.runtime.where import NodeView
from segue.wire.subjects import OBSERVER

each_mode = pytest.mark.parametrize("mode", MODES)


def without(here: Stage, *names: str) -> list[str]:
    return [name for name in here.everybody if name not in names]


async def nodes_of(here: Stage, run: RunHandle[Summary]) -> dict[str, NodeView]:
    return {node.node: node for node in (await here.client.where(run.id)).nodes}


@each_mode
async def test_runs_go_on_without_it_and_it_catches_up(mode: Mode, config: Config) -> None:
    async with stage(app, config, mode) as here:
        async with here.running(*without(here, OBSERVER)):
            runs = [await here.client.start(place_order, Order(f"o{n}", 50)) for n in range(10)]
            for run in runs:
                await run.result(10)
            with pytest.raises(UnknownRun, match="is an observer running"):
                await here.client.where(runs[0].id)
        async with here.running(OBSERVER):
            for run in runs:
                await here.events(run.id)

            async def complete() -> bool:
                views = [await nodes_of(here, run) for run in runs]
                return all(node.outcome is not None for view in views for node in view.values())

            await eventually(complete)


async def history(config: Config, mode: Mode) -> Counter[tuple[str, str, str, int]]:
    async with stage(app, config, mode) as here, here.running():
        found: Counter[tuple[str, str, str, int]] = Counter()
        for total, stock in ((50, 1), (500, 1), (5000, 1), (50, 0), (500, 0)):
            run = await here.client.start(place_order, Order(f"{total}/{stock}", total, stock))
            await run.outcome(10)

            async def complete(run: RunHandle[Summary] = run) -> bool:
                return all(node.outcome is not None for node in (await nodes_of(here, run)).values())

            await here.events(run.id)
            await eventually(complete)
            for event in await here.events(run.id):
                found[run.key, event.node, event.kind, event.attempt] += 1
        return found


async def test_the_journal_tells_the_same_story_in_both_modes(memory: Config) -> None:
    """Each step says how it ended. What only was derived, skips and gateways, may be told or not."""
    one = await history(memory, "orchestrated")
    other = await history(in_memory(), "choreographed")
    told = ("started", "ended", "completed", "failed", "attempt.failed")
    steps = {node.id for node in place_order.plan.nodes if node.kind == "step"} | {"run"}

    def story(found: Counter[tuple[str, str, str, int]]) -> dict[tuple[str, str, str, int], int]:
        return {item: number for item, number in found.items() if item[2] in told and item[1] in steps}

    assert story(one) == story(other)
    assert set(story(one).values()) == {1}
    assert one["50/0", "reserve", "attempt.failed", 1] == one["50/0", "reserve", "failed", 2] == 1


@each_mode
async def test_redelivery_changes_nothing(mode: Mode, memory: Config) -> None:
    async with stage(app, memory, mode) as here, here.running():
        run = await here.client.start(place_order, Order("r", 500, stock=0))
        await run.outcome(5)
        before = await here.events(run.id)
        entries = await here.journal.history(run.id)
        for n in range(3):
            for event, entry in zip(before, entries, strict=True):
                subject = here.wiring.subjects.event(mode, event.flow, event.node, event.kind)
                await here.wiring.transport.publish([Message(subject, entry.body, f"again-{n}")])
        after = await here.client.start(place_order, Order("later", 5))
        await after.result(5)
        await here.events(after.id)
        assert await here.journal.history(run.id) == entries


async def test_a_journal_that_is_down_is_waited_for(memory: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    import segue_memory.journal

    broken = True
    append = segue_memory.journal.MemoryJournal.append

    async def flaky(self: Any, *args: Any) -> None:
        if broken:
            raise StoreUnavailable("down")
        await append(self, *args)

    monkeypatch.setattr(segue_memory.journal.MemoryJournal, "append", flaky)
    async with stage(app, memory) as here, here.running():
        run = await here.client.start(place_order, Order("j", 5))
        await run.result(5)
        await anyio.sleep(0.3)
        assert not await here.events(run.id, until="")
        broken = False
        await here.events(run.id)


@each_mode
async def test_where_finds_a_run(mode: Mode, memory: Config) -> None:
    async with stage(app, memory, mode) as here, here.running():
        run = await here.client.start(place_order, Order("4711", 500))
        other = await here.client.start(place_order, Order("4712", 500))
        for item in (run, other):
            await item.result(5)
            await here.events(item.id)
        name = run.id
        dashed = f"{name[:8]}-{name[8:12]}-{name[12:16]}-{name[16:20]}-{name[20:]}"
        for text in ("4711", name, dashed, dashed.upper(), name[4:], "711"):
            assert (await here.client.where(text)).run.run == name
        with pytest.raises(AmbiguousRun, match="'471' fits 2 runs") as ambiguous:
            await here.client.where("471")
        assert "place_order/4711" in ambiguous.value.message
        with pytest.raises(UnknownRun, match="'4713'"):
            await here.client.where("4713")
        view = await here.client.where("4711")
        assert (view.run.flow, view.run.mode, view.run.key, view.run.status) == (
            "place_order",
            mode,
            "4711",
            "completed",
        )
        assert [node.node for node in view.nodes] == [
            node.id for node in place_order.plan.nodes if node.kind not in ("entry", "exit")
        ]


async def test_where_without_a_journal(memory: Config) -> None:
    from segue.runtime import client as clients

    async with stage(app, memory) as here, clients.client(here.wiring) as client:
        with pytest.raises(SegueError, match="no journal"):
            await client.where("x")


@each_mode
async def test_where_while_a_service_is_down(mode: Mode, config: Config) -> None:
    async with stage(app, config, mode) as here, here.running(*without(here, "inventory")):
        run = await here.client.start(place_order, Order("stuck", 500))

        async def settled() -> bool:
            try:
                nodes = await nodes_of(here, run)
            except UnknownRun:
                return False
            return nodes["review"].state == nodes["archive"].state == nodes["charge"].state == "completed"

        await eventually(settled)
        nodes = await nodes_of(here, run)
        assert (nodes["reserve"].state, nodes["reserve"].service) == ("open", "inventory")
        assert nodes["reserve"].backlog is not None
        assert nodes["reserve"].backlog >= 1
        assert nodes["reserve"].since is not None
        assert (nodes["notify"].state, set(nodes["notify"].waits_for) >= {"reserve"}) == ("waiting", True)
        assert nodes["wrap"].state == "skipped"
        assert (await here.client.where(run.id)).run.status == "running"
        async with here.running("inventory"):
            assert (await run.result(10)).note == "reviewed shelf-stuck"


@each_mode
async def test_where_shows_a_failure_and_what_it_held_up(mode: Mode, memory: Config) -> None:
    async with stage(app, memory, mode) as here, here.running():
        run = await here.client.start(place_order, Order("bad", 500, stock=0))
        await run.outcome(5)
        await here.events(run.id)

        async def complete() -> bool:
            return all(node.outcome is not None for node in (await nodes_of(here, run)).values())

        await eventually(complete)
        nodes = await nodes_of(here, run)
        reserve, notify = nodes["reserve"], nodes["notify"]
        assert reserve.error is not None
        assert (reserve.state, reserve.error.type, reserve.attempts) == ("failed", "OutOfStock", 2)
        assert reserve.seconds is not None
        assert 0 <= reserve.seconds < 5
        assert (notify.state, [cause.node for cause in notify.causes]) == ("aborted", ["reserve"])
        view = await here.client.where("bad")
        assert (view.run.status, "no bad left" in view.run.error) == ("failed", True)


async def test_where_while_the_coordinator_is_down(memory: Config) -> None:
    async with stage(app, memory) as here, here.running("payments", OBSERVER):
        async with here.running(COORDINATOR):
            run = await here.client.start(place_order, Order("c", 50))
        await here.events(run.id, until="completed")
        nodes = await nodes_of(here, run)
        assert nodes["charge"].state == "completed"
        assert nodes["wave_through"].state in ("open", "completed")
        async with here.running():
            assert (await run.result(5)).order == "c"


async def screen(here: Stage, run: RunHandle[Any]) -> tuple[str, str, list[tuple[str, str, str]]]:
    """What `where` shows of a run that has ended, once the journal is complete."""
    await run.outcome(10)

    async def settled() -> bool:
        view = await here.client.where(run.id)
        return view.run.ended is not None and all(node.outcome is not None for node in view.nodes)

    await eventually(settled)
    view = await here.client.where(run.id)
    return view.run.status, view.stop, [(node.node, node.tag, node.state) for node in view.nodes]


async def test_constructs_and_compensation_look_the_same_in_both_modes() -> None:
    async def screens(mode: Mode) -> list[Any]:
        async with stage(trips.app, in_memory(), mode) as here, here.running():
            started = [
                await here.client.start(trips.visit, trips.Trip("v", [1, 2])),
                await here.client.start(trips.visit_odd, trips.Trip("o", [1, 2])),
                await here.client.start(trips.climb, trips.Trip("c", price=2)),
                await here.client.start(trips.book, trips.Trip("b", price=500)),
                await here.client.start(trips.book_or_stay, trips.Trip("s", price=500)),
                await here.client.start(trips.fastest, trips.Trip("f")),
            ]
            return [await screen(here, run) for run in started]

    one, other = [await screens(mode) for mode in MODES]
    assert one == other
    visit, odd, climb, book, stay, _ = one
    assert visit == (
        "completed",
        "",
        [
            ("each", "", "completed"),
            ("grow", "0", "completed"),
            ("grow", "1", "completed"),
            ("double", "0", "completed"),
            ("double", "1", "completed"),
        ],
    )
    assert odd[2] == [("each", "", "completed"), ("odd", "0", "completed"), ("odd", "1", "failed")]
    assert climb[2] == [("repeat", "", "completed"), ("grow", "0", "completed"), ("grow", "1", "completed")]
    assert book == ("failed", "failed", [("fly", "", "undone"), ("lodge", "", "undone"), ("pay", "", "failed")])
    assert stay[:2] == ("completed", "")
    states = {node: state for node, _, state in stay[2]}
    assert (states["attempt"], states["fly"], states["pay"]) == ("completed", "undone", "failed")


@each_mode
async def test_the_list_follows_a_run_through_stop_and_retry(mode: Mode, memory: Config) -> None:
    """The status is that of the newest revision, whatever the observer hears first."""
    async with stage(desk.app, memory, mode) as here:
        names = without(here, OBSERVER)
        async with here.running(*names):
            desk.broken.add("T-l")
            run = await here.client.start(desk.support, desk.Ticket("l"))
            await run.signal("answer", desk.Answer("ann"))
            assert (await run.outcome(5)).status == "failed"
            async with here.running(OBSERVER):
                await here.events(run.id)
                [record] = await here.journal.find(run.id)
                assert (record.status, record.revision) == ("failed", 1)
                assert record.error == "fix: T-l is broken"
            # Nobody watches the second revision.
            desk.broken.discard("T-l")
            await run.retry()
            await run.result(5)
        async with here.running(OBSERVER):

            async def caught_up() -> bool:
                [record] = await here.journal.find(run.id)
                return (record.status, record.revision, record.error) == ("completed", 2, "")

            await eventually(caught_up)
            kinds = {event.kind for event in await here.events(run.id)}
            assert kinds >= {"stopped", "compensated", "reset", "ended", "signalled"}
