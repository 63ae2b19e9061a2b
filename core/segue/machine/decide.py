"""The decision about one node that its own region's rules make: steps, choices, expressions, waits (R3, R4, R8).

In this order: its scope is stopped and it has not started -> cancelled; an upstream failed or aborted -> aborted; an
upstream cancelled -> cancelled; guard false or unknown -> skipped; a required value skipped -> skipped; else run. Joins
(`either`, `value`, exits) start nothing, so a stop does not matter to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from segue.machine.facts import (
    DEAD,
    SKIPPED,
    Await,
    Cause,
    Choose,
    Effect,
    Fact,
    Failure,
    Invoke,
    Key,
    Listen,
    Outcome,
    OutcomeKind,
    Record,
    Sleep,
    State,
    Withdraw,
)
from segue.machine.scopes import stopped
from segue.machine.values import Unfit, evaluate, holds
from segue.plan.graph import RUN, Const, Get, Index, Node, Plan
from segue.plan.index import CAPTURED

Found = dict[str, Outcome]


class Place(NamedTuple):
    """A node that is being decided. `due`: the time that it asked for has come."""

    plan: Plan
    graph: Index
    state: State
    node: Node
    key: Key
    revision: int
    due: bool

    def record(self, outcome: Outcome) -> Record:
        """It follows from what is known."""
        return Record(Fact(self.key, outcome, self.revision))

    def choose(self, outcome: Outcome) -> Choose:
        """It rests on what is not known."""
        return Choose((Fact(self.key, outcome, self.revision),))

    def wait(self) -> Await:
        """Something is missing."""
        return Await(self.key, self.revision)

    def fail(self, kind: str, message: str, value: Any = None, bases: Iterable[str] = ()) -> Outcome:
        """A failure that begins here."""
        error = Failure(kind, message, bases=tuple(bases), value=value)
        return Outcome("failed", causes=(Cause(self.key.node, self.key.tag, error),))

    def cancelled(self, found: Iterable[Outcome] = ()) -> Outcome:
        """Its scope is stopped; it is its own cause, unless an input was dead already."""
        causes = unite(self.graph, (cause for outcome in found for cause in outcome.causes if outcome.kind in DEAD))
        return Outcome("cancelled", causes=causes or (Cause(self.key.node, self.key.tag),))


def unite(index: Index, causes: Iterable[Cause]) -> tuple[Cause, ...]:
    """The set of causes, in plan order and then by tag, so that equal sets are equal."""
    last = len(index.order)  # a cause that came over the wire may name anything
    found = {(cause.node, cause.tag): cause for cause in causes}
    if len(found) < 2:
        return tuple(found.values())
    return tuple(
        sorted(found.values(), key=lambda cause: (index.order.get(cause.node, last), cause.node, _number(cause.tag)))
    )


def _number(tag: str) -> tuple[tuple[bool, int, str], ...]:
    return tuple((not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in tag.split("."))


def dead(index: Index, found: Iterable[Outcome]) -> Outcome | None:
    """R3 and R4: aborted before cancelled, with the union of the causes in plan order."""
    bad = [outcome for outcome in found if outcome.kind in DEAD]
    if not bad:
        return None
    kind: OutcomeKind = "cancelled" if all(outcome.kind == "cancelled" for outcome in bad) else "aborted"
    return Outcome(kind, causes=unite(index, (cause for outcome in bad for cause in outcome.causes)))


def blocked(place: Place, found: Found) -> Outcome | None:
    """Why a node does not run: an input is dead, its guard does not hold, or a required value was skipped."""
    index, node = place.graph, place.node
    outcome = dead(index, found.values())
    if outcome is not None:
        return outcome
    look = found.__getitem__
    if node.guard is not None and holds(node.guard, look) is not True:
        return SKIPPED
    if any(found[up].kind == "skipped" for up in index.required[node.id]):
        return SKIPPED
    if index.captured[node.id]:
        handed = found[index.regions[node.region].entry].value.get(CAPTURED, {})
        if not index.captured[node.id] <= handed.keys():
            return SKIPPED
    return None


def arguments(node: Node, found: Found) -> dict[str, Any]:
    """The arguments of a node, given its inputs.

    Raises:
        Unfit: An expression cannot be evaluated.
    """
    look = found.__getitem__
    return {arg.name: evaluate(arg.value, look) for arg in node.args}


def start(place: Place, found: Found) -> Outcome | dict[str, Any] | None:
    """What starts something: its outcome if it does not run, its arguments if it does, None if it is held."""
    state = place.state
    if state.whole and stopped(place.plan, state, place.key):
        return place.cancelled(found.values())
    outcome = blocked(place, found)
    if outcome is not None:
        return outcome
    if state.paused:
        return None
    try:
        return arguments(place.node, found)
    except Unfit as error:
        return place.fail("ExpressionError", str(error))


def decide_step(place: Place, found: Found) -> Effect:
    """A call, or a run of another flow."""
    if place.state.whole and (place.key, place.revision) in place.state.started:
        # Only its service may declare a call cancelled that was sent.
        given = arguments(place.node, found)
        if stopped(place.plan, place.state, place.key):
            return Withdraw(place.key, place.revision, given)
        return Invoke(place.key, place.revision, given)
    args = start(place, found)
    if args is None:
        return place.wait()
    return place.record(args) if isinstance(args, Outcome) else Invoke(place.key, place.revision, args)


def decide_either(place: Place, found: Found) -> Effect:
    """The first choice that completed, in declared order."""
    index, node = place.graph, place.node
    outcome = dead(index, found.values())
    if outcome is not None:
        return place.record(outcome)
    if node.guard is not None and holds(node.guard, found.__getitem__) is not True:
        return place.record(SKIPPED)
    for choice in node.args:
        value = choice.value
        if isinstance(value, Const) or not isinstance(value, Get) or present(index, node, value, found):
            try:
                return place.record(Outcome("completed", evaluate(value, found.__getitem__)))
            except Unfit as error:
                return place.record(place.fail("ExpressionError", str(error)))
    return place.record(SKIPPED)


def present(index: Index, node: Node, get: Get, found: Found) -> bool:
    """Whether the source of a read completed, also if it was captured from outside."""
    outcome = found[get.node]
    if outcome.kind != "completed":
        return False
    captured = node.region != RUN and get.node == index.regions[node.region].entry and get.path[:1] == (CAPTURED,)
    return not captured or get.path[1] in outcome.value.get(CAPTURED, {})


def decide_value(place: Place, found: Found) -> Effect:
    """An expression, or a domain event: its value."""
    outcome = blocked(place, found)
    if outcome is None:
        try:
            outcome = Outcome("completed", arguments(place.node, found)["value"])
        except Unfit as error:
            outcome = place.fail("ExpressionError", str(error))
    return place.record(outcome)


def decide_emit(place: Place, found: Found) -> Effect:
    """A domain event; unlike an expression it is not said any more in a stopped scope."""
    args = start(place, found)
    if args is None:
        return place.wait()
    return place.record(args if isinstance(args, Outcome) else Outcome("completed", args["value"]))


def decide_raise(place: Place, found: Found) -> Effect:
    """A failure that the flow declares."""
    args = start(place, found)
    if args is None:
        return place.wait()
    if isinstance(args, Outcome):
        return place.record(args)
    error = place.fail(place.node.step, str(args.get("message", "")), args.get("value"), args.get("bases", ()))
    return place.record(error)


def decide_sleep(place: Place, found: Found) -> Effect:
    """Time passes."""
    args = start(place, found)
    if args is None:
        return place.wait()
    if isinstance(args, Outcome):
        return place.choose(args) if args.kind == "cancelled" else place.record(args)
    if place.due:
        return place.choose(Outcome("completed"))
    try:
        if "until" in args:
            return Sleep(place.key, place.revision, until=_moment(args["until"]))
        return Sleep(place.key, place.revision, seconds=float(args["seconds"]))
    except (TypeError, ValueError, OverflowError):
        return place.record(place.fail("ExpressionError", f"{next(iter(args.values()))!r} is no time to sleep"))


def _moment(until: Any) -> float:
    """A time of ISO 8601, in UTC if it says no zone, or seconds since the epoch."""
    if not isinstance(until, str):
        return float(until)
    moment = datetime.fromisoformat(until)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def decide_wait(place: Place, found: Found) -> Effect:
    """A signal comes, or not in time."""
    args = start(place, found)
    if args is None:
        return place.wait()
    if isinstance(args, Outcome):
        return place.choose(args) if args.kind == "cancelled" else place.record(args)
    node = place.node
    slot = slot_of(args["match"]) if "match" in args else place.key.tag
    if (node.step, slot) in place.state.signals:
        return place.choose(Outcome("completed", place.state.signals[node.step, slot]))
    if place.due:
        return place.choose(place.fail("Timeout", f"no signal {node.step!r} in {node.timeout:g} s"))
    return Listen(place.key, place.revision, node.step, slot, node.timeout)


def slot_of(match: object) -> str:
    """What tells the signals of one name apart, as text."""
    return match if isinstance(match, str) else str(match)


DECISIONS: dict[str, Callable[[Place, Found], Effect]] = {
    "step": decide_step,
    "flow": decide_step,
    "either": decide_either,
    "value": decide_value,
    "emit": decide_emit,
    "raise": decide_raise,
    "sleep": decide_sleep,
    "wait": decide_wait,
}
