"""The client: starts runs, awaits their results, and asks where they are.

A run's id is minted here, before the start is sent, so that its end is not missed however soon it comes.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import anyio
import msgspec
from anyio.abc import TaskGroup

from segue.errors import (
    ConfigError,
    InvalidInput,
    NotAccepted,
    PayloadTooLarge,
    ResultTimeout,
    RunFailed,
    TransportUnavailable,
    UnknownRun,
)
from segue.model.flow import Flow
from segue.plan.graph import Plan
from segue.plan.projection import MODES, Mode, holder
from segue.ports.journal import Journal
from segue.runtime.ends import Ends
from segue.runtime.ids import check_key, check_run_id, new_run_id
from segue.runtime.input import bind, key_of
from segue.runtime.participant import ENVELOPE_ROOM
from segue.runtime.serving import Wiring
from segue.runtime.starter import Starter
from segue.runtime.tasks import task_group
from segue.runtime.where import RunView, where
from segue.wire import requests
from segue.wire.envelope import Ended
from segue.wire.records import FlowRecord
from segue.wire.requests import Accepted, Find, Found, Refused, Reply, Request, Start

log = logging.getLogger("segue.client")
R = TypeVar("R")


class RunHandle(Generic[R]):
    """A run that was accepted, or found.

    Attributes:
        id: 32 hex digits of a UUIDv7; also its trace id.
        key: Its business key, or "".
        flow: The flow's name.
        mode: The mode that it runs in to its end.
        existing: It was there before this start.
        home: The participant that decides its end.
    """

    def __init__(self, ends: Ends, accepted: Accepted, flow: str, key: str, home: str, returns: Any) -> None:
        self.id = accepted.run
        self.key = key
        self.flow = flow
        self.mode: Mode = "choreographed" if accepted.mode == "choreographed" else "orchestrated"
        self.existing = accepted.existing
        self.home = home
        self._ends = ends
        self._returns = returns
        self._end = ends.of(accepted.run)
        self._end.home = home

    def __repr__(self) -> str:
        return f"<run {self.id} of {self.flow}, key {self.key!r}>"

    async def result(self, timeout: float | None = None) -> R:
        """Wait for the end and return the flow's value.

        Args:
            timeout: Seconds to wait; None waits for ever. The run goes on if the time is over.

        Raises:
            RunFailed: A step failed and nothing caught it.
            ResultTimeout: The run has not ended in time.
            InvalidInput: The deployed flow's value does not fit the type declared here.
        """
        ended = await self.outcome(timeout)
        if ended.status != "completed":
            raise RunFailed(f"run {self.id} of {self.flow} {ended.status}: {_causes(ended)}", f"segue where {self.id}")
        try:
            found: R = msgspec.json.decode(ended.value, type=self._returns)
        except msgspec.ValidationError as error:
            raise InvalidInput(
                f"the value of run {self.id} of {self.flow} does not fit its type here: {error}",
                "the deployed flow is another one; start it by name to get plain JSON values",
            ) from None
        return found

    async def outcome(self, timeout: float | None = None) -> Ended:
        """Wait for the end and return how the run ended, without raising for a failed one.

        Raises:
            ResultTimeout: The run has not ended in time.
        """
        if timeout is None:
            return await self._ends.wait(self._end, self.existing)
        try:
            with anyio.fail_after(timeout):
                return await self._ends.wait(self._end, self.existing)
        except TimeoutError:
            raise ResultTimeout(
                f"run {self.id} of {self.flow} has not ended within {timeout:g} s", f"segue where {self.id}"
            ) from None


class Client:
    """Starts runs and awaits them; safe to use from many tasks of one event loop.

    Args:
        wiring: Transport, catalog and the rest.
        tasks: Where its background work runs.
        open_journal: Opens the journal, at the first `where`.
    """

    def __init__(
        self, wiring: Wiring, tasks: TaskGroup, open_journal: Callable[[], Awaitable[Journal]] | None = None
    ) -> None:
        self._open_journal = open_journal
        self._journal: Journal | None = None
        self._wiring = wiring
        self._starter = Starter(wiring, tasks)
        self._ends = Ends(wiring, tasks)

    async def start(
        self, flow: Flow[..., R] | str, *args: Any, key: str | None = None, run_id: str | None = None, **kwargs: Any
    ) -> RunHandle[R]:
        """Start a run; when this returns, its home has committed it.

        Args:
            flow: The flow, or the name of a deployed one (then the result is JSON builtins).
            *args: Its input.
            key: Business key; by default what the flow's `key` says. The same key again gives the same run.
            run_id: A UUIDv7 of the caller's, as another way to make a start repeatable.
            **kwargs: Its input, by name.

        Raises:
            UnknownFlow: The flow is not deployed.
            InvalidInput: The input does not fit the flow's parameters.
            PayloadTooLarge: The input is larger than a message may be.
            NotAccepted: The home refused; no run exists.
            TransportUnavailable: The home did not answer; start again with the same key.
        """
        name = _name(flow)
        record = self._wiring.catalog.flow(name)
        plan = await self._plan(record)
        values = bind(flow if isinstance(flow, Flow) else None, plan, args, kwargs)
        encoded = msgspec.json.encode(values)
        limit = self._wiring.transport.capabilities.max_bytes - ENVELOPE_ROOM
        if len(encoded) > limit:
            raise PayloadTooLarge(f"the input of {name} has {len(encoded):,} bytes; the transport takes {limit:,}")
        key = key_of(plan, values) if key is None else check_key(key)
        run = check_run_id(run_id) if run_id else new_run_id()
        await self._ends.listen(name)
        end = self._ends.of(run)
        caller = self._wiring.tracing.caller()
        start = Start(name, run, msgspec.Raw(encoded), key, record.plan, record.mode, caller)
        home, reply = await self._starter.send(start)
        if isinstance(reply, Refused):
            raise (TransportUnavailable if reply.retry else NotAccepted)(reply.reason, reply.hint)
        if not isinstance(reply, Accepted):
            raise NotAccepted(f"{home} answered a start with {type(reply).__name__}")
        home = holder(plan, "orchestrated" if reply.mode == "orchestrated" else "choreographed")
        handle: RunHandle[R] = RunHandle(self._ends, reply, name, key, home, _returns(flow))
        del end  # the handle keeps it from now on
        return handle

    async def get(self, flow: Flow[..., R] | str, key: str) -> RunHandle[R]:
        """The run of a business key.

        Raises:
            UnknownFlow: The flow is not deployed.
            UnknownRun: No run of this flow has the key.
        """
        name = _name(flow)
        record = self._wiring.catalog.flow(name)
        plan = await self._plan(record)
        await self._ends.listen(name)
        for mode in sorted(MODES, key=lambda mode: mode != record.mode):
            try:
                reply = await self._ask(holder(plan, mode), Find(name, key), 5.0)
            except TransportUnavailable:
                continue
            if isinstance(reply, Found) and reply.run:
                found = Accepted(reply.run, mode, True)
                return RunHandle(self._ends, found, name, key, holder(plan, mode), _returns(flow))
        raise UnknownRun(f"no run of {name!r} has the key {key!r}")

    async def where(self, text: str) -> RunView:
        """Where a run is: every node of its plan with its state.

        Args:
            text: Its key, its id, or a unique fragment of either.

        Raises:
            UnknownRun: Nothing fits.
            AmbiguousRun: Several runs fit.
        """
        if self._open_journal is None:
            raise ConfigError("this client has no journal to look into", "open it with segue.connect(journal=...)")
        if self._journal is None:
            self._journal = await self._open_journal()
        return await where(self._journal, text, self._wiring.transport)

    async def aclose(self) -> None:
        """Close what this client opened."""
        if self._journal is not None:
            await self._journal.aclose()

    async def _plan(self, record: FlowRecord) -> Plan:
        plan = await self._wiring.catalog.plan(record.plan)
        if plan is None:
            raise TransportUnavailable(f"plan {record.plan} of flow {record.flow!r} is not in the registry")
        return plan

    async def _ask(self, participant: str, request: Request, timeout: float) -> Reply:
        subject = self._wiring.subjects.requests(participant)
        answer = await self._wiring.transport.request(subject, requests.encode([request]), timeout)
        return requests.decode_replies(answer)[0]


def _name(flow: Flow[..., Any] | str) -> str:
    return flow if isinstance(flow, str) else flow.name


def _returns(flow: Flow[..., Any] | str) -> Any:
    return Any if isinstance(flow, str) else flow.returns


def _causes(ended: Ended) -> str:
    parts = [f"{cause.node} ({cause.error.type}: {cause.error.message})" for cause in ended.causes if cause.error]
    return "; ".join(parts) or ", ".join(cause.node for cause in ended.causes) or "no cause recorded"


@asynccontextmanager
async def client(wiring: Wiring, open_journal: Callable[[], Awaitable[Journal]] | None = None) -> AsyncIterator[Client]:
    """A client over an open wiring.

    Args:
        wiring: Transport, catalog and the rest.
        open_journal: Opens the journal, at the first `where`.
    """
    async with task_group() as tasks:
        found = Client(wiring, tasks, open_journal)
        try:
            yield found
        finally:
            # Before the cancellation: an await after it would raise that instead of what left the block.
            with anyio.CancelScope(shield=True):
                await found.aclose()
            tasks.cancel_scope.cancel()
