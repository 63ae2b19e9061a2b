"""What a step or a flow takes and gives: parameters, result, and how their values are read and written."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

import msgspec

from segue.errors import DeclarationError, InvalidInput
from segue.model import types
from segue.model.site import here, user_frame

REQUIRED: Any = inspect.Parameter.empty
"""Default of a parameter that has none."""

UNANNOTATED: Any = inspect.Signature.empty
"""Return type of a flow that does not say it."""


class Misfit(Exception):
    """A value does not fit its type, or a call its parameters; who asked knows the place, and says it in its error."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Parameter(typing.NamedTuple):
    """A parameter: the name that travels, its type and default, and what the function itself calls it."""

    name: str
    type: types.Type
    default: Any = REQUIRED
    local: str = ""

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is REQUIRED


class Signature:
    """What a step of a service (or a flow, with an empty service) takes and gives.

    Attributes:
        service: Owner of the step.
        step: Its name.
        parameters: In declared order.
        returns: Type of the result.
    """

    def __init__(self, service: str, step: str, parameters: Iterable[Parameter], returns: types.Type) -> None:
        self.service = service
        self.step = step
        self.parameters = tuple(parameters)
        self.returns = returns

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Signature) and self._identity == other._identity

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        inner = ", ".join(f"{p.name}: {types.show(p.type)}{'' if p.required else ' = ...'}" for p in self.parameters)
        return f"{self.step}({inner}) -> {'?' if self.returns is UNANNOTATED else types.show(self.returns)}"

    @property
    def _identity(self) -> tuple[Any, ...]:
        return self.service, self.step, [(p.name, p.type, p.required) for p in self.parameters], self.returns

    def check(self, where: str) -> None:
        """Check that all types can travel.

        Raises:
            DeclarationError: One cannot.
        """
        for parameter in self.parameters:
            what = f"parameter {parameter.name!r} of {self.step}"
            types.check_wire(parameter.type, f"{where}: {what}")
            try:
                msgspec.json.encode(None if parameter.required else parameter.default)
            except (TypeError, ValueError) as error:
                raise DeclarationError(f"{where}: the default of {what} cannot travel as JSON: {error}") from None
        if self.returns is not UNANNOTATED:
            types.check_wire(self.returns, f"{where}: the result of {self.step}")

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by parameter name.

        Raises:
            Misfit: One is missing, unknown, or given twice.
        """
        names = [parameter.name for parameter in self.parameters]
        if len(args) > len(names):
            raise self._misuse(f"{len(args)} arguments are given, {len(names)} are taken")
        given = dict(zip(names, args, strict=False))
        for name, value in kwargs.items():
            if name not in names:
                raise self._misuse(f"there is no parameter {name!r}")
            if name in given:
                raise self._misuse(f"{name!r} is given twice")
            given[name] = value
        lacking = [p.name for p in self.parameters if p.required and p.name not in given]
        if lacking:
            raise self._misuse(f"argument {lacking[0]!r} is missing")
        return given

    def _misuse(self, what: str) -> Misfit:
        return Misfit(f"{self.step} is called wrongly: {what}", f"it is declared as {self}")

    def decode_args(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments for the function, from JSON builtins; what is missing takes its default.

        Returns:
            Typed values by the function's own parameter names.

        Raises:
            InvalidInput: A value does not fit its type, is missing, or nobody knows it.
        """
        found: dict[str, Any] = {}
        used = 0
        for name, tp, default, local in self.parameters:
            if name in args:
                used += 1
                try:
                    found[local or name] = msgspec.convert(args[name], tp, str_keys=True)
                except ValueError as error:
                    raise InvalidInput(f"argument {_explain(error, name, self.step)}") from None
            elif default is REQUIRED:
                raise InvalidInput(f"argument {name!r} of {self.step} is missing", f"it is declared as {self}")
            else:
                found[local or name] = default
        if used != len(args):
            unknown = sorted(set(args) - {parameter.name for parameter in self.parameters})
            raise InvalidInput(f"{self.step} has no parameter {unknown[0]!r}", f"it is declared as {self}")
        return found

    def encode_args(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments as JSON builtins by parameter name, defaults filled in, checked against the types.

        Raises:
            InvalidInput: They do not fit.
        """
        try:
            given = self.bind((), values)
        except Misfit as error:
            raise InvalidInput(error.message, error.hint) from None
        found = {}
        for parameter in self.parameters:
            value = given.get(parameter.name, parameter.default)
            try:
                raw = msgspec.json.encode(value)
                msgspec.json.decode(raw, type=parameter.type)
            except (TypeError, ValueError) as error:
                raise InvalidInput(f"argument {_explain(error, parameter.name, self.step)}") from None
            found[parameter.name] = msgspec.json.decode(raw)
        return found

    def encode_result(self, value: Any) -> bytes:
        """A result as JSON, checked against the declared type.

        Raises:
            InvalidInput: It is of another type, or a field of it does not fit.
        """
        cls = self._result_class
        if cls is not None and not isinstance(value, cls):
            raise InvalidInput(f"{self.step} returned {type(value).__name__}, declared {types.show(self.returns)}")
        try:
            raw = msgspec.json.encode(value)
            self._result_decoder.decode(raw)
        except (TypeError, ValueError) as error:
            raise InvalidInput(
                f"{self.step} returned {type(value).__name__}, declared {types.show(self.returns)}: {error}"
            ) from None
        return raw

    def decode_result(self, value: Any) -> Any:
        """A typed result, from JSON builtins.

        Raises:
            InvalidInput: It does not fit the declared type.
        """
        tp = Any if self.returns is UNANNOTATED else self.returns
        try:
            return msgspec.convert(value, tp, str_keys=True)
        except ValueError as error:
            raise InvalidInput(_explain(error, "the result", self.step)) from None

    @cached_property
    def _result_class(self) -> type | None:
        tp = self.returns
        return tp if isinstance(tp, type) and types.shape(tp) is not None and not typing.is_typeddict(tp) else None

    @cached_property
    def _result_decoder(self) -> msgspec.json.Decoder[Any]:
        return msgspec.json.Decoder(self.returns)


def _explain(error: Exception, name: str, step: str) -> str:
    """msgspec's message, with the parameter in the place of `$`."""
    text, _, path = str(error).partition(" - at `$")
    return f"{name}{path.rstrip('`')} of {step}: {text}"


def read_signature(fn: Callable[..., Any], service: str, name: str, what: str, need_return: bool) -> Signature:
    """Read a function's parameters and types.

    Args:
        fn: The function.
        service: Owner, empty for a flow.
        name: Name of the step or flow.
        what: "step" or "flow", for messages.
        need_return: Whether the return annotation must be there.

    Raises:
        DeclarationError: A parameter is unannotated, of a kind that cannot be passed by name, or of a type that cannot
            travel.
    """
    where = site_of(fn)
    hints = hints_of(fn, where)
    parameters = []
    for parameter in inspect.signature(fn).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise DeclarationError(
                f"{where}: parameter {parameter.name!r} of {what} {name!r} cannot be passed by name",
                "declare plain parameters, without *, ** and /",
            )
        if parameter.name not in hints:
            raise DeclarationError(
                f"{where}: parameter {parameter.name!r} of {what} {name!r} has no type", "annotate every parameter"
            )
        parameters.append(Parameter(parameter.name, hints[parameter.name], parameter.default))
    if need_return and "return" not in hints:
        raise DeclarationError(f"{where}: {what} {name!r} has no return type", "annotate it, `-> None` for nothing")
    signature = Signature(service, name, parameters, hints.get("return", UNANNOTATED))
    signature.check(where)
    return signature


def site_of(fn: Callable[..., Any]) -> str:
    """File and line of a function's definition."""
    code = getattr(inspect.unwrap(fn), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else here()


def check_function(fn: Callable[..., Any], what: str) -> str:
    """File and line of a function that gives one value.

    Raises:
        DeclarationError: It is no function, or a generator.
    """
    if not inspect.isfunction(fn):
        raise DeclarationError(f"{here()}: {what} must be a function, got {fn!r}")
    where = site_of(fn)
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise DeclarationError(
            f"{where}: {what.partition(' ')[2]} {fn.__name__!r} is a generator", "return a list instead"
        )
    return where


def hints_of(fn: Callable[..., Any], where: str) -> dict[str, Any]:
    """The annotations of a function, resolved where it is defined or used.

    Raises:
        DeclarationError: A name in them is not known there.
    """
    try:
        return typing.get_type_hints(fn, include_extras=True)
    except NameError:
        pass
    try:
        return typing.get_type_hints(fn, localns=dict(user_frame().f_locals), include_extras=True)
    except NameError as error:
        raise DeclarationError(
            f"{where}: an annotation of {fn.__name__} cannot be read: {error}",
            "define or import its types before, and not under TYPE_CHECKING",
        ) from None
