"""The independent evaluator, construct by construct: what the rules' text says of small plans written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from segue.machine.facts import Cause, Failure, Key, Outcome
from segue.plan.graph import (
    ENTRY,
    EXIT,
    RUN,
    Arg,
    Compare,
    Condition,
    Const,
    Construct,
    Fields,
    Get,
    Handler,
    Items,
    Node,
    Not,
    Op,
    Param,
    Plan,
    Region,
    Truth,
    Value,
    gets_of,
    load,
)
from segue.plan.names import entering, leaving, opening
from segue.testing.behaviours import Sent
from segue.testing.reference import Expected, bare, evaluate

GIVEN = {"order": {"n": 4, "ok": True, "tags": [3, 1]}}
ORDER = Get(ENTRY, ("order",))


class Draft:
    """A plan written down node by node."""

    def __init__(self) -> None:
        self.nodes = [Node(ENTRY, "entry", "s")]
        self.regions = [Region(RUN, ENTRY, EXIT)]
        self.constructs: list[Construct] = []

    def node(self, kind: Any, name: str, *args: Value, region: str = RUN, **more: Any) -> Draft:
        named = more.pop("named", None) or {f"a{i}": value for i, value in enumerate(args)}
        known = {node.id for node in self.nodes}
        if not any(get.node in known for get in _gets(*named.values())) and "after" not in more:
            more["after"] = (ENTRY if region == RUN else entering(region),)
        given = tuple(Arg(arg, value) for arg, value in named.items())
        self.nodes.append(Node(name, kind, "s", region, more.pop("step", name), given, **more))
        return self

    def step(self, name: str, *args: Value, region: str = RUN, **more: Any) -> Draft:
        return self.node("step", name, *args, region=region, **more)

    def open(self, name: str, region: str = RUN, guard: Condition | None = None, **named: Value) -> Draft:
        args = tuple(Arg(arg.replace("__", "."), value) for arg, value in named.items())
        after = () if _gets(*named.values()) else ((ENTRY if region == RUN else entering(region)),)
        self.nodes.append(Node(opening(name), "open", "s", region, "", args, guard, after, construct=name))
        return self

    def body(self, name: str, part: str, parent: str = RUN) -> str:
        region = f"{name}:{part}"
        self.regions.append(Region(region, entering(region), leaving(region), parent, name))
        self.nodes.append(Node(entering(region), "entry", "s", region, construct=name))
        return region

    def leave(self, region: str, result: Value | None, *sinks: str) -> Draft:
        args = () if result is None else (Arg("result", result),)
        construct = next(one.construct for one in self.regions if one.id == region)
        self.nodes.append(Node(leaving(region), "exit", "s", region, "", args, None, sinks, construct))
        return self

    def close(self, construct: Construct) -> Draft:
        self.constructs.append(construct)
        self.nodes.append(Node(construct.id, "close", "s", construct.region, construct=construct.id))
        return self

    def plan(self, result: Value | None, *sinks: str) -> Plan:
        args = () if result is None else (Arg("result", result),)
        exit = Node(EXIT, "exit", "s", args=args, after=sinks)
        nodes, regions = (*self.nodes, exit), tuple(self.regions)
        signals = tuple(Param(node.step, {}) for node in nodes if node.kind == "wait")
        inputs = (Param("order", {}),)
        built = Plan(
            "shop", "s", nodes, regions, inputs, {}, (), {}, constructs=tuple(self.constructs), signals=signals
        )
        assert load(built.json) == built
        return built


def _gets(*values: Value) -> list[Get]:
    return [get for value in values for get in gets_of(value)]


class Around:
    """Steps and signals by name; a step that is not named returns its first argument."""

    def __init__(self, signals: dict[tuple[str, str], Any] | None = None, **steps: Callable[..., Any] | str) -> None:
        self.steps, self.signals = steps, signals or {}

    def __call__(self, key: Key, args: dict[str, Any], revision: int = 1, executed: int = 0) -> Outcome:
        step = self.steps.get(key.node)
        if callable(step):
            step = step(key, args, revision)
        if isinstance(step, Failure):
            return Outcome("failed", causes=(Cause(key.node, key.tag, step),))
        if step == "cancelled":
            return Outcome("cancelled", causes=(Cause(*key),))
        return Outcome("completed", next(iter(args.values()), None) if step is None else step)

    def signal(self, name: str, slot: str) -> Sent | None:
        return Sent(self.signals[name, slot]) if (name, slot) in self.signals else None


BROKEN = Failure("Broken", "it broke")
DECLINED = Failure("Declined", "no", bases=("PaymentError",))


def fails(error: Failure) -> Callable[..., Failure]:
    return lambda *_: error


def ends(expected: Expected) -> tuple[str, Any]:
    return expected.status, expected.result


def kinds(expected: Expected, node: str) -> list[str]:
    return [outcome.kind for key, outcome in expected.outcomes.items() if key.node == node]


# plain nodes


def test_a_dead_path_carries_all_causes_in_plan_order_to_the_end() -> None:
    plan = Draft().step("a").step("b").step("c", Get("b"), Get("a")).plan(Get("c"), "c")
    found = evaluate(plan, GIVEN, Around(a=fails(DECLINED), b=fails(BROKEN)))
    assert found.outcomes[Key("c")].kind == "aborted"
    assert [cause.node for cause in found.causes] == ["a", "b"]
    assert ends(found) == ("failed", None)
    assert set(found.calls) == {Key("a"), Key("b")}


def test_cancelled_only_if_nothing_failed() -> None:
    plan = Draft().step("a").step("b").step("c", Get("a"), Get("b")).plan(Get("c"), "c")
    assert evaluate(plan, GIVEN, Around(a="cancelled")).status == "cancelled"
    assert evaluate(plan, GIVEN, Around(a="cancelled", b=fails(BROKEN))).status == "failed"


def test_both_arms_of_an_unknown_condition_are_skipped() -> None:
    gone = Truth(Get(ENTRY, ("order", "gone")))
    plan = Draft().step("a", guard=gone).step("b", guard=Not(gone)).plan(Get("a"), "a", "b")
    found = evaluate(plan, GIVEN, Around())
    assert (kinds(found, "a"), kinds(found, "b"), ends(found)) == (["skipped"], ["skipped"], ("completed", None))


def test_either_takes_the_first_that_completed_and_never_hides_a_failure() -> None:
    no = Compare(">", Get(ENTRY, ("order", "n")), Const(9))
    draft = Draft().step("a", ORDER, guard=no).step("b").node("either", "c", Get("a"), Get("b"), Const(9))
    plan = draft.plan(Get("c"), "c")
    assert ends(evaluate(plan, GIVEN, Around(b=lambda *_: 7))) == ("completed", 7)
    assert ends(evaluate(plan, GIVEN, Around(b=fails(BROKEN)))) == ("failed", None)


def test_an_expression_that_cannot_be_computed_fails_its_node() -> None:
    plan = Draft().node("value", "sum", named={"value": Op("+", (ORDER, Const(1)))}).plan(Get("sum"), "sum")
    found = evaluate(plan, GIVEN, Around())
    assert found.outcomes[Key("sum")].kind == "failed"
    assert [cause.node for cause in found.causes] == ["sum"]


def test_raise_fails_with_its_type_and_value() -> None:
    named = {"message": Const("no"), "value": Fields({"n": Get(ENTRY, ("order", "n"))})}
    found = evaluate(Draft().node("raise", "r", named=named, step="Refused").plan(None, "r"), GIVEN, Around())
    assert found.causes == (Cause("r", "", Failure("Refused", "no", value={"n": 4})),)


def test_a_signal_goes_to_its_slot_and_its_absence_is_a_timeout() -> None:
    draft = Draft().node("wait", "w", named={"match": Get(ENTRY, ("order", "n"))}, step="go", timeout=5.0)
    plan = draft.plan(Get("w"), "w")
    assert ends(evaluate(plan, GIVEN, Around({("go", "4"): "yes"}))) == ("completed", "yes")
    late = evaluate(plan, GIVEN, Around({("go", "5"): "yes"}))
    assert [cause.error.type for cause in late.causes if cause.error] == ["Timeout"]


def test_a_wait_that_nobody_ends_is_no_run() -> None:
    plan = Draft().node("wait", "w", step="go").plan(Get("w"), "w")
    with pytest.raises(ValueError, match="waits for ever"):
        evaluate(plan, GIVEN, Around())


def test_a_child_run_fails_as_its_step_with_its_name() -> None:
    plan = Draft().node("flow", "f", ORDER, step="child").plan(Get("f"), "f")
    found = evaluate(plan, GIVEN, Around(f=fails(DECLINED)))
    assert found.causes[0].error == Failure("Declined", "child: no", bases=("PaymentError", "RunFailed"))


# each


def each(items: Value, tolerate: int = 0, guard: Condition | None = None) -> Plan:
    draft = Draft().open("m", items=items, with__n=Get(ENTRY, ("order", "n"), True), guard=guard)
    body = draft.body("m", "item")
    item = Get(entering(body), ("value",))
    draft.step("x", item, Get(entering(body), ("with", "n")), region=body).leave(body, Get("x"), "x")
    return draft.close(Construct("m", "each", RUN, (body,), tolerate=tolerate)).plan(Get("m"), "m")


def test_each_keeps_the_order_of_the_items_and_hands_in_what_is_captured() -> None:
    found = evaluate(each(Get(ENTRY, ("order", "tags"))), GIVEN, Around())
    assert ends(found) == ("completed", [3, 1])
    assert found.calls == {Key("x", "0"): {"a0": 3, "a1": 4}, Key("x", "1"): {"a0": 1, "a1": 4}}
    assert found.outcomes[Key("m:item:entry", "1")].value == {"with": {"n": 4}, "value": 1}


def test_each_of_nothing_completes_with_nothing() -> None:
    assert ends(evaluate(each(Const([])), GIVEN, Around())) == ("completed", [])


@pytest.mark.parametrize(("tolerate", "expected"), [(0, ("failed", None)), (1, ("completed", [None, 1]))])
def test_each_bears_as_many_failures_as_it_says(tolerate: int, expected: Any) -> None:
    around = Around(x=lambda key, args, _: BROKEN if args["a0"] == 3 else args["a0"])
    assert ends(evaluate(each(Get(ENTRY, ("order", "tags")), tolerate), GIVEN, around)) == expected


def test_each_that_is_skipped_opens_nothing() -> None:
    found = evaluate(each(Const([1]), guard=Not(Truth(Get(ENTRY, ("order", "ok"))))), GIVEN, Around())
    assert kinds(found, "m") == ["skipped"]
    assert kinds(found, "m:item:entry") == []


def test_what_is_captured_of_a_skipped_node_skips_who_needs_it() -> None:
    draft = Draft().step("a", guard=Not(Truth(Get(ENTRY, ("order", "ok"))))).step("c")
    draft.open("m", items=Const([1]), with__a=Get("a", (), True), with__c=Get("c", ("gone",), True))
    body = draft.body("m", "item")
    outer = Get(entering(body), ("with", "a"))
    draft.step("x", outer, region=body).step("y", Get(entering(body), ("with", "c")), region=body)
    draft.step("z", Get(entering(body), ("with", "a"), True), region=body)
    draft.node("either", "e", outer, Const("default"), region=body)
    draft.leave(body, Get("e"), "x", "y", "z").close(Construct("m", "each", RUN, (body,)))
    found = evaluate(draft.plan(Get("m"), "m"), GIVEN, Around())
    assert found.outcomes[Key("m:open")].value["with"] == {"c": None}
    assert (kinds(found, "x"), kinds(found, "y"), kinds(found, "z")) == (["skipped"], ["completed"], ["completed"])
    assert found.result == ["default"]


# repeat


def repeat(until: Condition | None, cap: int = 3, last: bool = False) -> Plan:
    draft = Draft().open("r", initial=Get(ENTRY, ("order", "n")))
    body = draft.body("r", "round")
    draft.step("x", Get(entering(body), ("value",)), region=body).leave(body, Get("x"), "x")
    return draft.close(Construct("r", "repeat", RUN, (body,), until=until, cap=cap, last=last)).plan(Get("r"), "r")


def more(key: Key, args: dict[str, Any], revision: int) -> int:
    return int(args["a0"]) + 1


ENOUGH = Compare(">=", Get("r:round:exit"), Const(6))


def test_repeat_carries_the_value_until_it_is_enough() -> None:
    found = evaluate(repeat(ENOUGH), GIVEN, Around(x=more))
    assert ends(found) == ("completed", 6)
    assert [args["a0"] for args in found.calls.values()] == [4, 5]


@pytest.mark.parametrize(("last", "expected"), [(True, ("completed", 6)), (False, ("failed", None))])
def test_repeat_at_its_cap_fails_unless_the_last_value_will_do(last: bool, expected: Any) -> None:
    found = evaluate(repeat(Truth(Get("r:round:exit", ("gone",))), cap=2, last=last), GIVEN, Around(x=more))
    assert ends(found) == expected
    assert [(cause.node, cause.tag) for cause in found.causes] == ([] if last else [("r:round:exit", "1")])
    assert kinds(found, "r") == (["completed"] if last else ["aborted"])


def test_repeat_ends_with_a_round_that_died() -> None:
    found = evaluate(repeat(ENOUGH), GIVEN, Around(x=fails(BROKEN)))
    assert found.causes == (Cause("x", "0", BROKEN),)


# attempt


def attempt(*handlers: tuple[str, ...], undo: bool = False, cleanup: bool = False) -> Plan:
    draft = Draft().open("t", with__n=Get(ENTRY, ("order", "n"), True))
    body = draft.body("t", "body")
    draft.step("a", region=body, undo=True).step("b", Get("a"), region=body).step("c", region=body)
    draft.leave(body, Get("b"), "b", "c")
    caught = []
    for number, errors in enumerate(handlers, 1):
        region = draft.body("t", f"catch{number}")
        name = Get(entering(region), ("value", "node"))
        draft.step(f"h{number}", name, region=region, undo=True).leave(region, Get(f"h{number}"), f"h{number}")
        caught.append(Handler(errors, region))
    last = draft.body("t", "finally") if cleanup else ""
    if cleanup:
        draft.step("f", region=last).leave(last, None, "f")
    draft.close(Construct("t", "attempt", RUN, (body,), handlers=tuple(caught), cleanup=last, undo=undo))
    return draft.step("z", Get("t")).plan(Get("z"), "z")


def test_attempt_passes_the_value_of_its_body() -> None:
    found = evaluate(attempt(("*",)), GIVEN, Around(b=lambda *_: "well"))
    assert ends(found) == ("completed", "well")
    assert kinds(found, "t:catch1:entry") == []


@pytest.mark.parametrize(
    ("handlers", "chosen"),
    [
        ([("Broken",), ("Declined",)], "h2"),
        ([("Broken",), ("PaymentError",)], "h2"),
        ([("*",), ("Declined",)], "h1"),
        ([("Broken",)], None),
    ],
)
def test_attempt_takes_the_first_handler_that_fits_the_type_or_a_base(handlers: Any, chosen: str | None) -> None:
    found = evaluate(attempt(*handlers), GIVEN, Around(b=fails(DECLINED)))
    assert [key.node for key in found.calls if key.node.startswith("h")] == ([chosen] if chosen else [])
    assert ends(found) == (("completed", "b") if chosen else ("failed", None))


def test_the_error_is_the_first_in_plan_order_not_in_declared_order_of_handlers() -> None:
    found = evaluate(attempt(("Declined",), ("Broken",)), GIVEN, Around(b=fails(BROKEN), c=fails(DECLINED)))
    assert Key("h2") in found.calls
    error = {"type": "Broken", "message": "it broke", "node": "b", "tag": "", "value": None}
    assert found.outcomes[Key("t:catch2:entry")].value == {"with": {"n": 4}, "value": error}


def test_a_cancelled_body_is_not_handled() -> None:
    found = evaluate(attempt(("*",)), GIVEN, Around(b="cancelled"))
    assert (found.status, kinds(found, "t")) == ("cancelled", ["cancelled"])


def test_what_was_caught_with_undo_is_undone_once_even_if_the_run_fails_later() -> None:
    caught = evaluate(attempt(("*",), undo=True), GIVEN, Around(b=fails(BROKEN)))
    assert (caught.status, caught.undone, caught.compensated) == ("completed", {(Key("a"), 1)}, frozenset())
    failed = evaluate(attempt(("*",), undo=True), GIVEN, Around(b=fails(BROKEN), z=fails(BROKEN)))
    assert failed.undone == {(Key("a"), 1), (Key("h1"), 1)}
    assert failed.compensated == {Key("h1")}


def test_what_was_caught_without_undo_is_undone_with_the_run() -> None:
    found = evaluate(attempt(("*",)), GIVEN, Around(b=fails(BROKEN), z=fails(BROKEN)))
    assert found.compensated == {Key("a"), Key("h1")}


@pytest.mark.parametrize("failing", ["", "b", "h1"])
def test_cleanup_runs_in_any_case_and_its_failure_aborts(failing: str) -> None:
    steps = {"b": fails(BROKEN), failing: fails(BROKEN)} if failing else {}
    found = evaluate(attempt(("*",), cleanup=True), GIVEN, Around(**steps))
    assert kinds(found, "f") == ["completed"]
    assert found.status == ("failed" if failing == "h1" else "completed")
    bad = evaluate(attempt(("*",), cleanup=True), GIVEN, Around(**steps, f=fails(DECLINED)))
    assert kinds(bad, "t") == ["aborted"]
    assert {cause.node for cause in bad.causes} == ({"f", "h1"} if failing == "h1" else {"f"})


# retries


def test_a_retry_decides_anew_what_failed_what_was_undone_and_all_that_follows() -> None:
    draft = Draft().step("a", undo=True).step("k").step("b", Get("a")).step("c", Get("k"))
    plan = draft.plan(Items((Get("b"), Get("c"))), "b", "c")

    def once(key: Key, args: dict[str, Any], revision: int) -> Any:
        return BROKEN if revision == 1 else "again"

    first = evaluate(plan, GIVEN, Around(b=once))
    assert first.seeds == {Key("a"), Key("b"), Key(EXIT)}
    second = evaluate(plan, GIVEN, Around(b=once), [tuple(first.seeds)])
    assert ends(second) == ("completed", ["again", None])
    assert [key.node for key, revision in second.revisions.items() if revision == 2] == ["a", "b", EXIT]
    assert second.undone == {(Key("a"), 1)}
    anew = {(Key("a"), 2), (Key("b"), 2)}
    assert set(second.every_call) == anew | {(Key(name), 1) for name in ("a", "k", "b", "c")}


def test_a_retry_of_one_item_keeps_the_others() -> None:
    plan = each(Get(ENTRY, ("order", "tags")))
    around = Around(x=lambda key, args, revision: BROKEN if (key.tag, revision) == ("1", 1) else args["a0"])
    second = evaluate(plan, GIVEN, around, [tuple(evaluate(plan, GIVEN, around).seeds)])
    assert {key.tag: second.revisions[key] for key in second.outcomes if key.node == "x"} == {"0": 1, "1": 2}
    assert ends(second) == ("completed", [3, 1])


def test_a_retry_of_a_round_decides_the_later_rounds_anew() -> None:
    plan = repeat(ENOUGH)
    second = evaluate(plan, GIVEN, Around(x=more), [(Key("x", "0"), Key(EXIT))])
    assert {key.tag: second.revisions[key] for key in second.outcomes if key.node == "x"} == {"0": 2, "1": 2}
    later = evaluate(plan, GIVEN, Around(x=more), [(Key("x", "1"), Key(EXIT))])
    assert {key.tag: later.revisions[key] for key in later.outcomes if key.node == "x"} == {"0": 1, "1": 2}


def test_a_race_is_a_matter_of_time() -> None:
    draft = Draft().open("w")
    bodies = tuple(draft.body("w", str(number)) for number in (1, 2))
    for body in bodies:
        draft.leave(body, Const(body))
    draft.close(Construct("w", "race", RUN, bodies))
    draft.nodes.append(Node("w:settle", "settle", "s", construct="w"))
    # The regions' nodes stand in plan order by the order of their making.
    order = {name: i for i, name in enumerate(["w:1:entry", "w:1:exit", "w:2:entry", "w:2:exit"])}
    draft.nodes[2:6] = sorted(draft.nodes[2:6], key=lambda node: order[node.id])
    with pytest.raises(ValueError, match="matter of time"):
        evaluate(draft.plan(Get("w"), "w", "w:settle"), GIVEN, Around())


def test_the_wording_of_errors_that_no_step_made_is_not_compared() -> None:
    def outcome(type: str, message: str) -> Outcome:
        return Outcome("aborted", causes=(Cause("a", "", Failure(type, message, "there")),))

    assert bare(outcome("Timeout", "late")) == bare(outcome("Timeout", "too late"))
    assert bare(outcome("Broken", "late")) != bare(outcome("Broken", "too late"))
