"""What a flow says and how it ends before its last line: events, failures, early results."""

from __future__ import annotations

from typing import Any, TypeVar

from segue.errors import DeclarationError
from segue.model import types
from segue.model.drafts import Draft
from segue.model.infer import type_of
from segue.model.signature import UNANNOTATED, Misfit
from segue.model.site import here
from segue.model.tracing import check_node_name, inside
from segue.model.values import lower_result
from segue.plan import graph

T = TypeVar("T")


def emit(event: str, /, value: Any = None) -> None:
    """Publish a domain event: others subscribe to it without the flow's knowledge, and the flow does not wait for them.

    Outsiders hear `<namespace>.*.<flow>.<event>.completed`.

    Args:
        event: Its name, that of the node too.
        value: What it carries.

    Raises:
        DeclarationError: The name is bad or taken, or the value cannot travel.
    """
    trace = inside("emit()")
    check_node_name(event, "event", here())
    lowered = trace.lower(value, Any, f"the value of event {event!r}")
    if event in trace.sites:
        raise DeclarationError(
            f"{here()}: a node named {event!r} is already there, from {trace.sites[event]}",
            'an event is emitted at one place: after a choice, emit("name", either(a, b)); or give another name',
        )
    draft = Draft(event, "emit", "", step=event, args=(graph.Arg("value", lowered),))
    done: None = trace.ref(trace.add(draft, "emit"), types.NONE)  # type: ignore[assignment]
    return done


def raise_(
    error: type[BaseException] | BaseException | str, message: str | None = None, value: Any = None, *, name: str = ""
) -> T:  # type: ignore[type-var]
    """Fail here: an `attempt` around it catches it, else the run fails. What is declared after it is not reached.

    Args:
        error: An exception class, an exception (its text is the message), or the name of an error.
        message: What happened; may be a placeholder.
        value: What goes with it.
        name: Name of the node, instead of `raise`, `raise_2` ...

    Returns:
        Nothing that could be used. (A type checker takes it for whatever fits, so that a handler may return it, and
        goes on behind it, since it may stand in a `when` block.)

    Raises:
        DeclarationError: It is no error, or message or value do not fit.
    """
    trace = inside("raise_()")
    if name:
        check_node_name(name, "node", here())
    kind = error if isinstance(error, str | type) else type(error)
    if not kind or (isinstance(kind, type) and not issubclass(kind, BaseException)):
        raise DeclarationError(
            f"{here()}: raise_() takes an error, got {error!r}", "give an exception class, an exception, or a name"
        )
    if message is None:
        message = str(error) if isinstance(error, BaseException) else ""
    args = [graph.Arg("message", trace.lower(message, str, "the message of raise_()"))]
    if value is not None:
        args.append(graph.Arg("value", trace.lower(value, Any, "the value of raise_()")))
    bases = _bases(kind) if isinstance(kind, type) else []
    if bases:
        args.append(graph.Arg("bases", graph.Const(bases)))
    step = kind if isinstance(kind, str) else kind.__name__
    trace.add(Draft(name, "raise", "", step=step, args=tuple(args)), "raise")
    trace.end("raise_")
    return None  # type: ignore[return-value]


def _bases(error: type[BaseException]) -> list[str]:
    """Names of the classes that an error also is, nearest first."""
    return [cls.__name__ for cls in error.__mro__[1:] if cls not in (Exception, BaseException, object)]


def finish(value: Any = None, *, name: str = "") -> None:
    """End the flow early with a result. What is declared after it is not reached; what was declared before goes on.

    If the condition of the `when` block around it is unknown, neither it nor what comes after it is run.

    Args:
        value: The result of the run.
        name: Name of the node, instead of `finish`, `finish_2` ...

    Raises:
        DeclarationError: It stands in the body of a construct, or the value does not fit the result of the flow.
    """
    trace = inside("finish()")
    if name:
        check_node_name(name, "node", here())
    scope = trace.scope
    if scope.outer is not None:
        raise DeclarationError(
            f"{here()}: finish() stands in a body of {scope.kind}()",
            "return the value from the body, and finish behind it: with when(found): finish(found)",
        )
    declared = trace.returns
    target = Any if declared is UNANNOTATED else declared
    try:
        lowered = lower_result(trace, value, target, "the value of finish()")
    except Misfit as error:
        raise DeclarationError(f"{here()}: {error.message}", error.hint) from None
    node = trace.add(Draft(name, "value", "", args=(graph.Arg("value", lowered),)), "finish")
    trace.finishes.append((node, type_of(value)))
    trace.end("finish")
