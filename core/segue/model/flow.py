"""Flows: a declared graph, traced once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

from segue.errors import DeclarationError
from segue.model import build, types
from segue.model.service import Service
from segue.model.signature import UNANNOTATED, Parameter, read_signature, site_of
from segue.model.site import here
from segue.model.tracing import current
from segue.names import check_name
from segue.plan.graph import Plan

P = ParamSpec("P")
R = TypeVar("R")


class Flow(Generic[P, R]):
    """A declared flow; made by `@flow`.

    Attributes:
        name: Its name.
        fn: The flow body.
        signature: Parameters and result of the run.
        site: File and line of the declaration.
    """

    def __init__(self, fn: Callable[P, R], key: Callable[..., object] | None, home: Service | None, name: str) -> None:
        self.site = site_of(fn)
        self.name = check_name(name or fn.__name__, "flow", self.site)
        if inspect.iscoroutinefunction(fn) or inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise DeclarationError(
                f"{self.site}: the body of flow {self.name!r} must be a plain function",
                "it is traced, not run: write `def`, and call the steps without `await` or `yield`",
            )
        self.fn = fn
        self.signature = read_signature(fn, "", self.name, "flow", False)
        self._key = key
        self._home = home
        self.__name__ = self.name
        self.__doc__ = fn.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Refused: a run is started by a client, and a flow in a flow is not there yet."""
        if current() is not None:
            raise DeclarationError(
                f"{here()}: flow {self.name!r} is called in a flow body: subflows are not there yet",
                "call its steps, or share a plain function that calls them",
            )
        raise DeclarationError(
            f"{here()}: flow {self.name!r} is called like a function",
            f"start a run: await client.start({self.fn.__name__}, ...)",
        )

    def __repr__(self) -> str:
        return f"<flow {self.signature}>"

    @property
    def params(self) -> tuple[Parameter, ...]:
        """Parameters in declared order."""
        return self.signature.parameters

    @property
    def returns(self) -> types.Type:
        """Type of the result; Any if it is not annotated."""
        return Any if self.signature.returns is UNANNOTATED else self.signature.returns

    @cached_property
    def plan(self) -> Plan:
        """The compiled flow, traced at the first use. Two builds give the same hash.

        Raises:
            DeclarationError: The flow body does what cannot be compiled; names file and line.
        """
        if current() is not None:
            raise DeclarationError(f"{here()}: the plan of {self.name!r} is asked for in a flow body")
        return build.build(self.fn, self.signature, self._key, self._home.name if self._home else "", self.site)

    def encode_input(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs of a run as JSON builtins by parameter, defaults filled in: the value of the run's entry.

        Args:
            values: Typed values by parameter.

        Raises:
            InvalidInput: An argument is missing, unknown, or does not fit its type.
        """
        return self.signature.encode_args(values)

    def decode_result(self, value: Any) -> R:
        """The typed result of a run, from JSON builtins; None if the node that gives it was skipped.

        Raises:
            InvalidInput: It does not fit the declared type.
        """
        result: R = self.signature.decode_result(value)
        return result


class _Declare(Protocol):
    def __call__(self, fn: Callable[P, R], /) -> Flow[P, R]: ...


@overload
def flow(fn: Callable[P, R], /) -> Flow[P, R]: ...
@overload
def flow(
    *,
    key: Callable[..., object] | None = None,
    home: Service | None = None,
    on_failure: str = "drain",
    name: str = "",
) -> _Declare: ...
def flow(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    key: Callable[..., object] | None = None,
    home: Service | None = None,
    on_failure: str = "drain",
    name: str = "",
) -> Any:
    """Declare a flow: `@flow` or `@flow(key=lambda order: order.id)`.

    The function is traced once: step calls return placeholders, and data use makes the edges.

    Args:
        fn: The function, if used without parentheses.
        key: The business key that runs are found by, as a function of the inputs: it gets them in order, and may take
            fewer. It must give a field that is a str or an int.
        home: The service that starts and ends the runs when choreographed. By default the owner of the result, else of
            the last step.
        on_failure: What an uncaught failure does to independent branches: "drain" lets them finish.
        name: Name of the flow, instead of the function's.

    Raises:
        DeclarationError: A parameter is not annotated, a type cannot travel, or the name or a setting is bad.
    """
    if on_failure != "drain":
        raise DeclarationError(
            f"{here()}: on_failure={on_failure!r} is not supported{' yet' if on_failure == 'stop' else ''}",
            'the policy there is: "drain"',
        )
    if home is not None and not isinstance(home, Service):
        raise DeclarationError(f"{here()}: home must be a Service, got {home!r}")

    def declare(fn: Callable[P, R]) -> Flow[P, R]:
        if not inspect.isfunction(fn):
            raise DeclarationError(f"{here()}: a flow body must be a function, got {fn!r}")
        return Flow(fn, key, home, name)

    return declare if fn is None else declare(fn)
