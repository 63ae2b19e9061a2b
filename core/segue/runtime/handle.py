"""A run in the hands of who started or found it: its result, and what can be done to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
import msgspec

from segue.errors import InvalidInput, ResultTimeout, RunFailed
from segue.plan.projection import Mode
from segue.runtime.locate import homes
from segue.wire.envelope import Ended
from segue.wire.requests import Accepted, Done

if TYPE_CHECKING:
    from segue.runtime.client import Client

R = TypeVar("R")


class RunHandle(Generic[R]):
    """A run that was accepted, or found.

    Attributes:
        id: 32 hex digits of a UUIDv7; also its trace id.
        key: Its business key, or "".
        flow: The flow's name.
        mode: The mode that it ran in when it was accepted or found; it stays so unless the run is moved.
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
        self._end.others = homes(client.wiring, flow)

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

    async def move(self, mode: Mode) -> Done:
        """Let this run be decided in another mode from now on: see `Client.move`."""
        return await self._client.move(self, mode)

    async def retry(self, nodes: Sequence[str] = ()) -> Done:
        """Go on with this run after it failed: see `Client.retry`."""
        return await self._client.retry(self, nodes)


def _causes(ended: Ended) -> str:
    parts = [f"{cause.node} ({cause.error.type}: {cause.error.message})" for cause in ended.causes if cause.error]
    return "; ".join(parts) or ", ".join(cause.node for cause in ended.causes) or "no cause recorded"
