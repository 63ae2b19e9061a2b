"""What differs between the participants: which nodes they decide, and what it means to invoke one.

coordinator   all nodes of orchestrated runs   a command to the owning service
service       its nodes of choreographed runs  a local call
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec
from anyio.abc import TaskGroup

from segue.machine.facts import Cause, Failure, Outcome
from segue.plan.graph import ENTRY, EXIT, Plan
from segue.plan.projection import PUBLIC, Mode, project
from segue.ports.transport import Channel
from segue.runtime.executor import Executor
from segue.runtime.work import Job
from segue.wire import envelope

if TYPE_CHECKING:
    from segue.runtime.turn import Turn

_NONE: frozenset[str] = frozenset()
_GATES = frozenset({ENTRY, EXIT})


INPUT_ROOM = 100
"""Bytes of a command for each attempt that it names as an input."""


class Role(Protocol):
    """A kind of participant. `executes`: invoking means running a step here."""

    channels: Sequence[Channel]
    executes: bool

    def mine(self, plan: Plan, mode: Mode) -> frozenset[str]:
        """The nodes that it decides."""
        ...

    def emits(self, plan: Plan, mode: Mode) -> frozenset[str]:
        """Those of its nodes whose decisions are published."""
        ...

    def refuses(self, turn: Turn, job: Job) -> Outcome | None:
        """The outcome of a call that cannot be made."""
        ...

    def launch(self, turn: Turn, jobs: list[Job]) -> None:
        """Make the calls of a turn."""
        ...

    def withdraw(self, turn: Turn, job: Job) -> None:
        """Say that a call which may have begun is not needed any more."""
        ...


class CoordinatorRole:
    """Holds all nodes of orchestrated runs and sends commands."""

    channels: Sequence[Channel] = ("events",)
    executes = False

    def __init__(self) -> None:
        self._nodes: dict[str, frozenset[str]] = {}
        self._public: dict[str, frozenset[str]] = {}

    def mine(self, plan: Plan, mode: Mode) -> frozenset[str]:
        """All nodes, if orchestrated."""
        if mode != "orchestrated":
            return _NONE
        found = self._nodes.get(plan.hash)
        if found is None:
            found = self._nodes[plan.hash] = frozenset(plan.index.nodes)
        return found

    def emits(self, plan: Plan, mode: Mode) -> frozenset[str]:
        """What is public and no service says: nobody waits for anything else but the coordinator."""
        found = self._public.get(plan.hash)
        if found is None:
            said = PUBLIC - {"step", "flow"}
            found = self._public[plan.hash] = _GATES | {node.id for node in plan.nodes if node.kind in said}
        return found

    def refuses(self, turn: Turn, job: Job) -> Outcome | None:
        """A command must fit into a message, or its arguments into the object store."""
        values = turn.host.values
        size = len(msgspec.json.encode(job.args))
        travels = min(size, values.limits.inline) if values.largest > values.max_event else size
        if size <= values.largest and travels + INPUT_ROOM * len(job.inputs) <= values.max_event:
            return None
        error = Failure("PayloadTooLarge", values.too_large(f"the arguments of {job.key.node}", size).message)
        return Outcome("failed", causes=(Cause(job.key.node, job.key.tag, error),))

    def launch(self, turn: Turn, jobs: list[Job]) -> None:
        """Send commands; the deliveries behind them need not wait for the results."""
        values = turn.host.values
        for job in families(turn, jobs):
            node = job.run.plan.index.nodes[job.key.node]
            call = job.call(turn.host.source, turn.draft.now)
            turn.draft.outbox.call(node.owner, node.step, values.encode(call)[1])
            for ticket in job.tickets:
                ticket.holds -= 1

    def withdraw(self, turn: Turn, job: Job) -> None:
        """Tell the service; a run of another flow is cancelled."""
        for call in _cancelled(turn, job):
            node = call.run.plan.index.nodes[call.key.node]
            command = call.call(turn.host.source, turn.draft.now, withdraw=True)
            turn.draft.outbox.call(node.owner, node.step, envelope.encode(command))


def families(turn: Turn, jobs: list[Job]) -> list[Job]:
    """Start, or undo, the runs of other flows among these jobs; the rest."""
    rest = []
    for job in jobs:
        if job.run.plan.index.nodes[job.key.node].kind == "flow":
            turn.host.spawn(turn.host.families.undo if job.undo else turn.host.families.start, job)
        else:
            rest.append(job)
    return rest


def _cancelled(turn: Turn, job: Job) -> list[Job]:
    if job.run.plan.index.nodes[job.key.node].kind != "flow":
        return [job]
    turn.host.spawn(turn.host.families.cancel, job)
    return []


class ServiceRole:
    """Holds a service's nodes of choreographed runs, and executes its steps in both modes.

    Args:
        service: The service's name.
    """

    channels: Sequence[Channel] = ("events", "commands")
    executes = True

    def __init__(self, service: str) -> None:
        self._projections = _Projections(service)
        self.executor: Executor | None = None
        self.tasks: TaskGroup | None = None

    def mine(self, plan: Plan, mode: Mode) -> frozenset[str]:
        """Its own nodes, if choreographed."""
        return self._projections.of(plan).mine if mode == "choreographed" else _NONE

    def emits(self, plan: Plan, mode: Mode) -> frozenset[str]:
        """What its projection says."""
        return self._projections.of(plan).emits if mode == "choreographed" else _NONE

    def refuses(self, turn: Turn, job: Job) -> Outcome | None:
        """Nothing: a local call has no size."""
        return None

    def launch(self, turn: Turn, jobs: list[Job]) -> None:
        """Run the steps; they come back as inputs of a later turn."""
        assert self.executor is not None
        assert self.tasks is not None
        jobs = families(turn, jobs)
        now = turn.host.clock()
        for job in jobs:
            job.started = now
            turn.host.running[job.cell] = job
        if jobs:
            self.executor.start(self.tasks, jobs)

    def withdraw(self, turn: Turn, job: Job) -> None:
        """No attempt follows the one that runs; a run of another flow is cancelled."""
        for call in _cancelled(turn, job):
            running = turn.host.running.get(call.cell)
            if running is not None:
                running.withdrawn = True


class _Sets(NamedTuple):
    mine: frozenset[str]
    emits: frozenset[str]


class _Projections:
    """Node sets of one participant, by plan hash: they are asked for at every fact."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._known: dict[str, _Sets] = {}

    def of(self, plan: Plan) -> _Sets:
        """The sets of a plan."""
        found = self._known.get(plan.hash)
        if found is None:
            part = project(plan, self._service)
            found = _Sets(frozenset(part.nodes), frozenset(emission.node for emission in part.emits))
            self._known[plan.hash] = found
        return found
