"""Runs the steps of a service: each attempt under its timeout and concurrency limit, with its span and its context."""

from __future__ import annotations

import logging
import traceback
from collections import deque
from collections.abc import Iterable
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import partial
from math import inf
from random import random
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import msgspec
from anyio.abc import TaskGroup

from segue.errors import InvalidInput, PayloadTooLarge, SegueError
from segue.hooks import plugins
from segue.machine.facts import Cause, Failure
from segue.model.step import Step
from segue.model.undo import Undo
from segue.ports.tracing import Attempt, Place
from segue.runtime import suspects
from segue.runtime.work import Job, Returned
from segue.wire.envelope import ATTEMPT_FAILED, Retrying

if TYPE_CHECKING:
    from segue.runtime.participant import Participant

log = logging.getLogger("segue.executor")

MESSAGE, DETAIL = 1_000, 4_000
"""Characters of an error's message and traceback that travel."""

BASES = 8
"""Base classes of an error that travel, the nearest first."""

_ROOTS = (Exception, BaseException, object)

Code = Step[..., Any] | Undo
"""What runs: a step, or what takes back what it did."""

_current: ContextVar[Current] = ContextVar("segue_current")


class Current(msgspec.Struct, frozen=True):
    """The call that is running: what a step may want to know.

    Attributes:
        run: The run's id.
        key: Its business key, or "".
        flow: The flow's name.
        node: The node in the plan.
        tag: Which item or round of it this is, as "3" or "3.0"; "" outside of `each` and `repeat`.
        revision: 1, and one more for each retry of the run that decides the node anew.
        attempt: Number of this attempt, from 1.
        idempotency_key: Hand it to the outside world: the same for every attempt and redelivery of this call, and when
            a retry of the run makes it again, unless it was undone before. That of an undo is another one.
    """

    run: str
    key: str
    flow: str
    node: str
    tag: str
    revision: int
    attempt: int
    idempotency_key: str


def current() -> Current:
    """The call that is running in this task or worker thread.

    Raises:
        LookupError: No step is running here.
    """
    return _current.get()


class Timeout(TimeoutError):
    """An attempt, or (`over`) all of them together, took longer than the step allows."""

    def __init__(self, message: str, over: bool = False) -> None:
        super().__init__(message)
        self.over = over


class Executor:
    """Runs jobs of one service and puts what they return into the participant's inbox.

    Workers are tasks that live on: a job costs no task of its own. A worker that takes a job wakes the next one if jobs
    are left, so steps that wait run side by side, and steps that never wait run one after the other in one worker.

    Args:
        host: The participant.
        steps: The service's steps by name.
        concurrency: Attempts at a time.
    """

    def __init__(self, host: Participant, steps: dict[str, Step[..., Any]], concurrency: int) -> None:
        self._host = host
        self._steps = steps
        self._concurrency = concurrency
        self._threads = anyio.CapacityLimiter(concurrency)
        self._observed = bool(plugins().hook.segue_step_finished.get_hookimpls())
        self._queue: deque[Job] = deque()
        self._idle: list[anyio.Event] = []
        self._workers = 0
        self._waking = False
        self._random = random

    def start(self, tasks: TaskGroup, jobs: Iterable[Job]) -> None:
        """Run attempts in the background."""
        self._queue.extend(jobs)
        self._wake(tasks)

    def _wake(self, tasks: TaskGroup) -> None:
        if not self._queue or self._waking:
            return
        if self._idle:
            self._idle.pop().set()
        elif self._workers < self._concurrency:
            self._workers += 1
            tasks.start_soon(self._work, tasks)
        else:
            return
        self._waking = True

    async def _work(self, tasks: TaskGroup) -> None:
        while True:
            self._waking = False
            while self._queue:
                job = self._queue.popleft()
                self._wake(tasks)
                self._host.put(await self._attempt(job, self._host.now()))
            rest = anyio.Event()
            self._idle.append(rest)
            await rest.wait()

    async def _attempt(self, job: Job, began: datetime) -> Returned:
        run, node = job.run, job.run.plan.index.nodes[job.key.node]
        step = self._steps.get(node.step)
        code = step.undone_by if step is not None and job.undo else step
        if code is None:
            what = "has no step" if step is None else "cannot undo step"
            error = Failure("StepNotFound", f"service {self._host.name!r} {what} {node.step!r}; deploy its code")
            return Returned(job, _lost(job), msgspec.json.encode(error), began)
        if job.lost >= self._may_lose(code):
            return self._given_up(code, job, began)
        token = _current.set(
            Current(
                run.id, run.key, run.plan.flow, node.id, job.key.tag, job.revision, job.attempt, _idempotency_key(job)
            )
        )
        place = Place(job.name, job.key.tag, job.attempt)
        span = Attempt(
            run.id, run.plan.flow, run.key, run.mode, self._host.name, node.step, place, job.inputs, job.revision
        )
        parent = ""
        try:
            with self._host.tracing.attempt(span):
                parent = self._host.tracing.caller()
                data = await self._call(code, job)
            found = Returned(job, "compensated" if job.undo else "completed", data, began, parent)
        except (Exception, SystemExit, anyio.get_cancelled_exc_class()) as error:
            if anyio.current_effective_deadline() == -inf:
                raise  # this participant stops; any other cancellation leaked out of the step
            found = self._failed(code, job, began, error, parent)
        finally:
            _current.reset(token)
        if self._observed:
            self._tell(found)
        return found

    def _may_lose(self, code: Code) -> float:
        """How many attempts in a row may be lost with their process."""
        return max(code.retry.max_attempts, suspects.LOST)

    def _given_up(self, code: Code, job: Job, began: datetime) -> Returned:
        """Too many attempts have no result: whoever made them died."""
        job.attempt = max(job.attempt - 1, 1)
        message = f"the process died {job.lost} times in a row while it ran {code.signature.step}; there is no result"
        log.error("run %s, node %s: %s", job.run.id, job.key.node, message)
        error = Failure("AttemptsExhausted", message)
        return Returned(job, _lost(job), msgspec.json.encode(error), began)

    def _tell(self, found: Returned) -> None:
        job = found.job
        seconds = (self._host.now() - found.began).total_seconds()
        node = job.run.plan.index.nodes[job.key.node]
        try:
            plugins().hook.segue_step_finished(
                service=self._host.name, step=node.step, run=job.run.id, node=node.id, kind=found.kind, seconds=seconds
            )
        except Exception:
            log.exception("a plugin failed in segue_step_finished")

    async def _call(self, code: Code, job: Job) -> bytes:
        if isinstance(code, Undo):
            await self._timed(code, code.decode_args(job.args["args"], job.args["result"]), inf)
            return b"null"
        left = _left(code, job, self._host.now().timestamp())
        value = await self._timed(code, code.decode_args(job.args), left)
        data = code.encode_result(value)
        if len(data) > self._host.values.largest:
            raise self._host.values.too_large(f"what {code.name} returned", len(data))
        return data

    async def _timed(self, code: Code, args: dict[str, Any], left: float) -> Any:
        timeout = inf if code.timeout is None else code.timeout
        limit = min(timeout, left)
        if limit == inf:
            return await self._execute(code, args)
        if limit > 0:
            with anyio.move_on_after(limit):
                return await self._execute(code, args)
        if left <= timeout:
            raise Timeout(f"{code.signature.step} was not done before its deadline", over=True)
        raise Timeout(f"{code.signature.step} took longer than {timeout:g} s")

    async def _execute(self, code: Code, args: dict[str, Any]) -> Any:
        if code.is_async:
            return await code.fn(**args)
        call = partial(code.fn, **args)
        return await anyio.to_thread.run_sync(call, limiter=self._threads, abandon_on_cancel=True)

    def _failed(self, code: Code, job: Job, began: datetime, error: BaseException, parent: str) -> Returned:
        ours = isinstance(error, InvalidInput | PayloadTooLarge)
        failure = _failure(error, with_detail=not ours)
        at = self._host.now().timestamp() + code.retry.delay(job.attempt, self._random())
        over = ours or (isinstance(error, Timeout) and error.over) or _left(code, job, at) <= 0
        if over or not code.retry.retries(error, job.attempt):
            return Returned(job, _lost(job), msgspec.json.encode(failure), began, parent)
        if job.withdrawn:
            return Returned(job, "cancelled", msgspec.json.encode([Cause(*job.key)]), began, parent)
        retrying = Retrying(failure, datetime.fromtimestamp(at, UTC), code.retry.max_attempts, job.undo)
        return Returned(job, ATTEMPT_FAILED, msgspec.json.encode(retrying), began, parent, at)


def _left(code: Code, job: Job, now: float) -> float:
    """Seconds until the deadline of a step, which counts from its first attempt; an undo has none."""
    if isinstance(code, Undo) or code.deadline is None:
        return inf
    job.born = job.born or now
    return job.born + code.deadline - now


def _lost(job: Job) -> str:
    return "compensation.failed" if job.undo else "failed"


def _failure(error: BaseException, with_detail: bool) -> Failure:
    """An error as a value that fits into any message, whatever a step raised."""
    try:
        message = error.message if isinstance(error, SegueError) else str(error)
        detail = "".join(traceback.format_exception(error)) if with_detail else ""
    except Exception as trouble:
        message, detail = f"(its text cannot be had: {type(trouble).__name__})", ""
    if len(message) > MESSAGE:
        message = message[:MESSAGE] + " ..."
    bases = tuple(cls.__name__ for cls in type(error).__mro__[1:] if cls not in _ROOTS)
    return Failure(type(error).__name__, _clean(message), _clean(detail[-DETAIL:]), bases[:BASES])


def _clean(text: str) -> str:
    return text.encode(errors="replace").decode()


def _idempotency_key(job: Job) -> str:
    key = f"{job.run.id}/{job.key.node}/{job.key.tag}/{job.since}"
    return f"{key}/undo" if job.undo else key
