"""Definitions of Netflix Conductor, whose runs its own integration tests assert, declared as flows.

A SIMPLE or LAMBDA task is a step; FORK_JOIN, DECISION, SWITCH, DO_WHILE, WAIT, TERMINATE and SUB_WORKFLOW are
constructs.
"""

from __future__ import annotations

from typing import Any

import msgspec
from recorded.script import error, task

from segue import (
    App,
    Retry,
    Service,
    after,
    attempt,
    each,
    either,
    expr,
    finish,
    flow,
    otherwise,
    raise_,
    repeat,
    wait_for,
    when,
)

east, west = Service("east"), Service("west")
AGAIN = Retry(max_attempts=2, initial=0.005)


def simple(number: int) -> Any:
    """An `integration_task` of that number, at one of the two services."""
    return task(west if number % 2 else east, f"integration_task_{number}")


t0, t1, t2, t3, t4, t5, t10 = (simple(number) for number in (0, 1, 2, 3, 4, 5, 10))
t11, t12, t13, t14, t15, t16, t17, t18, t19, t20 = (simple(number) for number in range(11, 21))
form_uri, scripted = task(west, "form_uri"), task(east, "lambda0")
simple_task_in_sub_wf = task(east, "simple_task_in_sub_wf")
task1, task2, task3, task4, task5 = (task(west if n % 2 else east, f"TASK_{n}") for n in range(1, 6))
terminal = task(
    west,
    "integration_task_1_terminal",
    retry=Retry(max_attempts=2, initial=0.005, non_retryable=(error("FailedWithTerminalError"),)),
)
task_optional = task(east, "task_optional", retry=AGAIN, timeout=0.1)
timing_out = task(west, "integration_task_1_timeout", retry=AGAIN, timeout=0.1)
task_rt = task(east, "task_rt", retry=AGAIN, timeout=0.1)


class Params(msgspec.Struct):
    param1: str
    param2: str | None = None
    final_case: str | None = msgspec.field(default=None, name="finalCase")
    case: str | None = None


class Decisions(msgspec.Struct):
    decision_1: str
    decision_2: str = "null"
    decision_3: str = "null"


class Loop(msgspec.Struct):
    loop: int


@flow
def fan_in_out() -> Any:
    one = t1(None)
    with after(one):
        three = t3(None)
    two = t2(None)
    with after(three, two):
        return t4(None)


@flow
def fan_in_out_nested(case: str) -> Any:
    eleven, twelve, thirteen = t11(None), t12(None), t13(None)
    with after(twelve):
        fourteen = t14(None)
    with after(thirteen):
        with when(case == "a"):
            sixteen = t16(None)
            with after(sixteen):
                nineteen = t19(None)
            with after(nineteen):
                last = t20(None)
        with otherwise():
            with when(case == "b"):
                seventeen = t17(None)
                with after(seventeen):
                    last_b = t20(None)
            with otherwise():
                with after(t18(None)):
                    last_default = t20(None)
    with after(eleven, fourteen, last, last_b, last_default):
        return t15(None)


@flow
def sub_workflow() -> Any:
    return simple_task_in_sub_wf(None)


@flow
def with_sub_workflow(given: Params) -> Any:
    one = t1(given)
    with after(one):
        return sub_workflow()


@flow
def do_while(given: Loop) -> int:
    def turn(iteration: int) -> int:
        with after(t0(None)):
            one, two = t1(None), t2(None)
        with after(one, two):
            return iteration + 1

    return repeat(turn, 0, until=lambda iteration: iteration >= given.loop, cap=100)


@flow
def do_while_iteration_fix(given: Loop) -> int:
    def turn(iteration: int) -> int:
        with after(form_uri(iteration)):
            return iteration + 1

    return repeat(turn, 0, until=lambda iteration: iteration >= given.loop, cap=100)


@flow
def do_while_sub_workflow(given: Loop) -> int:
    def turn(iteration: int) -> int:
        with after(t0(None)):
            one, two = t1(None), t2(None)
        with after(one, two):
            below = sub_workflow()
        with after(below):
            return iteration + 1

    return repeat(turn, 0, until=lambda iteration: iteration >= given.loop, cap=100)


@flow
def switch(given: Params) -> Any:
    with when(given.case == "c"):
        one = t1(given)
        with after(one):
            two = t2(given)
    with otherwise():
        five = t5(given)
    with after(two, five):
        return t20(given)


@flow
def fork_conditional(given: Params) -> Any:
    with when(given.case == "c"):
        one = t1(given)
        with after(one):
            two = t2(given)
    with otherwise():
        five = t5(given)
    with after(two, five):
        twenty = t20(given)
    return [twenty, t10(given)]


@flow
def conditional(given: Params) -> Any:
    with when(given.param1 == "nested"):
        with when(given.param2 == "one"):
            one = t1(given)
        with when(given.param2 == "two"):
            two = t2(given)
    with when(given.param1 == "three"):
        three = t3(given)
    with when(~expr.contains(["nested", "three"], given.param1)):
        ten = t10(given)
    with after(one, two, three, ten):
        with when(given.final_case == "notify"):
            t4(None)


@flow
def exclusive_join(given: Decisions) -> Any:
    one = task1(None)
    with when(given.decision_1 == "true"):
        two = task2(one)
        with when(given.decision_2 == "true"):
            three = task3(two)
    with when(given.decision_1 == "false"):
        four = task4(one)
        with when(given.decision_3 == "true"):
            five = task5(four)
    return either(three, five, two, four, one)


@flow
def terminate_completed(given: dict[str, int]) -> Any:
    finish(scripted(given))


@flow
def terminate_failed(given: dict[str, int]) -> Any:
    with after(scripted(given)):
        raise_("Terminated")


@flow
def script(given: dict[str, int]) -> Any:
    return scripted(given)


@flow(home=west)
def wait_workflow() -> Any:
    with after(wait_for("wait", dict[str, Any])):
        return t1(None)


@flow(home=east)
def set_variable(var: str) -> dict[str, dict[str, str]]:
    with after(wait_for("wait", dict[str, Any])):
        return {"variables": {"var": var}}


@flow(home=east)
def wait_timeout() -> Any:
    """A WAIT that times out is scheduled anew: a wait in a loop."""

    def turn(before: bool) -> bool:
        def waited() -> bool:
            with after(wait_for("wait", dict[str, Any], timeout=0.1, match=expr.choose(before, "second", "first"))):
                return False

        return attempt(waited, {TimeoutError: lambda: True})

    done = repeat(turn, False, until=lambda timed_out: ~timed_out, cap=2)
    with after(done):
        return t1(None)


@flow
def linear(given: Params) -> Any:
    one = t1({"p1": given.param1, "p2": given.param2})
    return t2({"tp1": given.param1, "tp2": one["op"]})


@flow(deadline=0.1)
def workflow_timeout(given: Params) -> Any:
    with after(t1(given)):
        return t2(given)


@flow
def terminal_error(given: Params) -> Any:
    with after(terminal(given)):
        return t2(None)


@flow
def optional_task(given: Params) -> Any:
    with after(attempt(lambda: task_optional(given), {Exception: lambda: None})):
        return t2(None)


@flow
def task_timeout(given: Params) -> Any:
    with after(timing_out(given)):
        return t2(None)


@flow
def response_timeout(given: Params) -> Any:
    return t2({"tp1": given.param1, "tp2": task_rt(given)["op"]})


@flow
def dynamic_fan_in_out() -> Any:
    """Which tasks are forked is known when the flow runs: a choice among those that there are, for each."""

    def forked(one: Any) -> Any:
        with when(one["name"] == "integration_task_2"):
            two = t2(one["input"])
        with when(one["name"] == "integration_task_3"):
            three = t3(one["input"])
        return either(two, three)

    with after(each(t1(None)["dynamicTasks"], forked)):
        return t4(None)


FLOWS = [
    *(fan_in_out, fan_in_out_nested, sub_workflow, with_sub_workflow, do_while, do_while_iteration_fix),
    *(do_while_sub_workflow, switch, fork_conditional, conditional, exclusive_join, terminate_completed),
    *(
        terminate_failed,
        script,
        wait_workflow,
        set_variable,
        wait_timeout,
        linear,
        workflow_timeout,
        terminal_error,
        optional_task,
    ),
    *(task_timeout, response_timeout, dynamic_fan_in_out),
]
app = App("conductor", flows=FLOWS, services=[east, west])
