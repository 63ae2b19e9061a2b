"""Random plans are plans, reach everything that plans are made of, and come to what the mix promises."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from segue.machine.facts import Key
from segue.plan.graph import EXIT, RUN, Plan, gets_of, load, reads_of
from segue.plan.names import opening
from segue.testing.behaviours import GIVEN, Scripted
from segue.testing.plans import DETERMINISTIC, EVERYTHING, Mix, random_plan
from segue.testing.reference import evaluate

MIXES = pytest.mark.parametrize("mix", [DETERMINISTIC, EVERYTHING], ids=["deterministic", "everything"])
SEEDS = 400


def plans(mix: Mix) -> list[Plan]:
    return [random_plan(random.Random(seed), mix=mix) for seed in range(SEEDS)]


def ups(plan: Plan) -> dict[str, set[str]]:
    """What each node reads or comes after, as its region sees it: a construct is its `open` before its `close`."""
    found: dict[str, set[str]] = {}
    regions = {region.id: region for region in plan.regions}
    for node in plan.nodes:
        reads = [get.node for arg in node.args for get in gets_of(arg.value)]
        reads += [get.node for get in reads_of(node.guard)] if node.guard is not None else []
        found[node.id] = {*reads, *node.after}
        if node.kind == "close":
            found[node.id].add(opening(node.id))
        elif node.kind == "settle":
            found[node.id].add(node.construct)
        elif node.kind == "exit" and node.region != RUN:
            found[node.id].add(regions[node.region].entry)
    return found


@MIXES
def test_a_plan_survives_serialisation(mix: Mix) -> None:
    for plan in plans(mix):
        again = load(plan.json)
        assert again == plan
        assert again.hash == plan.hash


@MIXES
def test_edges_stay_in_their_region_and_go_forward(mix: Mix) -> None:
    for plan in plans(mix):
        region = {node.id: node.region for node in plan.nodes}
        place = {node.id: i for i, node in enumerate(plan.nodes)}
        for name, found in ups(plan).items():
            assert {region[up] for up in found} <= {region[name]}
            assert all(place[up] < place[name] for up in found)


@MIXES
def test_every_node_is_reached_from_its_entry_and_reaches_its_exit(mix: Mix) -> None:
    for plan in plans(mix):
        found = ups(plan)
        for region in plan.regions:
            members = [node for node in plan.nodes if node.region == region.id]
            reached, leading = {region.entry}, {region.exit}
            for node in members:
                if node.kind != "entry" and found[node.id] & reached:
                    reached.add(node.id)
            for node in reversed(members):
                if node.id in leading:
                    leading |= found[node.id]
            assert reached == {node.id for node in members}
            assert leading >= {node.id for node in members if node.kind != "timer"}


@MIXES
def test_captures_are_taken_level_by_level(mix: Mix) -> None:
    levels: Counter[int] = Counter()
    for plan in plans(mix):
        opened = {node.construct: node for node in plan.nodes if node.kind == "open"}
        regions = {region.id: region for region in plan.regions}
        depth = {RUN: 0}
        for region in plan.regions[1:]:
            depth[region.id] = depth[region.parent or RUN] + 1
        for node in plan.nodes:
            reads = [get for arg in node.args for get in gets_of(arg.value)]
            for get in reads:
                if get.path[:1] == ("with",) and node.region != RUN:
                    names = {arg.name for arg in opened[regions[node.region].construct].args}
                    assert f"with.{get.path[1]}" in names
                    levels[depth[node.region]] += 1
    assert min(levels[level] for level in (1, 2, 3)) > 10


def test_the_generator_reaches_everything() -> None:
    seen: Counter[str] = Counter()
    for plan in plans(EVERYTHING):
        seen.update(node.kind for node in plan.nodes)
        seen.update(construct.kind for construct in plan.constructs)
        seen[plan.on_failure] += 1
        seen["deadline"] += plan.deadline > 0
        seen["undo"] += any(node.undo for node in plan.nodes)
        for construct in plan.constructs:
            seen["limit"] += construct.limit > 0
            seen["tolerate"] += construct.tolerate > 0
            seen["last"] += construct.last
            seen["every"] += construct.every > 0
            seen["n of"] += construct.winners > 1
            seen["handlers"] += len(construct.handlers) > 1
            seen["cleanup"] += bool(construct.cleanup)
            seen["caught undo"] += construct.undo
            seen["timeout"] += construct.timeout > 0
    kinds = ["step", "either", "value", "emit", "raise", "wait", "sleep", "flow", "timer", "settle"]
    constructs = ["each", "repeat", "race", "attempt", "limit", "tolerate", "last", "every", "n of", "handlers"]
    others = ["cleanup", "caught undo", "timeout", "drain", "stop", "deadline", "undo"]
    for what in [*kinds, *constructs, *others]:
        assert seen[what] >= 10, f"{what}: {seen[what]}"


def test_what_the_mix_leaves_out_is_not_there() -> None:
    for plan in plans(Mix(flows=False, undo=0.0, depth=1)):
        assert all(node.kind not in ("flow", "timer", "settle") and not node.undo for node in plan.nodes)
        assert plan.on_failure == "drain"
        assert all(region.parent in (None, RUN) for region in plan.regions)


def test_deterministic_plans_come_to_every_kind_of_end_and_outcome() -> None:
    seen: Counter[str] = Counter()
    for seed, plan in enumerate(plans(DETERMINISTIC)):
        found = evaluate(plan, GIVEN, Scripted(seed, (0.0, 0.1, 0.3)[seed % 3], (0.0, 0.05)[seed % 2]))
        again = evaluate(plan, GIVEN, Scripted(seed, (0.0, 0.1, 0.3)[seed % 3], (0.0, 0.05)[seed % 2]))
        assert again == found
        kinds = {node.id: node.kind for node in plan.nodes}
        seen.update(f"{kinds[key.node]} {outcome.kind}" for key, outcome in found.outcomes.items())
        seen[f"ended {found.status}"] += 1
        seen["undone"] += bool(found.undone)
        seen["caught and undone"] += len(found.undone) > len(found.compensated)
        seen["nested"] += any(key.tag.count(".") >= 1 for key in found.outcomes)
        seen["several causes"] += len(found.causes) > 1
        seen["result is no sink"] += bool(plan.nodes[-1].args) and found.status == "completed"
        seen["handled"] += any(key.node.endswith(("catch1:entry", "catch2:entry")) for key in found.outcomes)
        seen["cap"] += any(error is not None and error.type == "LoopCap" for error in errors(found))
        assert Key(EXIT) in found.outcomes
    outcomes = ["step skipped", "step failed", "step cancelled", "step aborted", "either completed", "either skipped"]
    outcomes += ["either aborted", "close aborted", "close skipped", "wait failed", "wait completed"]
    others = ["undone", "caught and undone", "nested", "several causes", "result is no sink", "handled", "cap"]
    for what in ["ended completed", "ended failed", "ended cancelled", *outcomes, *others]:
        assert seen[what] >= 3, f"{what}: {seen[what]}"


def errors(found):
    return [cause.error for outcome in found.outcomes.values() for cause in outcome.causes]


def test_a_seed_is_a_plan() -> None:
    assert random_plan(random.Random(7)) == random_plan(random.Random(7))
    assert len({random_plan(random.Random(seed)).hash for seed in range(100)}) == 100


def test_scripted_steps_are_functions_of_place_revision_and_arguments() -> None:
    behaviour = Scripted(3, failing=0.2)
    keys = [Key(f"step{i}", tag) for i in range(50) for tag in ("", "0", "1")]
    assert [behaviour(key, {"a": 1}) for key in keys] == [behaviour(key, {"a": 1}, 1, 5) for key in keys]
    failed = [key for key in keys if behaviour(key, {}).kind == "failed"]
    assert 0.1 < len(failed) / len(keys) < 0.3
    assert any(behaviour(key, {}, 2).kind == "completed" for key in failed)
    fickle = Scripted(3, fickle=True)
    assert any(fickle(key, {}, 1, 0) != fickle(key, {}, 1, 1) for key in keys)


def test_scripted_undo_calls_succeed_in_the_end() -> None:
    behaviour = Scripted(3, clumsy=0.5)
    tries = [[behaviour.undo(Key(f"step{i}"), 1, tried) is None for tried in range(3)] for i in range(100)]
    assert all(tried[-1] for tried in tries)
    assert {tuple(tried) for tried in tries} == {(True,) * 3, (False, True, True), (False, False, True)}


def test_signals_are_sent_early_late_twice_or_never() -> None:
    behaviour = Scripted(3)
    sent = [behaviour.signal("signal0", str(slot)) for slot in range(50)]
    assert {(found.early, len(found.copies)) for found in sent if found} == {
        (e, c) for e in (True, False) for c in (0, 1)
    }
    assert None not in sent
    assert {behaviour.signal("never0", str(slot)) for slot in range(50)} == {None}
    assert 10 < sum(behaviour.signal("maybe0", str(slot)) is None for slot in range(50)) < 40
