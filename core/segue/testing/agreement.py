"""Simulated runs against the independent evaluator: the modes must agree with it, and so with each other."""

from __future__ import annotations

from functools import partial
from typing import Any

from segue.machine.facts import Key, Outcome
from segue.plan.graph import Plan
from segue.plan.projection import MODES, Mode
from segue.testing.graphs import Scripted
from segue.testing.reference import evaluate
from segue.testing.replicas import Violation
from segue.testing.simulation import QUIET, Faults, Rules, Trace, simulate


def agree(
    plan: Plan, behaviour: Scripted, seed: int, *, given: Any, faults: Faults = QUIET, rules: Rules | None = None
) -> dict[Mode, Trace]:
    """Run a plan in every mode and compare each run, node by node, with the independent evaluator.

    Fickle steps are compared by their recorded results, since no evaluator can know which execution is recorded.

    Returns:
        The trace of each mode.

    Raises:
        Violation: A run differs from the evaluation, or an invariant does not hold in it.
    """
    traces: dict[Mode, Trace] = {}
    for mode in MODES:
        trace = traces[mode] = simulate(plan, behaviour, mode, seed, given=given, faults=faults, rules=rules)

        expected = evaluate(plan, given, partial(_replay, behaviour, trace))
        for name, outcome in expected.outcomes.items():
            if (found := trace.outcomes[Key(name)]) != outcome:
                raise Violation(f"{mode}: {name} is {found}, should be {outcome}")
        calls = {key.node: args for key, args in trace.calls.items()}
        if calls != expected.calls:
            raise Violation(f"{mode}: called {calls}, should have called {expected.calls}")
        if trace.end.value != expected.result or trace.end.causes != expected.causes:
            raise Violation(f"{mode}: the run ended as {trace.end}, should have {expected.status}")
        if faults == QUIET and any(count > 1 for count in trace.executions.values()):
            raise Violation(f"{mode}: without faults, a step was executed more than once")
    return traces


def _replay(behaviour: Scripted, trace: Trace, node: str, args: dict[str, Any]) -> Outcome:
    if Key(node) not in trace.calls:
        raise Violation(f"{node} should have run")
    return trace.outcomes[Key(node)] if behaviour.fickle else behaviour(node, args, 0)
