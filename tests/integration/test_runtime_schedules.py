"""Schedules: each due time has one run, however many schedulers there are, whatever happens to them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pytest
import ticking
from stage import Stage, eventually, stage
from ticking import DONE, app, stay, tick

from segue import App, Schedule, compose
from segue.config import Config
from segue.errors import DeclarationError, InvalidInput, UnknownSchedule
from segue.plan.projection import COORDINATOR, MODES, Mode
from segue.ports.journal import RunQuery, RunRecord
from segue.runtime import scheduler, schedules, starter
from segue.runtime.catalog import Catalog
from segue.runtime.scheduler import Scheduler
from segue.schedule.timetable import Every, at, due_times
from segue.wire import requests
from segue.wire.requests import Accepted, Answer, Ask, Cancel, Done, Refused, Start
from segue.wire.schedules import PROGRESS, Handled, Progress, ScheduleRecord, stamp
from segue_nats.server import NatsServer

each_mode = pytest.mark.parametrize("mode", MODES)
SECOND = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def fresh() -> None:
    DONE.clear()
    ticking.GATE = ticking.Gate()


def planned(name: str = "tick", ago: float = 0.0, **more: Any) -> ScheduleRecord:
    """A schedule that is due every second, since so many seconds ago."""
    given: dict[str, Any] = {"flow": "tick", "timing": Every(1), "overlap": "allow", "due_as": "due"} | more
    return ScheduleRecord(name, since=datetime.now(UTC) - timedelta(seconds=ago), **given)


def overdue(number: int, interval: int = 20, **more: Any) -> ScheduleRecord:
    """A schedule that was due so many times already, and is due again in half an interval."""
    since = (number + 0.5) * interval
    anchor = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=since)
    return planned(ago=since, timing=Every(interval, anchor + timedelta(seconds=interval)), **more)


@asynccontextmanager
async def scheduling(config: Config, number: int = 1) -> AsyncIterator[list[Scheduler]]:
    """So many schedulers, each with a connection of its own."""
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(number):
            wiring = await stack.enter_async_context(compose.wired(config))
            found.append(await stack.enter_async_context(Scheduler(wiring).scheduling()))
        yield found


async def runs(here: Stage, name: str) -> list[RunRecord]:
    """The runs of a schedule that the journal knows, oldest first."""
    found = await here.journal.runs(RunQuery("", "", f"{name}@", 1000))
    return sorted(found, key=lambda run: run.key)


def due_of(run: RunRecord) -> datetime:
    return datetime.fromisoformat(run.key.partition("@")[2].replace("Z", "+00:00"))


async def completed(here: Stage, name: str, number: int, timeout: float = 15.0) -> list[RunRecord]:
    """The runs of a schedule, once so many are completed."""

    async def enough() -> bool:
        return sum(run.status == "completed" for run in await runs(here, name)) >= number

    await eventually(enough, timeout)
    return await runs(here, name)


def assert_gapless(found: list[RunRecord]) -> None:
    """One run for each second from the first to the last, each with its due time as input."""
    due = [due_of(run) for run in found]
    assert due == [due[0] + n * SECOND for n in range(len(due))]
    assert len({run.run for run in found}) == len(found)


async def progress(here: Stage, name: str, what: str) -> list[Handled]:
    """What came of due times, once one of them came to this."""

    def known() -> tuple[Handled, ...]:
        return here.wiring.catalog.progress.get(name, Progress(name)).handled

    async def there() -> bool:
        return any(item.what == what for item in known())

    await eventually(there)
    return [item for item in known() if item.what == what]


def launch(command: list[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)


class TestOnce:
    @each_mode
    async def test_one_run_for_each_due_time(self, mode: Mode, config: Config) -> None:
        async with stage(app, config, mode) as here, here.running(), scheduling(config, 3):
            await schedules.add(here.wiring.catalog, planned())
            found = await completed(here, "tick", 3)
        assert_gapless(found)
        assert {due: DONE[due] for due in DONE if DONE[due] != 1} == {}
        assert {run.key.partition("@")[2] for run in found} <= set(DONE)

    async def test_it_starts_on_time(self, memory: Config) -> None:
        async with stage(app, memory) as here, here.running(), scheduling(memory, 2):
            await schedules.add(here.wiring.catalog, planned())
            found = await completed(here, "tick", 3)
        late = [(run.started - due_of(run)).total_seconds() for run in found if run.started]
        assert len(late) == len(found)
        assert 0 <= min(late) < 0.5

    async def test_a_scheduler_is_killed(self, nats: Config, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "segue.cli", "scheduler", "-o", "json"]
        command += ["--transport", nats.transport, "--namespace", nats.namespace]
        async with stage(app, nats) as here, here.running():
            await schedules.add(here.wiring.catalog, planned())
            first, second = launch(command, tmp_path), launch(command, tmp_path)
            try:
                for process in (first, second):
                    line = await anyio.to_thread.run_sync(process.stdout.readline)  # type: ignore[union-attr]
                    assert '"ready"' in line
                number = len(await completed(here, "tick", 3))
                first.kill()
                found = await completed(here, "tick", number + 3)
                second.send_signal(signal.SIGTERM)
                out, _ = await anyio.to_thread.run_sync(second.communicate)
            finally:
                first.kill()
                second.kill()
                first.communicate()
        assert_gapless(found)
        assert set(DONE.values()) == {1}
        assert second.returncode == 0
        stopped = msgspec.json.decode(out.splitlines()[-1])
        assert stopped["event"] == "stopped"
        assert stopped["counts"]["schedules"]["starts"] >= 3

    async def test_the_broker_is_killed(self, tmp_path: Path) -> None:
        """What was due meanwhile is started when it is back."""
        with NatsServer(tmp_path / "nats") as server:
            config = Config(
                transport=f"{server.url}?redelivery=2",
                store=f"sqlite:///{tmp_path}/{{part}}.db",
                journal=f"sqlite:///{tmp_path}/journal.db",
            )
            async with stage(app, config) as here, here.running(), scheduling(config, 2):
                await schedules.add(here.wiring.catalog, planned())
                number = len(await completed(here, "tick", 1))
                await anyio.to_thread.run_sync(server.kill)
                await anyio.sleep(1.5)
                await anyio.to_thread.run_sync(server.start)
                found = await completed(here, "tick", number + 3, 30)
        assert_gapless(found)
        assert {due: DONE[due] for due in DONE if DONE[due] != 1} == {}

    async def test_lost_progress_starts_nothing_twice(self, config: Config) -> None:
        async with stage(app, config) as here, here.running():
            catalog, registry = here.wiring.catalog, here.wiring.transport.registry
            await schedules.add(catalog, planned(ago=5))
            async with scheduling(config):
                before = await completed(here, "tick", 6)
            await registry.put(f"{PROGRESS}.tick", b"")
            async with scheduling(config, 2):
                found = await completed(here, "tick", len(before) + 1)
        assert_gapless(found)
        assert set(DONE.values()) == {1}

    async def test_a_home_that_is_away_gets_it_later(self, memory: Config) -> None:
        async with stage(app, memory) as here, here.running("worker", "observer"), scheduling(memory):
            await schedules.add(here.wiring.catalog, planned())
            await anyio.sleep(1.5)
            assert not DONE
            async with here.running(COORDINATOR):
                found = await completed(here, "tick", 3)
        assert_gapless(found)

    async def test_after_a_change_of_mode(self, memory: Config) -> None:
        """Two schedulers, one of which starts a due time again at the new home: it is the same run."""
        async with stage(app, memory) as here, here.running():
            record = planned(timing=at(datetime.now(UTC) + SECOND))
            await schedules.add(here.wiring.catalog, record)
            async with scheduling(memory):
                (run,) = await completed(here, "tick", 1)
            await here.switch(tick, "choreographed")
            await here.wiring.transport.registry.put(f"{PROGRESS}.tick", b"")
            async with scheduling(memory):
                handled = await progress(here, "tick", "started")
            assert [item.run for item in handled] == [run.run]
            assert len(await runs(here, "tick")) == 1


class TestLate:
    async def test_what_was_missed_is_caught_up_with_oldest_first(self, config: Config) -> None:
        async with stage(app, config) as here, here.running():
            record = planned(ago=40, timing=Every(5), catch_up=21)
            await schedules.add(here.wiring.catalog, record)
            async with scheduling(config, 2):
                found = await completed(here, "tick", 4)
                missed = await progress(here, "tick", "missed")
        due = [due_of(run) for run in found]
        assert due == [due[0] + 5 * n * SECOND for n in range(len(due))]
        assert due[0] > record.since + 15 * SECOND
        assert missed[0].due == due[0] - 5 * SECOND
        assert missed[0].count in (3, 4)
        assert f"since {stamp(missed[0].due - (missed[0].count - 1) * 5 * SECOND)}" in missed[0].note

    async def test_a_long_downtime_is_not_counted_for_ever(self, memory: Config) -> None:
        async with stage(app, memory) as here, here.running():
            await schedules.add(here.wiring.catalog, planned(ago=10_000_000, catch_up=0))
            async with scheduling(memory):
                await completed(here, "tick", 5)
                (missed,) = await progress(here, "tick", "missed")
        assert missed.note.startswith("1,000 or more since ")

    async def test_of_what_overlaps_itself_the_oldest_is_started(self, memory: Config) -> None:
        async with stage(app, memory) as here, here.running():
            await schedules.add(here.wiring.catalog, overdue(3, 10, overlap="skip"))
            async with scheduling(memory, 2):
                await progress(here, "tick", "started")
                skipped = await progress(here, "tick", "skipped")
        (run,) = await runs(here, "tick")
        assert [item.due for item in skipped] == [due_of(run) + 10 * SECOND, due_of(run) + 20 * SECOND]

    async def test_a_start_that_is_put_off_is_not_passed_over(
        self, memory: Config, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Later due times may have their runs already."""
        monkeypatch.setattr(starter, "TIMEOUT", 0.2)
        record = overdue(2)
        first, second = due_times(record.timing, record.since, datetime.now(UTC))
        keys = [record.run(due, memory.namespace).key for due in (first, second)]
        async with stage(app, memory) as here, Home().answering(here) as home, scheduling(memory):
            home.refused.add(keys[0])
            await schedules.add(here.wiring.catalog, record)
            await eventually(lambda: home.asked(1))
            await anyio.sleep(0.5)
            assert home.log[0] == ("start", keys[1])
            assert "tick" not in here.wiring.catalog.progress
            home.refused.clear()
            started = await progress(here, "tick", "started")
        assert [item.due for item in started] == [first, second]


class TestOverlap:
    @each_mode
    async def test_skip(self, mode: Mode, memory: Config) -> None:
        async with stage(app, memory, mode) as here, here.running(), scheduling(memory, 3):
            await schedules.add(here.wiring.catalog, planned(flow="stay", overlap="skip"))
            skipped = await progress(here, "tick", "skipped")
            (first,) = await runs(here, "tick")
            assert skipped[0].due == due_of(first) + SECOND
            assert skipped[0].note == f"the run of {stamp(due_of(first))} is open"
            ticking.GATE.open.set()
            found = await completed(here, "tick", 2)
        assert due_of(found[1]) > skipped[-1].due
        assert ticking.GATE.most == 1

    async def test_buffer(self, memory: Config) -> None:
        async with stage(app, memory, "choreographed") as here, here.running(), scheduling(memory, 3):
            record = overdue(3, flow="stay", overlap="buffer")
            await schedules.add(here.wiring.catalog, record)
            (waiting,) = await progress(here, "tick", "waiting")
            skipped = await progress(here, "tick", "skipped")
            (first,) = await runs(here, "tick")
            assert waiting.due == due_of(first) + 20 * SECOND
            assert skipped[0].due == waiting.due + 20 * SECOND
            ticking.GATE.open.set()
            found = await completed(here, "tick", 2, 5.0)
        assert due_of(found[1]) == waiting.due
        assert ticking.GATE.most == 1

    async def test_what_waits_outlives_the_scheduler(self, config: Config) -> None:
        async with stage(app, config) as here, here.running():
            await schedules.add(here.wiring.catalog, planned(flow="stay", overlap="buffer"))
            async with scheduling(config):
                (waiting,) = await progress(here, "tick", "waiting")
            async with scheduling(config):
                ticking.GATE.open.set()
                found = await completed(here, "tick", 2)
        assert due_of(found[1]) == waiting.due

    async def test_allow(self, memory: Config) -> None:
        async with stage(app, memory) as here, here.running(), scheduling(memory, 2):
            await schedules.add(here.wiring.catalog, planned(flow="stay"))
            with anyio.move_on_after(10):
                while ticking.GATE.inside < 3:
                    await anyio.sleep(0.02)
            together = ticking.GATE.inside
            ticking.GATE.open.set()
        assert together >= 3, "one run held up another"

    @each_mode
    async def test_cancel(self, mode: Mode, memory: Config) -> None:
        """A step that has begun may go on to its end; the next run starts only when the cancelled one is over."""
        async with stage(app, memory, mode) as here, here.running(), scheduling(memory, 2):
            await schedules.add(here.wiring.catalog, planned(flow="stay", overlap="cancel"))

            async def cancelled() -> bool:
                return any(run.status in ("cancelling", "cancelled") for run in await runs(here, "tick"))

            await eventually(cancelled)
            ticking.GATE.open.set()
            found = await completed(here, "tick", 1)
        first, second = found[:2]
        assert first.status == "cancelled"
        assert first.ended is not None
        assert second.started is not None
        assert first.ended <= second.started

    async def test_cancel_asks_once_and_waits(self, memory: Config) -> None:
        """Nothing starts before the cancelled run is over."""
        async with stage(app, memory) as here, Home().answering(here) as home, scheduling(memory, 2):
            record = planned(overlap="cancel")
            await schedules.add(here.wiring.catalog, record)
            dropped = await progress(here, "tick", "dropped")
            (waiting,) = await progress(here, "tick", "waiting")
            assert [what for what, _ in home.log] == ["start", "cancel"]
            (run,) = home.open
            home.end(run)
            await eventually(lambda: home.asked(3), 5)
        assert home.log[1] == ("cancel", run)
        assert dropped[0].due < waiting.due
        assert home.log[2][0] == "start"
        assert home.log[2][1] >= record.run(waiting.due, memory.namespace).key
        assert home.most == 1


class Home:
    """A scripted home: runs end when the test says so, and starts of keys in `refused` are put off."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.most = 0
        self.refused: set[str] = set()
        self._ended: list[str] = []

    @asynccontextmanager
    async def answering(self, here: Stage) -> AsyncIterator[Home]:
        """Answer as the coordinator."""
        async with here.wiring.transport.respond(here.wiring.subjects.requests(COORDINATOR), self._answer):
            yield self

    def end(self, run: str) -> None:
        """Let a run end."""
        self.open.remove(run)
        self._ended.append(run)

    async def asked(self, number: int) -> bool:
        """Whether so much was asked for."""
        return len(self.log) >= number

    async def _answer(self, body: bytes) -> bytes:
        return requests.encode([self._reply(request) for request in requests.decode_requests(body)])

    def _reply(self, request: requests.Request) -> requests.Reply:
        if isinstance(request, Start):
            if request.key in self.refused:
                return Refused("not now", retry=True)
            if request.run not in (*self.open, *self._ended):
                self.open.append(request.run)
                self.most = max(self.most, len(self.open))
                self.log.append(("start", request.key))
            return Accepted(request.run, "orchestrated")
        if isinstance(request, Cancel):
            if ("cancel", request.run) not in self.log:
                self.log.append(("cancel", request.run))
            return Done(True)
        assert isinstance(request, Ask)
        ended = b'{"over": true}' if request.run in self._ended else b"null"
        return Answer(request.run in (*self.open, *self._ended), msgspec.Raw(ended))


class TestChanges:
    async def test_a_paused_one_starts_nothing(self, memory: Config) -> None:
        async with stage(app, memory) as here, here.running(), scheduling(memory):
            catalog = here.wiring.catalog
            await schedules.add(catalog, planned())
            await completed(here, "tick", 1)
            await schedules.set_paused(catalog, "tick", True)
            await anyio.sleep(0.5)
            before = await runs(here, "tick")
            await anyio.sleep(1.5)
            assert await runs(here, "tick") == before
            record = await schedules.set_paused(catalog, "tick", False)
            after = (await completed(here, "tick", len(before) + 1))[len(before) :]
        assert due_of(after[0]) > record.since > due_of(before[-1]) + SECOND

    async def test_a_removed_one_starts_nothing(self, memory: Config) -> None:
        async with stage(app, memory) as here, here.running(), scheduling(memory):
            await schedules.add(here.wiring.catalog, planned())
            await completed(here, "tick", 1)
            await schedules.remove(here.wiring.catalog, "tick")
            await anyio.sleep(0.5)
            before = await runs(here, "tick")
            await anyio.sleep(1.2)
            assert await runs(here, "tick") == before
            with pytest.raises(UnknownSchedule, match="there is no schedule 'tick'"):
                await schedules.remove(here.wiring.catalog, "tick")

    async def test_what_cannot_be_started_is_said_and_passed_over(self, memory: Config) -> None:
        async with stage(app, memory) as here, here.running(), scheduling(memory):
            catalog = here.wiring.catalog
            for name, flow in (("gone", "nowhere"), ("wrong", "tick")):
                await catalog.set_schedule(planned(name, flow=flow, input={"place": 7}))
            await schedules.add(catalog, planned())
            assert (await progress(here, "gone", "failed"))[0].note == "flow 'nowhere' is not deployed"
            assert "does not fit at $.place" in (await progress(here, "wrong", "failed"))[0].note
            await completed(here, "tick", 2)

    async def test_by_hand(self, memory: Config) -> None:
        """A run that a person started counts as an open run, and not as a due time."""
        async with stage(app, memory) as here, here.running():
            record = planned(flow="stay", overlap="skip", paused=True)
            await schedules.add(here.wiring.catalog, record)
            _, started = await scheduler.start_by_hand(here.wiring, "tick")
            assert started.what == "manual"
            await schedules.set_paused(here.wiring.catalog, "tick", False)
            async with scheduling(memory):
                skipped = await progress(here, "tick", "skipped")
            assert f"the run of {stamp(started.due)} is open" == skipped[0].note
            ticking.GATE.open.set()


class TestDeploy:
    @pytest.fixture
    async def catalog(self, memory: Config) -> AsyncIterator[Catalog]:
        async with stage(app, memory) as here:
            yield here.wiring.catalog

    async def test_an_app_brings_its_schedules(self, catalog: Catalog) -> None:
        done = await schedules.deploy(catalog, app)
        assert [(each.schedule, each.flow, each.change) for each in done] == [
            ("tick", "tick", "new"),
            ("mornings", "tick", "new"),
        ]
        assert {each.change for each in await schedules.deploy(catalog, app)} == {"as it was"}
        assert catalog.schedule("mornings").app == "ticking"

    async def test_a_redeploy_keeps_what_it_need_not_change(self, catalog: Catalog) -> None:
        await schedules.deploy(catalog, app)
        before = await schedules.set_paused(catalog, "tick", True)
        changed = Schedule(tick, every=1, due_as="due", input={"place": "there"})
        done = await schedules.deploy(catalog, App("ticking", [tick, stay], schedules=[changed]))
        assert [(each.schedule, each.change) for each in done] == [("tick", "changed"), ("mornings", "removed")]
        after = catalog.schedule("tick")
        assert (after.paused, after.since, after.input) == (True, before.since, {"place": "there"})
        assert list(catalog.schedules) == ["tick"]

    async def test_other_times_count_from_now_on(self, catalog: Catalog) -> None:
        await schedules.deploy(catalog, app)
        before = catalog.schedule("tick")
        other = App("ticking", [tick], schedules=[Schedule(tick, every=2, due_as="due")])
        await schedules.deploy(catalog, other, ["tick"])
        assert catalog.schedule("tick").since > before.since

    async def test_only_some_flows(self, catalog: Catalog) -> None:
        assert await schedules.deploy(catalog, app, ["stay"]) == []
        await schedules.deploy(catalog, app)
        assert await schedules.deploy(catalog, App("ticking", [stay]), ["stay"]) == []
        assert len(catalog.schedules) == 2

    async def test_what_is_somebody_elses_is_left_alone(self, catalog: Catalog) -> None:
        await schedules.add(catalog, planned())
        with pytest.raises(DeclarationError, match="that was added by hand"):
            await schedules.deploy(catalog, app)
        assert list(catalog.schedules) == ["tick"]
        with pytest.raises(DeclarationError, match="there is a schedule 'tick' already"):
            await schedules.add(catalog, planned())

    async def test_the_input_must_fit(self, catalog: Catalog) -> None:
        for wrong in ({"place": 7}, {"where": "x"}):
            with pytest.raises(InvalidInput):
                await schedules.add(catalog, planned(input=wrong))
        with pytest.raises(InvalidInput, match="needs 'due'"):
            await schedules.add(catalog, planned(due_as=""))
        assert not catalog.schedules
