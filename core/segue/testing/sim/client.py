"""Clients of a simulation: they start runs, send signals, and cancel, hold and retry runs, as often as it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from segue.errors import TransportUnavailable
from segue.plan.graph import Const, Plan
from segue.plan.names import RUN
from segue.ports.store import CellKey, CellKind
from segue.testing.behaviours import Sent
from segue.testing.sim.ops import Pause, Task
from segue.wire import requests
from segue.wire.requests import Refused, Reply, Request, Send, Start

if TYPE_CHECKING:
    from segue.testing.sim.world import World

PATIENCE = 5.0
"""Seconds after which a client asks again."""

Then = Callable[[Reply], None]


class Clients:
    """Whoever asks something of the participants.

    Args:
        world: The simulation.

    Attributes:
        expected: How many are still to come.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.expected = 0
        self._tasks: list[Task] = []

    def ask(self, flow: str, request: Request, after: float = 0.0, then: Then | None = None) -> None:
        """Let a client ask the home of a flow's runs, after some seconds, until there is an answer.

        A run that was moved is looked for at its other home, too.
        """
        task = Task(self._world, self._ask(self._world.homes(flow), request), then or self._world.log.answers.append)
        self._tasks.append(task)
        self.expected += 1
        self._world.timeline.after(after, self._begin, task)

    def _begin(self, task: Task) -> None:
        self.expected -= 1
        task.resume()

    def leave(self) -> None:
        """Give up whatever is under way."""
        for task in self._tasks:
            task.drop()

    async def _ask(self, homes: tuple[str, ...], request: Request) -> Reply:
        body = requests.encode([request])
        home = homes[0]
        while True:
            try:
                answer = await self._world.transport.request(self._world.subjects.requests(home), body, PATIENCE)
            except TransportUnavailable:
                await Pause(0.2)
                continue
            [reply] = requests.decode_replies(answer)
            if not isinstance(reply, Refused) or (isinstance(request, Start) and not reply.retry):
                return reply
            if not isinstance(request, Start):  # whoever does not know the run may have moved it
                home = homes[-1] if home == homes[0] else homes[0]
            await Pause(0.2)


class Sender(Protocol):
    """Knows the signals that are sent."""

    def signal(self, name: str, slot: str) -> Sent | None:
        """The signal for a slot, if one is ever sent."""
        ...


class Signals:
    """Sends to a run what a behaviour says, before or after its waits are open.

    Args:
        world: The simulation.
        plan: The run's plan.
        run: The run.
        behaviour: Knows the signals.
    """

    def __init__(self, world: World, plan: Plan, run: str, behaviour: Sender) -> None:
        self._world = world
        self._plan = plan
        self._run = run
        self._behaviour = behaviour
        self._sent: set[tuple[str, str]] = set()
        world.watchers.append(self._opened)

    def early(self) -> None:
        """Send what may be sent before anybody waits for it."""
        for node in self._plan.nodes:
            if node.kind == "wait" and (node.region == RUN or node.args):
                match = node.args[0].value if node.args else Const("")
                if isinstance(match, Const):
                    self._send(node.step, str(match.value), early=True)

    def _opened(self, part: str, key: CellKey, value: bytes) -> None:
        node = self._plan.index.nodes.get(key.node)
        if key.run == self._run and key.kind == CellKind.WAITING and node is not None and node.kind == "wait":
            self._send(node.step, requests.decode_nap(value).slot, early=False)

    def _send(self, name: str, slot: str, early: bool) -> None:
        signal = self._behaviour.signal(name, slot)
        if signal is None or (early and not signal.early) or (name, slot) in self._sent:
            return
        self._sent.add((name, slot))
        values = [signal.value, *signal.copies]

        def send(number: int) -> None:
            if number == len(values):
                return
            value = msgspec.Raw(msgspec.json.encode(values[number]))
            request = Send(self._run, name, value, slot, f"{name}/{slot}/{number}")
            self._world.log.signals.setdefault((name, slot), []).append(values[number])
            self._world.clients.ask(self._plan.flow, request, self._world.dice.travel(), lambda _: send(number + 1))

        send(0)
