"""Obligations of every journal: appending in any order, merging runs, finding them."""

from __future__ import annotations

import random
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone

import anyio
import msgspec

from segue.ports.journal import Journal, JournalEntry, RunQuery, RunRecord
from segue.testing.contracts.expect import LIMIT, closing

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


class JournalContract:
    """What the port `Journal` promises.

    Subclass it, name the class `Test...`, and define `connect`. All ids, flows and keys are fresh, so tests can share a
    journal. How to run the tests: see `TransportContract`.
    """

    async def connect(self) -> Journal:
        """Open the journal; every opening shows the same history."""
        raise NotImplementedError

    @asynccontextmanager
    async def opened(self, replicas: int = 1) -> AsyncIterator[list[Journal]]:
        """Several openings of the journal."""
        async with AsyncExitStack() as stack:
            stack.enter_context(anyio.fail_after(LIMIT))
            yield [await stack.enter_async_context(closing(self.connect())) for _ in range(replicas)]

    async def test_history_is_by_time(self) -> None:
        async with self.opened() as (journal,):
            one, other = record(), record()
            entries = [entry(one, f"n{i}", NOON + timedelta(microseconds=i)) for i in range(20)]
            shuffled = random.Random(1).sample(entries, 20)
            await journal.append(shuffled[:9], [one])
            await journal.append([*shuffled[9:], entry(other, "n", NOON)], [one, other])
            assert await journal.history(one.run) == entries
            assert await journal.history(other.run) == [entry(other, "n", NOON)]
            assert await journal.history(fresh()) == []

    async def test_appending_again_changes_nothing(self) -> None:
        async with self.opened(2) as (journal, other):
            run = record(ended=NOON + timedelta(seconds=1), status="completed")
            entries = [entry(run, f"n{i}", NOON + timedelta(seconds=i)) for i in range(5)]
            await journal.append(entries, [run])
            await journal.append(entries, [run])
            await other.append([*entries[::-1], *entries], [run, run])
            assert await other.history(run.run) == entries
            assert await journal.runs(RunQuery(flow=run.flow)) == [run]

    async def test_entries_at_one_time_all_stay(self) -> None:
        async with self.opened() as (journal,):
            run = record()
            entries = {entry(run, f"n{i}", NOON) for i in range(5)}
            await journal.append(list(entries), [run])
            found = await journal.history(run.run)
            assert len(found) == 5
            assert set(found) == entries

    async def test_times_keep_their_instant(self) -> None:
        async with self.opened() as (journal,):
            east = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
            run = record(started=east)
            later = entry(run, "b", NOON + timedelta(minutes=1))
            await journal.append([later, entry(run, "a", east)], [run])
            found = await journal.history(run.run)
            assert [item.time for item in found] == [NOON, NOON + timedelta(minutes=1)]
            assert all(item.time.tzinfo is not None for item in found)
            [shown] = await journal.find(run.run)
            assert shown.started == NOON

    async def test_bodies_are_any_bytes(self) -> None:
        async with self.opened() as (journal,):
            run = record()
            bodies = [b"", bytes(range(256)), b"x" * 100_000]
            entries = [entry(run, f"n{i}", NOON + timedelta(seconds=i))._replace(body=b) for i, b in enumerate(bodies)]
            await journal.append(entries, [run])
            assert await journal.history(run.run) == entries

    async def test_thousands_of_entries_at_once(self) -> None:
        async with self.opened() as (journal,):
            runs = [record(started=NOON + timedelta(seconds=i)) for i in range(300)]
            entries = [entry(run, f"n{i}", NOON + timedelta(seconds=i)) for i in range(10) for run in runs]
            await journal.append(entries, runs)
            for run in (runs[0], runs[299]):
                assert [item.node for item in await journal.history(run.run)] == [f"n{i}" for i in range(10)]

    async def test_facts_of_a_run_merge_in_any_order(self) -> None:
        async with self.opened() as (journal,):
            for order in ((0, 1), (1, 0), (0, 1, 0), (1, 0, 1)):
                whole = record(
                    key=fresh(), ended=NOON + timedelta(seconds=9), status="failed", error="charge: Declined"
                )
                begun = msgspec.structs.replace(whole, ended=None, status="running", error="")
                over = msgspec.structs.replace(whole, started=None)
                for i in order:
                    await journal.append([], [(begun, over)[i]])
                assert await journal.find(whole.run) == [whole], order

    async def test_facts_of_a_run_merge_within_one_append(self) -> None:
        async with self.opened() as (journal,):
            for backwards in (False, True):
                whole = record(key=fresh(), ended=NOON + timedelta(seconds=9), status="completed")
                begun = msgspec.structs.replace(whole, ended=None, status="running")
                over = msgspec.structs.replace(whole, started=None, key="")
                await journal.append([], [over, begun] if backwards else [begun, over])
                assert await journal.find(whole.run) == [whole]

    async def test_the_newest_revision_counts(self) -> None:
        """A run that failed is retried, fails again after a stop, is retried, and completes: told in any order."""
        async with self.opened() as (journal,):
            replace = msgspec.structs.replace
            for seed in range(8):
                run = record(key=fresh())
                blank = replace(run, started=None)
                story = [
                    run,
                    replace(blank, ended=NOON + timedelta(seconds=1), status="failed", error="a: first"),
                    replace(blank, revision=2),
                    replace(blank, revision=2, status="compensating"),
                    replace(blank, revision=2, ended=NOON + timedelta(seconds=2), status="failed", error="b: second"),
                    replace(blank, revision=3),
                    replace(blank, revision=3, ended=NOON + timedelta(seconds=3), status="completed"),
                ]
                for known in range(2, len(story) + 1):
                    heard = random.Random(seed).sample(story[:known], known)
                    await journal.append([], heard[:3])
                    await journal.append([], heard[3:])
                    await journal.append([], heard[::2])
                    [shown] = await journal.find(run.run)
                    assert shown == replace(story[known - 1], started=run.started), (seed, known)

    async def test_a_run_that_is_held_is_paused(self) -> None:
        async with self.opened() as (journal,):
            replace = msgspec.structs.replace
            run = record(key=fresh())

            async def status(*told: RunRecord) -> str:
                await journal.append([], told)
                [shown] = await journal.runs(RunQuery(flow=run.flow))
                assert await journal.runs(RunQuery(flow=run.flow, status=shown.status)) == [shown]
                others = {"running", "paused", "compensating", "completed"} - {shown.status}
                for other in others:
                    assert await journal.runs(RunQuery(flow=run.flow, status=other)) == []
                return shown.status

            assert await status(run) == "running"
            assert await status(replace(run, pauses=1)) == "paused"
            assert await status(replace(run, pauses=3), run) == "paused"
            assert await status(replace(run, pauses=2)) == "paused"
            assert await status(replace(run, pauses=4)) == "running"
            assert await status(replace(run, pauses=5), replace(run, status="compensating")) == "compensating"
            assert await status(replace(run, status="completed", ended=NOON)) == "completed"
            assert await status(replace(run, revision=2)) == "paused"

    async def test_the_mode_is_that_of_the_latest_move(self) -> None:
        async with self.opened() as (journal,):
            replace = msgspec.structs.replace
            run = record(key=fresh())
            there = replace(run, mode="choreographed")

            async def shown(*told: RunRecord) -> tuple[str, str]:
                await journal.append([], told)
                [found] = await journal.runs(RunQuery(flow=run.flow))
                assert await journal.runs(RunQuery(flow=run.flow, status=found.status)) == [found]
                return found.mode, found.status

            assert await shown(there) == ("choreographed", "running")
            assert await shown(replace(run, moves=3), replace(there, moves=2)) == ("orchestrated", "moving")
            assert await shown(replace(run, moves=4), there) == ("orchestrated", "running")
            assert await shown(replace(there, moves=1, pauses=1)) == ("orchestrated", "paused")
            assert await shown(replace(there, moves=5)) == ("choreographed", "moving")
            assert await shown(replace(there, status="completed", ended=NOON)) == ("choreographed", "completed")

    async def test_what_is_not_known_yet_is_empty(self) -> None:
        async with self.opened() as (journal,):
            over = record(started=None, ended=NOON, status="completed")
            await journal.append([], [over])
            assert await journal.find(over.run) == [over]
            assert await journal.runs(RunQuery(flow=over.flow)) == [over]
            begun = record()
            await journal.append([], [begun])
            [shown] = await journal.find(begun.run)
            assert (shown.ended, shown.status, shown.error, shown.key) == (None, "running", "", "")

    async def test_runs_are_listed_newest_first(self) -> None:
        async with self.opened() as (journal,):
            flow = fresh()
            runs = [record(flow, started=NOON + timedelta(seconds=i)) for i in range(60)]
            await journal.append([], random.Random(2).sample(runs, 60))
            assert await journal.runs(RunQuery(flow=flow, limit=100)) == runs[::-1]
            assert await journal.runs(RunQuery(flow=flow, limit=3)) == runs[:-4:-1]
            assert len(await journal.runs(RunQuery(flow=flow))) == 50
            assert len(await journal.runs(RunQuery(limit=2))) == 2

    async def test_runs_are_filtered(self) -> None:
        async with self.opened() as (journal,):
            flow, mark = fresh(), fresh()
            done = record(flow, key=f"{mark}-1", ended=NOON, status="completed")
            open_ = record(flow, key=f"{mark}-2", started=NOON + timedelta(seconds=1))
            elsewhere = record(key=f"{mark}-3", started=NOON + timedelta(seconds=2))
            await journal.append([], [done, open_, elsewhere])
            assert await journal.runs(RunQuery(flow=flow)) == [open_, done]
            assert await journal.runs(RunQuery(flow=flow, status="completed")) == [done]
            assert await journal.runs(RunQuery(text=mark)) == [elsewhere, open_, done]
            assert await journal.runs(RunQuery(text=mark[3:-3])) == [elsewhere, open_, done]
            assert await journal.runs(RunQuery(text=mark, status="running", flow=flow)) == [open_]
            assert await journal.runs(RunQuery(text=done.run[4:28])) == [done]
            assert await journal.runs(RunQuery(text=mark, limit=1)) == [elsewhere]
            assert await journal.runs(RunQuery(flow=flow[:-1])) == []

    async def test_find_prefers_the_exact_match(self) -> None:
        async with self.opened() as (journal,):
            mark = fresh()
            exact, longer = record(key=f"{mark}-471"), record(key=f"{mark}-4711", started=NOON + timedelta(seconds=1))
            await journal.append([], [exact, longer])
            assert await journal.find(f"{mark}-471") == [exact]
            assert await journal.find(f"{mark}-4711") == [longer]
            assert set(await _ids(journal, f"{mark}-47")) == {exact.run, longer.run}
            assert set(await _ids(journal, mark[2:])) == {exact.run, longer.run}
            assert await journal.find(exact.run) == [exact]
            assert await journal.find(exact.run[:20]) == [exact]
            assert await journal.find(exact.run[5:25]) == [exact]
            assert await journal.find(f"{mark}-9") == []
            assert len(await journal.find(mark, limit=1)) == 1

    async def test_one_key_in_several_flows(self) -> None:
        async with self.opened() as (journal,):
            same = fresh()
            runs = [record(key=same, started=NOON + timedelta(seconds=i)) for i in range(3)]
            await journal.append([], [*runs, record(key=same + "0")])
            assert {found.run for found in await journal.find(same)} == {run.run for run in runs}

    async def test_keys_are_any_text(self) -> None:
        async with self.opened() as (journal,):
            mark = fresh()
            endings = ["%x", "yx", "_x", "\\%x", "'x", '"x', "Zoë №4711 😀 x", "a b x"]
            runs = {ending: record(key=mark + ending) for ending in endings}
            await journal.append([], list(runs.values()))
            for ending, run in runs.items():
                assert await journal.find(mark + ending) == [run], ending
                assert await journal.find(mark + ending[:-1]) == [run], ending
                assert await journal.runs(RunQuery(text=mark + ending[:-1])) == [run], ending

    async def test_plans_are_kept(self) -> None:
        async with self.opened(2) as (journal, other):
            plans = [(fresh(), b'{"flow":"place_order"}'), (fresh(), b"x" * 100_000)]
            assert await journal.plan(plans[0][0]) is None
            await journal.append([], [], plans)
            await other.append([], [], [plans[0], plans[0]])
            assert [await other.plan(name) for name, _ in plans] == [body for _, body in plans]

    async def test_concurrent_appends(self) -> None:
        async with self.opened(2) as journals:
            runs = [record() for _ in range(10)]
            entries = [entry(run, f"n{i}", NOON + timedelta(seconds=i)) for run in runs for i in range(10)]
            over = [msgspec.structs.replace(run, started=None, ended=NOON, status="completed") for run in runs]
            async with anyio.create_task_group() as tasks:
                for i in range(8):
                    part = entries[10 * i :] + entries[: 5 * i]
                    told = (runs, over, runs[::-1], over[::-1])[i % 4]
                    tasks.start_soon(journals[i % 2].append, part, told, [("plan", b"{}")])
            for i, run in enumerate(runs):
                assert await journals[0].history(run.run) == entries[10 * i : 10 * i + 10]
                whole = msgspec.structs.replace(run, ended=NOON, status="completed")
                assert await journals[1].find(run.run) == [whole]

    async def test_all_is_there_when_opened_again(self) -> None:
        run, plan = record(key=fresh()), (fresh(), b"{}")
        async with self.opened() as (journal,):
            await journal.append([entry(run, "n", NOON)], [run], [plan])
        async with self.opened() as (journal,):
            assert await journal.history(run.run) == [entry(run, "n", NOON)]
            assert await journal.find(run.key) == [run]
            assert await journal.plan(plan[0]) == plan[1]

    async def test_old_runs_are_walked_and_purged_piece_by_piece(self) -> None:
        async with self.opened() as (journal,):
            runs = sorted((record() for _ in range(3)), key=lambda run: run.run)
            entries = [entry(run, f"n{i}", NOON + timedelta(seconds=i)) for run in runs for i in range(12)]
            await journal.append(entries, runs)
            between = await journal.oldest(runs[0].run, runs[2].run, 1000)
            assert [run.run for run in between if run.flow == runs[1].flow] == [runs[1].run]
            assert len(await journal.oldest("", "g", 2)) == 2
            assert await journal.purge(runs[1].run, 10) == 10
            assert len(await journal.history(runs[1].run)) == 2
            assert await journal.find(runs[1].run) == [runs[1]]
            assert await journal.purge(runs[1].run, 10) == 2
            assert await journal.find(runs[1].run) == []
            assert await journal.history(runs[1].run) == []
            assert len(await journal.history(runs[0].run)) == 12
            assert await journal.purge(runs[1].run, 10) == 0


def fresh() -> str:
    """An id, flow or key that no other test uses."""
    return uuid.uuid4().hex


def record(
    flow: str = "",
    *,
    key: str = "",
    started: datetime | None = NOON,
    ended: datetime | None = None,
    status: str = "running",
    error: str = "",
) -> RunRecord:
    """A run that no other test uses."""
    flow = flow or fresh()
    return RunRecord(fresh(), flow, "hash", "orchestrated", key, started, ended, status, error)


def entry(run: RunRecord, node: str, time: datetime) -> JournalEntry:
    """An entry of a run."""
    name = f"{run.run}/{node}//1/completed"
    return JournalEntry(name, run.run, node, "completed", time, b'{"id":"%s"}' % name.encode())


async def _ids(journal: Journal, text: str) -> list[str]:
    return [found.run for found in await journal.find(text)]
