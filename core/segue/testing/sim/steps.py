"""What the participants of a simulation run: scripted steps, in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from segue.machine.facts import Cause, Failure, Key, Outcome
from segue.runtime.work import Job, Returned
from segue.testing.behaviours import Behaviour
from segue.testing.sim.timeline import EPOCH
from segue.wire.envelope import Retrying

if TYPE_CHECKING:
    from segue.testing.sim.host import SimHost
    from segue.testing.sim.world import World

Done = Callable[[Returned], None]


class Steps(Protocol):
    """Runs attempts."""

    def attempt(self, host: SimHost, job: Job, began: datetime, done: Done) -> None:
        """Run one; later, `done` gets what it came to."""
        ...


class SimExecutor:
    """Stands for `Executor`: hands attempts to the world's steps.

    Args:
        host: The process.
    """

    def __init__(self, host: SimHost) -> None:
        self._host = host

    def start(self, tasks: object, jobs: Iterable[Job]) -> None:
        """Run attempts."""
        host = self._host
        for job in jobs:
            host.world.log.called(host, job)
            host.world.steps.attempt(host, job, host.now(), self._over)

    def _over(self, returned: Returned) -> None:
        host = self._host
        if not host.alive:
            return
        if host.stalled_until > host.world.timeline.now:
            host.world.timeline.at(host.stalled_until, self._over, returned)
        else:
            host.put(returned)


class ScriptedSteps:
    """Steps that do what a behaviour says, some of them not at the first attempt.

    The steps of a run of another flow do what the behaviour says of the node that it stands for.

    Args:
        world: The simulation.
        behaviour: What steps and undo calls come to.
        hiccups: Share of attempts that fail and are tried again.
    """

    def __init__(self, world: World, behaviour: Behaviour, hiccups: float) -> None:
        self._world = world
        self._behaviour = behaviour
        self._hiccups = hiccups

    def attempt(self, host: SimHost, job: Job, began: datetime, done: Done) -> None:
        """Run one: what it does is done at once, what it says comes later."""
        world = self._world
        log, tried = world.log, world.log.tried(job)
        parent = log.parents.get(job.run.id)
        key, revision = (job.key, job.revision) if parent is None else (Key(parent.node, parent.tag), parent.revision)
        if job.undo:
            error = self._behaviour.undo(key, revision, tried)
            done_well = Returned(job, "compensated", b"null", began)
            returned = done_well if error is None else self._again(job, began, error)
        elif world.dice.rng.random() < self._hiccups:
            returned = self._again(job, began, Failure("Hiccup", "not at once"))
        else:
            outcome = self._behaviour(key, job.args, revision, tried)
            returned = Returned(job, outcome.kind, _data(outcome), began)
        log.came_to(host.name, job, returned.kind)
        world.timeline.after(world.dice.duration(), done, returned)

    def _again(self, job: Job, began: datetime, error: Failure) -> Returned:
        at = EPOCH + self._world.timeline.now + 5.0 * self._world.dice.rng.random()
        data = msgspec.json.encode(Retrying(error, datetime.fromtimestamp(at, UTC), 9, job.undo))
        return Returned(job, "attempt.failed", data, began, "", at)


def _data(outcome: Outcome) -> bytes:
    if outcome.kind == "completed":
        value: Any = outcome.value
        return msgspec.json.encode(value)
    causes: tuple[Cause, ...] = outcome.causes
    return msgspec.json.encode(causes if outcome.kind == "cancelled" else causes[0].error)
