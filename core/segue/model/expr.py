"""Functions of placeholders: what Python's own `len`, `in`, `min` and f-strings cannot do while a flow is traced.

    from segue import expr

    with when(expr.contains(order.tags, "gift")):
        wrap(order)
    notify(order, expr.text("{} items for {} EUR", expr.length(order.lines), round(order.total, 2)))

They take placeholders and constants, and give placeholders. Fields, items (`order.lines[0]`), arithmetic, comparisons,
`abs` and `round` are written as usual.
"""

from __future__ import annotations

import string
from collections.abc import Container, Iterable, Mapping, Sequence, Sized
from typing import Any, TypeVar, overload

from segue.errors import DeclarationError
from segue.model import access, types
from segue.model.operands import Operand, apply
from segue.model.refs import computed, condition_of, is_placeholder, operand_of
from segue.model.rewrite import rewrite
from segue.model.site import here
from segue.model.tracing import inside
from segue.plan import graph
from segue.plan.expression import Operator

A = TypeVar("A")
B = TypeVar("B")
K = TypeVar("K")


def length(value: Sized) -> int:
    """The number of items of a list or mapping, or of characters of a string."""
    return _apply("length", "expr.length()", value)  # type: ignore[no-any-return]


def contains(container: Container[Any], item: object) -> bool:
    """Whether a list has an item, a mapping a key, or a string a part: `item in container`."""
    return _apply("contains", "expr.contains()", container, item)  # type: ignore[no-any-return]


@overload
def item(container: Mapping[K, A], key: K) -> A: ...
@overload
def item(container: Sequence[A], key: int) -> A: ...
def item(container: Any, key: Any) -> Any:
    """The item of a list or table by a computed index or key, also of a constant one: `expr.item(FEES, order.country)`.

    If there is none, the step that takes it fails with `ExpressionError`; see `default`.
    """
    trace = inside("expr.item()")
    return computed(access.computed_item(operand_of(container)._replace(trace=trace), operand_of(key)))


@overload
def sum(values: Iterable[int]) -> int: ...
@overload
def sum(values: Iterable[float]) -> float: ...
def sum(values: Iterable[float]) -> float:
    """The sum of a list of numbers; 0 of an empty one."""
    return _apply("sum", "expr.sum()", values)  # type: ignore[no-any-return]


@overload
def min(first: Iterable[A], /) -> A: ...
@overload
def min(first: A, second: A, /, *more: A) -> A: ...
def min(first: Any, /, *more: Any) -> Any:
    """The least item of a list, or of several values: numbers, or strings."""
    return _apply("min", "expr.min()", [first, *more] if more else first)


@overload
def max(first: Iterable[A], /) -> A: ...
@overload
def max(first: A, second: A, /, *more: A) -> A: ...
def max(first: Any, /, *more: Any) -> Any:
    """The greatest item of a list, or of several values: numbers, or strings."""
    return _apply("max", "expr.max()", [first, *more] if more else first)


def text(template: str, /, *values: object) -> str:
    """A text made of values: `expr.text("order {} of {}", order.id, order.customer)`.

    Args:
        template: The text with `{}` in the place of each value; `{{` and `}}` stand for brackets.
        values: Strings, numbers, booleans.

    Raises:
        DeclarationError: The template is no constant, has anything else in brackets, or another number of them.
    """
    inside("expr.text()")
    try:
        found = list(string.Formatter().parse(template)) if type(template) is str else None
    except ValueError as error:
        raise DeclarationError(f"{here()}: the template {template!r} of expr.text() is broken: {error}") from None
    if found is None or any(field or spec or conversion for _, field, spec, conversion in found):
        raise DeclarationError(
            f"{here()}: the template of expr.text() must be a constant with plain {{}} for each value",
            "round a number with round(x, 2); what needs more is a step",
        )
    if len(values) != len([1 for _, field, _, _ in found if field is not None]):
        raise DeclarationError(f"{here()}: the template {template!r} of expr.text() is given {len(values)} values")
    rest, parts = iter(values), list[object]()
    for literal, field, _, _ in found:
        parts += [literal] if literal else []
        parts += [next(rest)] if field is not None else []
    return _apply("text", "expr.text()", *parts)  # type: ignore[no-any-return]


def join(values: Iterable[str], separator: str) -> str:
    """The strings of a list as one, with a separator between them."""
    return _apply("join", "expr.join()", values, separator)  # type: ignore[no-any-return]


def split(text: str, separator: str) -> list[str]:
    """The parts of a string between separators."""
    return _apply("split", "expr.split()", text, separator)  # type: ignore[no-any-return]


def lower(text: str) -> str:
    """A string in lower case."""
    return _apply("lower", "expr.lower()", text)  # type: ignore[no-any-return]


def upper(text: str) -> str:
    """A string in upper case."""
    return _apply("upper", "expr.upper()", text)  # type: ignore[no-any-return]


def strip(text: str) -> str:
    """A string without white space at its ends."""
    return _apply("strip", "expr.strip()", text)  # type: ignore[no-any-return]


def starts_with(text: str, part: str) -> bool:
    """Whether a string starts with another."""
    return _apply("starts_with", "expr.starts_with()", text, part)  # type: ignore[no-any-return]


def ends_with(text: str, part: str) -> bool:
    """Whether a string ends with another."""
    return _apply("ends_with", "expr.ends_with()", text, part)  # type: ignore[no-any-return]


def choose(condition: int, value: A, other: B) -> A | B:
    """One of two values: `value` if a condition holds, `other` if not. A choice between steps is `when`.

    Args:
        condition: As for `when`. If it is unknown, so is the result.
        value: A placeholder, a constant, or a list, dict, struct or dataclass of these.
        other: The same.
    """
    inside("expr.choose()")
    operand = condition_of(condition, "expr.choose()")._operand
    return _made("if", "expr.choose()", operand, _branch(value), _branch(other))  # type: ignore[no-any-return]


def default(value: A | None, other: B) -> A | B:
    """A value, or another if it is None, not there, or of a step that was skipped."""
    trace = inside("expr.default()")

    def soft(get: graph.Get) -> graph.Get:
        return graph.Get(get.node, get.path, True) if trace.may_skip(get) else get

    first = operand_of(value)
    first = first._replace(value=rewrite(first.value, soft))
    return _made("default", "expr.default()", first, _branch(other))  # type: ignore[no-any-return]


def _branch(value: object) -> Operand:
    """A value that is handed on as it is, so that it may be a struct too."""
    if is_placeholder(value) or types.shape(type(value)) is None:
        return operand_of(value)
    trace = inside("a value")
    return Operand(trace, trace.lower(value, type(value), f"a {type(value).__name__}"), type(value))


def _apply(op: Operator, shown: str, *values: object) -> Any:
    inside(shown)
    return _made(op, shown, *map(operand_of, values))


def _made(op: Operator, shown: str, *operands: Operand) -> Any:
    made = apply(op, *operands, shown=shown)
    return computed(made if made.trace is not None else made._replace(trace=inside(shown)))
