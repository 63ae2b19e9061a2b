"""Plans over all constructs: both modes come to what the independent evaluator says, whatever the order of messages."""

from __future__ import annotations

import importlib
import inspect
import random

import pytest
from lookworld import Told, World

from segue.machine.facts import Key
from segue.plan.graph import EXIT
from segue.plan.projection import MODES
from segue.testing.behaviours import GIVEN, Scripted
from segue.testing.plans import DETERMINISTIC, EVERYTHING, random_plan
from segue.testing.reference import bare, evaluate


def compare(seed: int, retries: int = 0, choose: bool = False) -> None:
    """Run a plan in both modes, and compare both with the evaluator."""
    plan, behaviour = random_plan(random.Random(seed), 40), Scripted(seed)
    for i, mode in enumerate(MODES):
        told = World(plan, behaviour, mode, seed + i).run(retries=retries, choose=choose)
        expected = evaluate(plan, GIVEN, behaviour, told.resets)
        ours = {key: bare(found) for key, found in told.outcomes.items() if plan.index.nodes[key.node].kind != "timer"}
        theirs = {key: bare(found) for key, found in expected.outcomes.items()}
        for key in ours.keys() | theirs.keys():
            assert ours.get(key) == theirs.get(key), f"{mode}: {key}"
        assert set(told.undone) == {*expected.undone}, mode
        in_order(plan, told)


def in_order(plan, told: Told) -> None:
    """What depends on a step is undone before it."""
    for i, (first, revision) in enumerate(told.undone):
        for later, other in told.undone[i + 1 :]:
            follows = later.node in plan.index.downs[first.node] and later.tag == first.tag and other == revision
            assert not follows, f"{first} was undone before {later}, which depends on it"


@pytest.mark.parametrize("retries", [0, 2])
def test_both_modes_agree_with_the_evaluator(retries):
    for seed in range(200):
        compare(seed, retries)


def test_items_and_rounds_that_are_chosen_run_again_and_what_follows_from_them():
    for seed in range(80):
        compare(seed, 2, choose=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("cancel", "retries"), [(0.0, 0), (0.03, 0), (0.0, 2), (0.03, 2)])
def test_whatever_happens_a_run_ends_with_one_outcome_for_every_place(mode, cancel, retries):
    for seed in range(100):
        plan = random_plan(random.Random(seed), 40, EVERYTHING if seed % 4 else DETERMINISTIC)
        if plan.index.ups[EXIT]:
            ends_well(plan, World(plan, Scripted(seed), mode, seed).run(cancel, retries))


def ends_well(plan, told: Told) -> None:
    index = plan.index
    for region in plan.regions:
        for key, entry in told.outcomes.items():
            if key.node == region.entry and entry.kind == "completed":
                inside = [n.id for n in plan.nodes if n.region == region.id and n.kind != "timer"]
                assert all(Key(name, key.tag) in told.outcomes for name in inside), f"{key} is open"
    assert len(told.undone) == len(set(told.undone)), "undone twice"
    for key, _ in told.undone:
        assert index.nodes[key.node].undoable
    if told.outcomes[Key(EXIT)].kind != "completed" and not told.resets:
        for key, outcome in told.outcomes.items():
            if index.nodes[key.node].undoable and outcome.kind == "completed":
                assert (key, 1) in told.undone, f"{key} was not undone"


MUTANTS = [
    ("a counting join", "gates", "_close_each", "if outcome is None:", "if outcome is None and i == 0:"),
    ("a lost dead path token", "decide", "dead", "outcome.kind in DEAD", 'outcome.kind == "failed"'),
    ("undo waits for nobody", "undo", "_token", "return None\n        sent", "continue\n        sent"),
    ("subflows are not undone", "undo", "_token", ".undoable", ".undo"),
    ("undone too much", "undo", "_token", 'outcome.kind == "completed"', "True"),
    ("a handler takes anything", "gates", "fitting", "names & set(handler.errors)", "True"),
    ("tolerates one more", "gates", "_close_each", "> construct.tolerate", "> construct.tolerate + 1"),
    ("a limit is ignored", "routes", "ready", "if construct.limit else", "if False else"),
    ("loops stop one early", "routes", "over", "+ 1 >= construct.cap", "+ 2 >= construct.cap"),
    ("guards are ignored", "decide", "blocked", "is not True", "is None"),
    ("skips are ignored", "decide", "blocked", 'found[up].kind == "skipped"', "False"),
    ("captures are ignored", "decide", "blocked", "if not index.captured[node.id] <= handed.keys():", "if False:"),
    ("a region ends early", "gates", "decide_exit", "return place.wait()", "continue"),
    ("resets too little", "scopes", "_next", "for down in index.downs[name]:", "for down in index.downs[name][:1]:"),
    ("the cleanup is forgotten", "gates", "_close_attempt", "outcomes.append(cleanup)", "pass"),
    ("either takes the last", "decide", "decide_either", "in node.args", "in reversed(node.args)"),
]  # fmt: skip


@pytest.mark.parametrize("mutant", [pytest.param(mutant[1:], id=mutant[0]) for mutant in MUTANTS])
def test_a_wrong_rule_is_caught(mutant, monkeypatch):
    name, function, right, wrong = mutant
    module = importlib.import_module(f"segue.machine.{name}")
    original = getattr(module, function)
    source = inspect.getsource(original)
    assert source.count(right) >= 1, f"{name}.{function} has changed: {right!r} is not there"
    planted: dict[str, object] = dict(original.__globals__)
    exec(compile(source.replace(right, wrong, 1), f"<mutant of {name}>", "exec"), planted)
    monkeypatch.setattr(original, "__code__", planted[function].__code__)
    assert is_caught(), "survived 300 plans"


def is_caught() -> bool:
    """Whether the comparison objects to some plan."""
    for seed in range(300):
        try:
            compare(seed, seed % 2)
        except Exception:
            return True
    return False
