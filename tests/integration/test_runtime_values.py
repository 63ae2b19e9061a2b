"""Large values: they travel by reference through everything that carries a value, and cells and messages stay small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from stage import Stage, eventually, in_memory, stage

from segue import App, Service, attempt, each, either, flow, raise_, wait_for
from segue.config import Config, LimitsConfig, ObjectsConfig
from segue.errors import ObjectLost, PayloadTooLarge, RunFailed, StoreUnavailable
from segue.plan.projection import MODES, Mode
from segue.ports.store import CellKind
from segue.runtime.where import where
from segue.wire import envelope
from segue_memory.objects import MemoryObjects
from segue_memory.shared import shared
from segue_memory.store import Part
from segue_sql.store import open_store

each_mode = pytest.mark.parametrize("mode", MODES)
BIG = 100_000
UNDONE: list[tuple[str, int, int]] = []

texts = Service("texts")
sizes = Service("sizes")


class Doc(msgspec.Struct):
    """A value of any size."""

    body: str


class Broken(Exception):
    """What the flow raises."""


@texts.step
async def write(size: int) -> Doc:
    return Doc("x" * size)


@texts.step
async def double(doc: Doc) -> Doc:
    return Doc(doc.body * 2)


@double.undo
async def halve(doc: Doc, result: Doc) -> None:
    UNDONE.append(("halve", len(doc.body), len(result.body)))


@sizes.step
async def measure(doc: Doc) -> int:
    return len(doc.body)


@sizes.step
async def row(n: int) -> str:
    return f"{n:05d}" + "r" * 195


@sizes.step
async def wide(n: int) -> str:
    return "w" * 6_000


@sizes.step
async def count(rows: list[str]) -> int:
    return sum(len(row) for row in rows)


@flow(home=texts)
def inner(doc: Doc) -> Doc:
    return double(doc)


@flow(home=texts)
def through_everything(doc: Doc, items: list[Doc]) -> dict[str, Any]:
    note = wait_for("note", Doc)
    parts = each(items, double)
    nested = inner(note)
    return {
        "doc": double(doc),
        "note": measure(note),
        "parts": parts,
        "nested": nested,
        "chosen": either(nested, doc),
        "size": measure(nested),
    }


@flow(home=texts)
def taken_back(size: int) -> str:
    def body() -> None:
        raise_(Broken("no", double(write(size))))

    return attempt(body, handlers={Broken: lambda error: "handled"}, undo=True)


@flow(home=texts)
def table(numbers: list[int]) -> int:
    return count(each(numbers, row))


@flow(home=texts)
def wide_table(numbers: list[int]) -> int:
    return count(each(numbers, wide))


app = App("values", [inner, through_everything, taken_back, table, wide_table], [texts, sizes])


def objects_of(here: Stage) -> MemoryObjects:
    name = here.config.transport.removeprefix("memory://")
    return shared("objects", name, here.config.namespace, MemoryObjects)


async def cells_of(here: Stage, run: str) -> dict[str, int]:
    """The largest cell of each participant."""
    found = {}
    for part in ("coordinator", "texts", "sizes"):
        if here.config.store.startswith("memory"):
            cells = shared("store", here.config.store.removeprefix("memory://"), part, Part).cells[run]
        else:
            store = await open_store(here.config.store, part)
            cells = await store.scan([run])
            await store.aclose()
        found[part] = max((len(raw) for raw in cells.values()), default=0)
    return found


@each_mode
async def test_through_everything_that_carries_a_value(mode: Mode, config: Config) -> None:
    doc, items = Doc("d" * BIG), [Doc("i" * BIG), Doc("j")]
    seen: list[int] = []

    async def listen(here: Stage) -> None:
        async with here.wiring.transport.listen(["*.o.>", "*.c.>", "*.do.>"]) as messages:
            async for message in messages:
                seen.extend(len(raw) for raw in envelope.split(message.body))

    async with stage(app, config, mode) as here, here.running(), anyio.create_task_group() as tasks:
        tasks.start_soon(listen, here)
        run = await here.client.start(through_everything, doc, items)
        await run.signal("note", Doc("n" * BIG))
        found = await run.result(20)
        again = await (await here.client.find(run.id)).result(5)
        assert max(seen) < 40_000
        assert max((await cells_of(here, run.id)).values()) < 40_000
        history = {event.node: event for event in await here.events(run.id) if event.kind in ("completed", "ended")}
        view = await where(here.journal, run.id, values=here.wiring.values)
        blind = await where(here.journal, run.id)
        tasks.cancel_scope.cancel()
    assert found == again
    assert found["doc"] == {"body": "d" * 2 * BIG}
    assert found["note"] == BIG
    assert [len(part["body"]) for part in found["parts"]] == [2 * BIG, 2]
    assert found["nested"] == found["chosen"] == {"body": "n" * 2 * BIG}
    assert found["size"] == 2 * BIG
    assert history["measure_2"].data == msgspec.Raw(b"%d" % (2 * BIG))
    assert history["inner"].dataref.startswith("sha256:")
    assert (view.run.status, view.unread) == ("completed", 0)
    assert {node.state for node in view.nodes} == {"completed"}
    assert blind.unread > 3
    assert {node.node: node.state for node in blind.nodes if not node.tag}["inner"] == "completed"


@each_mode
async def test_what_is_undone_gets_its_large_values(mode: Mode, memory: Config) -> None:
    UNDONE.clear()
    async with stage(app, memory, mode) as here, here.running():
        run = await here.client.start(taken_back, BIG)
        assert await run.result(10) == "handled"
        assert max((await cells_of(here, run.id)).values()) < 40_000
    assert UNDONE == [("halve", BIG, 2 * BIG)]


@pytest.mark.slow
@each_mode
async def test_ten_thousand_items(mode: Mode, nats: Config) -> None:
    """The list of their results is twice as large as a message may be."""
    async with stage(app, nats, mode) as here, here.running():
        run = await here.client.start(table, list(range(10_000)))
        assert await run.result(60) == 2_000_000
        assert max((await cells_of(here, run.id)).values()) < 40_000


def sizes_in(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.rglob("*") if path.is_file()]


async def test_objects_in_a_folder(memory: Config, tmp_path: Path) -> None:
    config = msgspec.structs.replace(memory, objects=ObjectsConfig(f"file://{tmp_path}"))
    async with stage(app, config) as here, here.running():
        run = await here.client.start(inner, Doc("x" * BIG))
        assert len((await run.result(10)).body) == 2 * BIG
    assert {size // BIG for size in sizes_in(tmp_path)} == {1, 2}


@each_mode
async def test_a_run_waits_for_a_lost_value_and_names_it(
    mode: Mode, memory: Config, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage(app, memory, mode) as here:
        objects = objects_of(here)
        async with here.running("texts", "coordinator"):
            run = await here.client.start(through_everything, Doc("d"), [])
            await run.signal("note", Doc("n" * BIG))
            await eventually(lambda: _has(here, run.id, "inner"))
        kept = {name: objects.objects[run.id].pop(name) for name in list(objects.objects[run.id])}
    async with stage(app, memory, None) as here, here.running("sizes", "texts", "coordinator"):
        other = await here.client.start(inner, Doc("other"))
        assert (await other.result(10)).body == "otherother"
        found = await here.client.find(run.id)
        await eventually(lambda: _logged(caplog, *kept))
        objects.objects[run.id] |= kept
        assert (await found.result(20))["size"] == 2 * BIG
        objects.objects[run.id].clear()
    async with stage(app, memory, None) as here, here.running("texts", "coordinator"):
        found = await here.client.find(run.id)
        with pytest.raises(ObjectLost, match=f"of run {run.id} is not in the object store") as caught:
            await found.result(5)
        assert caught.value.retryable


async def _has(here: Stage, run: str, node: str) -> bool:
    name = here.config.store.removeprefix("memory://")
    parts = [shared("store", name, part, Part) for part in ("coordinator", "texts")]
    return any(key.node == node and key.kind == CellKind.OUTCOME for part in parts for key in part.cells[run])


async def _logged(caplog: pytest.LogCaptureFixture, *names: str) -> bool:
    return any(name in caplog.text and "is not in the object store" in caplog.text for name in names)


@each_mode
async def test_while_the_object_store_is_away_runs_wait(
    mode: Mode, memory: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = True
    put = MemoryObjects.put

    async def failing(self: MemoryObjects, run: str, name: str, body: bytes) -> None:
        if away:
            raise StoreUnavailable("the object store is away")
        await put(self, run, name, body)

    monkeypatch.setattr(MemoryObjects, "put", failing)
    async with stage(app, memory, mode) as here, here.running():
        with pytest.raises(StoreUnavailable):
            await here.client.start(inner, Doc("x" * BIG))
        run = await here.client.start(taken_back, BIG)
        await anyio.sleep(0.5)
        assert not any(event.node == "write" for event in await here.events(run.id, until=""))
        away = False
        assert await run.result(15) == "handled"


async def test_a_start_that_is_not_accepted_leaves_nothing(memory: Config) -> None:
    async with stage(app, memory) as here, here.running():
        first = await here.client.start(inner, Doc("x" * BIG), key="same")
        await first.result(10)
        second = await here.client.start(inner, Doc("y" * BIG), key="same")
        assert second.id == first.id
        assert list(objects_of(here).objects) == [first.id]


@pytest.mark.parametrize(
    ("objects", "limit", "hint"), [("none", 64_000_000, r"\[objects\] url"), ("", 150_000, "raise limits.value")]
)
@each_mode
async def test_a_value_that_is_too_large_fails_in_words(
    mode: Mode, objects: str, limit: int, hint: str, memory: Config
) -> None:
    config = msgspec.structs.replace(in_memory(), objects=ObjectsConfig(objects), limits=LimitsConfig(value=limit))
    async with stage(app, config, mode) as here, here.running():
        with pytest.raises(PayloadTooLarge) as caught:
            await here.client.start(inner, Doc("x" * 2_000_000))
        assert caught.match(hint)
        run = await here.client.start(taken_back, 2_000_000)
        with pytest.raises(RunFailed, match=r"PayloadTooLarge: what write returned has 2,000,0\d\d bytes"):
            await run.result(10)
        run = await here.client.start(wide_table, list(range(200)))
        with pytest.raises(RunFailed, match=r"each \(PayloadTooLarge: the value of each has 1,2"):
            await run.result(20)
