"""Stores that come from a backup: refused, then made good from the journal; nothing runs twice, no key starts anew."""

from __future__ import annotations

import shutil
from contextlib import aclosing
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import pytest
import trips
from orders import LOG, Order, app, place_order
from secured import as_user, everybody, journal_of, permissions
from stage import Stage, eventually, stage
from test_cli import Folder

from segue import compose
from segue.config import Config
from segue.errors import StoreBehind
from segue.hooks import open_store
from segue.plan.projection import COORDINATOR, MODES, Mode
from segue.ports.store import CellKey, CellKind
from segue.runtime import marks, overdue, reception, serving
from segue.runtime.restore import Restored, restore
from segue_nats.server import NatsServer

each_mode = pytest.mark.parametrize("mode", MODES)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (overdue, reception):
        monkeypatch.setattr(module, "GUARD_FIRST", 0.3)
    monkeypatch.setattr(overdue, "LEASE", 1.0)


async def run_orders(here: Stage, name: str, number: int) -> dict[str, str]:
    """Run orders to their ends; the run of each key."""
    found: dict[str, str] = {}

    async def one(key: str) -> None:
        run = await here.client.start(place_order, Order(key, 500))
        assert (await run.result(20)).order == key
        found[key] = run.id

    async with anyio.create_task_group() as tasks:
        for n in range(number):
            tasks.start_soon(one, f"{name}{n}")
    return found


async def observed(here: Stage) -> None:
    """Wait until the observer has written everything."""

    async def all_written() -> bool:
        backlog = await here.wiring.transport.backlog("events", "observer")
        return backlog is not None and backlog.waiting + backlog.delivered == 0

    await eventually(all_written)


async def restored(config: Config, part: str) -> Restored:
    """What `segue restore` does."""
    async with compose.wired(config) as wiring, compose.journal(config) as journal:
        async with aclosing(await open_store(config.store_for(part), part)) as store:
            return await restore(serving.idle(wiring, part, store), journal)


def copy(folder: Path, there: Path) -> None:
    """Copy the databases of all participants, while nobody has them open."""
    assert not [file for file in folder.glob("*.db-wal") if file.stem != "journal"]
    there.mkdir(exist_ok=True)
    for file in folder.glob("*.db"):
        if file.stem != "journal":
            shutil.copy(file, there / file.name)


@each_mode
async def test_an_old_store_is_refused_and_made_good(mode: Mode, nats: Config, tmp_path: Path) -> None:
    LOG.clear()
    backup = tmp_path / "backup"
    async with stage(app, nats, mode) as here:
        async with here.running():
            old = await run_orders(here, "old", 20)
        copy(tmp_path, backup)
        async with here.running():
            new = await run_orders(here, "new", 20)
            await observed(here)
    executed = dict(LOG)
    assert set(executed.values()) == {1}
    copy(backup, tmp_path)
    parts = [*app.services, *([COORDINATOR] if mode == "orchestrated" else [])]  # else it has nothing to lose
    async with stage(app, nats, mode) as here:
        for part in parts:
            with pytest.raises(StoreBehind, match=f"store of {part} is older .*\n.*segue restore {part}"):
                async with here.running(part):
                    pytest.fail("it serves")
    for part in parts:
        found = await restored(nats, part)
        assert found.runs == 40
        assert found.facts // 2 <= found.missing < found.facts
        assert (await restored(nats, part)).missing == 0
    async with stage(app, nats, mode) as here, here.running():
        for key, run in {**old, **new}.items():
            again = await here.client.start(place_order, Order(key, 500))
            assert again.id == run
            assert (await again.result(5)).order == key
        more = await run_orders(here, "more", 3)
    assert {at: count for at, count in LOG.items() if at[0] not in more} == executed


@each_mode
@pytest.mark.usefixtures("impatient")
async def test_a_run_that_is_open_goes_on_with_what_it_had(mode: Mode, nats: Config, tmp_path: Path) -> None:
    """The store of its home, or of the service that charged, is empty; the run waits for `email` meanwhile."""
    LOG.clear()
    home = COORDINATOR if mode == "orchestrated" else "email"
    async with stage(app, nats, mode) as here:
        rest = [name for name in here.everybody if name not in ("email", home)]
        async with here.running(*rest):
            async with here.running(home):
                run = await here.client.start(place_order, Order("open", 500))
                if mode == "orchestrated":
                    await here.events(run.id, "completed")
                    await eventually_logged("reserve")
            await eventually_logged("reserve")
            await observed(here)
        for part in {home, "payments"}:
            (tmp_path / f"{part}.db").unlink()
            with pytest.raises(StoreBehind, match="is empty, and was not before"):
                async with here.running(part):
                    pytest.fail("it serves")
        for part in {home, "payments"}:
            assert (await restored(nats, part)).missing > 0
        before = dict(LOG)
        async with here.running():
            assert (await run.result(20)).order == "open"
            again = await here.client.start(place_order, Order("open", 500))
            assert again.id == run.id
    assert {at: LOG[at] for at in before} == before


async def eventually_logged(node: str) -> None:
    async def there() -> bool:
        return any(at[1] == node for at in LOG)

    await eventually(there)


@each_mode
@pytest.mark.usefixtures("impatient")
async def test_stopped_and_undone_runs_stay_so(mode: Mode, nats: Config, tmp_path: Path) -> None:
    """All stores are lost. What was undone is not undone again, and a retry goes on from there."""
    trips.done.clear()
    async with stage(trips.app, nats, mode) as here:
        async with here.running():
            runs = [await here.client.start(trips.book, trips.Trip(f"t{n}", price=500)) for n in range(3)]
            outcomes = [await run.outcome(10) for run in runs]
            assert {outcome.status for outcome in outcomes} == {"failed"}
            await observed(here)
        parts = [*trips.app.services, *([COORDINATOR] if mode == "orchestrated" else [])]
        undone = sorted(trips.done)
        assert len(undone) == 12
        for part in parts:
            (tmp_path / f"{part}.db").unlink()
            assert (await restored(nats, part)).missing > 0
        async with here.running():
            for n, (run, before) in enumerate(zip(runs, outcomes, strict=True)):
                again = await here.client.start(trips.book, trips.Trip(f"t{n}", price=500))
                assert again.id == run.id
                after = await again.outcome(10)
                assert (after.status, after.causes) == (before.status, before.causes)
            await anyio.sleep(0.7)  # guards, if there were any
            assert sorted(trips.done) == undone
            await here.client.retry(runs[0].id)

            async def twice() -> bool:
                return sum(event.kind == "ended" for event in await here.events(runs[0].id)) == 2

            await eventually(twice)
    assert sorted(trips.done) == sorted([*undone, *(did for did in undone if " t0" in did)])


async def test_what_is_no_reason_to_refuse(nats: Config, tmp_path: Path) -> None:
    """A new store of a participant that nobody has heard of; an old one whose broker was wiped, or rolled back."""
    async with stage(app, nats) as here:
        async with here.running():
            await run_orders(here, "a", 3)
        known = here.wiring.catalog.stores["payments"]
        for record in (None, msgspec.structs.replace(known, number=1)):
            if record is None:
                here.wiring.catalog.stores.pop("payments")
            else:
                here.wiring.catalog.stores["payments"] = record
            async with here.running("payments"):
                assert here.wiring.catalog.stores["payments"] == known


async def test_a_store_that_goes_back_while_it_is_served(nats: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "EVERY", 0.1)

    async def serve() -> None:
        async with here.running("payments"):
            async with aclosing(await open_store(nats.store_for("payments"), "payments")) as store:
                for n in range(50):  # a mark that is being written at the moment hides it
                    for run in await store.runs("f" * 8 + "0" * 24, "f" * 32, 100):
                        await store.purge(run, 10)
                    await here.client.start(place_order, Order(f"b{n}", 500))
                    await anyio.sleep(0.2)

    async with stage(app, nats) as here, here.running("inventory", "email", COORDINATOR):
        with pytest.raises(StoreBehind, match="payments went back behind mark"):
            await serve()


async def test_a_part_of_postgresql(postgres: Config, tmp_path: Path) -> None:
    """What a backup of the time before would lack: everything of the last runs, and the marks."""
    LOG.clear()
    async with stage(app, postgres, "choreographed") as here:
        async with here.running():
            runs = await run_orders(here, "pg", 5)
            await observed(here)
        async with aclosing(await open_store(postgres.store_for("payments"), "payments")) as store:
            for run in [*runs.values(), *await store.runs("f" * 8 + "0" * 24, "f" * 32, 100)]:
                await store.purge(run, 1000)
        with pytest.raises(StoreBehind, match="store of payments is empty"):
            async with here.running("payments"):
                pytest.fail("it serves")
    assert (await restored(postgres, "payments")).runs == 5
    async with stage(app, postgres, "choreographed") as here, here.running("payments"):
        async with aclosing(await open_store(postgres.store_for("payments"), "payments")) as store:
            results = [CellKey(run, "charge", "", 1, CellKind.OUTCOME) for run in runs.values()]
            assert len(await store.load(results)) == 5
    assert set(LOG.values()) == {1}


def test_the_command(nats: Config, tmp_path: Path) -> None:
    """Refused with a hint, and served after it was followed."""
    settings = "\n".join(f'{name} = "{getattr(nats, name)}"' for name in ("transport", "namespace", "store", "journal"))
    folder = Folder(tmp_path, f'app = "orders:app"\n{settings}\n')

    async def work(keep: Path | None) -> None:
        async with stage(app, nats, "choreographed") as here, here.running():
            await run_orders(here, "a" if keep else "b", 3)
            if keep is None:
                await observed(here)
                busy = await anyio.to_thread.run_sync(folder.run, "restore", "payments")
                assert (busy.code, "payments is being served" in busy.err) == (1, True), busy
        if keep is not None:
            copy(tmp_path, keep)

    anyio.run(work, tmp_path / "backup")
    anyio.run(work, None)
    copy(tmp_path / "backup", tmp_path)
    refused = folder.run("serve", "payments")
    assert refused.code == 1
    assert "error: the store of payments is older than what was said from it: it is at mark" in refused.err
    assert "or fold the journal into it: segue restore payments" in refused.err
    done = folder.run("restore", "payments")
    assert (done.code, done.out.endswith("of 6 runs folded in; its store counts as current\n")) == (0, True), done
    again = folder.json("restore", "payments")
    assert (again["runs"], again["missing"], again["accepted"]) == (6, 0, False)
    accepted = folder.json("restore", "email", "--accept")
    assert accepted == {"part": "email", "accepted": True, "runs": 0, "facts": 0, "missing": 0}
    unknown = folder.run("restore", "nobody")
    assert (unknown.code, "has no service 'nobody'" in unknown.err) == (2, True)


async def test_a_participant_restores_its_own_store(tmp_path: Path) -> None:
    """With the rights that the export grants; how far the observer is, it may not see."""
    with NatsServer(tmp_path / "nats", config=permissions()) as server:
        async with everybody(server, tmp_path, "choreographed") as client:
            run = await client.start(place_order, Order("s", 500))
            await run.result(10)

            async def journalled() -> bool:
                return any(event.kind == "ended" for event in await journal_of(tmp_path, run.id))

            await eventually(journalled)
        config = as_user(server, "payments", tmp_path)
        await anyio.Path(config.store_for("payments").removeprefix("sqlite:///")).unlink()
        settings = (f'{name} = "{getattr(config, name)}"' for name in ("transport", "namespace", "store", "journal"))
        folder = Folder(tmp_path, "\n".join(['app = "orders:app"', *settings]))
        with pytest.raises(StoreBehind, match="is empty, and was not before"):
            async with compose.wired(config) as wiring, compose.serve(config, wiring, app.services["payments"]):
                pytest.fail("it serves")
        done = await anyio.to_thread.run_sync(folder.run, "restore", "payments")
        assert (done.code, "of 1 run folded in" in done.out) == (0, True), done
        assert "may not see whether the observer has written everything" in done.err
        async with compose.wired(config) as wiring, compose.serve(config, wiring, app.services["payments"]):
            assert wiring.catalog.stores["payments"].number > 1
