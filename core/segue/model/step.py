"""Steps: typed functions of services."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, ParamSpec, TypeVar, cast

from segue.errors import DeclarationError
from segue.model import types
from segue.model.retry import Retry
from segue.model.signature import Parameter, Signature
from segue.model.site import here
from segue.model.tracing import check_node_name, current, refuse_leaked

P = ParamSpec("P")
R = TypeVar("R")


class Step(Generic[P, R]):
    """A typed function of a service.

    In a flow body a call gives a placeholder; elsewhere it is the plain function, as unit tests need it. Type checkers
    see the result type in both; where a test awaits an asynchronous step, `await charge.fn(order)` says so to them.

    Attributes:
        signature: Parameters and result; reads arguments and writes results.
        retry: When a failed attempt is tried again.
        timeout: Longest time of one attempt in seconds; None for no limit.
        site: File and line of the declaration.
    """

    def __init__(
        self, signature: Signature, fn: Callable[..., Any] | None, retry: Retry, timeout: float | None, site: str
    ) -> None:
        self.signature = signature
        self.retry = retry
        self.timeout = timeout
        self.site = site
        self.is_async = inspect.iscoroutinefunction(fn)
        self._fn = fn
        self.__name__ = signature.step
        self.__doc__ = getattr(fn, "__doc__", None) or f"Step {signature}"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._call("", args, kwargs)

    def __repr__(self) -> str:
        return f"<step {self.service}.{self.signature}>"

    @property
    def name(self) -> str:
        """Its name in the service."""
        return self.signature.step

    @property
    def service(self) -> str:
        """Name of the service that owns it."""
        return self.signature.service

    @property
    def params(self) -> tuple[Parameter, ...]:
        """Parameters in declared order."""
        return self.signature.parameters

    @property
    def returns(self) -> types.Type:
        """Type of the result."""
        return self.signature.returns

    @property
    def implemented(self) -> bool:
        """Whether its code is here; a contract has none."""
        return self._fn is not None

    @property
    def fn(self) -> Callable[P, R]:
        """The function itself.

        Raises:
            DeclarationError: The step is a contract without code.
        """
        if self._fn is None:
            raise DeclarationError(
                f"{here()}: step {self.name!r} of service {self.service!r} is a contract; its code is not here",
                f"the service implements it with @{self.service}.implements({self.name})",
            )
        return self._fn

    def named(self, node: str) -> Callable[P, R]:
        """This step with a name for the node that its call makes, as in `charge.named("charge-eu")(order)`.

        Raises:
            DeclarationError: The name cannot stand in a subject, or is reserved.
        """
        check_node_name(node, "node", here())

        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return self._call(node, args, kwargs)

        return call

    def decode_args(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Typed keyword arguments for `fn`, from JSON builtins; see `Signature.decode_args`."""
        return self.signature.decode_args(args)

    def encode_result(self, value: Any) -> bytes:
        """What `fn` returned as JSON, checked against `returns`; see `Signature.encode_result`."""
        return self.signature.encode_result(value)

    def _call(self, node: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        trace = current()
        if trace is not None:
            return cast(R, trace.call(self.signature, node, args, kwargs))
        refuse_leaked((*args, *kwargs.values()), self.name)
        fn: Callable[..., R] = self.fn
        return fn(*args, **kwargs)


class AsyncStep(Step[P, R]):
    """A step declared with `async def`."""

    @property
    def fn(self) -> Callable[P, Coroutine[Any, Any, R]]:  # type: ignore[override]
        """The coroutine function itself."""
        return cast("Callable[P, Coroutine[Any, Any, R]]", super().fn)
