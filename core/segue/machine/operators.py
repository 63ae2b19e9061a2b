"""What operators and comparisons do to JSON values. Results are the same everywhere, and have limits."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NoReturn

TEXT_LIMIT = 1_000_000
"""Characters of a text that an operator makes."""
LIST_LIMIT = 100_000
"""Items of a list that an operator makes."""
BITS_LIMIT = 4_096
"""Size of a whole number that an operator makes."""
DIGITS_LIMIT = 100
"""Digits that a number is rounded to, on either side of the point."""

_NAMES = {type(None): "None", bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list"}
_NUMBERS = (int, float)
_TOO_LARGE = "the result is too large"


class Unfit(Exception):
    """An expression cannot be evaluated: an operator and its values do not fit, or the result is beyond the limits."""


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal as JSON: 1 is 1.0, and True is not 1."""
    todo = [(left, right)]
    while todo:
        a, b = todo.pop()
        kind, other = type(a), type(b)
        if kind is list and other is list:
            if len(a) != len(b):
                return False
            todo += zip(a, b, strict=True)
        elif kind is dict and other is dict:
            if a.keys() != b.keys():
                return False
            todo += ((value, b[key]) for key, value in a.items())
        elif kind is list or kind is dict or (kind is bool) != (other is bool) or a != b:
            return False
    return True


def _unlike(left: Any, right: Any) -> bool:
    return not same(left, right)


def _ordering(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool | None]:
    def ordered(left: Any, right: Any) -> bool | None:
        kind, other = type(left), type(right)
        if (kind in _NUMBERS and other in _NUMBERS) or (kind is str and other is str):
            return compare(left, right)
        return None

    return ordered


COMPARISONS: dict[str, Callable[[Any, Any], bool | None]] = {
    "==": same,
    "!=": _unlike,
    "<": _ordering(operator.lt),
    "<=": _ordering(operator.le),
    ">": _ordering(operator.gt),
    ">=": _ordering(operator.ge),
}
"""Comparisons; None if the two have no order."""


def apply(name: str, args: list[Any]) -> Any:
    """Apply an operator to values.

    Raises:
        Unfit: They do not fit it, or the result is beyond the limits.
    """
    operation = _OPERATIONS.get(name)
    if operation is None:
        raise Unfit(f"the operator {name!r} of {len(args)} values is not known here")
    try:
        return _bounded(operation(*args))
    except TypeError:
        raise Unfit(f"{name} cannot be applied to {len(args)} values") from None
    except ZeroDivisionError:
        raise Unfit("division by zero") from None
    except (OverflowError, ValueError):
        raise Unfit(_TOO_LARGE) from None


def _bounded(value: Any) -> Any:
    kind = type(value)
    if kind is float:
        fits = math.isfinite(value)
    elif kind is int:
        fits = value.bit_length() <= BITS_LIMIT
    else:
        fits = kind is bool or len(value) <= (TEXT_LIMIT if kind is str else LIST_LIMIT)
    if not fits:
        raise Unfit(_TOO_LARGE)
    return value


def _refuse(what: str, *values: Any) -> NoReturn:
    kinds = " and ".join(_NAMES.get(type(value), "a mapping") for value in values)
    raise Unfit(f"{what} cannot be applied to {kinds}")


def _arithmetic(name: str, compute: Callable[..., Any]) -> Callable[..., Any]:
    def applied(first: Any, *rest: Any) -> Any:
        for value in (first, *rest):
            if type(value) not in _NUMBERS:
                _refuse(name, first, *rest)
        return compute(first, *rest)

    return applied


def _plus(first: Any, second: Any, *rest: Any) -> Any:
    found = first
    for value in (second, *rest):
        kind, other = type(found), type(value)
        if not (kind in _NUMBERS and other in _NUMBERS) and not (kind is other and kind in (str, list)):
            _refuse("+", found, value)
        found = _bounded(found + value)
    return found


def _times(first: Any, second: Any, *rest: Any) -> Any:
    found = _bounded(first * second)
    for value in rest:
        found = _bounded(found * value)
    return found


def _round(value: Any, digits: Any = None) -> Any:
    if digits is None:
        return round(value)
    if type(digits) is not int or abs(digits) > DIGITS_LIMIT:
        raise Unfit(f"round takes a whole number of digits, at most {DIGITS_LIMIT}")
    return round(value, digits)


def _sum(values: Any) -> Any:
    if type(values) is not list:
        _refuse("sum", values)
    found: Any = 0
    for value in values:  # not sum(): from Python 3.12 on that adds fractions in another way
        if type(value) not in _NUMBERS:
            _refuse("sum", value)
        found = found + value
    return found


def _extreme(name: str, pick: Callable[[list[Any]], Any]) -> Callable[[Any], Any]:
    def picked(values: Any) -> Any:
        if type(values) is not list:
            _refuse(name, values)
        if not values:
            raise Unfit(f"{name} of no values")
        kinds = set(map(type, values))
        if not kinds <= set(_NUMBERS) and kinds != {str}:
            _refuse(name, *values[:2])
        return pick(values)

    return picked


def _length(value: Any) -> int:
    if type(value) not in (str, list, dict):
        _refuse("length", value)
    return len(value)


def _contains(container: Any, item: Any) -> bool:
    if type(container) is list:
        return any(same(one, item) for one in container)
    if type(container) not in (str, dict) or type(item) is not str:
        _refuse("contains", container, item)
    return item in container


def _text(*parts: Any) -> str:
    return "".join(map(_written, parts))


def _written(value: Any) -> str:
    """A value in a text: booleans as in JSON, numbers as Python writes them."""
    kind = type(value)
    if kind is str:
        return str(value)
    if kind is bool:
        return "true" if value else "false"
    if kind not in _NUMBERS:
        _refuse("text", value)
    return repr(value)


def _join(values: Any, separator: Any) -> str:
    if type(values) is not list or type(separator) is not str:
        _refuse("join", values, separator)
    size = len(separator) * len(values)
    for value in values:
        if type(value) is not str:
            _refuse("join", value)
        size += len(value)
    if size - len(separator) > TEXT_LIMIT:
        raise Unfit(_TOO_LARGE)
    return str(separator.join(values))


def _split(text: Any, separator: Any) -> list[str]:
    if type(text) is not str or type(separator) is not str:
        _refuse("split", text, separator)
    if not separator:
        raise Unfit("split by an empty text")
    return text.split(separator, LIST_LIMIT)


def _textual(name: str, compute: Callable[..., Any]) -> Callable[..., Any]:
    def applied(*texts: Any) -> Any:
        if any(type(text) is not str for text in texts):
            _refuse(name, *texts)
        return compute(*texts)

    return applied


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "+": _plus,
    "-": _arithmetic("-", operator.sub),
    "*": _arithmetic("*", _times),
    "/": _arithmetic("/", operator.truediv),
    "//": _arithmetic("//", operator.floordiv),
    "%": _arithmetic("%", operator.mod),
    "neg": _arithmetic("-", operator.neg),
    "abs": _arithmetic("abs", operator.abs),
    "round": _arithmetic("round", _round),
    "sum": _sum,
    "min": _extreme("min", min),
    "max": _extreme("max", max),
    "length": _length,
    "contains": _contains,
    "text": _text,
    "join": _join,
    "split": _split,
    "lower": _textual("lower", str.lower),
    "upper": _textual("upper", str.upper),
    "strip": _textual("strip", str.strip),
    "starts_with": _textual("starts_with", str.startswith),
    "ends_with": _textual("ends_with", str.endswith),
}
