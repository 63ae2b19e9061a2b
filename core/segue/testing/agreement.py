"""Simulated runs against the rules and against each other: the modes must agree, whatever the weather.

Every run is checked for what must hold whatever its timing. If time decides nothing in it, it must also be exactly what
the independent evaluator says; steps that return another value at each execution are taken by their recorded results.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from segue.machine.facts import Failure, Key, Outcome
from segue.plan.graph import Plan
from segue.plan.projection import MODES, Mode
from segue.testing.behaviours import GIVEN, Behaviour, Sent
from segue.testing.invariants import Story, Violation, check
from segue.testing.reference import CHILD, bare, evaluate
from segue.testing.sim.faults import QUIET, Faults
from segue.testing.sim.orders import Orders
from segue.testing.sim.simulate import Trace, simulate


class Case(NamedTuple):
    """What is run: a plan, what happens around it, and whether time decides nothing in it."""

    plan: Plan
    behaviour: Behaviour
    timeless: bool = True
    orders: Orders = Orders()


def agree(case: Case, seed: int, faults: Faults = QUIET) -> dict[Mode, Trace]:
    """Run a plan in every mode, and compare each run with the rules.

    Returns:
        The trace of each mode.

    Raises:
        Violation: A run is not what it must be.
    """
    traces: dict[Mode, Trace] = {}
    for mode in MODES:
        try:
            trace = simulate(case.plan, case.behaviour, mode, seed, faults=faults, orders=case.orders)
            check(case.plan, trace.story)
            if faults.safe and any(count > 1 for count in trace.story.executions.values()):
                raise Violation("in good weather, a step was executed more than once")
            if case.timeless:
                check_rules(case.plan, GIVEN, trace.story)
        except Violation as error:
            raise Violation(f"{mode}: {error}") from None
        traces[mode] = trace
    return traces


def check_rules(plan: Plan, given: Any, story: Story) -> None:
    """Compare a run with the independent evaluator, which is told what steps returned and which signals came.

    Raises:
        Violation: They differ.
        ValueError: Time decides something in this plan.
    """
    expected = evaluate(plan, given, Replay(plan, story), story.resets)
    found = {place: bare(outcome) for place, outcome in story.outcomes.items() if _ruled(plan, place[0])}
    _same("outcomes", found, {place: bare(outcome) for place, outcome in expected.every_outcome.items()})
    _same("calls", {(key, revision): args for key, revision, args in story.calls}, expected.every_call)
    _same("undone", set(story.undos), set(expected.undone))
    end = story.ends[-1]
    causes = [(cause.node, cause.tag) for cause in end.causes]
    wanted = [(cause.node, cause.tag) for cause in expected.causes]
    if (end.status, causes) != (expected.status, wanted):
        raise Violation(f"the run ended {end.status} {causes}, by the rules {expected.status} {wanted}")


class Replay:
    """The world around a run as it was: what steps returned, and the first signal of each slot.

    Args:
        plan: The run's plan.
        story: What happened.
    """

    def __init__(self, plan: Plan, story: Story) -> None:
        self._plan = plan
        self._story = story

    def __call__(self, key: Key, args: dict[str, Any], revision: int = 1) -> Outcome:
        """The recorded result of a call.

        Raises:
            Violation: It was never made.
        """
        node = self._plan.index.nodes[key.node]
        known = self._story.completed_at_service if node.kind == "step" else self._story.outcomes
        outcome = known.get((key, revision))
        if outcome is None:
            raise Violation(f"by the rules {key} runs with {args}, but it did not")
        return outcome if node.kind == "step" or outcome.kind != "failed" else _by_child(node.step, outcome)

    def signal(self, name: str, slot: str) -> Sent | None:
        """The signal for a slot, if one was sent."""
        values = self._story.signals.get((name, slot))
        return Sent(values[0]) if values else None


def _by_child(flow: str, outcome: Outcome) -> Outcome:
    """A failure of a child run without what its parent adds."""
    [cause] = outcome.causes
    if cause.error is None:
        return outcome
    bases = tuple(name for name in cause.error.bases if name != CHILD)
    error = Failure(cause.error.type, cause.error.message.removeprefix(f"{flow}: "), "", bases, cause.error.value)
    return msgspec.structs.replace(outcome, causes=(msgspec.structs.replace(cause, error=error),))


def _ruled(plan: Plan, key: Key) -> bool:
    return plan.index.nodes[key.node].kind != "timer"


def _same(what: str, found: object, expected: object) -> None:
    if found == expected:
        return
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        raise Violation(f"{what} are not as the rules say: {'; '.join(_differences(found, expected))}")
    raise Violation(f"{what} are {found}, by the rules {expected}")


def _differences(found: Mapping[object, object], expected: Mapping[object, object]) -> Iterable[str]:
    for key in dict.fromkeys((*found, *expected)):
        if found.get(key) != expected.get(key):
            yield f"{key} is {found.get(key)}, by the rules {expected.get(key)}"
