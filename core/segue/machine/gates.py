"""The decisions of gateways: entries and exits of regions, and the `open`, `close`, `settle` and `timer` of constructs.

All gateways of a construct have one holder. They are functions of what happened in their regions (R5 map, R6 loop,
R9 attempt); only the winners of a race (R7), the stops that follow from them, and what a timer ends rest on time, and
are chosen: recorded first, and what is recorded counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from segue.machine import tags
from segue.machine.decide import Found, Place, blocked, dead, present, start, unite
from segue.machine.facts import (
    DEAD,
    SKIPPED,
    AnyFact,
    Cause,
    Choose,
    Effect,
    Fact,
    Failure,
    Key,
    Outcome,
    Sleep,
    State,
    Stop,
)
from segue.machine.routes import items, over, reached, ready
from segue.machine.scopes import scoped, stopped, undone
from segue.machine.values import Unfit, evaluate
from segue.plan.graph import RUN, Construct, Get, Plan, gets_of
from segue.plan.index import CAPTURED
from segue.plan.names import opening

TIMEOUT, LOOP_CAP = "Timeout", "LoopCap"


def decide_open(place: Place, found: Found) -> Effect:
    """What a construct begins with: its items or first value, and what its bodies read from outside."""
    args = start(place, found)
    if args is None:
        return place.wait()
    if isinstance(args, Outcome):
        return place.record(args)
    captured: dict[str, Any] = {}
    value: dict[str, Any] = {CAPTURED: captured}
    for arg in place.node.args:
        if not arg.name.startswith(CAPTURED + "."):
            value["value" if arg.name == "initial" else arg.name] = args[arg.name]
        elif not isinstance(arg.value, Get) or present(place.graph, place.node, arg.value, found):
            captured[arg.name.removeprefix(CAPTURED + ".")] = args[arg.name]
    if place.graph.construct(place.node).kind == "each" and not isinstance(value.get("items"), list):
        return place.record(place.fail("ExpressionError", "the items are no list"))
    return place.record(Outcome("completed", value))


def decide_entry(place: Place) -> Effect:
    """A region begins; what its nodes need from outside is in the value."""
    construct = place.graph.construct(place.node)
    tag = tags.parent(place.key.tag) if construct.numbered else place.key.tag
    opened = place.state.known(opening(construct.id), tag)
    if opened is None or opened.kind != "completed":
        return place.wait()
    value: dict[str, Any] = {CAPTURED: opened.value[CAPTURED]}
    given = _BEFORE[construct.kind](place, construct, opened, tag)
    if not isinstance(given, list):
        return given
    if stopped(place.plan, place.state, place.key):
        return place.record(place.cancelled())
    if given:
        value["value"] = given[0]
    return place.record(Outcome("completed", value))


Given = list[Any]
"""What an entry is given besides the captures: one value, or nothing. (Effects are tuples, so this is a list.)"""


def _item(place: Place, construct: Construct, opened: Outcome, tag: str) -> Given | Effect:
    i = tags.last(place.key.tag)
    if i >= ready(construct, opened, place.state.counts.get(Key(construct.id, tag), 0)):
        return place.wait()
    return [items(opened)[i]]


def _round(place: Place, construct: Construct, opened: Outcome, tag: str) -> Given | Effect:
    k = tags.last(place.key.tag)
    if k == 0:
        return [opened.value.get("value")]
    before = Key(place.graph.exits(construct)[0], tags.child(tag, k - 1))
    outcome = place.state.outcomes.get(before)
    if outcome is None or over(place.graph, construct, place.state, before, outcome):
        return place.wait()
    if construct.every and not place.due and not stopped(place.plan, place.state, place.key):
        return Sleep(place.key, place.revision, seconds=construct.every)
    return [outcome.value]


def _branch(place: Place, construct: Construct, opened: Outcome, tag: str) -> Given | Effect:
    return []


def _attempt(place: Place, construct: Construct, opened: Outcome, tag: str) -> Given | Effect:
    region = place.node.region
    if region in construct.bodies:
        return []
    error = failure(place.plan, place.state, construct, tag)
    if error is None and place.state.known(place.graph.exits(construct)[0], tag) is None:
        return place.wait()
    handler = None if error is None else fitting(construct, error)
    if region == construct.cleanup:
        if handler is not None and place.state.known(place.graph.regions[handler].exit, tag) is None:
            return place.wait()
        return []
    if handler != region or error is None:
        return place.wait()
    if construct.undo and (waiting := _undo_first(place, construct, tag)) is not None:
        return waiting
    cause = error.error or Failure("Error", "")
    found = {"type": cause.type, "message": cause.message, "node": error.node, "tag": error.tag}
    return [{**found, "value": cause.value}]


_BEFORE: dict[str, Callable[[Place, Construct, Outcome, str], Given | Effect]] = {
    "each": _item,
    "repeat": _round,
    "race": _branch,
    "attempt": _attempt,
}


def failure(plan: Plan, state: State, construct: Construct, tag: str) -> Cause | None:
    """The failure of an attempt's body that counts: the first in plan order, then by tag; None if it did not fail."""
    region = plan.index.regions[construct.bodies[0]]
    outcome = state.known(region.exit, tag)
    if outcome is None:
        return None
    if state.stops.get(scoped(plan, state, region.id, tag)) == "timeout":
        text = f"{construct.id} took longer than {construct.timeout:g} s"
        return Cause(region.entry, tag, Failure(TIMEOUT, text))
    if outcome.kind not in ("failed", "aborted"):
        return None
    return next((cause for cause in outcome.causes if cause.error is not None), outcome.causes[0])


def fitting(construct: Construct, cause: Cause) -> str | None:
    """The region of the first handler that takes an error."""
    error = cause.error or Failure("Error", "")
    names = {error.type, *error.bases, "*"}
    return next((handler.region for handler in construct.handlers if names & set(handler.errors)), None)


def _undo_first(place: Place, construct: Construct, tag: str) -> Effect | None:
    """The body of an attempt is undone before its handler starts."""
    body = construct.bodies[0]
    key = scoped(place.plan, place.state, body, tag)
    if body not in place.graph.undoable:
        return None
    if key not in place.state.stops:
        return Choose((Stop(*key, "caught"),))
    return None if undone(place.plan, place.state, body, tag) else place.wait()


def decide_exit(place: Place) -> Effect:
    """A region ends when all its sinks and its result are final."""
    index, node, tag = place.graph, place.node, place.key.tag
    region = index.regions[node.region]
    entry = place.state.known(region.entry, tag)
    if entry is not None and entry.kind in DEAD and region.id != RUN:
        return place.record(Outcome(entry.kind, causes=entry.causes))
    found: Found = {}
    for up in index.ups[node.id]:
        outcome = place.state.outcomes.get(Key(up, tag))
        if outcome is None:
            return place.wait()
        found[up] = outcome
    outcome = dead(index, found.values()) or _result(place, found)
    if region.id == RUN:
        return _end(place, outcome)
    construct = index.construct(node)
    if construct.kind == "repeat" and outcome.kind not in DEAD and not construct.last:
        last = tags.last(tag) + 1 >= construct.cap
        if last and not reached(index, construct, place.state, place.key, outcome):
            outcome = place.fail(LOOP_CAP, f"{construct.id} did not reach its goal in {construct.cap} rounds")
    if construct.timeout and region.id == construct.bodies[0]:
        return place.choose(outcome)  # unless its time was over first
    return place.record(outcome)


def _result(place: Place, found: Found) -> Outcome:
    """The value of a region; skipped if the node that gives it was."""
    if not place.node.args:
        return Outcome("completed")
    value = place.node.args[0].value
    needed = [value] if isinstance(value, Get) else [get for get in gets_of(value) if not get.optional]
    if not all(present(place.graph, place.node, get, found) for get in needed):
        return SKIPPED if place.node.region != RUN else Outcome("completed")
    try:
        return Outcome("completed", evaluate(value, found.__getitem__))
    except Unfit as error:
        return place.fail("ExpressionError", str(error))


def _end(place: Place, outcome: Outcome) -> Effect:
    """R12: a stopped run ends when everything in it is undone; so does a failed one, if there is anything to undo."""
    stop = scoped(place.plan, place.state, RUN, "")
    reason = place.state.stops.get(stop)
    if reason is None:
        if outcome.kind in DEAD and RUN in place.graph.undoable:
            return Choose((Stop(*stop, "failed"),))
        return place.record(outcome)
    if not undone(place.plan, place.state, RUN, ""):
        return place.wait()
    return place.record(ended(place, reason, outcome))


def ended(place: Place, reason: str, outcome: Outcome) -> Outcome:
    """How a stopped run ends."""
    if reason == "cancelled":
        return Outcome("cancelled", causes=outcome.causes)
    if reason == "deadline":
        timer = next(node for node in place.plan.nodes if node.kind == "timer" and not node.construct)
        text = f"the run took longer than {timer.timeout:g} s"
        late = Cause(timer.id, "", Failure(TIMEOUT, text))
        return Outcome("aborted", causes=unite(place.graph, (late, *outcome.causes)))
    return outcome


def decide_close(place: Place) -> Effect:
    """The outcome of a construct; if it was never opened, that of its `open`."""
    construct = place.graph.construct(place.node)
    opened = place.state.known(opening(construct.id), place.key.tag)
    if opened is None:
        return place.wait()
    if opened.kind != "completed":
        return place.record(Outcome(opened.kind, causes=opened.causes))
    return _CLOSES[construct.kind](place, construct, opened)


def _close_each(place: Place, construct: Construct, opened: Outcome) -> Effect:
    found = []
    name = place.graph.exits(construct)[0]
    for i in range(len(items(opened))):
        outcome = place.state.known(name, tags.child(place.key.tag, i))
        if outcome is None:
            return place.wait()
        found.append(outcome)
    if sum(outcome.kind in DEAD for outcome in found) > construct.tolerate:
        bad = dead(place.graph, found)
        assert bad is not None
        return place.record(bad)
    return place.record(Outcome("completed", [outcome.value for outcome in found]))


def _close_repeat(place: Place, construct: Construct, opened: Outcome) -> Effect:
    name = place.graph.exits(construct)[0]
    for key, outcome in _rounds(place, name):
        if over(place.graph, construct, place.state, key, outcome):
            kind = "aborted" if outcome.kind == "failed" else outcome.kind
            return place.record(Outcome(kind, outcome.value, outcome.causes))
    return place.wait()


def _rounds(place: Place, name: str) -> Iterable[tuple[Key, Outcome]]:
    """The rounds of a loop that are known; a partial state knows of few places, a whole one of all rounds."""
    tag = place.key.tag
    if not place.state.whole:
        known = [key for key in place.state.outcomes if key.node == name and tags.parent(key.tag) == tag]
        if known:  # earlier rounds went on, and what they were decided by need not be known
            last = max(known, key=lambda key: tags.last(key.tag))
            yield last, place.state.outcomes[last]
        return
    k = 0
    while (outcome := place.state.known(name, tags.child(tag, k))) is not None:
        yield Key(name, tags.child(tag, k)), outcome
        k += 1


def _close_attempt(place: Place, construct: Construct, opened: Outcome) -> Effect:
    index, tag = place.graph, place.key.tag
    body = place.state.known(index.regions[construct.bodies[0]].exit, tag)
    if body is None:
        return place.wait()
    error = failure(place.plan, place.state, construct, tag)
    handler = None if error is None else fitting(construct, error)
    outcome: Outcome | None = body
    if handler is not None:
        outcome = place.state.known(index.regions[handler].exit, tag)
    elif error is not None and error.error is not None and error.error.type == TIMEOUT and body.kind != "aborted":
        outcome = Outcome("aborted", causes=(error,))
    if outcome is None:
        return place.wait()
    outcomes = [outcome]
    if construct.cleanup:
        cleanup = place.state.known(index.regions[construct.cleanup].exit, tag)
        if cleanup is None:
            return place.wait()
        outcomes.append(cleanup)
    return place.record(dead(index, outcomes) or Outcome(outcome.kind, outcome.value))


def _close_race(place: Place, construct: Construct, opened: Outcome) -> Effect:
    exits = [place.state.known(name, place.key.tag) for name in place.graph.exits(construct)]
    winners = [i for i, outcome in enumerate(exits) if outcome is not None and outcome.kind == "completed"]
    if len(winners) >= construct.winners:
        chosen = tuple(winners[: construct.winners])
        values = [outcome.value for i in chosen if (outcome := exits[i]) is not None]
        value = values[0] if construct.winners == 1 else values
        return place.choose(Outcome("completed", value, winners=chosen))
    final = [outcome for outcome in exits if outcome is not None]
    if len(final) < len(exits):
        return place.wait()
    lost = dead(place.graph, final)
    if lost is not None and lost.kind == "aborted":
        lost = Outcome("failed", causes=lost.causes)
    return place.record(lost or SKIPPED)


_CLOSES: dict[str, Callable[[Place, Construct, Outcome], Effect]] = {
    "each": _close_each,
    "repeat": _close_repeat,
    "attempt": _close_attempt,
    "race": _close_race,
}


def decide_settle(place: Place) -> Effect:
    """A race is settled when every branch is over, and the losers are undone."""
    construct, tag = place.graph.construct(place.node), place.key.tag
    close = place.state.known(construct.id, tag)
    opened = place.state.known(opening(construct.id), tag)
    if close is None or opened is None:
        return place.wait()
    if close.kind == "completed" and opened.kind == "completed":
        losers = [body for i, body in enumerate(construct.bodies) if i not in close.winners]
        missing = [
            key for body in losers if (key := scoped(place.plan, place.state, body, tag)) not in place.state.stops
        ]
        if missing:
            return Choose(tuple(Stop(*key, "lost") for key in missing))
        if not all(undone(place.plan, place.state, body, tag) for body in losers):
            return place.wait()
    if opened.kind == "completed":
        for name in place.graph.exits(construct):
            if place.state.known(name, tag) is None:
                return place.wait()
    return place.record(Outcome("completed"))


def decide_timer(place: Place, found: Found) -> Effect:
    """The time of an attempt or of the run is over."""
    scope = place.graph.construct(place.node).bodies[0] if place.node.construct else RUN
    outcome = blocked(place, found)
    if outcome is not None:
        return place.record(outcome)
    if any(outcome.kind == "skipped" for outcome in found.values()):
        return place.record(SKIPPED)
    done = Outcome("completed")
    if place.state.known(place.graph.regions[scope].exit, place.key.tag) is not None:
        return place.record(done)
    stop = scoped(place.plan, place.state, scope, place.key.tag)
    if stop in place.state.stops or stopped(place.plan, place.state, place.key):
        return place.record(done)
    if not place.due:
        return Sleep(place.key, place.revision, seconds=place.node.timeout)
    chosen: tuple[AnyFact, ...] = (Stop(*stop, "deadline" if scope == RUN else "timeout"),)
    return Choose((*chosen, Fact(place.key, done, place.revision)))


GATES: dict[str, Callable[[Place], Effect]] = {
    "entry": decide_entry,
    "exit": decide_exit,
    "close": decide_close,
    "settle": decide_settle,
}
INNER: dict[str, Callable[[Place, Found], Effect]] = {"open": decide_open, "timer": decide_timer}
