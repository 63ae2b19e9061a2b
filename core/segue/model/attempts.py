"""`attempt`: what contains a failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, TypeVar

import msgspec

from segue.errors import DeclarationError
from segue.model import types
from segue.model.regions import Opened
from segue.model.retry import to_seconds
from segue.model.site import here
from segue.model.tracing import inside
from segue.plan import graph

T = TypeVar("T")

ErrorType = type[BaseException] | str
"""What a handler is for: an exception class, or the name of an error of a service in another language."""

ANY = "*"


class Error(msgspec.Struct, frozen=True):
    """What a handler of `attempt` is called with: the failure that came first in plan order.

    Attributes:
        type: The class name of what was raised, or `Timeout`, `LoopCap`, `ExpressionError`.
        message: Its text.
        node: The node that failed.
        tag: Which item or round of it; "" outside of these.
        value: What `raise_` gave along.
    """

    type: str
    message: str
    node: str
    tag: str
    value: Any = None


def attempt(
    body: Callable[[], T],
    handlers: Mapping[Any, Callable[[Error], T] | Callable[[], T]] | None = None,
    finally_: Callable[[], Any] | None = None,
    undo: bool = False,
    timeout: float | timedelta | None = None,
    *,
    name: str = "",
) -> T:
    """Contain the failure of a body: when all of it has come to its end, the first handler that fits is run.

    Args:
        body: A function without parameters.
        handlers: Functions by what they handle: an exception class (its subclasses count too; `Exception` is any), the
            name of an error as a string, or a tuple of these. They are called with the `Error`, or with nothing.
        finally_: A function without parameters that is run at the end in any case.
        undo: Stop the body and undo what it completed before the handler starts.
        timeout: Longest time of the body, in seconds or as a timedelta; then it is stopped, and has failed with
            `Timeout`, which a handler of `TimeoutError` catches.
        name: Name of the node, instead of `attempt`, `attempt_2` ...

    Returns:
        What the body gives, or the handler.

    Raises:
        DeclarationError: There is nothing to do at a failure, a handler is never reached, or a key or function is bad.
    """
    trace = inside("attempt()")
    if not isinstance(handlers, Mapping | None):
        raise DeclarationError(
            f"{here()}: the handlers of attempt() must be a dict, got {handlers!r}", "as in {OutOfStock: handle}"
        )
    named = list(_named(handlers or {}))
    if not named and finally_ is None and timeout is None:
        raise DeclarationError(
            f"{here()}: attempt() has no handlers, no finally_ and no timeout, so it does nothing",
            "give handlers={OutOfStock: handle}, or call the body itself",
        )
    seconds = 0.0 if timeout is None else to_seconds(timeout, "the timeout of attempt()")
    opened = Opened("attempt", name)
    if seconds:
        opened.timer(seconds)
    bodies = [opened.body("body", body)]
    for i, (_, handler) in enumerate(named, 1):
        bodies.append(opened.body(f"catch{i}", handler, takes=(Error,), fewer=True))
    cleanup = opened.body("finally", finally_).region if finally_ is not None else ""
    construct = graph.Construct(
        id=opened.id,
        kind="attempt",
        region=trace.scope.id,
        bodies=(bodies[0].region,),
        handlers=tuple(graph.Handler(errors, done.region) for (errors, _), done in zip(named, bodies[1:], strict=True)),
        cleanup=cleanup,
        undo=undo,
        timeout=seconds,
    )
    union = types.union([done.type for done in bodies if not done.raises] or [types.NONE])
    result: T = opened.close(construct, union, skippable=any(done.skippable for done in bodies))
    return result


def _named(handlers: Mapping[Any, Callable[..., Any]]) -> Iterator[tuple[tuple[str, ...], Callable[..., Any]]]:
    """Handlers with the names of what they handle, in declared order.

    Raises:
        DeclarationError: A key is no error, or a handler before takes all that it is for.
    """
    before: list[ErrorType] = []
    for key, handler in handlers.items():
        found: list[str] = []
        for error in key if isinstance(key, tuple) else (key,):
            known = isinstance(error, str) or (isinstance(error, type) and issubclass(error, BaseException))
            if not known or not error:
                raise DeclarationError(
                    f"{here()}: attempt() has a handler for {error!r}, which is no error",
                    "give an exception class, or the name of an error of another language as a string",
                )
            other = next((one for one in before if _takes(one, error)), None)
            if other is not None:
                raise DeclarationError(
                    f"{here()}: the handler of attempt() for {_name(error)} is never reached: "
                    f"the one for {_name(other)} comes before it",
                    "put the more specific one first",
                )
            before.append(error)
            found += _names(error)
        yield tuple(found), handler


def _takes(one: ErrorType, other: ErrorType) -> bool:
    if _names(one) == (ANY,) or one == other:
        return True
    if isinstance(one, type) and isinstance(other, type):
        return issubclass(other, one)
    return _name(one) == _name(other)


def _name(error: ErrorType) -> str:
    return error if isinstance(error, str) else error.__name__


def _names(error: ErrorType) -> tuple[str, ...]:
    if error in (Exception, BaseException):
        return (ANY,)
    if error is TimeoutError:
        return ("Timeout", "TimeoutError")  # what a wait, a step or an attempt raises has no class
    return (_name(error),)
