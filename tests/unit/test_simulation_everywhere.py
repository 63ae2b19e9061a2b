"""`run_everywhere`: users' flows with their real steps, in virtual time, in both modes and any weather."""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import anyio
import msgspec
import pytest

from segue import (
    App,
    DeclarationError,
    Retry,
    Service,
    after,
    attempt,
    current,
    each,
    flow,
    hours,
    race,
    sleep,
    wait_for,
    when,
)
from segue.testing import QUIET, STORMY, Difference, Faults, Orders, run_everywhere
from segue.testing.everywhere import everywhere, timeless, weather

bank, shop, odd = Service("bank"), Service("shop"), Service("odd")
numbers = count()


class Review(msgspec.Struct):
    ok: bool


@bank.step
async def slow(n: int) -> int:
    await anyio.sleep(3600)
    return n + 1


@bank.step(retry=Retry(max_attempts=4, initial=60))
async def flaky(n: int) -> str:
    if current().attempt < 3:
        raise OSError("line busy")
    return f"{n} at attempt {current().attempt}"


@bank.step(timeout=5)
async def late() -> None:
    await anyio.sleep(6)


@shop.step
def note(text: str) -> str:
    return text.upper()


@shop.step
async def book(what: str) -> str:
    return f"booked {what}"


@book.undo
async def cancel(what: str, result: str) -> None:
    assert result == f"booked {what}"


@bank.step
async def charge(amount: int) -> str:
    if amount > 100:
        raise ValueError("too much")
    return "paid"


@odd.step
async def other_each_time() -> int:
    return next(numbers)


@odd.step
async def name_of_run(text: str) -> str:
    return f"{text} {current().run}"


@flow
def long_one(n: int) -> str:
    first = slow(n)
    sleep(hours(24))
    return note(flaky(first))


@flow
def trip(amount: int) -> str:
    book("room")
    book("car")
    paid = charge(amount)
    return note(paid)


@flow
def reviewed(n: int) -> str:
    review = wait_for("review", Review, timeout=hours(48))
    with when(review.ok):
        done = book("it")
    return done


@flow
def told() -> str:
    with after(wait_for("go", None)):
        return book("it")


@flow
def many(texts: list[str]) -> list[str]:
    return each(texts, lambda text: note(text), limit=2)


@flow
def caught() -> str:
    return attempt(lambda: note(charge(500)), handlers={ValueError: lambda error: note(error.message)})


@flow
def first_of() -> str:
    return race(lambda: book("a"), lambda: book("b"))


@flow
def noted_race() -> str:
    return note(race(lambda: book("a"), lambda: book("b")))


@flow
def unsteady() -> int:
    return other_each_time()


@flow
def steady() -> str:
    return name_of_run("run")


@flow
def too_late() -> None:
    late()


app = App(
    "simulated",
    flows=[long_one, trip, reviewed, told, many, caught, first_of, noted_race, unsteady, steady, too_late],
    services=[bank, shop, odd],
)


async def test_hours_pass_in_no_time() -> None:
    began = time.monotonic()
    found = await run_everywhere(long_one, 1)
    assert found.value == "2 AT ATTEMPT 3"
    assert found.runs == 6
    assert all(24 * 3600 < seconds < 26 * 3600 for seconds in found.seconds.values())
    assert time.monotonic() - began < 10


async def test_both_ways_to_call_it_are_the_same() -> None:
    assert (await run_everywhere(app, steady)).value == (await run_everywhere(steady, app=app)).value
    assert everywhere is not run_everywhere


async def test_a_failed_run_is_compensated_alike() -> None:
    found = await run_everywhere(trip, 500, seeds=[None, *range(8)])
    assert found.ended.status == "failed"
    assert set(found.undone) == {"book", "book_2"}
    assert {key.partition("/")[2] for key in found.effects} == {
        *("book//1", "book_2//1", "charge//1", "book//1/undo", "book_2//1/undo")
    }
    for history in found.histories.values():
        assert [line.split()[1:] for line in history if line.endswith("ended")] == [["trip/run", "ended"]]


@pytest.mark.parametrize(("ok", "value"), [(True, "booked it"), (False, None)])
async def test_signals_are_sent(ok: bool, value: str | None) -> None:
    found = await run_everywhere(reviewed, 1, signals={"review": Review(ok)})
    assert found.value == value


async def test_a_signal_without_a_value_is_sent() -> None:
    assert (await run_everywhere(told, signals={"go": None})).value == "booked it"


async def test_a_signal_that_never_comes() -> None:
    found = await run_everywhere(reviewed, 1, signals={"review": lambda slot: None})
    assert [cause.error.type for cause in found.ended.causes if cause.error] == ["Timeout"]
    assert min(found.seconds.values()) > 48 * 3600


async def test_maps_have_states_by_item() -> None:
    found = await run_everywhere(many, ["a", "b", "c"])
    assert found.value == ["A", "B", "C"]
    assert {name for name in found.states if name.startswith("note")} == {"note/0", "note/1", "note/2"}


async def test_errors_are_caught_by_class() -> None:
    assert (await run_everywhere(caught)).value == "TOO MUCH"


async def test_timeouts_of_steps_are_virtual() -> None:
    found = await run_everywhere(too_late)
    assert [cause.error.type for cause in found.ended.causes if cause.error] == ["Timeout"]


async def test_a_race_may_have_any_winner() -> None:
    assert not timeless(first_of.plan)
    found = await run_everywhere(first_of, seeds=range(6), faults=QUIET)
    assert found.value in ("booked a", "booked b")


async def test_a_call_behind_a_race_survives_a_crash() -> None:
    """Whoever named the winner may die before it calls what follows."""
    found = await run_everywhere(noted_race, seeds=range(12), faults=Faults(crashes=3))
    assert found.value in ("BOOKED A", "BOOKED B")


async def test_cancelling_is_part_of_the_story() -> None:
    found = await run_everywhere(long_one, 1, orders=Orders(cancel=7200.0))
    assert found.ended.status == "cancelled"


async def test_a_step_that_is_not_steady_is_found() -> None:
    with pytest.raises(Difference, match=r"orchestrated, seed None \(first\)") as error:
        await run_everywhere(unsteady)
    assert "value of other_each_time" in str(error.value)
    assert (await run_everywhere(unsteady, same=False)).ended.status == "completed"


async def test_the_mode_and_the_seed_of_a_violation_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.runtime.roles.ServiceRole.launch", lambda *_: None)
    with pytest.raises(Difference, match="steady, orchestrated, seed 3: nothing happens any more"):
        await run_everywhere(steady, seeds=[3])


async def test_code_must_be_there() -> None:
    with pytest.raises(DeclarationError, match="code of step 'name_of_run' of service 'odd' is not here"):
        await run_everywhere(App("half", flows=[steady]), steady)

    @flow
    def alone() -> str:
        return note("x")

    with pytest.raises(DeclarationError, match="no app in the module of flow 'alone' lists it"):
        await run_everywhere(alone)


def test_weather_by_seed() -> None:
    assert len({weather(seed, steady.plan) for seed in (None, 0, 1, 2, 3)}) == 5
    assert STORMY in [weather(seed, steady.plan) for seed in range(4)]
    assert all(not weather(seed, reviewed.plan).losses for seed in range(4)), "losses take longer than timeouts may"


TEST = """
from segue import App, Service, flow

one = Service("one")
seen = []

@one.step
async def echo(n: int) -> int:
    seen.append(n)
    return n

@flow
def echoed(n: int) -> int:
    return echo(n)

app = App("x", flows=[echoed], services=[one])

def test_sync(everywhere):
    assert everywhere(echoed, 5).value == 5
    assert everywhere(echoed, 5).runs == {runs}

async def test_async(everywhere):
    assert everywhere(echoed, 5).value == 5
"""


@pytest.mark.parametrize(("args", "runs"), [([], 8), (["--segue-seeds", "5"], 12), (["--segue-seed", "9"], 2)])
def test_the_fixture(tmp_path: Path, args: list[str], runs: int) -> None:
    tmp_path.joinpath("test_it.py").write_text(TEST.replace("{runs}", str(runs)))
    tmp_path.joinpath("pytest.ini").write_text("[pytest]\nanyio_mode = auto\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "segue.testing.pytest_plugin", *args]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "2 passed" in found.stdout, found.stdout + found.stderr
