"""What shapes a flow body without a region of its own: guards, order, and the choice between branches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, overload

from segue.errors import DeclarationError
from segue.model import types
from segue.model.drafts import Draft
from segue.model.infer import type_of
from segue.model.refs import Condition, Ref, condition_of, is_placeholder
from segue.model.site import here
from segue.model.tracing import check_node_name, inside
from segue.plan import graph

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
T = TypeVar("T")


@contextmanager
def when(condition: int) -> Iterator[None]:
    """Run what is called inside only if a condition holds; the rest is skipped, and what needs a skipped value too.

    Args:
        condition: A comparison of placeholders (`order.total > 1000`), a boolean one, or several, joined by `&` and
            `|` or negated by `~`. (Type checkers see a `bool`, and an `int` behind `~`.) It is unknown, which counts as
            false, if it reads a skipped value.

    Raises:
        DeclarationError: It is no condition, or a constant, or of another flow.
    """
    trace = inside("when()")
    found = condition_of(condition, "when()")
    trace.own(found)
    guard = trace.reach_condition(found._condition)
    with trace.block(guard, ()) as outer:
        yield
    outer.ended = guard


@contextmanager
def otherwise() -> Iterator[None]:
    """Run what is called inside only if the condition of the `when` block just before is false.

    An unknown condition skips both blocks.

    Raises:
        DeclarationError: It does not directly follow a `when` block of the same level.
    """
    trace = inside("otherwise()")
    ended = trace.level.ended
    if ended is None:
        raise DeclarationError(
            f"{here()}: otherwise() does not directly follow a `when` block",
            "put it right behind the block, at the same level, with no step call in between",
        )
    with trace.block(graph.Not(ended), ()):
        yield


@contextmanager
def after(*refs: object) -> Iterator[None]:
    """Start what is called inside only when these are final: order without data.

    A skipped one does not hold it up; a failed one aborts it.

    Args:
        refs: Results of step calls, also of steps that return nothing.

    Raises:
        DeclarationError: No placeholder, or one of another flow.
    """
    trace = inside("after()")
    if not refs:
        raise DeclarationError(f"{here()}: after() needs the result of a step call, or several")
    nodes: list[str] = []
    for ref in refs:
        if type(ref) is not Ref:
            what = "a condition" if type(ref) is Condition else repr(ref)
            raise DeclarationError(
                f"{here()}: after() takes results of step calls, got {what}", "for a list: after(*refs)"
            )
        trace.own(ref)
        nodes += trace.order_after(ref._segue.node)
    with trace.block(None, tuple(nodes)):
        yield


@overload
def either(first: A, second: B, /, *, name: str = "") -> A | B: ...
@overload
def either(first: A, second: B, third: C, /, *, name: str = "") -> A | B | C: ...
@overload
def either(first: A, second: B, third: C, fourth: D, /, *, name: str = "") -> A | B | C | D: ...
@overload
def either(*choices: T, name: str = "") -> T: ...
def either(*choices: Any, name: str = "") -> Any:
    """The first choice that completed, in the declared order (not in time); skipped if all are.

    A failed choice aborts it: it is a choice between branches, no error handling.

    Args:
        choices: Results of step calls, or what is made of them; the last may be a constant, the default.
        name: Name of the node, instead of `either`, `either_2` ...

    Raises:
        DeclarationError: Fewer than two choices, or a constant that is not the last.
    """
    trace = inside("either()")
    if name:
        check_node_name(name, "node", here())
    if len(choices) < 2:
        raise DeclarationError(f"{here()}: either() needs two or more choices, got {len(choices)}")
    args, found = [], []
    for i, choice in enumerate(choices):
        if not is_placeholder(choice) and i < len(choices) - 1:
            raise DeclarationError(
                f"{here()}: choice {i + 1} of either() is {choice!r}, so the next one is never taken",
                "put the constant last",
            )
        found.append(type_of(choice))
        value = trace.lower(choice, Any, f"choice {i + 1} of either()")
        if not isinstance(value, graph.Get | graph.Const):
            value = graph.Get(trace.add(Draft("", "value", "", args=(graph.Arg("value", value),)), "value"))
        args.append(graph.Arg(str(i + 1), _optional(value)))
    node = trace.add(Draft(name, "either", "", args=tuple(args)), "either")
    return trace.ref(node, types.union(found))


def _optional(value: graph.Value) -> graph.Value:
    return graph.Get(value.node, value.path, True) if isinstance(value, graph.Get) else value
