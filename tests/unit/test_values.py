"""Expressions of a plan over outcomes: arguments, and guards in three-valued logic."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from segue.machine.facts import Outcome
from segue.machine.operators import BITS_LIMIT, LIST_LIMIT, TEXT_LIMIT
from segue.machine.values import Unfit, evaluate, holds
from segue.plan import graph
from segue.plan.graph import And, Compare, Condition, Const, Fields, Get, Items, Not, Op, Or, Truth, Value

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
        (Const(1), "==", Const(1.0), True),
        (Const(True), "==", Const(1), False),
        (Const(True), "!=", Const(1), True),
        (Const(False), "<", Const(1), None),
        (Const(True), "==", Get("yes"), True),
        (Const([1, {"a": True}]), "==", Const([1.0, {"a": True}]), True),
        (Const([1, {"a": True}]), "==", Const([1, {"a": 1}]), False),
        (Const([1]), "==", Const([1, 1]), False),
        (Const({"a": 1}), "!=", Const({"b": 1}), True),
        (Const([]), "==", Const({}), False),
        (Const([1]), "<", Const([2]), None),
        (Const(2**53 + 1), "==", Const(2.0**53), False),
        (Const("Z"), "<", Const("a"), True),
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


def op(name: Any, *args: Any) -> Op:
    return Op(
        name, tuple(arg if isinstance(arg, Get | Items | Fields | Op | graph.Test) else Const(arg) for arg in args)
    )


BIG = 2**BITS_LIMIT - 1
MILLION = "x" * TEXT_LIMIT


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (op("+", 1, 2, 0.5), 3.5),
        (op("+", 0.1, 0.2, 0.3), 0.1 + 0.2 + 0.3),
        (op("+", "a", "b", "c"), "abc"),
        (op("+", [1], [], [[2]]), [1, [2]]),
        (op("-", 1, 2.5), -1.5),
        (op("*", 2, 3, 4), 24),
        (op("/", 6, 2), 3.0),
        (op("//", -7, 2), -4),
        (op("%", -7, 2), 1),
        (op("//", 7.5, 2), 3.0),
        (op("neg", 3), -3),
        (op("abs", -2.5), 2.5),
        (op("round", 2.5), 2),
        (op("round", 3.5), 4),
        (op("round", 1234, -2), 1200),
        (op("round", 2.675, 2), 2.67),
        (op("sum", []), 0),
        (op("sum", [0.1] * 10), 0.9999999999999999),
        (op("min", [3, 1.5]), 1.5),
        (op("max", ["a", "Z"]), "a"),
        (op("length", "żółw"), 4),
        (op("length", {"a": 1}), 1),
        (op("contains", [1, 2.0], 2), True),
        (op("contains", [1, 2.0], True), False),
        (op("contains", {"a": 1}, "a"), True),
        (op("contains", "abc", "bc"), True),
        (op("at", [1, 2], -1), 2),
        (op("at", {"a": {"b": 1}}, "a"), {"b": 1}),
        (op("text", "a", 1, 2.0, True, 10**20), "a12.0true100000000000000000000"),
        (op("text"), ""),
        (op("join", ["a", "b"], ", "), "a, b"),
        (op("split", "a,b,", ","), ["a", "b", ""]),
        (op("lower", "ŻA"), "ża"),
        (op("upper", "ża"), "ŻA"),
        (op("strip", "\t a "), "a"),
        (op("starts_with", "abc", "ab"), True),
        (op("ends_with", "abc", "ab"), False),
        (op("if", graph.Test(YES), 1, op("/", 1, 0)), 1),
        (op("if", graph.Test(NO), 1, 2), 2),
        (op("default", Get("skipped", optional=True), 7), 7),
        (op("default", Get("order", ("note",)), 7), 7),
        (op("default", op("at", [1], 5), 7), 7),
        (op("default", op("+", Get("skipped"), 1), 7), 7),
        (op("default", graph.Test(UNKNOWN), False), False),
        (op("default", Get("no"), True), False),
        (op("length", Items((Get("yes"), Get("no")))), 2),
        (op("at", Fields({"a": Get("yes")}), "a"), True),
        (graph.Test(And((YES, Not(NO)))), True),
        (op("+", BIG, 0), BIG),
        (op("+", MILLION, ""), MILLION),
    ],
)
def test_operators(value: Value, found: Any) -> None:
    came = evaluate(value, look)
    assert came == found
    assert type(came) is type(found)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (op("+", 1, "a"), "+ cannot be applied to a number and a text, in 1 + 'a'"),
        (op("+", True, 1), "+ cannot be applied to a boolean and a number, in True + 1"),
        (op("*", "a", 3), "* cannot be applied to a text and a number"),
        (op("-", None, 1), "- cannot be applied to None and a number"),
        (op("-", {}, []), "- cannot be applied to a mapping and a list"),
        (op("/", 1, 0), "division by zero, in 1 / 0"),
        (op("%", 1.5, 0.0), "division by zero"),
        (op("/", 10**400, 1), "the result is too large"),
        (op("*", 1e308, 10), "the result is too large"),
        (op("+", 10**400, 0.5), "the result is too large"),
        (op("+", BIG, 1), "the result is too large"),
        (op("*", BIG, BIG), "the result is too large"),
        (op("neg", -BIG - 1), "the result is too large"),
        (op("*", BIG, BIG, 0), "the result is too large"),
        (op("+", MILLION, "x"), "the result is too large"),
        (op("join", ["x"] * LIST_LIMIT, "x" * 20), "the result is too large"),
        (op("split", "a" * (LIST_LIMIT + 1), "a"), "the result is too large"),
        (op("+", [0] * LIST_LIMIT, [0]), "the result is too large"),
        (op("round", 5, -(10**9)), "round takes a whole number of digits, at most 100"),
        (op("round", 5, True), "round cannot be applied to a number and a boolean"),
        (op("round", 5, 1.5), "round takes a whole number of digits"),
        (op("min", []), "min of no values"),
        (op("min", [1, "a"]), "min cannot be applied to a number and a text"),
        (op("max", [True]), "max cannot be applied to a boolean"),
        (op("sum", ["a"]), "sum cannot be applied to a text"),
        (op("sum", 1), "sum cannot be applied to a number"),
        (op("length", 1), "length cannot be applied to a number"),
        (op("contains", "abc", 1), "contains cannot be applied to a text and a number"),
        (op("text", None), "text cannot be applied to None"),
        (op("text", [1]), "text cannot be applied to a list"),
        (op("join", [1], ","), "join cannot be applied to a number"),
        (op("split", "a", ""), "split by an empty text"),
        (op("lower", 1), "lower cannot be applied to a number"),
        (op("if", 1, 2, 3), "if takes a boolean first"),
        (op("neg", 1, 2), "neg cannot be applied to 2 values"),
        (op("default", 1), "the operator 'default' of 1 values is not known here"),
        (op("at", [1], 1), "[1][1] is unknown: something that it reads is not there"),
        (op("at", [1], True), "is unknown"),
        (op("at", {"1": 2}, 1), "is unknown"),
        (op("at", "abc", 0), "is unknown"),
        (op("+", Get("skipped"), 1), "skipped + 1 is unknown"),
        (op("if", graph.Test(UNKNOWN), 1, 2), "1 if skipped else 2 is unknown"),
        (graph.Test(UNKNOWN), "skipped is unknown"),
        (Items((Const(1), Fields({"a": op("/", 1, 0)}))), "division by zero, in 1 / 0"),
        (op("sum", Items((op("+", Get("skipped"), 1),))), "sum([skipped + 1]) is unknown"),
    ],
)
def test_what_cannot_be_computed_is_unfit_and_says_where(value: Value, message: str) -> None:
    with pytest.raises(Unfit) as caught:
        evaluate(value, look)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 400
    assert holds(Compare("==", value, Const(1)), look) is None
    assert holds(Truth(value), look) is None
    assert holds(Or((Truth(value), YES)), look) is True


def test_an_expression_reads_no_further_than_it_needs() -> None:
    seen: list[str] = []

    def watch(node: str) -> Outcome:
        seen.append(node)
        return OUTCOMES[node]

    assert evaluate(op("if", graph.Test(YES), Get("no"), Get("order")), watch) is False
    assert evaluate(op("default", Get("yes"), Get("order")), watch) is True
    assert "order" not in seen
