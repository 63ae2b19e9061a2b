"""Waiting: for signals, and for time."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any, TypeVar, overload

import msgspec

from segue.errors import DeclarationError
from segue.model import types
from segue.model.drafts import Draft, Scope, origin
from segue.model.infer import type_of
from segue.model.refs import Placeholder
from segue.model.retry import to_seconds
from segue.model.site import here
from segue.model.tracing import Awaited, Trace, check_node_name, inside
from segue.names import check_name
from segue.plan import graph

T = TypeVar("T")


@overload
def wait_for(
    signal: str, type: type[T], /, timeout: float | timedelta | None = None, match: Any = None, *, name: str = ""
) -> T: ...
@overload
def wait_for(
    signal: str, type: None, /, timeout: float | timedelta | None = None, match: Any = None, *, name: str = ""
) -> None: ...
@overload
def wait_for(
    signal: str, type: Any, /, timeout: float | timedelta | None = None, match: Any = None, *, name: str = ""
) -> Any: ...
def wait_for(
    signal: str, type: Any, /, timeout: float | timedelta | None = None, match: Any = None, *, name: str = ""
) -> Any:
    """Wait for a signal: for a person, or for an event from outside. It is kept if it comes early; the first counts.

    Args:
        signal: Its name; who sends it names it.
        type: Type of its value; None if it has none.
        timeout: Longest time, in seconds or as a timedelta; then it fails with `Timeout`.
        match: A str or int that tells this wait from others for a signal of this name; who sends it gives the same.
            Without it, waits in bodies of `each` and `repeat` are told apart by their tag. A signal is for every wait
            of its name and match, so what differs only when the run is there (two items of one id) shares it.
        name: Name of the node, instead of the signal's.

    Returns:
        The value of the signal.

    Raises:
        DeclarationError: The type cannot travel, another wait for the signal has another type, or no match, or the
            same one; or all items or rounds around it have the same match.
    """
    trace = inside("wait_for()")
    check_name(signal, "signal", here())
    check_node_name(name or signal, "node", here())
    types.check_wire(type, f"{here()}: the value of signal {signal!r}")
    seconds = 0.0 if timeout is None else to_seconds(timeout, f"the timeout of signal {signal!r}")
    args: tuple[graph.Arg, ...] = ()
    slot = None
    if match is not None:
        args = (graph.Arg("match", trace.lower(match, str | int, f"the match of signal {signal!r}")),)
        slot = _slot(trace, signal, args[0].value)
    _expect(trace, signal, type, slot)
    node = trace.add(Draft(name, "wait", "", step=signal, args=args, timeout=seconds), signal)
    return trace.ref(node, type)


def _slot(trace: Trace, signal: str, match: graph.Value) -> bytes:
    """What a match stands for, wherever it is read; it must differ between the items and rounds around the wait."""
    found = [origin(trace.scope, get) for get in graph.gets_of(match)]
    sources = [scope for scope, _ in found]
    around: Scope | None = trace.scope
    while around is not None and not any(around is source for source in sources):
        if around.kind in ("each", "repeat"):
            raise DeclarationError(
                f"{here()}: signal {signal!r} is waited for in {around.kind}(), and its match is the same every time",
                "match something of the item or the value of the round; or leave `match` out and send it to a tag",
            )
        around = around.outer
    if isinstance(match, graph.Get):
        source = found[0][1]
        return msgspec.json.encode((source.node, source.path))
    return msgspec.json.encode(match)


def _expect(trace: Trace, signal: str, tp: types.Type, slot: bytes | None) -> None:
    matches = {} if slot is None else {slot: here()}
    known = trace.signals.get(signal)
    if known is None:
        trace.signals[signal] = Awaited(tp, here(), matches)
        return
    if known.type != tp:
        raise DeclarationError(
            f"{here()}: signal {signal!r} is {types.show(tp)} here, and {types.show(known.type)} in {known.site}",
            "a signal has one type in a flow: give one of them another name",
        )
    if slot is not None and slot in known.matches:
        raise DeclarationError(
            f"{here()}: signal {signal!r} is waited for in {known.matches[slot]} too, with the same match",
            "give each wait a `match=` of its own, or wait for signals of different names",
        )
    if not (known.matches and matches):
        raise DeclarationError(
            f"{here()}: signal {signal!r} is waited for in {known.site} too, and nothing tells the two apart",
            "give each wait a `match=`, or wait for signals of different names",
        )
    known.matches |= matches


# The second overloads keep mypy from refusing `after(sleep(...))`, as it does with what gives None only.
@overload
def sleep(duration: float | timedelta, *, name: str = "") -> None: ...
@overload
def sleep(duration: Any, *, name: str = "") -> Any: ...
def sleep(duration: float | timedelta, *, name: str = "") -> Any:
    """Let time pass; order what comes later with `after(sleep(...))`.

    Args:
        duration: Seconds, also as a placeholder, or a timedelta.
        name: Name of the node, instead of `sleep`, `sleep_2` ...

    Raises:
        DeclarationError: It is negative, or no duration.
    """
    trace = inside("sleep()")
    if isinstance(duration, Placeholder):
        value = trace.lower(duration, float, "the duration of sleep()")
    else:
        number = duration.total_seconds() if isinstance(duration, timedelta) else duration
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < math.inf:
            raise DeclarationError(
                f"{here()}: sleep() takes a number of seconds, got {duration!r}", "as in sleep(minutes(5))"
            )
        value = graph.Const(number)
    return _rest(trace, name, graph.Arg("seconds", value))


@overload
def sleep_until(time: datetime | str | float, *, name: str = "") -> None: ...
@overload
def sleep_until(time: Any, *, name: str = "") -> Any: ...
def sleep_until(time: datetime | str | float, *, name: str = "") -> Any:
    """Wait for a time; if it is over already, go on at once. Order what comes later with `after(sleep_until(...))`.

    Args:
        time: A datetime with a time zone, a string in ISO 8601, seconds since 1970, or a placeholder for one of these.
        name: Name of the node, instead of `sleep`, `sleep_2` ...

    Raises:
        DeclarationError: It is no time, or a datetime without a time zone.
    """
    trace = inside("sleep_until()")
    if not isinstance(time, Placeholder):
        _check_time(time)
    kinds: list[types.Type] = [kind for kind in (datetime, str) if types.assignable(type_of(time), kind)]
    value = trace.lower(time, kinds[0] if kinds else float, "the time of sleep_until()")
    return _rest(trace, name, graph.Arg("until", value))


def _check_time(time: object) -> None:
    hint = "as in sleep_until(datetime(2030, 1, 1, tzinfo=UTC))"
    try:
        moment = datetime.fromisoformat(time) if isinstance(time, str) else time
    except ValueError:
        raise DeclarationError(f"{here()}: sleep_until() takes a time in ISO 8601, got {time!r}", hint) from None
    if isinstance(moment, datetime) and moment.tzinfo is None:
        raise DeclarationError(f"{here()}: sleep_until() takes a time with a time zone, got {time!r}", hint)


def _rest(trace: Trace, name: str, arg: graph.Arg) -> Any:
    if name:
        check_node_name(name, "node", here())
    node = trace.add(Draft(name, "sleep", "", args=(arg,)), "sleep")
    return trace.ref(node, types.NONE)
