"""Moving a run to the other mode (R13), on behalf of who grants it: the coordinator, or the home.

    granted   the new epoch is recorded, with a due row behind it; from then on nothing is decided here
    handed    to the coordinator: every service of the plan yields what it knows, then the coordinator takes over
              to the services: each takes over what the coordinator knows; the home, which answers for it, is the last
    moved     said once everybody has it; the row goes

Each of these may be repeated: a service that is down, or the grantor's death, holds the move up and changes nothing.
The next move is granted by who has taken over, hence after this one.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from segue.errors import SegueError, TransportUnavailable
from segue.machine.facts import Key, Placed
from segue.plan.graph import RUN
from segue.plan.projection import COORDINATOR
from segue.ports.store import Cell, CellKey, Due
from segue.runtime.handover import Handover
from segue.runtime.outbox import Outbox
from segue.runtime.placing import moved, placement, waits
from segue.runtime.saying import make_event
from segue.runtime.work import RunRef
from segue.wire import envelope, requests
from segue.wire.requests import Done, Install, Page, Placing, Refused, Reply, Yield, Yielded

if TYPE_CHECKING:
    from segue.runtime.participant import Participant
    from segue.runtime.turn import Turn
    from segue.runtime.view import View

log = logging.getLogger("segue.moving")

Asking = Callable[[str], Awaitable[None]]

PATIENCE = 5.0
"""Seconds that a participant has to take over, or to yield, one page."""

AGAIN = 1.0
"""Seconds until those are asked again who did not answer."""

PATIENT = 9
"""Looks at a move that nobody has recorded, in doubling intervals from a second on, until it is dropped."""


class Silent(Exception):
    """Somebody has not got a run yet that is being moved."""


class Moving:
    """Moves runs.

    Args:
        host: The participant.
    """

    def __init__(self, host: Participant) -> None:
        self._host = host
        self.handover = Handover(host)

    def grant(self, turn: Turn, view: View, fact: Placed) -> None:
        """Move a run: the row behind it goes with the record of it."""
        self.go_on(turn, view.run._replace(mode=fact.mode, epoch=fact.epoch))
        turn.effects.choose(view, (fact,))

    def go_on(self, turn: Turn, run: RunRef) -> None:
        """Give a move its row, again if need be."""
        row = Due(run.row(Key(RUN), 1), turn.draft.now.timestamp(), 0, requests.encode_placing(_placing(run)))
        turn.draft.due[row.key] = row
        self._host.overdue.expect(row.at)

    async def drive(self, row: Due) -> None:
        """Go on with a move: hand over to those who have not got it."""
        to = requests.decode_placing(row.body)
        try:
            run = await self.handover.run(to)
            if run is None:
                raise TransportUnavailable(f"plan {to.plan} is not in the registry yet")
            await self._drive(run, to, row)
        except SegueError as error:
            log.warning("%s: moving run %s: %s", self._host.name, to.run, error.message)

    async def _drive(self, run: RunRef, to: Placing, row: Due) -> None:
        store = self._host.store
        cells = await store.scan([run.id])
        now = placement(cells)
        granted = now is not None and now.epoch >= run.epoch
        if not granted and row.attempt < PATIENT:  # whoever grants it is about to record that
            await self._later(row._replace(attempt=row.attempt + 1), 2.0**row.attempt)
            return
        if now is None or now.epoch != run.epoch or moved(run.id, run.epoch) in cells:
            await store.commit(done=[row.key])
            return
        try:
            if run.mode == "choreographed":
                await self._spread(run, to, cells)
            else:
                await self._collect(run, to)
        except Silent as error:
            log.warning("%s: run %s is being moved: %s", self._host.name, run.id, error)
            await self._later(row, AGAIN)
            return
        await self._say(run)
        await store.commit([Cell(moved(run.id, run.epoch), b"")], done=[row.key])

    async def _later(self, row: Due, seconds: float) -> None:
        at = self._host.now().timestamp() + seconds
        await self._host.store.commit(due=[row._replace(at=at)])
        self._host.overdue.expect(at)

    async def _spread(self, run: RunRef, to: Placing, cells: Mapping[CellKey, bytes]) -> None:
        """Let the services take over, the home last."""
        pages = [item.page for item in await self.handover.snapshot(run)]
        install = partial(self._install, run, to, pages)
        left = waits(run.plan, cells, run.id, Placed(run.epoch, run.mode))
        await self._each([name for name in left if name != run.plan.home], install)
        await self._each([run.plan.home], install)

    async def _collect(self, run: RunRef, to: Placing) -> None:
        """Let every service yield; then the coordinator has all of it, and takes over."""
        found: dict[str, list[Page]] = {}

        async def ask(name: str) -> None:
            pages: list[Page] = []
            more = True
            while more:
                reply = await self._ask(name, Yield(to, len(pages)))
                if not isinstance(reply, Yielded):
                    raise TransportUnavailable(f"{name} answered {reply}")
                pages.append(reply.page)
                more = reply.more
            found[name] = pages
            await self._has(run, name)

        await self._each(run.plan.index.services, ask)
        pages = [page for name in run.plan.index.services for page in found[name]]
        await self._each([COORDINATOR], partial(self._install, run, to, pages))

    async def _install(self, run: RunRef, to: Placing, pages: list[Page], name: str) -> None:
        for number, page in enumerate(pages):
            reply = await self._ask(name, Install(to, page, number == len(pages) - 1))
            if not isinstance(reply, Done):
                raise TransportUnavailable(f"{name} answered {reply}")
        await self._has(run, name)

    async def _has(self, run: RunRef, name: str) -> None:
        await self._host.store.commit([Cell(moved(run.id, run.epoch, name), b"")])

    async def _each(self, names: Sequence[str], ask: Asking) -> None:
        """Ask several at once.

        Raises:
            Silent: Some did not answer as they should.
        """
        silent: list[str] = []
        over = self._host.event()
        left = len(names)

        async def one(name: str) -> None:
            nonlocal left
            try:
                await ask(name)
            except SegueError as error:
                silent.append(f"{name} ({error.message})")
            left -= 1
            if not left:
                over.set()

        for name in names:
            self._host.spawn(one, name)
        if names:
            await over.wait()
        if silent:
            raise Silent(f"waits for {', '.join(sorted(silent))}")

    async def _ask(self, name: str, request: requests.Request) -> Reply:
        host = self._host
        answer = await host.transport.request(host.subjects.handovers(name), requests.encode([request]), PATIENCE)
        replies = requests.decode_replies(answer)
        return replies[0] if replies else Refused("no answer")

    async def _say(self, run: RunRef) -> None:
        """Publish that everybody has it."""
        host = self._host
        event = make_event(run, Placed(run.epoch, run.mode, True), host.source, host.now())
        outbox = Outbox(host.subjects, host.transport.capabilities.max_bytes, host.name)
        outbox.event(run.mode, event.flow, event.node, event.kind, envelope.encode(event))
        await host.transport.publish(outbox.messages())


def _placing(run: RunRef) -> Placing:
    return Placing(run.id, run.plan.hash, run.plan.flow, run.key, run.epoch, run.mode)
