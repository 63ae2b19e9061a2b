"""Where a run is decided: its home is found by asking all participants that may be it.

A run keeps the plan that it started with, and the mode unless it is moved, so its home may be another one than that of
the flow's new runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import anyio

from segue.errors import AmbiguousRun, InvalidInput, SegueError, TransportUnavailable, UnknownRun
from segue.plan.graph import Plan
from segue.plan.projection import COORDINATOR, MODES, Mode, holder
from segue.runtime.ids import check_key, check_run_id
from segue.runtime.serving import Wiring
from segue.wire import envelope, requests
from segue.wire.envelope import Event
from segue.wire.requests import Answer, Ask, Find, Found, Refused, Reply, Request

ANSWER = 5.0
"""Seconds that a participant has to answer."""

Replies = dict[str, list[Reply] | None]
"""By participant; None: it did not answer."""


class Located(NamedTuple):
    """A run, and who decides its end; `ended` tells of the end of its newest revision, if it has ended.

    `epoch` is that of its placement. `moving`: it is being handed over from there to that mode, and has still to get
    to those in `waits`.
    """

    run: str
    plan: Plan
    mode: Mode
    home: str
    ended: Event | None = None
    epoch: int = 1
    moving: Mode | None = None
    waits: tuple[str, ...] = ()


def homes(wiring: Wiring, flow: str, modes: Iterable[Mode] = MODES) -> tuple[str, ...]:
    """Who may be the home of a run of a flow, whatever plan it started with; who starts new ones first.

    Raises:
        UnknownFlow: The flow is not deployed.
    """
    catalog = wiring.catalog
    record = catalog.flow(flow)
    plans = sorted((plan for plan in catalog.plans.values() if plan.flow == flow), key=lambda p: p.hash != record.plan)
    ordered = sorted(modes, key=lambda mode: mode != record.mode)
    return tuple(dict.fromkeys(holder(plan, mode) for mode in ordered for plan in plans))


class Locator:
    """Finds runs.

    Args:
        wiring: Transport, catalog and subjects.
    """

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring

    async def locate(self, text: str, flow: str = "") -> Located:
        """The run of an id or a key.

        Args:
            text: Its id or its key, as a whole.
            flow: Its flow; by default it may be of any.

        Raises:
            UnknownFlow: The flow is not deployed.
            UnknownRun: There is none.
            AmbiguousRun: Runs of several flows have the key.
            TransportUnavailable: Who might know it did not answer.
        """
        try:
            return await self.run(check_run_id(text), flow)
        except (InvalidInput, UnknownRun):
            return await self.key(text, flow)

    async def run(self, run: str, flow: str = "") -> Located:
        """The run of an id.

        Raises:
            UnknownFlow: The flow is not deployed.
            UnknownRun: There is none.
            TransportUnavailable: Who might know it did not answer.
        """
        flows = self._flows(flow)
        replies = await self._ask_all({home: [Ask(run)] for name in flows for home in homes(self._wiring, name)})
        known = [
            (home, answer)
            for home, answers in replies.items()
            for answer in answers or ()
            if isinstance(answer, Answer) and answer.known
        ]
        # At the end of a move two may know it: who has taken over, and who has not heard that everybody has.
        for home, answer in sorted(known, key=lambda found: found[1].moving is not None):
            return await self._located(run, home, answer)
        raise self._unknown(f"no run has the id {run}", flows, replies)

    async def key(self, key: str, flow: str = "") -> Located:
        """The run of a business key.

        Raises:
            UnknownFlow: The flow is not deployed.
            UnknownRun: There is none.
            AmbiguousRun: Runs of several flows have it.
            TransportUnavailable: Who might know it did not answer.
        """
        flows = self._flows(flow)
        asked: dict[str, list[Find]] = {}
        for name in flows:
            for home in homes(self._wiring, name):
                asked.setdefault(home, []).append(Find(name, check_key(key)))
        replies = await self._ask_all(asked)
        found: dict[str, str] = {}
        for home, finds in asked.items():
            for find, reply in zip(finds, replies[home] or (), strict=False):
                if isinstance(reply, Found) and reply.run:
                    found.setdefault(find.flow, reply.run)
        if len(found) > 1:
            names = ", ".join(sorted(found))
            raise AmbiguousRun(f"runs of several flows have the key {key!r}: {names}", "name the flow, or the run's id")
        for name, run in found.items():
            return await self.run(run, name)
        what = f"no run of {flow!r}" if flow else "no run"
        raise self._unknown(f"{what} has the key {key!r}", flows, replies)

    def _flows(self, flow: str) -> list[str]:
        return [self._wiring.catalog.flow(flow).flow] if flow else sorted(self._wiring.catalog.flows)

    async def _located(self, run: str, home: str, answer: Answer) -> Located:
        plan = await self._wiring.catalog.plan(answer.plan)
        if plan is None:
            raise TransportUnavailable(f"plan {answer.plan} of run {run} is not in the registry")
        mode: Mode = "orchestrated" if home == COORDINATOR else "choreographed"
        return Located(run, plan, mode, home, ended_event(answer), answer.epoch, answer.moving, answer.waits)

    async def _ask_all(self, asked: Mapping[str, Sequence[Request]]) -> Replies:
        replies: Replies = dict.fromkeys(asked)

        async def question(home: str, questions: Sequence[Request]) -> None:
            try:
                found = await ask(self._wiring, home, questions, ANSWER)
            except SegueError:
                return
            if not any(isinstance(reply, Refused) and reply.retry for reply in found):
                replies[home] = found

        async with anyio.create_task_group() as tasks:
            for home, questions in asked.items():
                tasks.start_soon(question, home, questions)
        return replies

    def _unknown(self, message: str, flows: list[str], replies: Replies) -> SegueError:
        """Nobody knows a run; if those where new runs start did not answer, it may exist."""
        silent = sorted(
            {homes(self._wiring, name)[0] for name in flows if replies[homes(self._wiring, name)[0]] is None}
        )
        if silent:
            names = ", ".join(silent)
            return TransportUnavailable(f"{message} where it was asked for, but {names} did not answer")
        return UnknownRun(message, "list runs with `segue runs`")


def ended_event(answer: Answer) -> Event | None:
    """The end that an answer tells of."""
    return None if bytes(answer.ended) == b"null" else envelope.decode(answer.ended)


async def ask(wiring: Wiring, home: str, questions: Sequence[Request], timeout: float) -> list[Reply]:
    """Ask a participant; one reply to a request.

    Raises:
        TransportUnavailable: It did not answer in time.
        InvalidInput: Its answer cannot be read.
    """
    answer = await wiring.transport.request(wiring.subjects.requests(home), requests.encode(list(questions)), timeout)
    replies = requests.decode_replies(answer)
    if len(replies) != len(questions):
        raise InvalidInput(f"{home} gave {len(replies)} replies to {len(questions)} requests")
    return replies
