"""A simulated world: real participants, a store for each, a broker, clients, and a seed that decides what goes wrong.

Nothing here decides what a run does: that is the real code of the participants, driven coroutine by coroutine. The
world answers their operations: when, and whether at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from segue.errors import SegueError, StoreUnavailable, TransportUnavailable
from segue.plan.graph import Plan
from segue.plan.projection import COORDINATOR, Mode, holder
from segue.ports.store import CellKey, CellKind
from segue.ports.transport import Group
from segue.runtime.overdue import GUARD_LAST
from segue.runtime.placing import other
from segue.testing.sim.broker import SimBroker, SimRegistry, SimTransport
from segue.testing.sim.client import Clients, Then
from segue.testing.sim.faults import Dice, Faults
from segue.testing.sim.host import Part, SimHost
from segue.testing.sim.log import Log, Said, listening
from segue.testing.sim.ops import Op, Task
from segue.testing.sim.steps import Steps
from segue.testing.sim.timeline import EPOCH, Timeline
from segue.testing.story import Violation
from segue.wire import records
from segue.wire.records import FlowRecord
from segue.wire.requests import Start
from segue.wire.rights import rights
from segue.wire.subjects import Subjects

STEPS = 400_000
"""Things that may happen in one simulation; a run that does not end by then never will."""

PATIENCE = 3600.0
"""Virtual seconds without anything new after which the guards have had their chance."""


class Deployed(NamedTuple):
    """A flow of the simulation."""

    plan: Plan
    mode: Mode


class World:
    """A simulation.

    Args:
        flows: What is deployed.
        seed: Source of every choice.
        faults: What may go wrong.

    Attributes:
        timeline: Virtual time.
        dice: Draws.
        log: What happened.
        clients: Whoever asks something.
        watchers: Called with each cell that is written.
        steps: Runs attempts; to be set before anything is started.
    """

    steps: Steps

    def __init__(self, flows: Sequence[Deployed], seed: int | str, faults: Faults) -> None:
        self.timeline = Timeline()
        self.dice = Dice(seed, faults)
        self.subjects = Subjects()
        self.log = Log(self.timeline)
        self.plans = {deployed.plan.hash: deployed.plan for deployed in flows}
        self.flows = {plan.flow: FlowRecord(plan.flow, plan.hash, mode) for plan, mode in flows}
        entries = {f"{records.PLAN}.{name}": plan.json for name, plan in self.plans.items()}
        entries |= {f"{records.FLOW}.{name}": records.encode(record) for name, record in self.flows.items()}
        self.broker = SimBroker(self)
        self.transport = SimTransport(self.broker, SimRegistry(entries))
        self.clients = Clients(self)
        self.parts: dict[str, Part] = {}
        self.watchers: list[Callable[[str, CellKey, bytes], None]] = []
        self._away = self._hope = 0.0
        self._runs: dict[str, Plan] = {}
        known = rights(self.plans.values(), self.subjects)
        self._rights = {one.participant: frozenset(one.publish) for one in known}
        self._speaker = ""
        self.log.listeners.append(self._check_right)
        self._deploy()

    def homes(self, flow: str) -> tuple[str, ...]:
        """Who is asked about the runs of a flow, who starts them first."""
        record = self.flows[flow]
        plan = self.plans[record.plan]
        return holder(plan, record.mode), holder(plan, other(record.mode))

    def plan_of(self, run: str) -> Plan:
        """The plan of a run that a client started."""
        return self._runs[run]

    def member(self, name: str) -> SimHost | None:
        """A process of a participant that is up."""
        return self.parts[name].member()

    def start(self, flow: str, given: Any, run: str, key: str = "", then: Then | None = None) -> None:
        """Let a client start a run; when it is accepted, something else may follow."""
        record = self.flows[flow]
        start = Start(flow, run, msgspec.Raw(msgspec.json.encode(given)), key, record.plan, record.mode)
        self.log.modes[run] = record.mode
        self._runs[run] = self.plans[record.plan]
        self.clients.ask(flow, start, then=then)

    def run(self) -> Log:
        """Let everything happen.

        Raises:
            Violation: It never ends, or the participants complained.
        """
        timeline, log = self.timeline, self.log
        try:
            with listening(log.wrong):
                before = 0.0
                while timeline.step():
                    if timeline.now - before > 2 * GUARD_LAST:  # everybody slept
                        self._hope = timeline.now
                    before = timeline.now
                    if log.wrong:
                        raise Violation("; ".join(log.wrong))
                    if timeline.now - log.latest > GUARD_LAST and self._stuck():
                        raise Violation(f"nothing happens any more: {self.pending()}")
                    if timeline.steps > STEPS:
                        raise Violation(f"this never ends: {self.pending()}")
        finally:
            self.clients.leave()
            for part in self.parts.values():
                part.leave()
        return log

    def pending(self) -> list[str]:
        """What keeps the world going: calls, due rows, and nodes of the runs that could be decided and are not."""
        calls = [f"{part.name}: running {name}" for part in self.parts.values() for name in part.working]
        ready = [f"{run}: undecided {name}" for run, plan in self._runs.items() for name in self._ready(run, plan)]
        return [*calls[:10], *self.due()[:10], *ready[:10]]

    def due(self) -> list[str]:
        """The due rows that there are."""
        return [
            f"{part.name}: due {row.key.run}/{row.key.node}/{row.key.tag}"
            for part in self.parts.values()
            for row in part.rows.due.values()
        ]

    def _ready(self, run: str, plan: Plan) -> list[str]:
        """Nodes outside of maps and loops that nobody has decided, though their inputs are final."""
        cells = [key for _, key in self.log.cells if key.run == run and key.kind == CellKind.OUTCOME and not key.tag]
        final = {key.node for key in cells}
        ups = plan.index.ups
        return [name for name in ups if name not in final and final.issuperset(ups[name])]

    def _stuck(self) -> bool:
        """Whether nothing new can come: no calls, clients or faults, and nobody sleeps but what is repeated anyway."""
        if self.clients.expected or any(part.working for part in self.parts.values()):
            return False
        now = self.timeline.now
        rows = [row.at - EPOCH for part in self.parts.values() for row in part.rows.due.values()]
        self._hope = max([at for at in rows if at > now + 2 * GUARD_LAST], default=self._hope)
        if not rows or now - max(self.log.latest, self._hope) < PATIENCE:
            return False
        if self.dice.calm:
            return True
        self.dice.calm = True
        self._hope = now
        return False

    # What processes do.

    def carry_out(self, task: Task, op: Op) -> None:
        """Let an operation of a process happen after a while."""
        self.timeline.after(self.dice.delay(), self._happen, task, op)

    def _happen(self, task: Task, op: Op) -> None:
        dice, host = self.dice, task.owner
        if task.dropped:
            if dice.rng.random() < 0.5:  # it was on its way when its process died
                self._effect(host, op)
            return
        error = self._refusal(host, op)
        value = None
        if error is None:
            try:
                value = self._effect(host, op)
            except SegueError as failure:
                error = failure
        if isinstance(host, SimHost):
            if dice.crash():
                host.part.kill(host)
                return
            host.stalled_until = max(host.stalled_until, self.timeline.now + dice.stall())
        task.resume(value, error)

    def _effect(self, host: Any, op: Op) -> Any:
        self._speaker = host.name if isinstance(host, SimHost) else ""
        value = op.effect()
        if op.where == "write" and isinstance(host, SimHost):
            host.part.watch()
        return value

    def _refusal(self, host: Any, op: Op) -> SegueError | None:
        """Why an operation fails, if it does; it may have been carried out nevertheless."""
        dice, now = self.dice, self.timeline.now
        store = op.where in ("read", "write")
        away = host.part.away_until if store and isinstance(host, SimHost) else self._away
        if dice.outage():
            away = now + 60.0 * dice.rng.random() ** 2
            if store and isinstance(host, SimHost):
                host.part.away_until = away
            else:
                self._away = away
        if op.where == "receipt":
            if away > now or dice.happens("losses", dice.faults.losses):
                op.effect = _nothing
            return None
        if away <= now and not dice.happens("errors", dice.faults.errors):
            return None
        if away <= now and dice.rng.random() < 0.5:
            self._effect(host, op)
        elif away <= now and op.partly is not None:
            self._speaker = host.name
            op.partly()
        return StoreUnavailable("the store does not answer") if store else TransportUnavailable("no answer")

    def recorded(self, part: Part, key: CellKey, value: bytes) -> None:
        """A cell was written."""
        self.log.recorded(part.name, key, value)
        for watch in self.watchers:
            watch(part.name, key, value)

    def _check_right(self, said: Said) -> None:
        """Nobody needs to say more than its permissions at a broker allow."""
        author, subject = self._speaker, said.subject
        node, above = ".".join(subject.split(".")[:4]), subject.rpartition(".")[0]
        if self._rights[author].isdisjoint((subject, f"{above}.*", f"{node}.>")):
            self.log.wrong.append(f"{author} says {said.event.id} on {subject}, and has no right to")

    # Setting up.

    def _deploy(self) -> None:
        services = sorted({service for plan in self.plans.values() for service in plan.index.services})
        subjects, declare = self.subjects, self.broker.declare
        declare(Group("events", COORDINATOR, subjects.events_of(COORDINATOR)))
        for service in services:
            heard = {pattern for plan in self.plans.values() for pattern in subjects.heard(plan, service)}
            declare(Group("events", service, tuple(sorted(heard))))
            declare(Group("commands", service, subjects.commands_of(service)))
        for name in (COORDINATOR, *services):
            self.parts[name] = Part(self, name, self.broker.queues(name))


def run_id(number: int) -> str:
    """A run id, the same for the same number."""
    return f"{int(EPOCH * 1000) + number:012x}7000{0x8000_0000_0000_0000 + number:016x}"


def _nothing() -> None:
    """What is left of an acknowledgement that got lost."""
