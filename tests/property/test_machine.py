"""Random plans, both modes, any order, duplicates, kills and losses: always what the independent evaluator says."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime

import msgspec
import pytest

from segue.machine.facts import Fact, Key
from segue.plan.graph import ENTRY, EXIT, RUN, load
from segue.plan.projection import MODES, project
from segue.testing.agreement import agree
from segue.testing.graphs import GIVEN, Scripted, random_plan, workflow_like
from segue.testing.reference import evaluate
from segue.testing.simulation import LOSSY, QUIET, ROUGH, Faults, simulate
from segue.wire.envelope import SPEC, Event, data_of, decode, encode, event_id, fact_of, kind_of
from segue.wire.subjects import Subjects

CROWDED = Faults(replicas=4, batch=8, duplicates=0.5, redeliveries=0.1, crashes=30, slow=0.6)


def case(seed: int, fickle: bool = False):
    rng = random.Random(seed)
    plan = random_plan(rng)
    return plan, Scripted(seed, rng.choice((0.0, 0.1, 0.3)), rng.choice((0.0, 0.05)), fickle)


@pytest.mark.parametrize("faults", [QUIET, ROUGH, LOSSY, CROWDED], ids=["quiet", "rough", "lossy", "crowded"])
def test_both_modes_agree_with_the_evaluator(faults, joins, seeds):
    for seed in seeds(800):
        plan, behaviour = case(seed)
        traces = agree(plan, behaviour, seed, given=GIVEN, faults=faults)
        assert traces["orchestrated"].outcomes == traces["choreographed"].outcomes


@pytest.mark.parametrize("faults", [ROUGH, LOSSY, CROWDED], ids=["rough", "lossy", "crowded"])
def test_a_result_is_single_even_if_every_execution_returns_another_value(faults, joins, seeds):
    repeated = 0
    for seed in seeds(300):
        traces = agree(*case(seed, fickle=True), seed, given=GIVEN, faults=faults)
        repeated += sum(count > 1 for trace in traces.values() for count in trace.executions.values())
    assert repeated > 50, "the faults never made a step run twice: this test shows nothing"


def test_the_generator_reaches_everything(seeds):
    seen: Counter[str] = Counter()
    for seed in seeds(300):
        plan, behaviour = case(seed)
        found = evaluate(plan, GIVEN, lambda node, args, run=behaviour: run(node, args, 0))
        seen.update(outcome.kind for outcome in found.outcomes.values())
        seen.update(f"{node.kind} {found.outcomes[node.id].kind}" for node in plan.nodes)
        seen[f"ended {found.status}"] += 1
        seen["several causes"] += len(found.causes) > 1
        seen["several sinks"] += len(plan.nodes[-1].after) > 1
        seen["result is no sink"] += bool(set(plan.index.required[EXIT]) - set(plan.nodes[-1].after))
    ends = ["ended completed", "ended failed", "ended cancelled"]
    eithers = ["either completed", "either skipped", "either aborted"]
    for what in [*ends, *eithers, "step skipped", "several causes", "several sinks", "result is no sink"]:
        assert seen[what] >= 5, f"{what}: {seen[what]}"


def test_plans_survive_serialisation(seeds):
    for seed in seeds(300):
        plan, _ = case(seed)
        again = load(plan.json)
        assert again == plan
        assert again.hash == plan.hash
        assert again.json == plan.json


def test_every_outcome_survives_the_wire(seeds):
    for seed in seeds(200):
        plan, behaviour = case(seed)
        found = evaluate(plan, GIVEN, lambda node, args, run=behaviour: run(node, args, 0))
        for node, outcome in found.outcomes.items():
            fact = Fact(Key(node), outcome)
            assert fact_of(decode(encode(announce(plan, fact)))) == fact


def announce(plan, fact):
    node = RUN if fact.key.node in (ENTRY, EXIT) else fact.key.node
    kind = kind_of(fact.key.node, fact.outcome)
    return Event(
        id=event_id("0" * 32, node, fact.key.tag, fact.revision, kind),
        source="segue/s0",
        type=f"segue.{kind}",
        subject=f"{plan.flow}/{node}",
        time=datetime(2026, 1, 1, tzinfo=UTC),
        run="0" * 32,
        plan=plan.hash,
        flow=plan.flow,
        node=node,
        specversion=SPEC,
        data=msgspec.Raw(data_of(fact.key.node, fact.outcome)),
    )


def test_subscriptions_are_exactly_what_somebody_emits(seeds):
    subjects = Subjects()
    for seed in seeds(200):
        plan, _ = case(seed)
        said = {}
        for service in plan.index.services:
            said.update({emission.node: set(emission.heard_by) for emission in project(plan, service).emits})
        heard = {}
        for service in plan.index.services:
            seen = project(plan, service)
            assert set(seen.hears).isdisjoint(seen.nodes)
            assert len(subjects.heard(plan, service)) == len(seen.hears)
            for node in seen.hears:
                heard.setdefault(node, set()).add(service)
        assert {node: hearers for node, hearers in said.items() if hearers} == heard


@pytest.mark.parametrize("nodes", [10, 97, 500, 1738])
@pytest.mark.parametrize("faults", [QUIET, ROUGH, LOSSY], ids=["quiet", "rough", "lossy"])
def test_graphs_of_the_size_of_real_workflows(nodes, faults):
    plan = workflow_like(random.Random(nodes), nodes)
    assert len(plan.nodes) == nodes + 2
    agree(plan, Scripted(nodes, failing=0.002, cancelled=0.0), nodes, given=GIVEN, faults=faults)


def test_a_join_of_500_inputs_is_run_once():
    plan = workflow_like(random.Random(1738), 1738)
    widest = max(plan.index.ups, key=lambda name: len(plan.index.ups[name]) if name != EXIT else 0)
    assert len(plan.index.ups[widest]) == 500
    for mode in MODES:
        trace = simulate(plan, Scripted(0, 0, 0), mode, 5, given=GIVEN)
        assert trace.executions[Key(widest)] == 1
        assert trace.end.kind == "completed"
