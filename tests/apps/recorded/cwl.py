"""Workflows of the conformance tests of the Common Workflow Language, declared as flows.

A tool is a step. `when` of a step is a guard, `scatter` a map. What `pickValue` does with what was skipped is `either`,
or a pure function.
"""

from __future__ import annotations

from typing import Any

import msgspec
from recorded.script import SCENE

from segue import App, Service, after, compute, each, either, flow, raise_, when

here, there = Service("here"), Service("there")


@here.step
async def foo(in1: int) -> str:
    SCENE.did("foo", in1)
    return f"foo {in1}"


@there.step
async def bar(in1: int) -> str:
    SCENE.did("bar", in1)
    return f"bar {in1}"


@there.step
async def cat(in1: int, in2: int, in3: int) -> str:
    SCENE.did("cat", [in1, in2, in3])
    return f"{in1}{in2}{in3}"


@here.step
async def scattered(parts: list[str]) -> str:
    SCENE.did("scattered", parts)
    return "^" + "".join(parts) + "$"


@compute
def all_non_null(values: list[str | None]) -> list[str]:
    """`pickValue: all_non_null`."""
    return [value for value in values if value is not None]


@compute
def zipped(one: list[str], other: list[str]) -> list[list[str]]:
    """`scatterMethod: dotproduct`."""
    return [list(pair) for pair in zip(one, other, strict=True)]


@compute
def crossed(one: list[str], other: list[str]) -> list[list[str]]:
    """`scatterMethod: flat_crossproduct`."""
    return [[a, b] for a in one for b in other]


class Scattered(msgspec.Struct):
    processed1: list[str]
    processed2: list[str] = []
    scattered1: list[str] = []
    scattered2: list[str] = []


@flow
def optional_result(val: int) -> str | None:
    with when(val > 1):
        return foo(val)


@flow
def pass_through(val: int) -> str:
    """first_non_null of a step and a constant."""
    with when(val > 1):
        made = foo(val)
    return either(made, "Direct")


@flow
def first_non_null(val: int) -> str:
    """If there is none, it is a failure."""
    with when(val < 1):
        one = foo(val)
    with when(val > 2):
        two = foo(val)
    with when(~((val < 1) | (val > 2))):
        raise_("NoValue")
    return either(one, two)


@flow
def only_non_null_or_direct(val: int) -> str:
    """the_only_non_null of a step and a constant: more than one is a failure."""
    with when(val > 1):
        with after(foo(val)):
            raise_("TooManyValues")
    return "Direct"


@flow
def only_non_null(val: int) -> str:
    with when(val > 2):
        one = foo(val)
    with when(val > 0):
        two = bar(val)
    with when((val > 2) & (val > 0)), after(one, two):
        raise_("TooManyValues")
    return either(one, two)


@flow
def non_null(val: int) -> list[str]:
    with when(val > 2):
        one = foo(val)
    with when(val > 0):
        two = bar(val)
    return all_non_null([one, two])


@flow
def scatter_on_constant(data: list[int], val: int) -> list[str]:
    def body(in1: int) -> str:
        with when(val > 3):
            return foo(in1)

    return all_non_null(each(data, body))


@flow
def scatter_on_scattered(data: list[int]) -> list[str]:
    def body(in1: int) -> str:
        with when(in1 > 3):
            return foo(in1)

    return all_non_null(each(data, body))


@flow
def nested_cross_scatter(in1: list[int], in2: list[int], in3: list[int]) -> list[list[list[str | None]]]:
    def inner(a: int, b: int, c: int) -> str:
        with when(c % 2 == 0):
            return cat(a, b, c)

    return each(in1, lambda a: each(in2, lambda b: each(in3, lambda c: inner(a, b, c))))


@flow
def multi_scatter(in1: list[int]) -> list[str]:
    def even(n: int) -> str:
        with when(n % 2 == 0):
            return foo(n)

    def odd(n: int) -> str:
        with when(n % 2 == 1):
            return bar(n)

    return all_non_null(each(in1, even) + each(in1, odd))


@flow
def simple_simple(given: Scattered) -> list[list[str]]:
    return each(given.scattered1, lambda s: each(given.processed1, lambda p: scattered([p, s])))


@flow
def dotproduct_simple(given: Scattered) -> list[list[str]]:
    pairs = zipped(given.scattered1, given.scattered2)
    return each(pairs, lambda s: each(given.processed1, lambda p: scattered([p, s[0], s[1]])))


@flow
def simple_dotproduct(given: Scattered) -> list[list[str]]:
    pairs = zipped(given.processed1, given.processed2)
    return each(given.scattered1, lambda s: each(pairs, lambda p: scattered([p[0], p[1], s])))


@flow
def flat_crossproduct_simple(given: Scattered) -> list[list[str]]:
    pairs = crossed(given.scattered1, given.scattered2)
    return each(pairs, lambda s: each(given.processed1, lambda p: scattered([p, s[0], s[1]])))


@flow
def nested_crossproduct_simple(given: Scattered) -> list[list[list[str]]]:
    def inner(one: Any, other: Any) -> Any:
        return each(given.processed1, lambda p: scattered([p, one, other]))

    return each(given.scattered1, lambda one: each(given.scattered2, lambda other: inner(one, other)))


FLOWS = [
    *(optional_result, pass_through, first_non_null, only_non_null_or_direct, only_non_null, non_null),
    *(scatter_on_constant, scatter_on_scattered, nested_cross_scatter, multi_scatter, simple_simple),
    *(dotproduct_simple, simple_dotproduct, flat_crossproduct_simple, nested_crossproduct_simple),
]
app = App("cwl", flows=FLOWS, services=[here, there])
