"""Expressions of a plan over outcomes: arguments, and guards in three-valued logic."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from segue.machine.facts import Outcome
from segue.machine.values import evaluate, holds
from segue.plan.graph import And, Compare, Condition, Const, Fields, Get, Items, Not, Or, Truth

ORDER = {"total": 1200, "vip": True, "lines": [{"sku": "a"}, {"sku": "b"}], "note": None}
OUTCOMES = {
    "order": Outcome("completed", ORDER),
    "yes": Outcome("completed", True),
    "no": Outcome("completed", False),
    "skipped": Outcome("skipped"),
}
YES, NO, UNKNOWN = Truth(Get("yes")), Truth(Get("no")), Truth(Get("skipped"))
WORTH = {True: YES, False: NO, None: UNKNOWN}
THREE = (True, False, None)


def look(node: str) -> Outcome:
    return OUTCOMES[node]


@pytest.mark.parametrize(("a", "truth"), [(True, False), (False, True), (None, None)])
def test_not(a: bool | None, truth: bool | None) -> None:
    assert holds(Not(WORTH[a]), look) is truth


KLEENE = {  # (a, b): (a and b, a or b)
    (True, True): (True, True),
    (True, False): (False, True),
    (True, None): (None, True),
    (False, False): (False, False),
    (False, None): (False, None),
    (None, None): (None, None),
}


@pytest.mark.parametrize(("a", "b"), list(itertools.product(THREE, THREE)))
def test_and_or(a: bool | None, b: bool | None) -> None:
    both, one = KLEENE.get((a, b)) or KLEENE[b, a]
    assert holds(And((WORTH[a], WORTH[b])), look) is both
    assert holds(Or((WORTH[a], WORTH[b])), look) is one


@pytest.mark.parametrize(("a", "b", "c"), list(itertools.product(THREE, THREE, THREE)))
def test_de_morgan_holds_for_unknown_too(a: bool | None, b: bool | None, c: bool | None) -> None:
    parts = (WORTH[a], WORTH[b], WORTH[c])
    assert holds(Not(And(parts)), look) is holds(Or(tuple(Not(part) for part in parts)), look)


def test_nothing_is_true_of_all_and_no_one_of_none() -> None:
    assert holds(And(()), look) is True
    assert holds(Or(()), look) is False


@pytest.mark.parametrize(
    ("left", "op", "right", "truth"),
    [
        (Get("order", ("total",)), "==", Const(1200), True),
        (Get("order", ("total",)), "!=", Const(1200), False),
        (Get("order", ("total",)), ">", Const(1000), True),
        (Get("order", ("total",)), ">=", Const(1200), True),
        (Get("order", ("total",)), "<", Const(1200.5), True),
        (Const(1), "<=", Const(0), False),
        (Const("a"), "<", Const("b"), True),
        (Get("order", ("lines", 1, "sku")), "==", Const("b"), True),
        (Get("order", ("note",)), "==", Const(None), True),
        (Const("7"), "==", Const(7), False),
        (Const("7"), "<", Const(7), None),
        (Get("order", ("note",)), "<", Const(1), None),
        (Get("order", ("gone",)), "==", Const(None), None),
        (Get("order", ("lines", 9)), "!=", Const(1), None),
        (Get("order", ("total", "cents")), "==", Const(0), None),
        (Get("skipped"), "==", Const(None), None),
        (Get("skipped"), "==", Get("skipped"), None),
        (Const(1), "<", Get("skipped"), None),
    ],
)
def test_comparisons(left: Get | Const, op: Any, right: Get | Const, truth: bool | None) -> None:
    assert holds(Compare(op, left, right), look) is truth


@pytest.mark.parametrize(
    ("get", "truth"),
    [
        (Get("order", ("vip",)), True),
        (Get("no"), False),
        (Get("order", ("total",)), None),
        (Get("order", ("note",)), None),
        (Get("order", ("gone",)), None),
        (Get("skipped"), None),
    ],
)
def test_only_a_boolean_is_a_truth(get: Get, truth: bool | None) -> None:
    assert holds(Truth(get), look) is truth


@pytest.mark.parametrize("condition", [YES, NO, UNKNOWN, And((YES, UNKNOWN)), Compare("<", Get("skipped"), Const(1))])
def test_when_and_otherwise_never_both_run(condition: Condition) -> None:
    taken = [holds(arm, look) is True for arm in (condition, Not(condition))]
    assert sum(taken) == (0 if holds(condition, look) is None else 1)


@pytest.mark.parametrize(
    ("value", "built"),
    [
        (Const([1, {"a": 2}]), [1, {"a": 2}]),
        (Get("order", ("lines", 0)), {"sku": "a"}),
        (Get("order", ("gone",)), None),
        (Get("skipped", optional=True), None),
        (Items((Const(1), Get("yes"), Items(()))), [1, True, []]),
        (
            Fields({"who": Get("order", ("vip",)), "what": Items((Get("skipped", optional=True),))}),
            {"who": True, "what": [None]},
        ),
    ],
)
def test_values_are_built_from_outcomes(value: Any, built: Any) -> None:
    assert evaluate(value, look) == built
