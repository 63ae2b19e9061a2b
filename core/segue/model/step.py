"""Steps: typed functions of services."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from segue.errors import DeclarationError
from segue.model import types
from segue.model.retry import ONCE, Retry, to_seconds
from segue.model.signature import Parameter, Signature, check_function
from segue.model.site import here
from segue.model.tracing import Trace, check_node_name, current, refuse_leaked
from segue.model.undo import Undo, read_undo

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


class Step(Generic[P, R]):
    """A typed function of a service.

    In a flow body a call gives a placeholder; elsewhere it is the plain function, as unit tests need it. Type checkers
    see the result type in both; where a test awaits an asynchronous step, `await charge.fn(order)` says so to them.

    Attributes:
        signature: Parameters and result; reads arguments and writes results.
        retry: When a failed attempt is tried again.
        timeout: Longest time of one attempt in seconds; None for no limit.
        deadline: Longest time of all attempts together in seconds; None for no limit.
        site: File and line of the declaration.
        undone_by: What takes back what it did, if its code is here and can do that.
        undoable: Whether it can be undone; of a contract its code may be elsewhere.
    """

    def __init__(
        self,
        signature: Signature,
        fn: Callable[..., Any] | None,
        site: str,
        *,
        retry: Retry = ONCE,
        timeout: float | None = None,
        deadline: float | None = None,
        undoable: bool = False,
    ) -> None:
        self.signature = signature
        self.retry = retry
        self.timeout = timeout
        self.deadline = deadline
        self.site = site
        self.undone_by: Undo | None = None
        self.undoable = undoable
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

    @overload
    def undo(self, fn: F, /) -> F: ...
    @overload
    def undo(
        self, fn: None = None, /, *, retry: Retry | None = None, timeout: float | timedelta | None = None
    ) -> Callable[[F], F]: ...
    def undo(
        self,
        fn: Callable[..., Any] | None = None,
        /,
        *,
        retry: Retry | None = None,
        timeout: float | timedelta | None = None,
    ) -> Any:
        """Declare what takes back a completed call: `@charge.undo` or `@charge.undo(retry=..., timeout=...)`.

        It is called with arguments of the step, by name, and with its result in the one parameter that is not one of
        the step's. It must bear being called again, as steps do.

        Args:
            fn: The function, if used without parentheses.
            retry: When a failed attempt is tried again; by default as the step's.
            timeout: Longest time of one attempt, in seconds or as a timedelta; by default as the step's.

        Raises:
            DeclarationError: The step has an undo already or no code here, or the parameters do not fit.
        """
        limit = self.timeout if timeout is None else to_seconds(timeout, f"the timeout of the undo of {self.name!r}")

        def declare(fn: F) -> F:
            where = check_function(fn, "an undo")
            if self.undone_by is not None:
                raise DeclarationError(f"{where}: step {self.name!r} has an undo already")
            if not self.service:
                raise DeclarationError(f"{where}: {self.name!r} only computes, so there is nothing to undo")
            if not self.implemented:
                raise DeclarationError(
                    f"{where}: step {self.name!r} of service {self.service!r} is a contract; its code is not here",
                    f"say {self.service}.contract(..., undo=True), and declare the undo where the code is",
                )
            self.undone_by = read_undo(self.signature, fn, where, retry or self.retry, limit)
            self.undoable = True
            return fn

        return declare if fn is None else declare(fn)

    def decode_args(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Typed keyword arguments for `fn`, from JSON builtins; see `Signature.decode_args`."""
        return self.signature.decode_args(args)

    def encode_result(self, value: Any) -> bytes:
        """What `fn` returned as JSON, checked against `returns`; see `Signature.encode_result`."""
        return self.signature.encode_result(value)

    def _call(self, node: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        trace = current()
        if trace is not None:
            return cast(R, self._traced(trace, node, args, kwargs))
        refuse_leaked((*args, *kwargs.values()), self.name)
        fn: Callable[..., R] = self.fn
        return fn(*args, **kwargs)

    def _traced(self, trace: Trace, node: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        return trace.call(self.signature, node, args, kwargs, self.undoable)


class AsyncStep(Step[P, R]):
    """A step declared with `async def`."""

    @property
    def fn(self) -> Callable[P, Coroutine[Any, Any, R]]:  # type: ignore[override]
        """The coroutine function itself."""
        return cast("Callable[P, Coroutine[Any, Any, R]]", super().fn)
