"""The undo of a step: a function that takes back what the step did."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from segue.errors import DeclarationError
from segue.model import types
from segue.model.retry import Retry
from segue.model.signature import Parameter, Signature, read_signature


class Undo:
    """What takes back a completed call of a step.

    Attributes:
        fn: The function.
        signature: What it takes: parameters of the step, by the names that travel, and the result.
        result: Which parameter is the result; empty if it does not take it.
        retry: When a failed attempt is tried again.
        timeout: Longest time of one attempt in seconds; None for no limit.
        is_async: Whether it is a coroutine function.
    """

    def __init__(
        self, fn: Callable[..., Any], signature: Signature, result: str, retry: Retry, timeout: float | None
    ) -> None:
        self.fn = fn
        self.signature = signature
        self.result = result
        self.retry = retry
        self.timeout = timeout
        self.is_async = inspect.iscoroutinefunction(fn)

    def decode_args(self, args: Mapping[str, Any], result: Any) -> dict[str, Any]:
        """Typed keyword arguments for `fn`, from the call's arguments and its result (JSON builtins).

        Raises:
            InvalidInput: A value does not fit its type.
        """
        taken = {name: value for name, value in args.items() if any(p.name == name for p in self.signature.parameters)}
        if self.result:
            taken[self.result] = result
        return self.signature.decode_args(taken)


def read_undo(step: Signature, fn: Callable[..., Any], where: str, retry: Retry, timeout: float | None) -> Undo:
    """Match an undo with its step: parameters of the same names, and at most one other, which gets the result.

    Raises:
        DeclarationError: A parameter is of another type, or nobody gives it.
    """
    code = read_signature(fn, step.service, step.step, "the undo of step", False)
    ours = {name: p for p in step.parameters for name in (p.name, p.local) if name}
    result = ""
    parameters = []
    for p in code.parameters:
        known = ours.get(p.name)
        if known is not None:
            source, name = known.type, known.name
        elif not result:
            source, result, name = step.returns, p.name, p.name
        elif p.required:
            raise _mismatch(step, where, f"nobody gives parameter {p.name!r}; {result!r} gets the result")
        else:
            continue
        if not types.assignable(source, p.type):
            raise _mismatch(step, where, f"parameter {p.name!r} is {types.show(p.type)}, it gets {types.show(source)}")
        parameters.append(Parameter(name, p.type, known.default if known is not None else p.default, p.name))
    return Undo(fn, Signature(step.service, step.step, parameters, types.NONE), result, retry, timeout)


def _mismatch(step: Signature, where: str, what: str) -> DeclarationError:
    return DeclarationError(
        f"{where}: the undo of {step} does not fit it: {what}",
        "an undo takes parameters of the step by name, and one more for the result",
    )
