"""Who guards the guards: every wrong rule planted here must be caught by the harness of the property tests."""

from __future__ import annotations

import importlib
import inspect
import random
from types import ModuleType

import pytest

from segue.testing.agreement import agree
from segue.testing.graphs import GIVEN, Scripted, random_plan
from segue.testing.simulation import LOSSY, QUIET, ROUGH, Rules

STEP, VALUES, PROJECTION = "segue.machine.step", "segue.machine.values", "segue.plan.projection"
SEEDS = 1000

EARLY = (
    "return Await(key, state.revision)\n",
    "if len(found) + 1 < len(index.ups[key.node]):\n"
    "                return Await(key, state.revision)\n"
    "            outcome = SKIPPED\n",
)
FALSE = ("right is _UNKNOWN:\n        return None", "right is _UNKNOWN:\n        return False")

MUTANTS = [
    ("either ignores a failure", STEP, "_decide_either", "dead is not None", "dead is not None and len(found) == 1"),
    ("either takes the last", STEP, "_decide_either", "in node.args", "in reversed(node.args)"),
    ("either ignores its guard", STEP, "_decide_either", "node.guard is not None", "False"),
    ("cancelled before aborted", STEP, "_dead", "if all(", "if any("),
    ("a skip is dead", STEP, "_dead", "in DEAD", 'in {*DEAD, "skipped"}'),
    ("only the first cause", STEP, "_dead", "outcome in bad for cause", "outcome in bad[:1] for cause"),
    ("causes counted twice", STEP, "unite", "set(causes)", "list(causes)"),
    ("an unknown guard runs", STEP, "_decide_step", "is not True", "is False"),
    ("guards are ignored", STEP, "_decide_step", "node.guard is not None", "False"),
    ("a guard hides a failure", STEP, "_decide_step", "dead is not None", "dead is not None and node.guard is None"),
    ("required read as optional", STEP, "_decide_step", "index.required[node.id]", "()"),
    ("optional read as required", STEP, "_decide_step", "index.required[node.id]", "index.ups[node.id]"),
    ("the exit ignores failures", STEP, "_decide_exit", "dead is not None", "False"),
    ("the exit drops the result", STEP, "_decide_exit", "result is None", "True"),
    ("fires one input early", STEP, "decide", *EARLY),
    ("decided again", STEP, "decide", "key in state.outcomes", "False"),
    ("repeats are dropped", STEP, "hear", "for key in touched", "for key in touched if key not in outcomes"),
    ("decides nodes of others", STEP, "hear", "plan.index.fed(mine)", "plan.index.downs"),
    ("own absence is not read", STEP, "wanted", "keys.append(Key(name, key.tag))", "pass"),
    ("loads too few inputs", STEP, "inputs", "plan.index.ups[key.node]", "plan.index.ups[key.node][1:]"),
    ("pairs are not counted", STEP, "joins", "> 1", "> 2"),
    ("not(unknown) is true", VALUES, "holds", "None if truth is None else not truth", "not truth"),
    ("and: unknown beats false", VALUES, "holds", "False if False in truths else None", "None"),
    ("or: unknown is false", VALUES, "holds", "None if None in truths else False", "False"),
    ("what is missing is false", VALUES, "_compare", *FALSE),
    ("a skipped value is None", VALUES, "_read", 'outcome.kind != "completed"', "False"),
    ("guards are not heard", PROJECTION, "project", "in index.ups[name]", "in index.required[name]"),
    ("gateways keep silent", PROJECTION, "project", "if others or", "if"),
    ("hears one node less", PROJECTION, "project", "heard, key", "sorted(heard)[1:], key"),
]  # fmt: skip


def planted(name: str, function: str, right: str, wrong: str) -> Rules:
    """The rules with one text replaced in one function."""
    module = importlib.import_module(name)
    whole, part = inspect.getsource(module), inspect.getsource(getattr(module, function))
    assert part.count(right) == 1, f"{name}.{function} has changed: {right!r} is there {part.count(right)} times"
    copy = run(name, whole.replace(part, part.replace(right, wrong)))
    if name == PROJECTION:
        return Rules(project=copy.project)
    step = copy
    if name == VALUES:
        step = run(STEP, inspect.getsource(importlib.import_module(STEP)))
        step.holds, step.evaluate = copy.holds, copy.evaluate
    return Rules(step.hear, step.decide, step.wanted, step.inputs, step.joins)


def run(name: str, source: str) -> ModuleType:
    module = ModuleType(name)
    exec(compile(source, f"<mutant of {name}>", "exec"), module.__dict__)
    return module


def hunt(rules: Rules) -> tuple[int, Exception] | None:
    """The first seed at which the harness objects, and how."""
    for seed in range(SEEDS):
        rng = random.Random(seed)
        plan, behaviour = random_plan(rng), Scripted(seed, rng.choice((0.0, 0.1, 0.3)), 0.05)
        try:
            agree(plan, behaviour, seed, given=GIVEN, faults=(QUIET, ROUGH, LOSSY)[seed % 3], rules=rules)
        except Exception as error:
            return seed, error
    return None


@pytest.mark.parametrize("mutant", [pytest.param(mutant[1:], id=mutant[0]) for mutant in MUTANTS])
def test_a_wrong_rule_is_caught(mutant: tuple[str, str, str, str]) -> None:
    caught = hunt(planted(*mutant))
    assert caught is not None, f"survived {SEEDS} plans"
    print(f"caught at seed {caught[0]}: {type(caught[1]).__name__}: {str(caught[1])[:150]}")


def test_the_harness_objects_to_nothing_else() -> None:
    unchanged = run(STEP, inspect.getsource(importlib.import_module(STEP)))
    rules = Rules(unchanged.hear, unchanged.decide, unchanged.wanted, unchanged.inputs, unchanged.joins)
    assert hunt(rules) is None
