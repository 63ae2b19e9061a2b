"""Services: named owners of steps, and the contracts of steps whose code is elsewhere."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload

from msgspec.structs import replace

from segue.errors import DeclarationError
from segue.model import types
from segue.model.retry import ONCE, Retry, to_seconds
from segue.model.schemas import standalone
from segue.model.signature import Parameter, Signature, check_function, read_signature
from segue.model.site import here
from segue.model.step import AsyncStep, Step
from segue.model.tracing import check_node_name
from segue.names import RESERVED_SERVICES, check_name
from segue.plan.graph import Contract

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
In = TypeVar("In")


class _Declare(Protocol):
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncStep[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Step[P, R]: ...


class _Implement(Protocol[R]):
    @overload
    def __call__(self, fn: Callable[Q, Coroutine[Any, Any, R]], /) -> AsyncStep[Q, R]: ...
    @overload
    def __call__(self, fn: Callable[Q, R], /) -> Step[Q, R]: ...


class Service:
    """A named owner of steps, deployed on its own, any number of replicas.

    Args:
        name: 1 to 64 characters of `[a-z0-9_-]`.

    Attributes:
        name: Its name.
        steps: Its steps by name, contracts included.

    Raises:
        DeclarationError: The name is not allowed or reserved.
    """

    def __init__(self, name: str) -> None:
        where = here()
        self.name = check_name(name, "service", where)
        if name in RESERVED_SERVICES:
            raise DeclarationError(f"{where}: service name {name!r} is reserved", "choose another")
        self.steps: dict[str, Step[..., Any]] = {}

    def __repr__(self) -> str:
        return f"Service({self.name!r})"

    @overload
    def step(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncStep[P, R]: ...
    @overload
    def step(self, fn: Callable[P, R], /) -> Step[P, R]: ...
    @overload
    def step(
        self,
        fn: None = None,
        /,
        *,
        retry: Retry | None = None,
        timeout: float | timedelta | None = None,
        deadline: float | timedelta | None = None,
        name: str = "",
    ) -> _Declare: ...
    def step(
        self,
        fn: Callable[..., Any] | None = None,
        /,
        *,
        retry: Retry | None = None,
        timeout: float | timedelta | None = None,
        deadline: float | timedelta | None = None,
        name: str = "",
    ) -> Any:
        """Declare a function as a step: `@service.step` or `@service.step(retry=..., timeout=...)`.

        An `async def` runs in the event loop, a plain function in a thread.

        Args:
            fn: The function, if used without parentheses.
            retry: When a failed attempt is tried again; by default never.
            timeout: Longest time of one attempt, in seconds or as a timedelta; by default no limit.
            deadline: Longest time of all attempts together, with the waits between them; by default no limit.
            name: Name of the step, instead of the function's.

        Raises:
            DeclarationError: Parameters or result are not annotated, a type cannot travel, or the name is bad or taken.
        """

        def declare(fn: Callable[..., Any]) -> Step[..., Any]:
            where = check_function(fn, "a step")
            named = check_node_name(name or fn.__name__, "step", where)
            signature = read_signature(fn, self.name, named, "step", True)
            return self._keep(_make(signature, fn, where, retry, timeout, deadline))

        return declare if fn is None else declare(fn)

    @overload
    def contract(self, name: str, inputs: type[In], output: type[R], *, undo: bool = False) -> Step[[In], R]: ...
    @overload
    def contract(self, name: str, inputs: type[In], output: None, *, undo: bool = False) -> Step[[In], None]: ...
    @overload
    def contract(
        self, name: str, inputs: Mapping[str, Any], output: type[R], *, undo: bool = False
    ) -> Step[..., R]: ...
    @overload
    def contract(self, name: str, inputs: Any, output: Any, *, undo: bool = False) -> Step[..., Any]: ...
    def contract(self, name: str, inputs: Any, output: Any, *, undo: bool = False) -> Step[..., Any]:
        """Declare a step without its code, so that flows import no more than its types.

        Args:
            name: Name of the step.
            inputs: The type of its one parameter, which travels as `input` and is matched by position; or the types of
                several by name, as a dict.
            output: Type of the result; None for nothing.
            undo: Whether its code has an undo.

        Raises:
            DeclarationError: A type cannot travel, or the name is bad or taken.
        """
        where = here()
        check_node_name(name, "step", where)
        named = inputs if isinstance(inputs, Mapping) else {"input": inputs}
        signature = Signature(self.name, name, (Parameter(key, tp) for key, tp in named.items()), output)
        signature.check(where)
        return self._keep(Step(signature, None, where, undoable=undo))

    def implements(
        self,
        contract: Step[P, R],
        *,
        retry: Retry | None = None,
        timeout: float | timedelta | None = None,
        deadline: float | timedelta | None = None,
    ) -> _Implement[R]:
        """Give a contract of this service its code: `@service.implements(charge)`.

        Args:
            contract: What `service.contract` gave.
            retry: As of `step`.
            timeout: As of `step`.
            deadline: As of `step`.

        Raises:
            DeclarationError: Parameters or types differ from the contract, or it has its code already.
        """

        def implement(fn: Callable[..., Any]) -> Step[..., Any]:
            where = check_function(fn, "a step")
            known = self.steps.get(contract.name)
            if contract.service != self.name:
                raise DeclarationError(
                    f"{where}: {contract.name!r} is a contract of {contract.service!r}, not of {self.name!r}"
                )
            if known is not None and known.implemented:
                raise DeclarationError(f"{where}: step {contract.name!r} has its code already, from {known.site}")
            ours = read_signature(fn, self.name, contract.name, "step", True)
            step = _make(_match(contract.signature, ours, where), fn, where, retry, timeout, deadline)
            self.steps[contract.name] = step
            return step

        return cast("_Implement[R]", implement)

    def contracts(self) -> tuple[Contract, ...]:
        """Contracts of the steps whose code is here, by name; each schema brings its types as `$defs`."""
        steps = [step for _, step in sorted(self.steps.items()) if step.implemented]
        found = standalone(step.signature for step in steps)
        return tuple(replace(one, undo=step.undoable) for one, step in zip(found, steps, strict=True))

    def _keep(self, step: Step[..., Any]) -> Step[..., Any]:
        if step.name in self.steps:
            raise DeclarationError(
                f"{step.site}: service {self.name!r} has a step {step.name!r}, from {self.steps[step.name].site}",
                "give one of them another name: @service.step(name=...)",
            )
        self.steps[step.name] = step
        return step


def _make(
    signature: Signature,
    fn: Callable[..., Any],
    where: str,
    retry: Retry | None,
    timeout: float | timedelta | None,
    deadline: float | timedelta | None,
) -> Step[..., Any]:
    step = f"step {signature.step!r}"
    kind = AsyncStep if inspect.iscoroutinefunction(fn) else Step
    return kind(
        signature,
        fn,
        where,
        retry=retry or ONCE,
        timeout=None if timeout is None else to_seconds(timeout, f"the timeout of {step}"),
        deadline=None if deadline is None else to_seconds(deadline, f"the deadline of {step}"),
    )


def _match(contract: Signature, code: Signature, where: str) -> Signature:
    """The contract's signature, with the names that the function itself uses."""
    theirs = {parameter.name: parameter for parameter in code.parameters}
    parameters = []
    for i, wanted in enumerate(contract.parameters):
        alone = len(contract.parameters) == 1 and i < len(code.parameters)
        found = code.parameters[i] if alone else theirs.get(wanted.name)
        if found is None:
            raise _mismatch(contract, code, where, f"parameter {wanted.name!r} is missing")
        del theirs[found.name]
        if not types.assignable(wanted.type, found.type):
            raise _mismatch(contract, code, where, f"parameter {found.name!r} is {types.show(found.type)}")
        parameters.append(wanted._replace(local=found.name))
    extra = [parameter.name for parameter in theirs.values() if parameter.required]
    if extra:
        raise _mismatch(contract, code, where, f"nobody gives parameter {extra[0]!r}")
    if not types.assignable(code.returns, contract.returns):
        raise _mismatch(contract, code, where, f"it returns {types.show(code.returns)}")
    return Signature(contract.service, contract.step, parameters, contract.returns)


def _mismatch(contract: Signature, code: Signature, where: str, what: str) -> DeclarationError:
    return DeclarationError(f"{where}: {code} does not implement its contract: {what}", f"the contract is {contract}")
