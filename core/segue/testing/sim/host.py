"""Processes of a simulation: real participants on simulated ports, which can be killed, stand still and start again."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
from anyio.abc import TaskGroup

from segue.plan.projection import COORDINATOR
from segue.ports.transport import Consumer, Delivery, Transport
from segue.runtime.catalog import Catalog
from segue.runtime.executor import Executor
from segue.runtime.overdue import LEASE
from segue.runtime.participant import Participant
from segue.runtime.roles import CoordinatorRole, ServiceRole
from segue.runtime.tickets import Ticket
from segue.runtime.work import Arrived, Input, Tick
from segue.testing.sim.broker import Queue, SimConsumer
from segue.testing.sim.ops import Pause, SimEvent, Task
from segue.testing.sim.steps import SimExecutor
from segue.testing.sim.store import Rows, SimStore
from segue.testing.sim.timeline import EPOCH

if TYPE_CHECKING:
    from segue.testing.sim.world import World

T = TypeVar("T")

POLL = 0.25
"""Seconds between two looks at due rows, if one of them came too early."""


UPTIME = 100_000.0
"""Seconds for which the machines had been up when the simulation began."""


class SimHost(Participant):
    """A process: a real participant whose time and ports are the simulation's.

    Args:
        world: The simulation.
        part: What it shares with its replicas.
        number: Which process it is.
    """

    def __init__(self, world: World, part: Part, number: int) -> None:
        name, self.world = part.name, world
        service = None if name == COORDINATOR else ServiceRole(name)
        catalog = Catalog(world.transport.registry)  # type: ignore[arg-type]
        catalog.flows.update(world.flows)
        if world.dice.rng.random() < 0.9:
            catalog.plans.update(world.plans)
        transport = cast(Transport, world.transport)
        super().__init__(name, service or CoordinatorRole(), transport, SimStore(part.rows), catalog, world.subjects)
        if service is not None:
            service.executor = cast(Executor, SimExecutor(self))
            service.tasks = cast(TaskGroup, self)
        self.part = part
        self.replica = f"{name}@{number}"
        self.alive = True
        self.dying: list[Callable[[], object]] = []
        self.stalled_until = 0.0
        self.turned = 0.0
        self._skew = world.dice.faults.skew * (2 * world.dice.rng.random() - 1)
        self._coroutines: list[Task] = []
        self._busy = False
        self._next_tick = inf

    # What the participant asks of its process.

    def now(self) -> datetime:
        """The wall clock, as wrong as it is."""
        return datetime.fromtimestamp(EPOCH + self._skew + self.world.timeline.now, UTC)

    def clock(self) -> float:
        """Virtual seconds since the machine was started."""
        return UPTIME + self.world.timeline.now

    def event(self) -> anyio.Event:
        """Something to wait for in virtual time."""
        return cast(anyio.Event, SimEvent())

    async def pause(self, seconds: float) -> None:
        """Wait in virtual time."""
        await Pause(seconds)

    def spawn(self, work: Callable[[T], Coroutine[Any, Any, None]], item: T) -> None:
        """Do something about a call, or a run, beside the turns."""
        self.run(work(item), _ignore)

    def put(self, *inputs: Input) -> None:
        """Give inputs to the next turn."""
        super().put(*inputs)
        self._wake()

    # What the world does to it.

    def deliver(self, delivery: Delivery, consumer: SimConsumer) -> None:
        """Bring a message."""
        self.put(Arrived(Ticket(delivery, cast(Consumer, consumer))))

    def ask(self, subject: str, body: bytes, reply: Callable[[bytes], None]) -> None:
        """Bring a request."""
        moving = subject == self.subjects.handovers(self.name)
        self.run(self.reception.handle(body, moving), reply)

    def claim(self) -> None:
        """Look at the due rows."""
        self.run(self.overdue.claim(), _ignore)

    def run(self, coroutine: Coroutine[Any, Any, Any], done: Callable[[Any], None]) -> None:
        """Run a coroutine in this process."""

        def over(value: Any) -> None:
            self._coroutines.remove(task)
            done(value)

        task = Task(self.world, coroutine, over, self)
        self._coroutines.append(task)
        task.resume()

    def kill(self) -> None:
        """End at once, whatever is under way."""
        self.alive = False
        for task in self._coroutines:
            task.drop()
        for end in self.dying:
            end()

    def _wake(self) -> None:
        if self._inbox and not self._busy:
            self._busy = True
            self.world.timeline.after(0.002 * self.world.dice.rng.random(), self._turn)

    def _turn(self) -> None:
        if self.alive:
            self.turned = self.world.timeline.now
            self.run(self.turn(), self._turn_over)

    def _turn_over(self, _: None) -> None:
        self._busy = False
        self._wake()
        if self.running or self.done:
            fresh = self.done or any(not job.parked_at for job in self.running.values())
            self._tick_at(self.world.timeline.now + (1.0 if fresh else LEASE / 3))

    def _tick_at(self, when: float) -> None:
        if when < self._next_tick:
            self._next_tick = when
            self.world.timeline.at(when, self._ticked, when)

    def _ticked(self, planned: float) -> None:
        if planned == self._next_tick and self.alive:
            self._next_tick = inf
            if self.running or self.done:
                self.put(Tick())


class Part:
    """A participant: its rows, its queues, and the slots in which its replicas run.

    Args:
        world: The simulation.
        name: The service's name, or `coordinator`.
        queues: Where its messages are.
    """

    def __init__(self, world: World, name: str, queues: list[Queue]) -> None:
        self.name = name
        self.rows = Rows(lambda key, value: world.recorded(self, key, value))
        self.away_until = 0.0
        self._world = world
        self._queues = queues
        self._slots: list[SimHost | None] = [None] * world.dice.faults.replicas
        self._down: set[int] = set()
        self._look_at = inf
        self._started = 0

    def member(self) -> SimHost | None:
        """One of its processes; None if all are down."""
        up = [slot for slot in range(len(self._slots)) if slot not in self._down]
        if not up:
            return None
        slot = up[0] if len(up) == 1 else self._world.dice.rng.choice(up)
        host = self._slots[slot]
        if host is None:
            self._started += 1
            host = self._slots[slot] = SimHost(self._world, self, self._started)
        return host

    @property
    def working(self) -> list[str]:
        """The calls that are running."""
        hosts = [host for host in self._slots if host is not None]
        return [f"{cell.run}/{cell.node}/{cell.tag}" for host in hosts for cell in host.running]

    def kill(self, host: SimHost) -> None:
        """Kill a process; another one starts in its place after a while."""
        host.kill()
        slot = self._slots.index(host)
        self._slots[slot] = None
        self._down.add(slot)
        self._world.timeline.after(20.0 * self._world.dice.rng.random() ** 2, self._restart, slot)

    def leave(self) -> None:
        """End all processes."""
        for host in self._slots:
            if host is not None:
                host.kill()

    def watch(self) -> None:
        """See to it that somebody looks at the due rows in time."""
        at = self.rows.earliest()
        if at is not None and at - EPOCH < self._look_at:
            self._look_later(max(at - EPOCH, self._world.timeline.now) + POLL * self._world.dice.rng.random())

    def _look_later(self, when: float) -> None:
        self._look_at = when
        self._world.timeline.at(when, self._look, when)

    def _look(self, planned: float) -> None:
        if planned != self._look_at:
            return
        self._look_at = inf
        at, now = self.rows.earliest(), self._world.timeline.now
        if at is None or at - EPOCH > now:
            self.watch()
            return
        host = self.member()
        if host is None or host.now().timestamp() < at:
            self._look_later(now + POLL)
        else:
            # Whoever looks may die or stand still before it has claimed anything; the others look too.
            self._look_later(now + 1.0)
            host.claim()

    def _restart(self, slot: int) -> None:
        self._down.discard(slot)
        for queue in self._queues:
            queue.hand_out()


def _ignore(_: Any) -> None:
    """Nobody waits for this."""
