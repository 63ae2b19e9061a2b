"""Definitions of AWS Step Functions, whose histories were recorded there, declared as flows.

A Pass or Task state is a step, so that what was entered can be compared; Map, Parallel, Choice, Wait and Fail are
constructs. Two services share the steps, so that a choreographed run goes to and fro.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from recorded.script import task

from segue import (
    App,
    Error,
    Retry,
    Service,
    after,
    attempt,
    compute,
    each,
    either,
    expr,
    flow,
    otherwise,
    raise_,
    repeat,
    sleep_until,
    when,
)

first, second = Service("first"), Service("second")

# fmt: off
load_input, start_state = task(first, "LoadInput"), task(second, "StartState")
branch0, branch1, branch2, branch3 = (task(second, f"Branch{n}") for n in range(4))
branch21, branch22 = task(first, "Branch21"), task(second, "Branch22")
branch31, branch32, branch33 = task(second, "Branch31"), task(first, "Branch32"), task(second, "Branch33")
handle_item, pass_on, iterator_inner = task(first, "HandleItem"), task(second, "Pass"), task(first, "IteratorInner")
final, final_caught, finish_ = task(first, "Final"), task(second, "FinalCaught"), task(second, "Finish")
public, value_is_zero, value_in_twenties = (task(second, n) for n in ("Public", "ValueIsZero", "ValueInTwenties"))
finish_true, finish_false = task(first, "FinishTrue"), task(second, "FinishFalse")
invoke_lambda_with_retry = task(first, "InvokeLambdaWithRetry", retry=Retry(max_attempts=4, initial=0.005))
handle_error, lambda_task, start_task = task(second, "HandleError"), task(first, "LambdaTask"), task(first, "StartTask")
start = task(first, "Start")
end_unknown, end_failed = task(second, "EndWithLambdaUnknownHandler"), task(second, "EndWithStateTaskFailedHandler")
end_all, end_final = task(second, "EndWithAllHandler"), task(second, "EndWithFinal")
# fmt: on


class Caught(msgspec.Struct, rename={"error": "Error", "cause": "Cause"}):
    """What a Catch hands on."""

    error: str
    cause: str


class Tried(msgspec.Struct):
    """What a region came to at one of several attempts."""

    value: Any = None
    failed: bool = False
    cause: str = ""


class Typed(msgspec.Struct):
    type: str
    value: int


class Done(msgspec.Struct):
    done: bool


class Checked(msgspec.Struct):
    result: Done


class Counted(msgspec.Struct, rename={"values": "Values", "iterations": "Iterations"}):
    values: list[Any]
    iterations: int


class Walk(msgspec.Struct):
    """A list that is gone through until something happens."""

    at: int = 0
    broken: bool = False


class Numbered(msgspec.Struct):
    index: int
    value: Any


class Pair(msgspec.Struct, rename={"variable": "Variable", "value": "Value"}):
    variable: Any
    value: Any


class Texts(msgspec.Struct, rename={"variable": "Variable", "value": "Value"}):
    variable: str
    value: str


@compute
def numbered(values: list[Any]) -> list[Numbered]:
    """The items of a list with their indices."""
    return [Numbered(i, value) for i, value in enumerate(values)]


@compute
def numeric(value: Any) -> bool:
    """Whether a value is a number: types are known when a flow is built, so this is no expression."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def caught(error: Error) -> Any:
    """What the states behind a Catch are given."""
    return final_caught(Caught(error.type, error.message))


def tried_again(times: int, error: str, body: Callable[[], Any]) -> Any:
    """A Retry of a Map or Parallel state: all of it again, if it failed with the error."""

    def once(before: Tried | None) -> Tried:
        return attempt(lambda: Tried(body()), {error: lambda found: Tried(None, True, found.message)})

    last = repeat(once, None, until=lambda tried: ~tried.failed, cap=times + 1, last=True)
    with when(last.failed):
        raise_(error, last.cause)
    return last.value


@flow
def parallel_state() -> list[Any]:
    numbers = load_input(None)
    return [
        branch1(numbers),
        branch22(branch21(numbers)),
        branch33(branch32(branch31(numbers))),
    ]


@flow
def parallel_state_order() -> list[Any]:
    return [branch0(None), branch1(None), branch2(None), branch3(None)]


@flow(home=first)
def parallel_state_fail() -> Any:
    raise_("FailureType", name="branch1")


@flow
def parallel_state_catch() -> Any:
    """Its state `Final` is left out: nothing ever reaches it, which is an error at build here."""
    return attempt(lambda: raise_("FailureType", "Cause description", name="branch1"), {"FailureType": caught})


@flow(home=first)
def parallel_state_retry() -> Any:
    return tried_again(2, "FailureType", lambda: raise_("FailureType", "Cause description", name="branch1"))


@flow
def map_state() -> Any:
    begun = start_state(None)
    return each(begun["arr"], handle_item, limit=1)


@flow
def map_state_break_condition() -> Any:
    """A Map of one item at a time that ends at the first failure is a loop over the list."""
    items = start_state(None)["arr"]

    def turn(at: Walk) -> Walk:
        item = expr.item(items, at.at)
        found = numeric(item) & (item == 3)
        with when(~found):
            passed = pass_on(item)
        with after(passed):
            return Walk(at.at + 1, found)

    end = repeat(turn, Walk(), until=lambda at: at.broken | (at.at >= expr.length(items)), cap=100)
    with when(end.broken):
        raise_("SomeFailure", "This state machines raises a 'SomeFailure' failure.")
    with otherwise():
        return final(items)


def failing(item: Any) -> Any:
    return raise_("HandleItemFailError", "HandleItemFailCause", name="handle_item_fail")


@flow
def map_state_catch() -> Any:
    begun = start_state(None)
    return attempt(lambda: final(each(begun["arr"], failing, limit=1)), {"HandleItemFailError": caught})


@flow
def map_state_retry() -> Any:
    begun = start_state(None)
    return final(tried_again(2, "HandleItemFailError", lambda: each(begun["arr"], failing, limit=1)))


@flow
def map_state_retry_multiple_retriers() -> Any:
    """Three retriers: the first for another error, the second for one that is never raised, the third fits."""
    begun = start_state(None)
    return final(tried_again(3, "HandleItemFailError", lambda: each(begun["arr"], failing, limit=1)))


@flow
def map_state_config_inline_parameters(words: list[str]) -> Any:
    return finish_(
        each(words, lambda word: iterator_inner({"constantValue": "constant", "mapValue": word, "fromInput": words}))
    )


@flow
def map_state_item_selector() -> Any:
    detail = start_state(None)["detail"]

    def body(item: Numbered) -> Any:
        return handle_item(
            {
                "constant_value": "HelloWorld",
                "iteration_input_value": item.value,
                "from_input_constant": detail["delivery-partner"],
                "iteration_index": item.index,
                "original_input": detail,
            }
        )

    done = each(numbered(detail["shipped"]), body, limit=1)
    kept = {"delivery-partner": detail["delivery-partner"], "shipped": detail["shipped"]}
    return final({"detail": {**kept, "shipped_output": done}})


before_iteration = task(second, "BeforeIteration")


@flow
def map_state_reentrant() -> Counted:
    """The body of the loop is a map."""

    def turn(at: Counted) -> Counted:
        less = before_iteration(Counted(at.values, at.iterations - 1))
        return Counted(each(less["Values"], handle_item, limit=1), at.iterations - 1)

    begun = start_state(None)
    return repeat(turn, Counted(begun["Values"], begun["Iterations"]), until=lambda at: at.iterations == 0, cap=100)


@flow
def choice_aws_docs_scenario(given: Typed) -> Any:
    with when(~(given.type == "Private")):
        a = public(given)
    with otherwise():
        with when(given.value == 0):
            b = value_is_zero(given)
        with otherwise():
            with when((given.value >= 20) & (given.value < 30)):
                c = value_in_twenties(given)
            with otherwise():
                raise_("DefaultState", "No Matches!")
    return either(a, b, c)


@flow
def choice_unsorted_parameters(given: Checked) -> Any:
    with when(given.result.done == True):  # noqa: E712
        yes = finish_true(given)
    with when(given.result.done == False):  # noqa: E712
        no = finish_false(given)
    return either(yes, no)


@flow
def lambda_invoke_with_retry(given: Any) -> Any:
    return attempt(
        lambda: invoke_lambda_with_retry(given),
        {Exception: lambda error: handle_error(Caught(error.type, error.message))},
    )


@flow
def lambda_empty_retry() -> Any:
    return lambda_task(None)


@flow
def lambda_catch_relevant() -> Any:
    """A Catch for an error that is not raised, one for any failure of a task, and one for all."""

    def handled(name: str, step: Callable[[Any], Any]) -> Callable[[Error], Any]:
        def handle(error: Error) -> Any:
            found = {"Error": error.type, "Cause": error.message}
            return step({**found, name: found})

        return handle

    return attempt(
        lambda: end_final(start(None)),
        {
            "Lambda.Unknown": handled("lambda_unknown", end_unknown),
            Exception: handled("task_failed_error", end_failed),
        },
    )


@flow
def catch_empty() -> Any:
    return final(start_task(None))


@flow(home=first)
def wait_timestamp() -> dict[str, Any]:
    with after(sleep_until("2023-10-31T18:57:00Z")):
        return {}


@flow(home=second)
def wait_timestamp_path(given: dict[str, str]) -> dict[str, str]:
    sleep_until(given["TimestampValue"])
    return given


def answered(condition: Any) -> Any:
    return expr.choose(condition, "ConditionTrue", "ConditionFalse")


@flow(home=first)
def numeric_equals(cases: list[Pair]) -> list[str]:
    return each(cases, lambda case: answered(case.variable == case.value))


@flow(home=first)
def is_null(cases: list[Pair]) -> list[str]:
    return each(cases, lambda case: answered((case.variable == None) == case.value))  # noqa: E711


@flow(home=first)
def is_boolean(cases: list[Pair]) -> list[str]:
    def body(case: Pair) -> str:
        truth = (case.variable == True) | (case.variable == False)  # noqa: E712
        return answered(truth == case.value)

    return each(cases, body)


@flow(home=second)
def is_numeric(cases: list[Pair]) -> list[str]:
    return each(cases, lambda case: answered(numeric(case.variable) == case.value))


@flow(home=second)
def is_present(cases: list[dict[str, Any]]) -> list[str]:
    return each(cases, lambda case: answered(expr.contains(case, "Variable") == case["Value"]))


@flow(home=first)
def string_equals(cases: list[Pair]) -> list[str]:
    return each(cases, lambda case: answered(case.variable == case.value))


@flow(home=first)
def string_greater_than(cases: list[Texts]) -> list[str]:
    return each(cases, lambda case: answered(case.variable > case.value))


@flow(home=first)
def string_greater_than_equals(cases: list[Texts]) -> list[str]:
    return each(cases, lambda case: answered(case.variable >= case.value))


@flow(home=first)
def string_less_than(cases: list[Texts]) -> list[str]:
    return each(cases, lambda case: answered(case.variable < case.value))


@flow(home=first)
def string_less_than_equals(cases: list[Texts]) -> list[str]:
    return each(cases, lambda case: answered(case.variable <= case.value))


FLOWS = [
    *(parallel_state, parallel_state_order, parallel_state_fail, parallel_state_catch, parallel_state_retry),
    *(map_state, map_state_break_condition, map_state_catch, map_state_retry, map_state_retry_multiple_retriers),
    *(map_state_config_inline_parameters, map_state_item_selector, map_state_reentrant),
    *(choice_aws_docs_scenario, choice_unsorted_parameters, lambda_invoke_with_retry, lambda_empty_retry),
    *(lambda_catch_relevant, catch_empty, wait_timestamp, wait_timestamp_path),
    *(numeric_equals, is_null, is_boolean, is_numeric, is_present, string_equals, string_greater_than),
    *(string_greater_than_equals, string_less_than, string_less_than_equals),
]
app = App("stepfunctions", flows=FLOWS, services=[first, second])
