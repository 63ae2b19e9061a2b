"""Constructs that run bodies: for each item, again and again, or against each other."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar, overload

from segue.errors import DeclarationError
from segue.model import types
from segue.model.infer import type_of
from segue.model.refs import condition_of
from segue.model.regions import Body, Opened
from segue.model.retry import to_seconds
from segue.model.signature import hints_of
from segue.model.site import here
from segue.model.step import Step
from segue.model.tracing import Trace, inside
from segue.plan import graph
from segue.plan.names import entering, leaving

A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")


@overload
def each(items: list[A], body: Callable[[A], B], limit: int | None = None, *, name: str = "") -> list[B]: ...
@overload
def each(
    items: list[A], body: Callable[[A], B], limit: int | None = None, *, tolerate: int, name: str = ""
) -> list[B | None]: ...
@overload
def each(
    items: list[A], body: Callable[[A], B], limit: int | None, tolerate: int, *, name: str = ""
) -> list[B | None]: ...
def each(
    items: list[A], body: Callable[[A], B], limit: int | None = None, tolerate: int = 0, *, name: str = ""
) -> list[Any]:
    """Run a body for every item of a list, side by side; the results keep the order of the items.

    Args:
        items: A placeholder for a list, or a list of placeholders and constants.
        body: A function of the item. It is traced once; what it reads from outside is captured.
        limit: Items under way at a time; all by default.
        tolerate: Failed items that are borne: their results are None. One more, and it fails with all causes.
        name: Name of the node, instead of `each`, `each_2` ...

    Returns:
        The list of results. An item whose result was skipped gives None.

    Raises:
        DeclarationError: `items` is no list, or `limit`, `tolerate` or the body is bad.
    """
    trace = inside("each()")
    if limit is not None:
        _check_count(limit, 1, "the limit of each()")
    _check_count(tolerate, 0, "`tolerate` of each()")
    item = _item_type(items)
    value = trace.lower(items, Any, "the items of each()")
    opened = Opened("each", name, (graph.Arg("items", value),))
    done = opened.body("item", body, takes=(item,))
    construct = graph.Construct(opened.id, "each", trace.scope.id, (done.region,), limit=limit or 0, tolerate=tolerate)
    tp = types.union([done.type, types.NONE]) if tolerate or done.skippable else done.type
    result: list[Any] = opened.close(construct, list[tp])  # type: ignore[valid-type]
    return result


@overload
def repeat(
    body: Callable[[Any], A],
    initial: None,
    until: Callable[[A], Any],
    cap: int,
    every: float | timedelta | None = None,
    *,
    last: bool = False,
    name: str = "",
) -> A: ...
@overload
def repeat(
    body: Callable[[A], A],
    initial: A,
    until: Callable[[A], Any],
    cap: int,
    every: float | timedelta | None = None,
    *,
    last: bool = False,
    name: str = "",
) -> A: ...
def repeat(
    body: Callable[[A], A],
    initial: A | None,
    until: Callable[[A], Any],
    cap: int,
    every: float | timedelta | None = None,
    *,
    last: bool = False,
    name: str = "",
) -> A:
    """Run a body again and again, until a condition on its value holds.

    Args:
        body: A function of the value of the round before. Its parameter has the type that it is annotated with, else
            that of `initial`.
        initial: The value that the first round takes.
        until: A function of the value of a round: the condition to stop. Unknown counts as false.
        cap: Rounds at most. When they are used up, it fails with `LoopCap`.
        every: Time between two rounds, in seconds or as a timedelta; none by default.
        last: Complete with the last value at the cap, instead of failing.
        name: Name of the node, instead of `repeat`, `repeat_2` ...

    Returns:
        The value of the last round.

    Raises:
        DeclarationError: The types do not fit, or the cap, `until` or the body is bad.
    """
    trace = inside("repeat()")
    _check_count(cap, 1, "the cap of repeat()")
    pause = 0.0 if every is None else to_seconds(every, "`every` of repeat()")
    carried = _carried(body, type_of(initial))
    value = trace.lower(initial, carried, "the initial value of repeat()")
    opened = Opened("repeat", name, (graph.Arg("initial", value),))
    done = opened.body("round", body, takes=(carried,))
    _check_carried(trace, done, carried)
    construct = graph.Construct(
        id=opened.id,
        kind="repeat",
        region=trace.scope.id,
        bodies=(done.region,),
        until=_until(opened, done, until),
        cap=cap,
        last=last,
        every=pause,
    )
    result: A = opened.close(construct, done.type, skippable=done.skippable)
    return result


def race(*branches: Callable[[], T], name: str = "") -> T:
    """Run branches against each other: the first that completes wins; the others are stopped and undone.

    Args:
        branches: Two or more functions without parameters.
        name: Name of the node, instead of `race`, `race_2` ...

    Returns:
        The value of the winner. If no branch completes, it fails with all causes.

    Raises:
        DeclarationError: Fewer than two branches, or one is no such function.
    """
    result: T = _race("race", 1, branches, name)
    return result


def n_of(n: int, *branches: Callable[[], T], name: str = "") -> list[T]:
    """Run branches against each other: the first `n` that complete win; the others are stopped and undone.

    Args:
        n: How many must complete.
        branches: Two or more functions without parameters.
        name: Name of the node, instead of `n_of`, `n_of_2` ...

    Returns:
        The values of the winners, in declared order. If too few complete, it fails with all causes.

    Raises:
        DeclarationError: `n` is out of range, fewer than two branches, or one is no such function.
    """
    _check_count(n, 1, "`n` of n_of()")
    if n > len(branches):
        raise DeclarationError(f"{here()}: n_of({n}, ...) has {len(branches)} branches, so {n} never complete")
    found: Any = _race("n_of", n, branches, name)
    # The only winner's value stands for itself in the plan, as in a race.
    return [found] if n == 1 else found


def _race(what: str, winners: int, branches: tuple[Callable[[], Any], ...], name: str) -> Any:
    trace = inside(f"{what}()")
    if len(branches) < 2:
        raise DeclarationError(
            f"{here()}: {what}() needs two or more branches, got {len(branches)}",
            "give functions without parameters: race(lambda: first(order), lambda: second(order))",
        )
    opened = Opened(what, name)
    done = [opened.body(str(i), branch) for i, branch in enumerate(branches, 1)]
    construct = graph.Construct(opened.id, "race", trace.scope.id, tuple(body.region for body in done), winners=winners)
    sure = sum(not body.skippable for body in done)
    union = types.union([body.type for body in done if not body.raises] or [types.NONE])
    return opened.close(construct, list[union] if winners > 1 else union, skippable=sure < winners)  # type: ignore[valid-type]


def _check_count(number: object, least: int, what: str) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise DeclarationError(f"{here()}: {what} must be a whole number from {least}, got {number!r}")


def _item_type(items: object) -> types.Type:
    tp = type_of(items)
    if tp is Any:
        return Any
    found = [types.array_item(member) for member in types.members(tp)]
    if None in found:
        hint = (
            "give expr.default(items, []) for a list that may be None"
            if types.admits_none(tp) and len(found) > 1
            else ""
        )
        raise DeclarationError(f"{here()}: each() needs a list, got {types.show(tp)}", hint)
    return types.union(found)


def _carried(body: object, initial: types.Type) -> types.Type:
    """Type of the value that the rounds of a `repeat` hand on."""
    if isinstance(body, Step):
        return body.params[0].type if body.params else initial
    if not inspect.isfunction(body):
        return initial
    first = next(iter(inspect.signature(body).parameters), "")
    return hints_of(body, here()).get(first, initial) if first in body.__annotations__ else initial


def _check_carried(trace: Trace, done: Body, carried: types.Type) -> None:
    """What a round gives must fit what the next one takes, unless the body does not look at it."""
    entry = entering(done.region)
    read = any(
        get.node == entry and get.path[:1] == ("value",)
        for draft in trace.drafts
        if draft.region == done.region
        for get in draft.reads
    )
    if read and not types.assignable(done.type, carried):
        raise DeclarationError(
            f"{here()}: a round of repeat() gives {types.show(done.type)}, the next one takes {types.show(carried)}",
            "annotate the parameter of the body with a type that fits both: def body(value: A | None) -> A",
        )


def _until(opened: Opened, done: Body, until: Callable[[Any], Any]) -> graph.Condition:
    trace = opened.trace
    said = condition_of(opened.after_round(done, until), "the `until` of repeat()")
    trace.own(said)
    scope = trace.places[leaving(done.region)]
    outer, trace.scope = trace.scope, scope
    try:
        condition = trace.reach_condition(said._condition)
    finally:
        trace.scope = outer
    if any(get.node not in (scope.entry, scope.exit) for get in graph.reads_of(condition)):
        raise DeclarationError(
            f"{here()}: the `until` of repeat() reads a node of the body", "return from the body what `until` looks at"
        )
    return condition
