"""Flows: a declared graph, traced once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cached_property
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from segue.errors import DeclarationError
from segue.model import build, types
from segue.model.drafts import Draft
from segue.model.retry import to_seconds
from segue.model.schemas import as_json
from segue.model.service import Service
from segue.model.signature import UNANNOTATED, Parameter, read_signature, site_of
from segue.model.site import here
from segue.model.step import Step
from segue.model.tracing import check_node_name, current
from segue.names import check_name
from segue.plan.graph import Arg, Const, Plan

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

    def __init__(self, fn: Callable[P, R], settings: build.Settings, name: str) -> None:
        self.site = settings.site
        self.name = check_name(name or fn.__name__, "flow", self.site)
        if inspect.iscoroutinefunction(fn) or inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise DeclarationError(
                f"{self.site}: the body of flow {self.name!r} must be a plain function",
                "it is traced, not run: write `def`, and call the steps without `await` or `yield`",
            )
        self.fn = fn
        self.signature = read_signature(fn, "", self.name, "flow", False)
        self._settings = settings
        self.__name__ = self.name
        self.__doc__ = fn.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """In a flow body: a run of this flow, as a node of the other. Elsewhere refused: a client starts runs.

        Raises:
            DeclarationError: It is called outside of a flow body, or the arguments do not fit.
        """
        return self._call("", args, kwargs)

    def named(self, node: str) -> Callable[P, R]:
        """This flow with a name for the node that its call makes.

        Raises:
            DeclarationError: The name cannot stand in a subject, or is reserved.
        """
        check_node_name(node, "node", here())

        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return self._call(node, args, kwargs)

        return call

    def _call(self, node: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        trace = current()
        if trace is None:
            raise DeclarationError(
                f"{here()}: flow {self.name!r} is called like a function",
                f"start a run: await client.start({self.fn.__name__}, ...)",
            )
        given = trace.arguments(self.signature, args, kwargs)
        taken = {arg.name for arg in given}
        left = tuple(Arg(p.name, Const(as_json(p.default))) for p in self.params if p.name not in taken)
        draft = Draft(node, "flow", "", step=self.name, args=(*given, *left))
        return cast(R, trace.ref(trace.add(draft, self.name), self.returns))

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

    @property
    def plan(self) -> Plan:
        """The compiled flow, traced at the first use. Two builds give the same hash.

        Raises:
            DeclarationError: The flow body does what cannot be compiled; names file and line.
        """
        return self._built.plan

    @property
    def computed(self) -> tuple[Step[..., Any], ...]:
        """The pure functions that it calls, as steps of the services that run them.

        Raises:
            DeclarationError: As of `plan`.
        """
        return self._built.computed

    @cached_property
    def _built(self) -> build.Built:
        if current() is not None:
            raise DeclarationError(f"{here()}: the plan of {self.name!r} is asked for in a flow body")
        return build.build(self.fn, self.signature, self._settings)

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
    deadline: float | timedelta | None = None,
    name: str = "",
) -> _Declare: ...
def flow(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    key: Callable[..., object] | None = None,
    home: Service | None = None,
    on_failure: str = "drain",
    deadline: float | timedelta | None = None,
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
        on_failure: What the first uncaught failure does to independent branches: "drain" lets them finish, "stop" stops
            them.
        deadline: Longest time of a run, in seconds or as a timedelta; then it is stopped, and has failed.
        name: Name of the flow, instead of the function's.

    Raises:
        DeclarationError: A parameter is not annotated, a type cannot travel, or the name or a setting is bad.
    """
    if on_failure not in ("drain", "stop"):
        raise DeclarationError(
            f"{here()}: on_failure={on_failure!r} is no policy", 'the policies there are: "drain" and "stop"'
        )
    seconds = 0.0 if deadline is None else to_seconds(deadline, "the deadline of a flow")
    if home is not None and not isinstance(home, Service):
        raise DeclarationError(f"{here()}: home must be a Service, got {home!r}")

    def declare(fn: Callable[P, R]) -> Flow[P, R]:
        if not inspect.isfunction(fn):
            raise DeclarationError(f"{here()}: a flow body must be a function, got {fn!r}")
        settings = build.Settings(key, "" if home is None else home.name, on_failure, seconds, site_of(fn))
        return Flow(fn, settings, name)

    return declare if fn is None else declare(fn)
