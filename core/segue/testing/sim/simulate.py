"""Runs one plan in a simulated world, and tells the story of the run."""

from __future__ import annotations

from typing import Any

import msgspec

from segue.plan.graph import ENTRY, EXIT, RUN, Arg, Get, Node, Param, Plan, Region
from segue.plan.projection import MODES, Mode
from segue.testing.behaviours import GIVEN, Behaviour
from segue.testing.sim.client import Signals
from segue.testing.sim.faults import QUIET, Faults
from segue.testing.sim.orders import Orders, Person
from segue.testing.sim.steps import ScriptedSteps
from segue.testing.sim.story import tell
from segue.testing.sim.world import Deployed, World, run_id
from segue.testing.story import Story

HICCUPS = 0.05
"""Share of attempts that fail and are tried again."""

CHILD = Plan(
    flow="child",
    home="s0",
    nodes=(
        Node(ENTRY, "entry", "s0"),
        Node("work", "step", "s0", step="work", args=(Arg("a0", Get(ENTRY, ("a0",), True)),), undo=True),
        Node(EXIT, "exit", "s0", args=(Arg("result", Get("work")),)),
    ),
    regions=(Region(RUN, ENTRY, EXIT),),
    inputs=(Param("a0", {}),),
    output={},
    contracts=(),
    types={},
)
"""The flow that generated plans call: one step, which does what the behaviour says of the calling node."""


class Trace(msgspec.Struct, frozen=True):
    """A simulated run.

    Attributes:
        story: What happened.
        faults: How many faults there were, by kind.
        events: Published events.
        seconds: Virtual seconds that it took.
        moves: How often the run was moved, all the way.
    """

    story: Story
    faults: dict[str, int]
    events: int
    seconds: float
    moves: int


def simulate(
    plan: Plan,
    behaviour: Behaviour,
    mode: Mode,
    seed: int,
    *,
    given: Any = GIVEN,
    faults: Faults = QUIET,
    orders: Orders | None = None,
) -> Trace:
    """Run a plan once.

    Args:
        plan: What to run.
        behaviour: What its steps do, and the signals that are sent.
        mode: Who decides.
        seed: Source of every interleaving and fault.
        given: The run's input.
        faults: What may go wrong.
        orders: What people ask of the run meanwhile.

    Raises:
        Violation: The participants complain, or it never ends.
    """
    flows = [Deployed(plan, mode)]
    if any(node.kind == "flow" for node in plan.nodes):
        flows.append(Deployed(CHILD, MODES[seed % 2]))
    world = World(flows, f"{seed}/{mode}", faults)
    world.steps = ScriptedSteps(world, behaviour, HICCUPS)
    run = run_id(seed)
    signals = Signals(world, plan, run, behaviour)
    person = Person(world, plan.flow, run, orders or Orders())

    def accepted(_: object) -> None:
        signals.early()
        person.begin()

    world.start(plan.flow, given, run, then=accepted)
    log = world.run()
    moves = {said.event.revision for said in log.said if said.event.kind == "moved"}
    return Trace(tell(world, run), dict(world.dice.count), len(log.said), world.timeline.now, len(moves))
