"""Pure functions of a flow, which become steps of whichever of its services needs them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from segue.errors import DeclarationError
from segue.model.signature import Signature, check_function, read_signature
from segue.model.site import here
from segue.model.step import Step
from segue.model.tracing import Trace, check_node_name

P = ParamSpec("P")
R = TypeVar("R")


class Compute(Step[P, R]):
    """A pure function of a flow; made by `@compute`. It is a step without a service until a flow is compiled."""

    def __repr__(self) -> str:
        return f"<compute {self.signature}>"

    def _traced(self, trace: Trace, node: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        known = trace.computed.setdefault(self.name, self)
        if known is not self:
            raise DeclarationError(
                f"{here()}: {self.name!r} is computed by two functions, from {known.site} and {self.site}",
                "give one of them another name: @compute(name=...)",
            )
        return trace.call(self.signature, node, args, kwargs)


class _Declare(Protocol):
    def __call__(self, fn: Callable[P, R], /) -> Compute[P, R]: ...


@overload
def compute(fn: Callable[P, R], /) -> Compute[P, R]: ...
@overload
def compute(*, name: str = "") -> _Declare: ...
def compute(fn: Callable[..., Any] | None = None, /, *, name: str = "") -> Any:
    """Declare a pure function that flows call like a step: `@compute` or `@compute(name=...)`.

    It is run by the service of the first step that its arguments come from, else by that of the first step that takes
    its result, else by the home. Every process that serves an app with such a flow has its code.

    Args:
        fn: The function, if used without parentheses.
        name: Its name, instead of the function's.

    Raises:
        DeclarationError: It is no plain function, it is not annotated, a type cannot travel, or the name is bad.
    """

    def declare(fn: Callable[..., Any]) -> Compute[..., Any]:
        where = check_function(fn, "a computation")
        if inspect.iscoroutinefunction(fn):
            raise DeclarationError(
                f"{where}: {fn.__name__!r} computes, so it must be a plain function",
                "what waits for something is a step: @service.step",
            )
        named = check_node_name(name or fn.__name__, "compute", where)
        return Compute(read_signature(fn, "", named, "compute", True), fn, where)

    return declare if fn is None else declare(fn)


def hosted(trace: Trace, owners: Mapping[str, str]) -> tuple[Step[..., Any], ...]:
    """The pure functions of a flow as steps of the services that run them, by service and name.

    Raises:
        DeclarationError: The flow calls a step of that name, of the same service.
    """
    found: dict[tuple[str, str], Step[..., Any]] = {}
    for draft in trace.drafts:
        if draft.kind != "step" or draft.owner:
            continue
        place = owners[draft.id], draft.step
        if place in trace.used:
            raise DeclarationError(
                f"{trace.sites[draft.id]}: {draft.step!r} is computed by service {place[0]!r}, which has a step of "
                "that name",
                "give one of them another name: @compute(name=...)",
            )
        compute = trace.computed[draft.step]
        signature = Signature(*place, compute.params, compute.returns)
        found.setdefault(place, Step(signature, compute.fn, compute.site))
    return tuple(found[place] for place in sorted(found))
