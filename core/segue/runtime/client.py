"""The client: starts runs, awaits their results, and asks where they are.

The end of a run is heard on the flow's `ended` subject, which is subscribed to before the first start; that is best
effort, so whoever awaits a result also asks the home now and then.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

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
    SegueError,
    TransportUnavailable,
    UnknownRun,
)
from segue.model.flow import Flow
from segue.plan.graph import Plan
from segue.plan.projection import MODES, Mode, holder
from segue.ports.journal import Journal
from segue.ports.transport import Message
from segue.runtime.ids import check_key, check_run_id, new_run_id
from segue.runtime.input import bind, key_of
from segue.runtime.participant import ENVELOPE_ROOM
from segue.runtime.serving import Wiring
from segue.runtime.starter import Starter
from segue.runtime.tasks import task_group
from segue.runtime.where import RunView, where
from segue.wire import envelope, requests
from segue.wire.envelope import Ended
from segue.wire.records import FlowRecord
from segue.wire.requests import Accepted, Answer, Ask, Find, Found, Refused, Reply, Request, Start

log = logging.getLogger("segue.client")
R = TypeVar("R")

ASK_FIRST, ASK_LAST = 2.0, 30.0
"""Seconds until the home is asked for an awaited result; doubling up to the second figure."""


class _End:
    """The end of a run that somebody may want to know; kept as long as somebody holds the run."""

    __slots__ = ("__weakref__", "ended", "heard")

    def __init__(self) -> None:
        self.heard = anyio.Event()
        self.ended: Ended | None = None

    def set(self, ended: Ended) -> None:
        """It has ended."""
        self.ended = ended
        self.heard.set()


class _Ear:
    """Listening to the ends of a flow's runs; `error` set: it could not be."""

    def __init__(self) -> None:
        self.ready = anyio.Event()
        self.error: SegueError | None = None


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

    def __init__(self, client: Client, accepted: Accepted, flow: str, key: str, home: str, returns: Any) -> None:
        self.id = accepted.run
        self.key = key
        self.flow = flow
        self.mode: Mode = "choreographed" if accepted.mode == "choreographed" else "orchestrated"
        self.existing = accepted.existing
        self.home = home
        self._client = client
        self._returns = returns
        self._end = client.end_of(accepted.run)

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
        end, pause = self._end, 0.0 if self.existing else ASK_FIRST
        try:
            with anyio.fail_after(timeout):
                while end.ended is None:
                    with anyio.move_on_after(pause):
                        await end.heard.wait()
                    if end.ended is None:
                        await self._client.inquire(self)
                    pause = min(max(pause * 2, ASK_FIRST), ASK_LAST)
        except TimeoutError:
            raise ResultTimeout(
                f"run {self.id} of {self.flow} has not ended within {timeout:g} s", f"segue where {self.id}"
            ) from None
        return end.ended


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
        self._tasks = tasks
        self._starter = Starter(wiring, tasks)
        self._ends: WeakValueDictionary[str, _End] = WeakValueDictionary()
        self._ears: dict[str, _Ear] = {}

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
        await self._listen(name)
        end = self.end_of(run)
        caller = self._wiring.tracing.caller()
        start = Start(name, run, msgspec.Raw(encoded), key, record.plan, record.mode, caller)
        home, reply = await self._starter.send(start)
        if isinstance(reply, Refused):
            raise (TransportUnavailable if reply.retry else NotAccepted)(reply.reason, reply.hint)
        if not isinstance(reply, Accepted):
            raise NotAccepted(f"{home} answered a start with {type(reply).__name__}")
        if reply.mode != record.mode:
            home = holder(plan, "orchestrated" if reply.mode == "orchestrated" else "choreographed")
        handle: RunHandle[R] = RunHandle(self, reply, name, key, home, _returns(flow))
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
        await self._listen(name)
        for mode in sorted(MODES, key=lambda mode: mode != record.mode):
            try:
                reply = await self._ask(holder(plan, mode), Find(name, key), 5.0)
            except TransportUnavailable:
                continue
            if isinstance(reply, Found) and reply.run:
                found = Accepted(reply.run, mode, True)
                return RunHandle(self, found, name, key, holder(plan, mode), _returns(flow))
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

    def end_of(self, run: str) -> _End:
        """Where the end of a run will be known."""
        end = self._ends.get(run)
        if end is None:
            end = self._ends[run] = _End()
        return end

    async def inquire(self, run: RunHandle[Any]) -> None:
        """Ask the home whether a run has ended; what was not heard is learnt this way."""
        try:
            reply = await self._ask(run.home, Ask(run.id), ASK_FIRST)
        except SegueError:
            return
        if isinstance(reply, Answer) and bytes(reply.ended) != b"null":
            self.end_of(run.id).set(envelope.decode_ended(envelope.decode(reply.ended)))

    async def _plan(self, record: FlowRecord) -> Plan:
        plan = await self._wiring.catalog.plan(record.plan)
        if plan is None:
            raise TransportUnavailable(f"plan {record.plan} of flow {record.flow!r} is not in the registry")
        return plan

    async def _ask(self, participant: str, request: Request, timeout: float) -> Reply:
        subject = self._wiring.subjects.requests(participant)
        answer = await self._wiring.transport.request(subject, requests.encode([request]), timeout)
        return requests.decode_replies(answer)[0]

    async def _listen(self, flow: str) -> None:
        ear = self._ears.get(flow)
        if ear is None:
            ear = self._ears[flow] = _Ear()
            # Not in the caller's task: that may be cancelled, and others wait for this.
            self._tasks.start_soon(self._hear, flow, ear)
        await ear.ready.wait()
        if ear.error is not None:
            raise ear.error

    async def _hear(self, flow: str, ear: _Ear) -> None:
        try:
            async with self._wiring.transport.listen([self._wiring.subjects.ended(flow)]) as messages:
                ear.ready.set()
                async for message in messages:
                    self._ended(message)
        except SegueError as error:
            log.warning("cannot listen to the ends of %s: %s", flow, error.message)
            ear.error = error
        del self._ears[flow]
        ear.ready.set()

    def _ended(self, message: Message) -> None:
        if not self._ends:
            return
        try:
            for raw in envelope.split(message.body):
                event = envelope.decode(raw)
                end = self._ends.get(event.run)
                if end is not None:
                    end.set(envelope.decode_ended(event))
        except InvalidInput as error:
            log.warning("unreadable message on %s: %s", message.subject, error.message)


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
