"""What a flow means: every execution, in both modes and any order of delivery, equals the rules."""

from __future__ import annotations

import msgspec
import pytest
from orders import Order, app, place_order

from segue import App, Service, after, either, flow, otherwise, when
from segue.testing import run_everywhere

calc = Service("calc")
desk = Service("desk")


class Case(msgspec.Struct):
    n: int
    bad: bool = False
    names: list[str] = []


@calc.step
async def double(n: int) -> int:
    return 2 * n


@desk.step
async def fail_if(bad: bool) -> str:
    if bad:
        raise ValueError("told to")
    return "fine"


@calc.step
async def note(text: str | None, n: int | None) -> str:
    return f"{text} {n}"


@desk.step
async def side(text: str) -> None:
    del text


@calc.step
async def first(names: list[str]) -> str:
    return names[0]


@flow
def branches(case: Case) -> str:
    checked = fail_if(case.bad)
    with when(case.n > 10):
        large = double(case.n)
        with when(case.n > 20):
            huge = double(large)
        with otherwise():
            middle = double(large)
    with otherwise():
        small = double(1)
    side("independent")
    with after(small):
        side.named("late")("after a skip or not")
    return note(checked, either(huge, middle, small))


@flow
def failing(case: Case) -> str:
    checked = fail_if(case.bad)
    with when(checked == "fine"):
        side("never")
    with otherwise():
        side.named("neither")("never")
    n = double(case.n)
    return note(checked, n)


@flow
def nothing_to_do(case: Case) -> str | None:
    with when(case.n < 0):
        found = note("negative", case.n)
    return found


@flow
def constant(case: Case) -> int:
    side("only")
    return 7


@flow
def raises_inside(case: Case) -> str:
    one, other = first(case.names), first.named("other")(case.names)
    return note(either(one, other), 1)


both = App("both", flows=[branches, failing, nothing_to_do, constant, raises_inside], services=[calc, desk])


@pytest.mark.parametrize(
    ("total", "note", "gift", "skipped"),
    [
        (50, "small shelf-a", None, {"review", "wrap"}),
        (500, "reviewed shelf-a", None, {"wrap", "wave_through"}),
        (5000, "reviewed shelf-a", "ribbon", {"wave_through"}),
    ],
)
async def test_orders_take_their_branches(total: int, note: str, gift: str | None, skipped: set[str]) -> None:
    found = await run_everywhere(app, place_order, Order("a", total))
    assert found.runs == 6
    assert found.value == {"order": "a", "paid": total, "note": note, "gift": gift}
    assert {node for node, state in found.states.items() if state == "skipped"} == skipped
    assert {state for node, state in found.states.items() if node not in skipped} == {"completed"}


async def test_failure_drains_and_names_its_cause() -> None:
    found = await run_everywhere(app, place_order, Order("a", 500, stock=0))
    assert found.ended.status == "failed"
    assert [(cause.node, cause.error.type, cause.error.message) for cause in found.ended.causes if cause.error] == [
        ("reserve", "OutOfStock", "no a left")
    ]
    assert found.states["notify"] == "aborted"
    assert found.states["archive"] == found.states["review"] == found.states["charge"] == "completed"


@pytest.mark.parametrize(("n", "expected"), [(3, "fine 2"), (11, "fine 44"), (21, "fine 84")])
async def test_nested_guards_and_either(n: int, expected: str) -> None:
    found = await run_everywhere(both, branches, Case(n))
    assert found.value == expected
    assert found.states["side"] == found.states["late"] == "completed"


async def test_failure_before_a_guard_is_not_a_false_guard() -> None:
    found = await run_everywhere(both, failing, Case(1, bad=True))
    assert found.states == {
        "fail_if": "failed",
        "side": "aborted",
        "neither": "aborted",
        "double": "completed",
        "note": "aborted",
    }


async def test_guard_on_a_value_that_completed() -> None:
    found = await run_everywhere(both, failing, Case(2))
    assert found.value == "fine 4"
    assert (found.states["side"], found.states["neither"]) == ("completed", "skipped")


async def test_skipped_result_is_none() -> None:
    found = await run_everywhere(both, nothing_to_do, Case(5))
    assert (found.ended.status, found.value, found.states) == ("completed", None, {"note": "skipped"})


async def test_constant_result_waits_for_its_sinks() -> None:
    found = await run_everywhere(both, constant, Case(5))
    assert (found.value, found.states) == (7, {"side": "completed"})


async def test_several_failures_are_named_in_plan_order() -> None:
    found = await run_everywhere(both, raises_inside, Case(1))
    assert [cause.node for cause in found.ended.causes] == ["first", "other"]
    assert found.states["either"] == found.states["note"] == "aborted"
