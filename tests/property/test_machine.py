"""Random plans, both modes, any weather: always what the independent evaluator says, and what must hold anyway."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime

import msgspec
import pytest

from segue.machine.facts import Fact, Key
from segue.plan.graph import EXIT, load
from segue.plan.projection import MODES, project
from segue.testing.agreement import Case, agree
from segue.testing.behaviours import GIVEN, Scripted
from segue.testing.cases import KINDS, pure
from segue.testing.graphs import workflow_like
from segue.testing.reference import evaluate
from segue.testing.sim.faults import WEATHER
from segue.testing.sim.simulate import Trace, simulate
from segue.wire.envelope import SPEC, Event, decode, encode
from segue.wire.said import fact_of, say
from segue.wire.subjects import Subjects

SEEDS = {"pure": 50, "fickle": 50, "timed": 30, "retried": 30, "ordered": 16}
"""Cases of each kind in a quick run; `make soak` tries more."""


@pytest.mark.parametrize("weather", WEATHER)
@pytest.mark.parametrize("kind", SEEDS)
@pytest.mark.usefixtures("joins", "patience")
def test_runs_are_what_they_must_be(kind, weather):
    executed = sum(runs(kind, seed, weather) for seed in range(SEEDS[kind]))
    assert executed > SEEDS[kind], "next to nothing ran"


def runs(kind: str, seed: int, weather: str) -> int:
    """How many steps were executed in both modes, if both runs are what they must be."""
    return sum(sum(trace.story.executions.values()) for trace in agreed(kind, seed, weather))


def agreed(kind: str, seed: int, weather: str) -> list[Trace]:
    """The runs of a case in both modes, if both are what they must be."""
    try:
        return list(agree(KINDS[kind](seed), seed, WEATHER[weather]).values())
    except Exception as error:
        pytest.fail(f"python -m segue.testing.soak --seed {seed} --kind {kind} --weather {weather}: {error}")


@pytest.mark.parametrize("weather", WEATHER)
@pytest.mark.usefixtures("patience")
def test_moved_runs_are_what_they_must_be(weather):
    """Moved up to three times from either mode, to the other and back: the same as if they had stayed."""
    traces = [trace for seed in range(40) for trace in agreed("moved", seed, weather)]
    assert sum(trace.moves for trace in traces) > 40
    assert sum(trace.moves > 1 for trace in traces) > 10


def test_steps_do_run_twice_in_bad_weather():
    repeated: Counter[str] = Counter()
    for seed in range(120):
        for weather, faults in WEATHER.items():
            trace = simulate(*KINDS["fickle"](seed)[:2], MODES[seed % 2], seed, faults=faults)
            repeated[weather] += sum(count > 1 for count in trace.story.executions.values())
    assert repeated["quiet"] == 0
    assert all(repeated[weather] > 3 for weather in WEATHER if weather != "quiet"), repeated


@pytest.mark.parametrize("weather", WEATHER)
def test_the_same_seed_tells_the_same_story(weather):
    for seed in range(20):
        plan, behaviour, *_ = KINDS["timed"](seed)
        one, other = (
            simulate(plan, behaviour, "choreographed", seed, faults=WEATHER[weather]) for _ in ("once", "again")
        )
        assert one == other


def test_plans_survive_serialisation():
    for seed in range(300):
        plan = pure(seed).plan
        again = load(plan.json)
        assert again == plan
        assert again.hash == plan.hash
        assert again.json == plan.json


def test_every_outcome_survives_the_wire():
    for seed in range(200):
        case = pure(seed)
        found = evaluate(case.plan, GIVEN, case.behaviour)
        for key, outcome in found.outcomes.items():
            fact = Fact(key, outcome)
            assert fact_of(decode(encode(announce(case.plan, fact)))) == fact


def announce(plan, fact):
    said = say(fact)
    return Event(
        id=said.id("0" * 32),
        source="segue/s0",
        type=f"segue.{said.kind}",
        subject=f"{plan.flow}/{said.node}",
        time=datetime(2026, 1, 1, tzinfo=UTC),
        run="0" * 32,
        plan=plan.hash,
        flow=plan.flow,
        node=said.node,
        specversion=SPEC,
        data=msgspec.Raw(said.data),
        winners=said.winners,
        tag=said.tag,
        revision=said.revision,
    )


def test_subscriptions_are_exactly_what_somebody_emits():
    subjects = Subjects()
    for seed in range(200):
        plan = pure(seed).plan
        said, heard = {}, {}
        for service in plan.index.services:
            said.update({emission.node: set(emission.heard_by) for emission in project(plan, service).emits})
        for service in plan.index.services:
            seen = project(plan, service)
            # The owner of a call of another flow hears what became of it from the child's home.
            assert all(plan.index.nodes[node].kind == "flow" for node in set(seen.hears) & set(seen.nodes))
            assert len(subjects.heard(plan, service)) == 1 + len(seen.hears)
            for node in seen.hears:
                heard.setdefault(node, set()).add(service)
        assert {node: hearers for node, hearers in said.items() if hearers} == heard


@pytest.mark.parametrize("nodes", [10, 97, 500, 1738])
@pytest.mark.parametrize("weather", ["quiet", "rough", "lossy"])
def test_graphs_of_the_size_of_real_workflows(nodes, weather):
    plan = workflow_like(random.Random(nodes), nodes)
    assert len(plan.nodes) == nodes + 2
    agree(Case(plan, Scripted(nodes, failing=0.002, cancelled=0.0)), nodes, WEATHER[weather])


def test_a_join_of_500_inputs_is_run_once():
    plan = workflow_like(random.Random(1738), 1738)
    widest = max(plan.index.ups, key=lambda name: len(plan.index.ups[name]) if name != EXIT else 0)
    assert len(plan.index.ups[widest]) == 500
    for mode in MODES:
        trace = simulate(plan, Scripted(0, 0, 0), mode, 5)
        assert trace.story.executions[Key(widest), 1] == 1
        assert trace.story.ends[-1].status == "completed"
