"""The client: starts runs, awaits their results, asks where they are, and acts on them.

A run's id is minted here, before the start is sent, so that its end is not missed however soon it comes.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import msgspec
from anyio.abc import TaskGroup

from segue.errors import (
    ConfigError,
    InvalidInput,
    NotAccepted,
    TransportUnavailable,
)
from segue.model.flow import Flow
from segue.plan.graph import Plan
from segue.plan.projection import MODES, Mode
from segue.ports.journal import Journal
from segue.runtime.actions import Actions
from segue.runtime.ends import Ends
from segue.runtime.handle import RunHandle
from segue.runtime.ids import check_key, check_run_id, new_run_id
from segue.runtime.input import bind, key_of
from segue.runtime.locate import Located
from segue.runtime.serving import Wiring
from segue.runtime.starter import Starter
from segue.runtime.tasks import task_group
from segue.runtime.where import RunView, where
from segue.wire.records import FlowRecord
from segue.wire.requests import Accepted, Done, Refused, Send, Start

log = logging.getLogger("segue.client")
R = TypeVar("R")


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

    async def move(self, run: RunHandle[Any] | str, mode: Mode, *, flow: Flow[..., Any] | str = "") -> Done:
        """Let a run that is under way be decided in the other mode from now on; it goes on where it is.

        What has happened is kept, what is running ends, waits and timers keep their times. Until everybody concerned
        has taken over, nothing new starts in the run, and signals and the like wait.

        Args:
            run: A handle, an id, or a business key.
            mode: `orchestrated` or `choreographed`.
            flow: The run's flow, if it is named by a key that several flows may use.

        Returns:
            Whether it changed anything; not if the run has ended, is in that mode, or is being moved. If it takes
            longer than 2 seconds, `note` says who has to get it still; it goes on by itself.

        Raises:
            InvalidInput: There is no such mode.
            UnknownRun: There is no such run.
            AmbiguousRun: Runs of several flows have the key.
            NotAccepted: The home refused.
            TransportUnavailable: The home did not answer; try it again.
        """
        if mode not in MODES:
            raise InvalidInput(f"there is no mode {mode!r}", f"modes: {', '.join(MODES)}")
        return await self._actions.move(await self._located(run, flow), mode)

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
