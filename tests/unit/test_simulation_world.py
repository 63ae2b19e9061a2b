"""The simulated world: what it does to processes, messages and operations, and what it notices."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from segue.errors import StoreUnavailable
from segue.plan.graph import ENTRY, EXIT, RUN, Arg, Get, Node, Param, Plan, Region
from segue.ports.transport import Group, Message
from segue.testing.agreement import Case, agree
from segue.testing.behaviours import Scripted
from segue.testing.cases import KINDS
from segue.testing.sim.faults import QUIET, STORMY, WEATHER, Dice, Faults
from segue.testing.sim.log import listening
from segue.testing.sim.ops import Op, Pause, SimEvent, Task
from segue.testing.sim.simulate import CHILD, simulate
from segue.testing.sim.timeline import Timeline
from segue.testing.sim.world import Deployed, World, run_id
from segue.testing.story import Violation


def chain(*owners: str) -> Plan:
    """Steps one after the other."""
    nodes = [Node(ENTRY, "entry", owners[0])]
    for number, owner in enumerate(owners):
        nodes.append(Node(f"n{number}", "step", owner, step=f"n{number}", args=(Arg("a", Get(nodes[-1].id)),)))
    nodes.append(Node(EXIT, "exit", owners[0], args=(Arg("result", Get(nodes[-1].id)),)))
    return Plan("chain", owners[0], tuple(nodes), (Region(RUN, ENTRY, EXIT),), (Param("order", {}),), {}, (), {})


def test_time_jumps_to_what_happens_next() -> None:
    timeline, seen = Timeline(), []
    timeline.after(3600.0, lambda: seen.append(timeline.now))
    timeline.after(1.0, timeline.after, 1.0, lambda: seen.append(timeline.now))
    while timeline.step():
        pass
    assert seen == [2.0, 3600.0]
    assert timeline.steps == 3


class Immediate:
    """Answers operations at once, with an error if it is told to."""

    def __init__(self) -> None:
        self.timeline = Timeline()
        self.error: Exception | None = None

    def carry_out(self, task: Task, op: Op) -> None:
        value = None if self.error else op.effect()
        self.timeline.after(0.1, task.resume, value, self.error)

    def run(self) -> None:
        while self.timeline.step():
            pass


def test_a_coroutine_is_driven_by_answers() -> None:
    world, found, event = Immediate(), [], SimEvent()

    async def process() -> int:
        first: int = await Op("read", lambda: 20)
        await Pause(10.0)
        await event.wait()
        return first + await Op("write", lambda: 1)

    Task(world, process(), found.append).resume()
    world.timeline.after(60.0, event.set)
    world.run()
    assert found == [21]
    assert world.timeline.now == pytest.approx(60.1)


def test_an_error_is_raised_where_the_operation_is_awaited() -> None:
    world, found = Immediate(), []
    world.error = StoreUnavailable("away")

    async def process() -> str:
        try:
            await Op("read", lambda: "there")
        except StoreUnavailable as error:
            return error.message
        return "nothing"

    Task(world, process(), found.append).resume()
    world.run()
    assert found == ["away"]


def test_what_needs_an_event_loop_is_named() -> None:
    async def process() -> None:
        class Other:
            def __await__(self):
                yield "something else"

        await Other()

    with pytest.raises(TypeError, match="waits for 'something else', which needs an event loop"):
        Task(Immediate(), process(), lambda _: None).resume()


def test_only_groups_that_subscribed_hear_a_message() -> None:
    world = World([Deployed(chain("a", "b"), "choreographed")], 1, QUIET)
    broker = world.broker
    broker.declare(Group("events", "a", ("x.c.chain.n1.*",)))
    broker.declare(Group("events", "coordinator", ("x.>",)))
    hears = {
        queue.group.name
        for queue in broker.queues("a") + broker.queues("coordinator")
        if queue.hears("x.c.chain.n1.failed")
    }
    assert hears == {"a", "coordinator"}
    assert not any(queue.hears("x.c.chain.n0.failed") for queue in broker.queues("a"))
    assert not any(queue.hears("x.c.chain.n1.attempt.failed") for queue in broker.queues("a"))


def test_an_exact_repeat_is_dropped_for_a_while() -> None:
    world = World([Deployed(chain("a"), "choreographed")], 1, QUIET)
    seen = []
    world.broker.declare(Group("events", "a", ("x.>",)))
    world.member = lambda name: seen.append(name)
    message = Message("x.y", b"[]", "same")
    world.broker.publish([message, message])
    world.timeline.after(200.0, world.broker.publish, [message])
    while world.timeline.step():
        pass
    assert seen == ["a", "a"]


def test_dice_grow_calm() -> None:
    dice = Dice(1, Faults(losses=0.5))
    drawn = [dice.happens("losses", 0.5) for _ in range(2000)]
    assert dice.calm
    assert not any(drawn[1000:])
    assert dice.count == {"losses": sum(drawn)}
    assert not Dice(1, QUIET).happens("losses", 0.0)


def test_every_fault_happens() -> None:
    counts: dict[str, int] = {}
    plan = chain("a", "b", "c")
    for seed in range(30):
        trace = simulate(plan, Scripted(seed, 0, 0), ("orchestrated", "choreographed")[seed % 2], seed, faults=STORMY)
        assert trace.story.ends[-1].status == "completed"
        for name, count in trace.faults.items():
            counts[name] = counts.get(name, 0) + count
    assert set(counts) == {"crashes", "stalls", "outages", "losses", "duplicates", "errors"}


def test_good_weather_has_no_faults_and_takes_virtual_time_only() -> None:
    traces = agree(Case(chain("a", "b", "a"), Scripted(3, 0, 0)), 3)
    for trace in traces.values():
        assert trace.faults == {}
        assert [key.node for key, _, _ in trace.story.calls] == ["n0", "n1", "n2"]


def test_errors_that_participants_log_end_the_simulation() -> None:
    found: list[str] = []
    with listening(found):
        logging.getLogger("segue.turn").warning("the store is away")
        logging.getLogger("segue.turn").error("two outcomes")
        try:
            raise KeyError("n1")
        except KeyError:
            logging.getLogger("segue.participant").exception("a turn failed")
    assert found == ["two outcomes", "a turn failed: KeyError('n1')"]


def test_a_run_that_cannot_go_on_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.runtime.roles.ServiceRole.launch", lambda *_: None)
    with pytest.raises(Violation, match=r"nothing happens any more: .*undecided n0"):
        simulate(chain("a", "b"), Scripted(0, 0, 0), "choreographed", 0)


def test_runs_of_other_flows_are_simulated_too() -> None:
    plan = Plan(
        "parent",
        "s0",
        (
            Node(ENTRY, "entry", "s0"),
            Node("call", "flow", "s0", step="child", args=(Arg("a0", Get(ENTRY, ("order", "n"))),)),
            Node(EXIT, "exit", "s0", args=(Arg("result", Get("call")),)),
        ),
        (Region(RUN, ENTRY, EXIT),),
        (Param("order", {}),),
        {},
        (),
        {},
    )
    assert CHILD.flow == "child"
    for trace in agree(Case(plan, Scripted(1, 0, 0)), 1).values():
        assert [(key.node, args) for key, _, args in trace.story.calls] == [("call", {"a0": 4})]


PROGRAM = """
from segue.testing.cases import KINDS
from segue.testing.sim.faults import WEATHER
from segue.testing.sim.simulate import simulate
import hashlib
found = []
for seed in range(6):
    case = KINDS["pure"](seed)
    found.append(repr(simulate(case.plan, case.behaviour, "choreographed", seed, faults=WEATHER["stormy"])))
print(hashlib.sha256("".join(found).encode()).hexdigest())
"""


def test_a_seed_means_the_same_in_every_process() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": salt},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for salt in ("1", "2")
    }
    assert len(found) == 1


def test_run_ids_are_run_ids() -> None:
    assert len(run_id(7)) == 32
    assert run_id(7)[12] == "7"
    assert run_id(7) != run_id(8)
    assert set(WEATHER) == {"quiet", "rough", "lossy", "crowded", "stormy"}
    assert set(KINDS) == {"pure", "fickle", "timed", "retried", "ordered", "moved", "anywhere"}
