"""The rules of meaning, one table each, through the machine's public functions."""

from __future__ import annotations

from typing import Any

import pytest

from segue.errors import OutcomeConflict
from segue.machine.facts import (
    ROOT,
    SKIPPED,
    Await,
    Cause,
    Effect,
    Fact,
    Failure,
    Invoke,
    Key,
    Outcome,
    Record,
    Repeat,
    State,
)
from segue.machine.step import LOADED_JOIN, decide, hear, inputs, joins, step, wanted
from segue.plan.graph import ENTRY, EXIT, RUN, Arg, Const, Get, Items, Node, Not, Plan, Region, Truth, Value

A = Cause("a", error=Failure("Broken", "a broke"))
B = Cause("b")
DONE, FALSE = Outcome("completed", True), Outcome("completed", False)
FAILED = Outcome("failed", causes=(A,))
ABORTED = Outcome("aborted", causes=(B,))
CANCELLED = Outcome("cancelled", causes=(B,))


def call(name: str, *args: Value, owner: str = "s1", guard: Any = None, after: tuple[str, ...] = ()) -> Node:
    named = tuple(Arg(f"x{i}", value) for i, value in enumerate(args))
    return Node(name, "step", owner, RUN, name, named, guard, after)


def start(name: str, owner: str = "s1") -> Node:
    return call(name, owner=owner, after=(ENTRY,))


def either(name: str, *choices: Value, guard: Any = None) -> Node:
    return Node(name, "either", "s1", RUN, "", tuple(Arg(f"c{i}", choice) for i, choice in enumerate(choices)), guard)


def plan(*nodes: Node, result: Value | None = None, sinks: tuple[str, ...] = ()) -> Plan:
    end = Node(EXIT, "exit", "s1", args=() if result is None else (Arg("result", result),), after=sinks or (ENTRY,))
    every = (Node(ENTRY, "entry", "s1"), *nodes, end)
    return Plan("shop", "s1", every, (Region(RUN, ENTRY, EXIT),), (), {}, (), {})


def state(**known: Outcome) -> State:
    return State({Key(name): outcome for name, outcome in known.items()} | {Key(ENTRY): Outcome("completed", {})})


def verdict(effect: Effect) -> str | Outcome:
    """What was decided: an outcome, or `run`, `wait`, `repeat`."""
    match effect:
        case Record(fact):
            return fact.outcome
        case Invoke():
            return "run"
        case Await():
            return "wait"
        case Repeat():
            return "repeat"


PAIR = plan(start("a"), start("b"), call("c", Get("a"), Get("b")), sinks=("c",))


# R1 finality


def test_r1_the_first_copy_of_a_fact_stays() -> None:
    known = state(a=DONE)
    assert known.plus(Fact(Key("a"), FAILED)) is known
    assert known.plus(Fact(Key("b"), SKIPPED)).known("b", ROOT) == SKIPPED


def test_r1_a_second_outcome_that_differs_is_reported() -> None:
    with pytest.raises(OutcomeConflict, match="two outcomes of shop/a: completed is recorded, failed was heard"):
        step(PAIR, state(a=DONE), Fact(Key("a"), FAILED), frozenset({"c"}))
    with pytest.raises(OutcomeConflict):
        hear(PAIR, state(), [Fact(Key("a"), DONE), Fact(Key("a"), FALSE)], frozenset({"c"}))


def test_r1_what_is_decided_is_repeated_whatever_is_heard() -> None:
    known = state(a=DONE, b=DONE, c=Outcome("completed", "once"))
    after, effects = step(PAIR, known, Fact(Key("a"), DONE), frozenset({"c"}))
    assert effects == [Repeat(Key("c"), 1)]
    assert after.outcomes == known.outcomes


# R2 readiness


@pytest.mark.parametrize("first", [DONE, SKIPPED, FAILED, ABORTED, CANCELLED], ids=lambda outcome: outcome.kind)
@pytest.mark.parametrize("node", ["c", "d", EXIT], ids=["step", "either", "exit"])
def test_r2_nothing_is_decided_before_all_upstreams_are_final(first: Outcome, node: str) -> None:
    shop = plan(
        start("a"), start("b"), call("c", Get("a"), after=("b",)), either("d", Get("a"), Get("b")), sinks=("a", "b")
    )
    assert decide(shop, state(a=first), Key(node)) == Await(Key(node), 1)
    assert decide(shop, state(b=first), Key(node)) == Await(Key(node), 1)
    assert not isinstance(decide(shop, state(a=first, b=DONE), Key(node)), Await)


def test_r2_facts_of_other_tags_do_not_count() -> None:
    known = State({Key("a", "1"): DONE, Key("b", "2"): DONE})
    assert decide(PAIR, known, Key("c", "1")) == Await(Key("c", "1"), 1)
    both = State({Key("a", "1"): DONE, Key("b", "1"): DONE})
    assert decide(PAIR, both, Key("c", "1")) == Invoke(Key("c", "1"), 1, {"x0": True, "x1": True})


# R3 decision

GUARDED = plan(start("a"), start("b"), call("c", Get("a"), guard=Truth(Get("b"))), sinks=("c",))
OPTIONAL = plan(start("a"), start("b"), call("c", Get("a", optional=True), after=("b",)), sinks=("c",))
OTHERWISE = plan(start("a"), start("b"), call("c", Get("a"), guard=Not(Truth(Get("b")))), sinks=("c",))


@pytest.mark.parametrize(
    ("shop", "a", "b", "expected"),
    [
        (PAIR, DONE, DONE, "run"),
        (PAIR, DONE, SKIPPED, SKIPPED),
        (PAIR, DONE, FAILED, Outcome("aborted", causes=(A,))),
        (PAIR, DONE, ABORTED, Outcome("aborted", causes=(B,))),
        (PAIR, DONE, CANCELLED, Outcome("cancelled", causes=(B,))),
        (PAIR, FAILED, CANCELLED, Outcome("aborted", causes=(A, B))),
        (PAIR, CANCELLED, ABORTED, Outcome("aborted", causes=(B,))),
        (PAIR, SKIPPED, FAILED, Outcome("aborted", causes=(A,))),
        (PAIR, SKIPPED, CANCELLED, Outcome("cancelled", causes=(B,))),
        (GUARDED, DONE, DONE, "run"),
        (GUARDED, DONE, FALSE, SKIPPED),
        (GUARDED, DONE, SKIPPED, SKIPPED),
        (GUARDED, DONE, Outcome("completed", 7), SKIPPED),
        (GUARDED, FAILED, FALSE, Outcome("aborted", causes=(A,))),
        (GUARDED, DONE, FAILED, Outcome("aborted", causes=(A,))),
        (GUARDED, DONE, CANCELLED, Outcome("cancelled", causes=(B,))),
        (OTHERWISE, DONE, FALSE, "run"),
        (OTHERWISE, DONE, DONE, SKIPPED),
        (OTHERWISE, DONE, SKIPPED, SKIPPED),
        (OPTIONAL, SKIPPED, DONE, "run"),
        (OPTIONAL, SKIPPED, SKIPPED, "run"),
        (OPTIONAL, FAILED, DONE, Outcome("aborted", causes=(A,))),
        (OPTIONAL, DONE, ABORTED, Outcome("aborted", causes=(B,))),
    ],
)
def test_r3_decision(shop: Plan, a: Outcome, b: Outcome, expected: str | Outcome) -> None:
    assert verdict(decide(shop, state(a=a, b=b), Key("c"))) == expected


ONE, TWO = Outcome("completed", 1), Outcome("completed", 2)
FIRST = plan(start("a"), start("b"), either("c", Get("a"), Get("b")), sinks=("c",))
DEFAULT = plan(start("a"), start("b"), either("c", Get("a"), Get("b"), Const(9)), sinks=("c",))
CHOSEN = plan(start("a"), start("b"), either("c", Get("a"), guard=Truth(Get("b"))), sinks=("c",))


@pytest.mark.parametrize(
    ("shop", "a", "b", "expected"),
    [
        (FIRST, ONE, TWO, ONE),
        (FIRST, SKIPPED, TWO, TWO),
        (FIRST, SKIPPED, SKIPPED, SKIPPED),
        (FIRST, ONE, FAILED, Outcome("aborted", causes=(A,))),
        (FIRST, FAILED, TWO, Outcome("aborted", causes=(A,))),
        (FIRST, ONE, CANCELLED, Outcome("cancelled", causes=(B,))),
        (DEFAULT, SKIPPED, SKIPPED, Outcome("completed", 9)),
        (DEFAULT, SKIPPED, TWO, TWO),
        (CHOSEN, ONE, DONE, ONE),
        (CHOSEN, ONE, FALSE, SKIPPED),
        (CHOSEN, ONE, SKIPPED, SKIPPED),
    ],
)
def test_r3_either_takes_the_first_completed_in_declared_order(
    shop: Plan, a: Outcome, b: Outcome, expected: Outcome
) -> None:
    assert verdict(decide(shop, state(a=a, b=b), Key("c"))) == expected


def test_r3_a_step_runs_with_its_arguments() -> None:
    shop = plan(start("a"), call("b", Items((Get("a", ("n",)), Const(2))), Get("a", ("gone",))), sinks=("b",))
    effect = decide(shop, state(a=Outcome("completed", {"n": 1})), Key("b"))
    assert effect == Invoke(Key("b"), 1, {"x0": [1, 2], "x1": None})


# R4 dead paths


def test_r4_causes_are_a_set_in_plan_order() -> None:
    shop = plan(*(start(name) for name in "abc"), call("d", Get("c"), Get("b"), Get("a")), sinks=("d",))
    late, early = (
        Outcome("aborted", causes=(Cause("b"), Cause("c"))),
        Outcome("aborted", causes=(Cause("a"), Cause("c"))),
    )
    found = verdict(decide(shop, state(a=SKIPPED, b=early, c=late), Key("d")))
    assert found == Outcome("aborted", causes=(Cause("a"), Cause("b"), Cause("c")))


def test_r4_causes_of_one_node_are_in_the_order_of_tags() -> None:
    shop = plan(start("a"), call("b", Get("a")), sinks=("b",))
    dead = Outcome("aborted", causes=(Cause("a", "2"), Cause("a", "1"), Cause("gone"), Cause("away")))
    found = verdict(decide(shop, state(a=dead), Key("b")))
    expected = (Cause("a", "1"), Cause("a", "2"), Cause("away"), Cause("gone"))
    assert found == Outcome("aborted", causes=expected)


def test_r4_an_order_edge_carries_death_and_holds_no_skip() -> None:
    shop = plan(start("a"), call("b", after=("a",)), sinks=("b",))
    assert verdict(decide(shop, state(a=SKIPPED), Key("b"))) == "run"
    assert verdict(decide(shop, state(a=FAILED), Key("b"))) == Outcome("aborted", causes=(A,))


# R9 drain and R12 the end


def test_r9_independent_branches_go_on_after_a_failure() -> None:
    shop = plan(start("a"), start("b"), call("c", Get("b")), sinks=("a", "c"))
    everything = frozenset(shop.index.nodes)
    known, effects = step(shop, state(), Fact(Key("a"), FAILED), everything)
    assert effects == [Await(Key(EXIT), 1)]
    known, effects = step(shop, known, Fact(Key("b"), DONE), everything)
    assert effects == [Invoke(Key("c"), 1, {"x0": True})]
    known, effects = step(shop, known, Fact(Key("c"), DONE), everything)
    assert effects == [Record(Fact(Key(EXIT), Outcome("aborted", causes=(A,))))]


RESULT = plan(start("a"), start("b"), call("c", Get("a")), result=Get("a"), sinks=("b", "c"))


@pytest.mark.parametrize(
    ("a", "b", "c", "expected"),
    [
        (ONE, TWO, TWO, ONE),
        (ONE, SKIPPED, SKIPPED, ONE),
        (SKIPPED, ONE, SKIPPED, Outcome("completed", None)),
        (ONE, FAILED, TWO, Outcome("aborted", causes=(A,))),
        (ONE, TWO, CANCELLED, Outcome("cancelled", causes=(B,))),
        (FAILED, CANCELLED, Outcome("aborted", causes=(A,)), Outcome("aborted", causes=(A, B))),
    ],
)
def test_r12_the_exit_joins_all_sinks_and_the_result(a: Outcome, b: Outcome, c: Outcome, expected: Outcome) -> None:
    assert verdict(decide(RESULT, state(a=a, b=b, c=c), Key(EXIT))) == expected


@pytest.mark.parametrize("missing", ["a", "b", "c"])
def test_r12_the_exit_waits_for_all_of_them(missing: str) -> None:
    known = {name: DONE for name in "abc" if name != missing}
    assert verdict(decide(RESULT, state(**known), Key(EXIT))) == "wait"


def test_r12_an_empty_run_ends_with_its_start() -> None:
    assert verdict(decide(plan(result=Const(7)), state(), Key(EXIT))) == Outcome("completed", 7)
    assert verdict(decide(plan(), state(), Key(EXIT))) == Outcome("completed", None)


# placement and partial state


def test_only_own_nodes_are_decided() -> None:
    shop = plan(start("a"), call("b", Get("a"), owner="s2"), call("c", Get("a"), owner="s3"), sinks=("b", "c"))
    for names, expected in (("b", ["b"]), ("c", ["c"]), ("bc", ["b", "c"]), ("", [])):
        mine = frozenset(names)
        _, effects = step(shop, state(), Fact(Key("a"), DONE), mine)
        assert [effect.key.node for effect in effects if isinstance(effect, Invoke)] == expected


def test_several_facts_touch_a_node_once() -> None:
    _, effects = hear(PAIR, state(), [Fact(Key("a"), DONE), Fact(Key("b"), DONE), Fact(Key("a"), DONE)], frozenset("c"))
    assert effects == [Invoke(Key("c"), 1, {"x0": True, "x1": True})]


def wide(size: int) -> Plan:
    names = [f"n{i}" for i in range(size)]
    return plan(*(start(name) for name in names), call("join", *(Get(name) for name in names)), sinks=("join",))


def test_small_joins_are_loaded_and_large_ones_counted() -> None:
    small, large = wide(LOADED_JOIN), wide(LOADED_JOIN + 1)
    others = {Key(f"n{i}") for i in range(1, LOADED_JOIN)}
    assert set(wanted(small, Key("n0"), frozenset({"join"}))) == {Key("join"), *others}
    assert wanted(large, Key("n0"), frozenset({"join"})) == [Key("join")]
    assert wanted(large, Key("n0"), frozenset({"n1"})) == []
    assert len(inputs(large, State(), Key("join"))) == LOADED_JOIN + 1
    assert joins(large, Key("n0"), frozenset({"join"})) == [Key("join")]
    assert joins(large, Key("n0"), frozenset()) == []
    assert joins(large, Key(ENTRY), frozenset(large.index.nodes)) == []


def test_what_is_wanted_is_enough() -> None:
    known = state(b=DONE, a=FAILED, c=SKIPPED)
    part = State(
        {key: known.outcomes[key] for key in wanted(PAIR, Key("a"), frozenset({"c"})) if key in known.outcomes}
    )
    assert (
        step(PAIR, part, Fact(Key("a"), FAILED), frozenset({"c"}))[1]
        == step(PAIR, known, Fact(Key("a"), FAILED), frozenset({"c"}))[1]
    )
