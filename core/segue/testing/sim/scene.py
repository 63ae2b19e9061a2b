"""Plays one run of an app's flow in a simulated world, with the real functions of its steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from segue.errors import DeclarationError
from segue.model.app import App
from segue.model.flow import Flow
from segue.model.step import Step
from segue.plan.projection import MODES, Mode
from segue.runtime.input import key_of
from segue.testing.behaviours import Sent
from segue.testing.sim.client import Signals
from segue.testing.sim.faults import Faults
from segue.testing.sim.log import Log
from segue.testing.sim.orders import Orders, Person
from segue.testing.sim.real import RealSteps
from segue.testing.sim.story import tell
from segue.testing.sim.world import Deployed, World, run_id
from segue.testing.story import Story


class Given(NamedTuple):
    """What is played: a flow with its input, as JSON builtins by parameter, and what happens to the run."""

    app: App
    flow: Flow[..., Any]
    values: dict[str, Any]
    signals: dict[str, Any]
    orders: Orders


class Scene(NamedTuple):
    """What happened."""

    run: str
    story: Story
    log: Log
    seconds: float


class _Outside:
    """Sends the signals that were given."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def signal(self, name: str, slot: str) -> Sent | None:
        """The signal for a slot, if one is ever sent."""
        if name not in self._values:
            return None
        value = self._values[name]
        if callable(value) and (value := value(slot)) is None:
            return None
        return Sent(msgspec.to_builtins(value), early=True)


def play(given: Given, mode: Mode, seed: int | None, faults: Faults) -> Scene:
    """Run a flow once.

    Args:
        given: What is played.
        mode: Who decides.
        seed: Source of every interleaving and fault.
        faults: What may go wrong.

    Raises:
        Violation: The participants complain, or it never ends.
        DeclarationError: The code of a step is not there.
    """
    plan = given.flow.plan
    flows = [Deployed(plan, mode)]
    for number, other in enumerate(given.app.flows.values()):
        if other is not given.flow:
            flows.append(Deployed(other.plan, mode if seed is None else MODES[(seed + number) % 2]))
    world = World(flows, f"{seed}/{mode}", faults)
    world.steps = steps = RealSteps(world, _code(given.app, flows))
    run = run_id(0)
    signals = Signals(world, plan, run, _Outside(given.signals))
    person = Person(world, plan.flow, run, given.orders)

    def accepted(_: object) -> None:
        if seed is None or seed % 2:
            signals.early()
        person.begin()

    world.start(plan.flow, given.values, run, key_of(plan, given.values), accepted)
    try:
        log = world.run()
    finally:
        steps.close()
    ended = [said.at for said in log.said if said.event.run == run and said.event.kind == "ended"]
    return Scene(run, tell(world, run), log, max(ended, default=world.timeline.now))


def _code(app: App, flows: list[Deployed]) -> dict[str, dict[str, Step[..., Any]]]:
    """The steps by service; what flows compute is there too."""
    found: dict[str, dict[str, Step[..., Any]]] = {name: dict(service.steps) for name, service in app.services.items()}
    for flow in app.flows.values():
        for step in flow.computed:
            found.setdefault(step.service, {})[step.name] = step
    called = dict.fromkeys((node.owner, node.step) for plan, _ in flows for node in plan.nodes if node.kind == "step")
    for service, name in called:
        code = found.get(service, {}).get(name)
        if code is None or not code.implemented:
            raise DeclarationError(
                f"the code of step {name!r} of service {service!r} is not here",
                f"list its service in the app: App(..., services=[{service}, ...])",
            )
    return found
