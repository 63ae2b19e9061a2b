"""The client: starts runs, awaits their results, asks where they are, and acts on them.

A run's id is minted here, before the start is sent, so that its end is not missed however soon it comes.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import anyio
import msgspec
from anyio.abc import TaskGroup

from segue.errors import (
    ConfigError,
    InvalidInput,
    NotAccepted,
    ResultTimeout,
    RunFailed,
    TransportUnavailable,
)
from segue.model.flow import Flow
from segue.plan.graph import Plan
from segue.plan.projection import Mode
from segue.ports.journal import Journal
from segue.runtime.actions import Actions
from segue.runtime.ends import Ends
from segue.runtime.ids import check_key, check_run_id, new_run_id
from segue.runtime.input import bind, key_of
from segue.runtime.locate import Located, homes
from segue.runtime.serving import Wiring
from segue.runtime.starter import Starter
from segue.runtime.tasks import task_group
from segue.runtime.where import RunView, where
from segue.wire.envelope import Ended
from segue.wire.records import FlowRecord
from segue.wire.requests import Accepted, Done, Refused, Send, Start

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
    """

    def __init__(self, client: Client, accepted: Accepted, flow: str, key: str, returns: Any) -> None:
        self.id = accepted.run
        self.key = key
        self.flow = flow
        self.mode: Mode = "choreographed" if accepted.mode == "choreographed" else "orchestrated"
        self.existing = accepted.existing
        self._client = client
        self._ends = client.ends
        self._returns = returns
        self._end = self._ends.of(accepted.run)
        self._end.homes = homes(client.wiring, flow, [self.mode])

    def __repr__(self) -> str:
        return f"<run {self.id} of {self.flow}, key {self.key!r}>"

    async def result(self, timeout: float | None = None) -> R:
        """Wait for the end and return the flow's value; of a run that is retried, the end of its newest revision.

        Args:
            timeout: Seconds to wait; None waits for ever. The run goes on if the time is over.

        Raises:
            RunFailed: A step failed and nothing caught it.
            ResultTimeout: The run has not ended in time.
            InvalidInput: The deployed flow's value does not fit the type declared here.
            ObjectLost: The value is large, and is not in the object store any more.
        """
        ended = await self.outcome(timeout)
        if ended.status != "completed":
            verb = "was cancelled" if ended.status == "cancelled" else ended.status
            raise RunFailed(f"run {self.id} of {self.flow} {verb}: {_causes(ended)}", f"segue where {self.id}")
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

    async def signal(
        self, name: str, value: Any = None, *, match: Any = None, tag: str = "", id: str | None = None
    ) -> Done:
        """Send a signal to this run: see `Client.signal`."""
        return await self._client.signal(self, name, value, match=match, tag=tag, id=id)

    async def cancel(self) -> Done:
        """Stop this run, and undo what it did: see `Client.cancel`."""
        return await self._client.cancel(self)

    async def pause(self) -> Done:
        """Let nothing more start in this run: see `Client.pause`."""
        return await self._client.pause(self)

    async def resume(self) -> Done:
        """Let this run go on: see `Client.resume`."""
        return await self._client.resume(self)

    async def retry(self, nodes: Sequence[str] = ()) -> Done:
        """Go on with this run after it failed: see `Client.retry`."""
        return await self._client.retry(self, nodes)


class Client:
    """Starts runs, awaits them and acts on them; safe to use from many tasks of one event loop.

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
        self.wiring = wiring
        self.ends = Ends(wiring, tasks)
        self._starter = Starter(wiring, tasks)
        self._actions = Actions(wiring, self.ends)

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
            PayloadTooLarge: The input is larger than values may be.
            StoreUnavailable: It is large, and the object store does not answer.
            NotAccepted: The home refused; no run exists.
            TransportUnavailable: The home did not answer; start again with the same key.
        """
        name = _name(flow)
        record = self.wiring.catalog.flow(name)
        plan = await self._plan(record)
        given = bind(flow if isinstance(flow, Flow) else None, plan, args, kwargs)
        encoded = msgspec.json.encode(given)
        values = self.wiring.values
        key = key_of(plan, given) if key is None else check_key(key)
        run = check_run_id(run_id) if run_id else new_run_id()
        await self.ends.listen(name)
        end = self.ends.of(run)
        caller = self.wiring.tracing.caller()
        start = Start(name, run, key=key, plan=record.plan, mode=record.mode, traceparent=caller)
        start = await values.enclose(start, encoded, f"the input of {name}")
        home, reply = await self._starter.send(start)
        if start.dataref and not (isinstance(reply, Accepted) and reply.run == run):
            await values.forget(run)  # this run will not be
        if isinstance(reply, Refused):
            raise (TransportUnavailable if reply.retry else NotAccepted)(reply.reason, reply.hint)
        if not isinstance(reply, Accepted):
            raise NotAccepted(f"{home} answered a start with {type(reply).__name__}")
        handle: RunHandle[R] = RunHandle(self, reply, name, key, _returns(flow))
        del end  # the handle keeps it from now on
        return handle

    async def get(self, flow: Flow[..., R] | str, key: str) -> RunHandle[R]:
        """The run of a business key.

        Raises:
            UnknownFlow: The flow is not deployed.
            UnknownRun: No run of this flow has the key.
            TransportUnavailable: The home of the flow did not answer.
        """
        found = await self._actions.locator.key(key, _name(flow))
        return await self._handle(found, key, _returns(flow))

    async def find(self, text: str, flow: Flow[..., R] | str = "") -> RunHandle[R]:
        """The run of an id or a business key.

        Args:
            text: The id or the key, as a whole.
            flow: Its flow; by default it may be of any.

        Raises:
            UnknownFlow: The flow is not deployed.
            UnknownRun: There is none.
            AmbiguousRun: Runs of several flows have the key.
            TransportUnavailable: Who might know it did not answer.
        """
        found = await self._actions.locator.locate(text, _name(flow))
        return await self._handle(found, "" if found.run == text else text, _returns(flow))

    async def signal(
        self,
        run: RunHandle[Any] | str,
        name: str,
        value: Any = None,
        *,
        match: Any = None,
        tag: str = "",
        id: str | None = None,
        flow: Flow[..., Any] | str = "",
    ) -> Done:
        """Send a signal to a run, for a `wait_for` of this name; it is kept if the run does not wait for it yet.

        Args:
            run: A handle, an id, or a business key.
            name: The signal's name.
            value: What `wait_for` gives.
            match: Which of several waits it is for: the value of their `match`.
            tag: Which item or round it is for, as "3" or "3.0", if they have no `match`.
            id: The same id again changes nothing; a new one by default.
            flow: The run's flow, if it is named by a key that several flows may use.

        Returns:
            Whether it changed anything: of several signals for one wait the first one counts.

        Raises:
            InvalidInput: The flow waits for no such signal, or the value does not fit its type.
            PayloadTooLarge: The value is larger than values may be.
            UnknownRun: There is no such run.
            AmbiguousRun: Runs of several flows have the key.
            NotAccepted: The home refused.
            TransportUnavailable: The home did not answer; send it again with the same `id`.
        """
        found = await self._located(run, flow)
        return await self._actions.signal(found, Send(found.run, name, slot=tag, id=id or ""), match, value)

    async def cancel(self, run: RunHandle[Any] | str, *, flow: Flow[..., Any] | str = "") -> Done:
        """Stop a run: nothing starts in it any more, and what it did is undone; then it ends as cancelled.

        Args:
            run: A handle, an id, or a business key.
            flow: The run's flow, if it is named by a key that several flows may use.

        Returns:
            Whether it changed anything; not if the run has ended, or is being stopped.

        Raises:
            UnknownRun: There is no such run.
            AmbiguousRun: Runs of several flows have the key.
            NotAccepted: The home refused.
            TransportUnavailable: The home did not answer; try it again.
        """
        return await self._actions.cancel(await self._located(run, flow))

    async def pause(self, run: RunHandle[Any] | str, *, flow: Flow[..., Any] | str = "") -> Done:
        """Let nothing more start in a run, until it is resumed; what runs already goes on to its end.

        Arguments and errors are those of `cancel`.
        """
        return await self._actions.hold(await self._located(run, flow), True)

    async def resume(self, run: RunHandle[Any] | str, *, flow: Flow[..., Any] | str = "") -> Done:
        """Let a paused run go on. Arguments and errors are those of `cancel`."""
        return await self._actions.hold(await self._located(run, flow), False)

    async def retry(
        self, run: RunHandle[Any] | str, nodes: Sequence[str] = (), *, flow: Flow[..., Any] | str = ""
    ) -> Done:
        """Go on with a run that ended: decide anew what failed or was undone, and all that follows from it.

        Args:
            run: A handle, an id, or a business key.
            nodes: Names of nodes to run again, too; `name/tag` for one item of a map or one round of a loop ("pick/3"),
                with all rounds that follow.
            flow: The run's flow, if it is named by a key that several flows may use.

        Returns:
            Whether it changed anything; not if the run has not ended.

        Raises:
            InvalidInput: The flow has no such node.
            UnknownRun: There is no such run.
            AmbiguousRun: Runs of several flows have the key.
            NotAccepted: The home refused.
            TransportUnavailable: The home did not answer; try it again.
        """
        return await self._actions.retry(await self._located(run, flow), nodes)

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
        return await where(self._journal, text, self.wiring.transport, self.wiring.values)

    async def aclose(self) -> None:
        """Close what this client opened."""
        if self._journal is not None:
            await self._journal.aclose()

    async def _plan(self, record: FlowRecord) -> Plan:
        plan = await self.wiring.catalog.plan(record.plan)
        if plan is None:
            raise TransportUnavailable(f"plan {record.plan} of flow {record.flow!r} is not in the registry")
        return plan

    async def _located(self, run: RunHandle[Any] | str, flow: Flow[..., Any] | str) -> Located:
        if isinstance(run, RunHandle):
            return await self._actions.locator.run(run.id, run.flow)
        return await self._actions.locator.locate(run, _name(flow))

    async def _handle(self, found: Located, key: str, returns: Any) -> RunHandle[Any]:
        await self.ends.listen(found.plan.flow)
        handle: RunHandle[Any] = RunHandle(self, Accepted(found.run, found.mode, True), found.plan.flow, key, returns)
        if found.ended is not None:
            self.ends.of(found.run).set(found.ended)
        return handle


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
