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
from segue.machine.facts import Failure
from segue.model.step import Step
from segue.ports.tracing import Attempt, Place
from segue.runtime.work import Job, Returned
from segue.wire.envelope import Retrying

if TYPE_CHECKING:
    from segue.runtime.participant import Participant

log = logging.getLogger("segue.executor")

MESSAGE, DETAIL = 1_000, 4_000
"""Characters of an error's message and traceback that travel."""

_current: ContextVar[Current] = ContextVar("segue_current")


class Current(msgspec.Struct, frozen=True):
    """The call that is running: what a step may want to know.

    Attributes:
        run: The run's id.
        key: Its business key, or "".
        flow: The flow's name.
        node: The node in the plan.
        attempt: Number of this attempt, from 1.
        idempotency_key: The same for every attempt and redelivery of this call; hand it to the outside world.
    """

    run: str
    key: str
    flow: str
    node: str
    attempt: int
    idempotency_key: str


def current() -> Current:
    """The call that is running in this task or worker thread.

    Raises:
        LookupError: No step is running here.
    """
    return _current.get()


class Timeout(TimeoutError):
    """An attempt took longer than its step allows."""


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
        node = job.run.plan.index.nodes[job.key.node]
        step = self._steps.get(node.step)
        if step is None:
            error = Failure("StepNotFound", f"service {self._host.name!r} has no step {node.step!r}; deploy its code")
            return Returned(job, "failed", msgspec.json.encode(error), began)
        token = _current.set(
            Current(job.run.id, job.run.key, job.run.plan.flow, node.id, job.attempt, _idempotency_key(job))
        )
        place = Place(job.key.node, job.key.tag, job.attempt)
        run = job.run
        span = Attempt(run.id, run.plan.flow, run.key, run.mode, self._host.name, node.step, place, job.inputs)
        parent = ""
        try:
            with self._host.tracing.attempt(span):
                parent = self._host.tracing.caller()
                data = await self._call(step, job)
            found = Returned(job, "completed", data, began, parent)
        except (Exception, SystemExit, anyio.get_cancelled_exc_class()) as error:
            if anyio.current_effective_deadline() == -inf:
                raise  # this participant stops; any other cancellation leaked out of the step
            found = self._failed(step, job, began, error, parent)
        finally:
            _current.reset(token)
        if self._observed:
            self._tell(found)
        return found

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

    async def _call(self, step: Step[..., Any], job: Job) -> bytes:
        args = step.decode_args(job.args)
        if step.timeout is None:
            value = await self._execute(step, args)
        else:
            with anyio.move_on_after(step.timeout) as scope:
                value = await self._execute(step, args)
            if scope.cancelled_caught:
                raise Timeout(f"{step.name} took longer than {step.timeout:g} s")
        data = step.encode_result(value)
        if len(data) > self._host.max_event:
            raise PayloadTooLarge(
                f"{step.name} returned {len(data):,} bytes; the transport takes {self._host.max_event:,}"
            )
        return data

    async def _execute(self, step: Step[..., Any], args: dict[str, Any]) -> Any:
        if step.is_async:
            return await step.fn(**args)
        call = partial(step.fn, **args)
        return await anyio.to_thread.run_sync(call, limiter=self._threads, abandon_on_cancel=True)

    def _failed(self, step: Step[..., Any], job: Job, began: datetime, error: BaseException, parent: str) -> Returned:
        ours = isinstance(error, InvalidInput | PayloadTooLarge)
        failure = _failure(error, with_detail=not ours)
        if ours or not step.retry.retries(error, job.attempt):
            return Returned(job, "failed", msgspec.json.encode(failure), began, parent)
        at = self._host.now().timestamp() + step.retry.delay(job.attempt, random())
        retrying = Retrying(failure, datetime.fromtimestamp(at, UTC), step.retry.max_attempts)
        return Returned(job, "attempt.failed", msgspec.json.encode(retrying), began, parent, at)


def _failure(error: BaseException, with_detail: bool) -> Failure:
    """An error as a value that fits into any message, whatever a step raised."""
    try:
        message = error.message if isinstance(error, SegueError) else str(error)
        detail = "".join(traceback.format_exception(error)) if with_detail else ""
    except Exception as trouble:
        message, detail = f"(its text cannot be had: {type(trouble).__name__})", ""
    if len(message) > MESSAGE:
        message = message[:MESSAGE] + " ..."
    return Failure(type(error).__name__, _clean(message), _clean(detail[-DETAIL:]))


def _clean(text: str) -> str:
    return text.encode(errors="replace").decode()


def _idempotency_key(job: Job) -> str:
    return f"{job.run.id}/{job.key.node}/{job.key.tag}/{job.revision}"
