"""How one attempt runs and what it comes to: errors as values, deadlines, undo, calls that nobody needs any more."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import anyio
import msgspec
import pytest

from segue import Retry, Service, current
from segue.machine.facts import Cause, Failure, Key
from segue.model.step import Step
from segue.plan.graph import Arg, Get, Node, Plan, Region
from segue.plan.names import ENTRY, EXIT, RUN
from segue.ports.tracing import NoTracing
from segue.runtime.executor import BASES, Current, Executor
from segue.runtime.participant import Participant
from segue.runtime.suspects import LOST
from segue.runtime.values import Values
from segue.runtime.work import Job, Returned, RunRef
from segue.wire.envelope import Retrying

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
AGAIN = Retry(max_attempts=3, initial=10.0, jitter=0)


class Declined(Exception):
    """An error of a shop."""


class CardRefused(Declined, ValueError):
    """A more special one."""


class Host:
    """As much of a participant as the executor knows."""

    name = "payments"
    values = Values(None, 1000)

    def __init__(self) -> None:
        self.tracing = NoTracing()
        self.time = NOON
        self.found: list[Returned] = []
        self.done = anyio.Event()

    def now(self) -> datetime:
        return self.time

    def put(self, returned: Returned) -> None:
        self.found.append(returned)
        self.done.set()


def one_step_plan() -> Plan:
    nodes = (
        Node(ENTRY, "entry", "payments"),
        Node("charge", "step", "payments", step="charge", args=(Arg("n", Get(ENTRY, ("n",))),)),
        Node(EXIT, "exit", "payments", args=(Arg("result", Get("charge")),)),
    )
    return Plan("pay", "payments", nodes, (Region(RUN, ENTRY, EXIT),), (), {}, (), {})


def job(undo: bool = False, attempt: int = 1, born: float = 0.0, since: int = 2) -> Job:
    args: dict[str, Any] = {"args": {"n": 7}, "result": "r-7"} if undo else {"n": 7}
    found = Job(RunRef("r1", one_step_plan(), "choreographed", "4711"), Key("charge", "3"), 2, args, (), ())
    found.undo, found.attempt, found.born, found.since = undo, attempt, born, since
    return found


def step(fn: Callable[..., Any], undo: Callable[..., Any] | None = None, **options: Any) -> Step[..., Any]:
    made = cast("Step[..., Any]", Service("payments").step(name="charge", **options)(fn))
    if undo is not None:
        made.undo(undo)
    return made


async def run(call: Job, *steps: Step[..., Any], passed: float = 0.0) -> Returned:
    """What one attempt comes to; `passed` seconds after noon."""
    host = Host()
    host.time += timedelta(seconds=passed)
    executor = Executor(cast(Participant, host), {each.name: each for each in steps}, 4)
    async with anyio.create_task_group() as tasks:
        executor.start(tasks, [call])
        with anyio.fail_after(5):
            await host.done.wait()
        tasks.cancel_scope.cancel()
    [found] = host.found
    return found


def failure(found: Returned) -> Failure:
    return msgspec.json.decode(found.data, type=Failure)


def charge(n: int) -> str:
    return f"r-{n}"


async def test_an_error_says_what_else_it_is() -> None:
    async def refuse(n: int) -> str:
        raise CardRefused("no")

    found = await run(job(), step(refuse))
    assert (found.kind, failure(found).type, failure(found).bases) == (
        "failed",
        "CardRefused",
        ("Declined", "ValueError"),
    )


@pytest.mark.parametrize(
    ("error", "bases"),
    [(Exception("x"), ()), (SystemExit("x"), ()), (ConnectionResetError("x"), ("ConnectionError", "OSError"))],
    ids=repr,
)
async def test_what_every_error_is_is_not_said(error: BaseException, bases: tuple[str, ...]) -> None:
    async def fail(n: int) -> str:
        raise error

    assert failure(await run(job(), step(fail))).bases == bases


async def test_the_nearest_classes_of_many_are_said() -> None:
    error: type[Exception] = Exception
    for i in range(20):
        error = type(f"E{i}", (error,), {})

    async def fail(n: int) -> str:
        raise error

    found = failure(await run(job(), step(fail)))
    assert (found.type, found.bases) == ("E19", tuple(f"E{i}" for i in range(18, 18 - BASES, -1)))


async def test_a_step_knows_its_place() -> None:
    seen: list[Current] = []

    async def look(n: int) -> str:
        seen.append(current())
        return ""

    def forget(n: int, receipt: str) -> None:
        seen.append(current())

    await run(job(), step(look))
    await run(job(undo=True, attempt=2), step(charge, forget))
    assert [(here.run, here.node, here.tag, here.revision, here.attempt) for here in seen] == [
        ("r1", "charge", "3", 2, 1),
        ("r1", "charge", "3", 2, 2),
    ]
    assert [here.idempotency_key for here in seen] == ["r1/charge/3/2", "r1/charge/3/2/undo"]
    await run(job(since=1), step(look))
    assert (seen[-1].revision, seen[-1].idempotency_key) == (2, "r1/charge/3/1"), "it was never undone"


async def test_a_deadline_cuts_an_attempt() -> None:
    async def wait(n: int) -> str:
        await anyio.sleep(10)
        return ""

    found = await run(job(), step(wait, deadline=0.05, timeout=5, retry=AGAIN))
    assert found.kind == "failed"
    assert (failure(found).type, failure(found).bases) == ("Timeout", ("TimeoutError", "OSError"))
    assert failure(found).message == "charge was not done before its deadline"


async def test_a_timeout_within_the_deadline_is_tried_again() -> None:
    async def wait(n: int) -> str:
        await anyio.sleep(10)
        return ""

    found = await run(job(), step(wait, deadline=60, timeout=0.05, retry=AGAIN))
    retrying = msgspec.json.decode(found.data, type=Retrying)
    assert (found.kind, retrying.error.type, retrying.undo) == ("attempt.failed", "Timeout", False)
    assert retrying.next == NOON + timedelta(seconds=10)
    assert found.retry_at == retrying.next.timestamp()


async def test_no_attempt_begins_after_the_deadline() -> None:
    ran = []

    async def work(n: int) -> str:
        ran.append(n)
        return ""

    late = await run(job(attempt=2, born=NOON.timestamp()), step(work, deadline=30, retry=AGAIN), passed=30)
    assert (late.kind, failure(late).type, ran) == ("failed", "Timeout", [])
    early = await run(job(attempt=2, born=NOON.timestamp()), step(work, deadline=30, retry=AGAIN), passed=29)
    assert (early.kind, ran) == ("completed", [7])


@pytest.mark.parametrize(("passed", "kind"), [(19.0, "attempt.failed"), (20.0, "failed"), (25.0, "failed")])
async def test_an_error_is_final_if_the_next_attempt_would_be_too_late(passed: float, kind: str) -> None:
    async def fail(n: int) -> str:
        raise Declined("busy")

    found = await run(job(born=NOON.timestamp()), step(fail, deadline=30, retry=AGAIN), passed=passed)
    assert found.kind == kind
    error = failure(found) if kind == "failed" else msgspec.json.decode(found.data, type=Retrying).error
    assert error.type == "Declined"


async def test_the_deadline_counts_from_the_first_attempt() -> None:
    call = job()
    await run(call, step(charge, deadline=30), passed=3)
    assert call.born == NOON.timestamp() + 3
    await run(call, step(charge, deadline=30), passed=9)
    assert call.born == NOON.timestamp() + 3


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_step_is_undone_with_its_arguments_and_its_result(threaded: bool) -> None:
    seen = []

    def plain(n: int, receipt: str) -> None:
        seen.append((n, receipt))

    async def waiting(receipt: str, n: int) -> str:
        seen.append((n, receipt))
        return "not of interest"

    found = await run(job(undo=True), step(charge, plain if threaded else waiting))
    assert (found.kind, found.data, seen) == ("compensated", b"null", [(7, "r-7")])


async def test_an_undo_is_tried_again_until_it_fails_for_good() -> None:
    async def fail(n: int, receipt: str) -> None:
        raise CardRefused("closed")

    undo = step(charge, fail, retry=AGAIN, deadline=1)
    for attempt in (1, 2):
        found = await run(job(undo=True, attempt=attempt), undo)
        retrying = msgspec.json.decode(found.data, type=Retrying)
        assert (found.kind, retrying.error.type, retrying.undo, retrying.of) == (
            "attempt.failed",
            "CardRefused",
            True,
            3,
        )
    found = await run(job(undo=True, attempt=3), undo)
    assert (found.kind, failure(found).type, failure(found).message) == ("compensation.failed", "CardRefused", "closed")


async def test_an_undo_has_the_timeout_of_its_step() -> None:
    async def wait(n: int, receipt: str) -> None:
        await anyio.sleep(10)

    found = await run(job(undo=True), step(charge, wait, timeout=0.05))
    assert (found.kind, failure(found).type) == ("compensation.failed", "Timeout")


async def test_an_undo_may_have_its_own_retry_and_timeout() -> None:
    made = step(charge, timeout=60)

    @made.undo(retry=AGAIN, timeout=0.05)
    async def wait() -> None:
        await anyio.sleep(10)

    found = await run(job(undo=True), made)
    assert (found.kind, msgspec.json.decode(found.data, type=Retrying).of) == ("attempt.failed", 3)


async def test_what_cannot_be_undone_says_so() -> None:
    found = await run(job(undo=True), step(charge))
    assert (found.kind, failure(found).type) == ("compensation.failed", "StepNotFound")
    assert "cannot undo step 'charge'" in failure(found).message
    found = await run(job(undo=True))
    assert (found.kind, failure(found).type) == ("compensation.failed", "StepNotFound")
    found = await run(job())
    assert (found.kind, failure(found).type) == ("failed", "StepNotFound")


async def test_an_undo_with_a_result_of_another_type_fails() -> None:
    def forget(n: int, receipt: str) -> None:
        raise AssertionError

    call = job(undo=True)
    call.args["result"] = 7
    found = await run(call, step(charge, forget, retry=AGAIN))
    assert (found.kind, failure(found).type) == ("compensation.failed", "InvalidInput")


async def test_a_call_that_is_not_needed_any_more_is_not_tried_again() -> None:
    call = job()

    async def fail(n: int) -> str:
        call.withdrawn = True
        raise Declined("busy")

    found = await run(call, step(fail, retry=AGAIN))
    assert found.kind == "cancelled"
    assert msgspec.json.decode(found.data, type=list[Cause]) == [Cause("charge", "3")]
    call = job(attempt=3)
    assert (await run(call, step(fail, retry=AGAIN))).kind == "failed"


async def test_a_call_that_is_not_needed_any_more_may_still_complete() -> None:
    call = job()

    async def work(n: int) -> str:
        call.withdrawn = True
        return "done"

    found = await run(call, step(work, retry=AGAIN))
    assert (found.kind, found.data) == ("completed", b'"done"')


@pytest.mark.parametrize(("retry", "last"), [(None, LOST), (Retry(max_attempts=2), LOST), (Retry(max_attempts=9), 9)])
async def test_attempts_that_were_lost_with_their_process_are_used_up(retry: Retry | None, last: int) -> None:
    tried: list[int] = []

    def count(n: int) -> str:
        tried.append(current().attempt)
        return ""

    options = {} if retry is None else {"retry": retry}
    call = job(attempt=7)
    call.lost = last - 1
    assert (await run(call, step(count, **options))).kind == "completed"
    call.lost = last
    found = await run(call, step(count, **options))
    assert (found.kind, failure(found).type, found.job.attempt) == ("failed", "AttemptsExhausted", 6)
    assert f"died {last} times in a row while it ran charge" in failure(found).message
    assert tried == [7]


async def test_an_undo_that_kills_its_process_has_failed() -> None:
    def forget(n: int, receipt: str) -> None:
        raise AssertionError("begun")

    call = job(undo=True)
    call.lost = LOST
    found = await run(call, step(charge, forget))
    assert (found.kind, failure(found).type) == ("compensation.failed", "AttemptsExhausted")
