"""Who guards the guards: every wrong rule planted here must be caught by the simulator."""

from __future__ import annotations

import importlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from types import CodeType, FunctionType

import pytest

from segue.testing.soak import Tally, run

DECIDE, GATES, ROUTES, STEP = "machine.decide", "machine.gates", "machine.routes", "machine.step"
HANDOVER, MOVING, PLACING = "runtime.handover", "runtime.moving", "runtime.placing"
UNDO, SCOPES, VALUES, PROJECTION = "machine.undo", "machine.scopes", "machine.values", "plan.projection"
SEEDS = 1000
WEATHERS = ("quiet", "rough", "lossy")

EARLY = (
    "return Await(key, number)\n        found[up]",
    "if len(found) + 1 < len(index.ups[key.node]):\n"
    "                return Await(key, number)\n"
    "            outcome = Outcome('skipped')\n        found[up]",
)
FALSE = ("return None if ours is _UNKNOWN", "return False if ours is _UNKNOWN")
FIRST = ("for follower in followers(plan, state, key):", "for follower in followers(plan, state, key)[:1]:")
COUNTED = ("found.append(outcome)", "found.append(outcome)\n        if len(found) > 1:\n            break")
ALONE = ("outcome is not None", "outcome is not None and len(found) == 1")
LOST = ("found.values())\n    if outcome", "list(found.values())[:1])\n    if outcome")
WEAK = ("if truth is decisive:", "if truth is decisive and decided is not None:")
DEAF = ("for hearer in hearers:", "for hearer in [*hearers][1:]:")

FEWER = ("for up in index.ups[key.node])]", "for up in index.ups[key.node][1:])]")
MUTANTS = [
    ("either ignores a failure", DECIDE, "decide_either", *ALONE, "pure"),
    ("either takes the last", DECIDE, "decide_either", "in node.args", "in reversed(node.args)", "pure"),
    ("either ignores its guard", DECIDE, "decide_either", "node.guard is not None", "False", "pure"),
    ("cancelled before aborted", DECIDE, "dead", "if all(", "if any(", "pure"),
    ("a skip is dead", DECIDE, "dead", "in DEAD", 'in {*DEAD, "skipped"}', "pure"),
    ("a dead path is lost", DECIDE, "blocked", *LOST, "pure"),
    ("only the first cause", DECIDE, "dead", "outcome in bad for cause", "outcome in bad[:1] for cause", "pure"),
    ("an unknown guard runs", DECIDE, "blocked", "is not True", "is False", "pure"),
    ("guards are ignored", DECIDE, "blocked", "node.guard is not None", "False", "pure"),
    ("required read as optional", DECIDE, "blocked", "index.required[node.id]", "()", "pure"),
    ("optional read as required", DECIDE, "blocked", "index.required[node.id]", "index.ups[node.id]", "pure"),
    ("a missing capture is None", DECIDE, "blocked", "if index.captured[node.id]:", "if False:", "pure"),
    ("the exit ignores failures", GATES, "decide_exit", "dead(index, found.values()) or", "", "pure"),
    ("the exit drops the result", GATES, "_result", "not place.node.args", "True", "pure"),
    ("a loop ignores its cap", GATES, "decide_exit", "if last and not", "if False and not", "pure"),
    ("a map bears one more failure", GATES, "_close_each", "> construct.tolerate", "> construct.tolerate + 1", "pure"),
    ("a map joins by counting", GATES, "_close_each", *COUNTED, "pure"),
    ("the last handler is taken", GATES, "fitting", "construct.handlers if", "construct.handlers[::-1] if", "pure"),
    ("errors have no bases", GATES, "fitting", "*error.bases, ", "", "pure"),
    ("the cleanup is not waited for", GATES, "_close_attempt", "if construct.cleanup:", "if False:", "pure"),
    ("all branches win", GATES, "_close_race", "winners[: construct.winners]", "winners", "timed"),
    ("a loop goes on after its goal", ROUTES, "reached", "is True", "is None", "pure"),
    ("fires one input early", STEP, "decide", *EARLY, "pure"),
    ("decided again", STEP, "decide", "key in outcomes", "False", "pure"),
    ("repeats are dropped", STEP, "decide", "Repeat(key, number)", "Await(key, number)", "pure"),
    ("decides nodes of others", ROUTES, "touched", "index.fed(mine)[name]", "index.downs[name]", "pure"),
    ("loads too few inputs", ROUTES, "inputs", *FEWER, "pure"),
    ("pairs are not counted", ROUTES, "joins", "< 2", "< 3", "pure"),
    ("own absence is not read", ROUTES, "wanted", "keys.append(Key(name, key.tag))", "pass", "pure"),
    ("undone in the wrong order", UNDO, "_token", *FIRST, "pure"),
    ("not(unknown) is true", VALUES, "holds", "None if truth is None else not truth", "not truth", "pure"),
    ("and: unknown beats false", VALUES, "holds", *WEAK, "pure"),
    ("what is missing is false", VALUES, "holds", *FALSE, "pure"),
    ("a skipped value is None", VALUES, "_read", 'outcome.kind != "completed"', "False", "pure"),
    ("gateways keep silent", PROJECTION, "_projections", "if hearers or", "if", "pure"),
    ("hears one node less", PROJECTION, "_projections", *DEAF, "pure"),
    ("a moved run is decided where it was", PLACING, "Placing.place", "mode=now.mode, ", "", "moved"),
    ("calls do not move along", HANDOVER, "Handover._read", "begun - final", "()", "moved"),
    ("taken over from the first", MOVING, "Moving._collect", "services for page", "services[:1] for page", "moved"),
    ("a retry keeps a race's branches", SCOPES, "_next", 'construct.kind == "race"', "False", "ordered"),
    ("a retry resets the first level only", SCOPES, "_reach", "todo += _next(plan, node, pattern)", "pass", "retried"),
]  # fmt: skip


def mutate(function: Callable[..., object], right: str, wrong: str) -> CodeType:
    """The code of a function with one text replaced."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(right) == 1, (
        f"{function.__qualname__} has changed: {right!r} is there {source.count(right)} times"
    )
    space = dict(vars(inspect.getmodule(function)))
    exec(compile(f"from __future__ import annotations\n{source.replace(right, wrong)}", "<mutant>", "exec"), space)
    changed = space[function.__name__]
    assert isinstance(changed, FunctionType)
    return changed.__code__


@contextmanager
def planted(module: str, name: str, right: str, wrong: str) -> Iterator[None]:
    """Everybody who has the function has the wrong one: they share its code."""
    function = reduce(getattr, name.split("."), importlib.import_module(f"segue.{module}"))
    assert isinstance(function, FunctionType)
    before, function.__code__ = function.__code__, mutate(function, right, wrong)
    try:
        yield
    finally:
        function.__code__ = before


@pytest.mark.parametrize("mutant", [pytest.param(mutant[1:], id=mutant[0]) for mutant in MUTANTS])
def test_a_wrong_rule_is_caught(mutant: tuple[str, str, str, str, str]) -> None:
    *where, kind = mutant
    for seed in range(SEEDS):
        weather = WEATHERS[seed % len(WEATHERS)]
        with planted(*where):
            failure = run(seed, kind, weather, Tally())
        if failure and not run(seed, kind, weather, Tally()):
            print(f"caught at seed {seed}: {failure[:300]}")
            return
    pytest.fail(f"survived {SEEDS} plans")
