"""What follows for one place from the outcomes around it, by the rules' text and without the machine.

A place is decided in two steps: what its inputs make of it (dead, skipped), and else what it does. Pure nodes and
gateways are decided to the end here; for what acts (steps, child runs, waits, sleeps) the answer is its arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from segue.machine.facts import DEAD, Cause, Failure, Key, Outcome
from segue.plan.graph import ENTRY, EXIT, Construct, Get, Handler, Node, gets_of
from segue.plan.names import opening
from segue.testing.algebra import Cannot, Look, build, there, truth
from segue.testing.tables import Tables

Seen = Callable[[Key], Outcome | None]
"""The outcome of a place, if it has one."""

UNFIT, LOOP_CAP, TIMEOUT = "ExpressionError", "LoopCap", "Timeout"
"""Types of the errors that no step makes; their messages are not fixed."""

SKIP = Outcome("skipped")


def verdict(tables: Tables, key: Key, look: Look) -> Outcome | dict[str, Any]:
    """The outcome of a node that is no gateway, or the arguments of what it does.

    Args:
        tables: Of its plan.
        key: The node, with its tag.
        look: Outcomes of its region.
    """
    node = tables.nodes[key.node]
    if (dead := died(tables, (look(up) for up in tables.ups[node.id]))) is not None:
        return dead
    if node.guard is not None and truth(node.guard, look) != 1:
        return SKIP
    if node.kind == "either":
        values = [arg.value for arg in node.args]
        here = [value for value in values if not isinstance(value, Get) or there(value, look)]
        return Outcome("completed", build(here[0], look)) if here else SKIP
    if lacking(node, look):
        return SKIP
    try:
        if node.kind == "open":
            return _opened(key, node, look)
        args = {arg.name: build(arg.value, look) for arg in node.args}
    except Cannot as error:
        return broken(key, UNFIT, str(error))
    if node.kind in ("value", "emit"):
        return Outcome("completed", args.get("value"))
    if node.kind == "raise":
        return broken(key, node.step, args.get("message", ""), args.get("value"))
    return args


def slot(args: dict[str, Any], tag: str) -> str:
    """Which waits of one name a signal means."""
    return str(args["match"]) if "match" in args else tag


def broken(key: Key, type: str, message: str = "", value: Any = None) -> Outcome:
    """A failure that begins here."""
    return Outcome("failed", causes=(Cause(key.node, key.tag, Failure(type, message, value=value)),))


def died(tables: Tables, inputs: Iterable[Outcome]) -> Outcome | None:
    """What dead inputs make of a place, with all their causes; None if none is dead."""
    dead = [outcome for outcome in inputs if outcome.kind in DEAD]
    if not dead:
        return None
    found = {(cause.node, cause.tag): cause for outcome in dead for cause in outcome.causes}
    causes = tuple(sorted(found.values(), key=lambda cause: _first(tables, cause)))
    return Outcome("cancelled" if all(outcome.kind == "cancelled" for outcome in dead) else "aborted", causes=causes)


def _first(tables: Tables, cause: Cause) -> tuple[int, list[int]]:
    return tables.place[cause.node], [int(index) for index in cause.tag.split(".")] if cause.tag else []


def lacking(node: Node, look: Look) -> bool:
    """Whether a value that a node requires was skipped."""
    return any(not get.optional and not there(get, look) for arg in node.args for get in gets_of(arg.value))


def _opened(key: Key, node: Node, look: Look) -> Outcome:
    found: dict[str, Any] = {"with": {}}
    for arg in node.args:
        if not arg.name.startswith("with."):
            found["items" if arg.name == "items" else "value"] = build(arg.value, look)
        elif not isinstance(arg.value, Get) or there(arg.value, look):
            found["with"][arg.name.removeprefix("with.")] = build(arg.value, look)
    if not isinstance(found.get("items", []), list):
        return broken(key, UNFIT)
    return Outcome("completed", found)


# gateways


def exited(tables: Tables, region: str, tag: str, look: Look) -> Outcome:
    """The outcome of a region's exit, once all that it joins is final."""
    node = tables.nodes[tables.regions[region].exit]
    entry = tables.regions[region].entry
    if (dead := died(tables, map(look, dict.fromkeys((entry, *tables.ups[node.id]))))) is not None:
        return dead
    value = node.args[0].value if node.args else None
    skipped = value is not None and (lacking(node, look) or (isinstance(value, Get) and not there(value, look)))
    try:
        found = SKIP if skipped else Outcome("completed", None if value is None else build(value, look))
    except Cannot as error:
        return broken(Key(node.id, tag), UNFIT, str(error))
    if node.id == EXIT:
        return Outcome("completed", found.value)
    construct = tables.construct_of(region)
    if construct is not None and construct.kind == "repeat" and not construct.last:
        last = int(tag.rpartition(".")[2]) + 1 == construct.cap
        if last and not satisfied(tables, construct, found, look(entry)):
            return broken(Key(node.id, tag), LOOP_CAP)
    return found


def satisfied(tables: Tables, construct: Construct, exit: Outcome, entry: Outcome) -> bool:
    """Whether a loop has what it waits for, after a round."""
    gateway = tables.regions[construct.bodies[0]].entry
    return construct.until is not None and truth(construct.until, lambda n: entry if n == gateway else exit) == 1


def rounds(tables: Tables, construct: Construct, tag: str, seen: Seen) -> int:
    """How many rounds a loop has had, if its last known one is final."""
    body = tables.regions[construct.bodies[0]]
    number = 0
    while True:
        inner = inside(tag, number)
        exit, entry = seen(Key(body.exit, inner)), seen(Key(body.entry, inner))
        number += 1
        if exit is None or entry is None or over(tables, construct, number, exit, entry):
            return number


def over(tables: Tables, construct: Construct, number: int, exit: Outcome, entry: Outcome) -> bool:
    """Whether a loop ends with this round, of this number from 1."""
    return exit.kind in DEAD or number == construct.cap or satisfied(tables, construct, exit, entry)


def inside(tag: str, index: int) -> str:
    """The tag of an item or a round."""
    return f"{tag}.{index}" if tag else str(index)


def handled(tables: Tables, construct: Construct, exit: Outcome) -> tuple[Handler, dict[str, Any]] | None:
    """Which handler a failed body of an attempt calls for, and the error that it is given."""
    if exit.kind not in ("failed", "aborted"):
        return None
    failures = [(cause, cause.error) for cause in exit.causes if cause.error is not None]
    if not failures:
        return None
    cause, error = min(failures, key=lambda found: _first(tables, found[0]))
    fits = {"*", error.type, *error.bases}
    given = {"type": error.type, "message": error.message, "node": cause.node, "tag": cause.tag, "value": error.value}
    return next(((handler, given) for handler in construct.handlers if fits & set(handler.errors)), None)


def closed(tables: Tables, construct: Construct, tag: str, seen: Seen) -> Outcome | None:
    """The outcome of a construct's `close` (of a race: unless enough branches won); None if it still has to wait."""
    opened = seen(Key(opening(construct.id), tag))
    if opened is None or opened.kind != "completed":
        return opened
    ends = [tables.regions[body].exit for body in construct.bodies]
    if construct.kind == "each":
        exits = [seen(Key(ends[0], inside(tag, i))) for i in range(len(opened.value["items"]))]
        return _gathered(tables, exits, construct.tolerate)
    if construct.kind == "repeat":
        exit = seen(Key(ends[0], inside(tag, rounds(tables, construct, tag, seen) - 1)))
        return exit and (died(tables, [exit]) or exit)
    if construct.kind == "race":
        final = [exit for end in ends if (exit := seen(Key(end, tag))) is not None]
        if len(final) < len(ends):
            return None
        dead = died(tables, final)
        return SKIP if dead is None else dead if dead.kind == "cancelled" else Outcome("failed", causes=dead.causes)
    return _attempted(tables, construct, tag, seen)


def _gathered(tables: Tables, exits: list[Outcome | None], tolerate: int) -> Outcome | None:
    final = [exit for exit in exits if exit is not None]
    if len(final) < len(exits):
        return None
    if sum(exit.kind in DEAD for exit in final) > tolerate:
        return died(tables, final)
    return Outcome("completed", [exit.value if exit.kind == "completed" else None for exit in final])


def _attempted(tables: Tables, construct: Construct, tag: str, seen: Seen) -> Outcome | None:
    found = seen(Key(tables.regions[construct.bodies[0]].exit, tag))
    if found is not None and (chosen := handled(tables, construct, found)) is not None:
        found = seen(Key(tables.regions[chosen[0].region].exit, tag))
    if found is None:
        return None
    ends = [found]
    if construct.cleanup:
        cleaned = seen(Key(tables.regions[construct.cleanup].exit, tag))
        if cleaned is None:
            return None
        ends.append(cleaned)
    return died(tables, ends) or found


def entered(tables: Tables, region: str, tag: str, seen: Seen) -> Outcome | None:
    """The outcome of a region's entry, if it is opened and nobody stops it; None if it is not (yet)."""
    construct = tables.construct_of(region)
    assert construct is not None, ENTRY
    numbered = construct.kind in ("each", "repeat")
    outer = tag.rpartition(".")[0] if numbered else tag
    opened = seen(Key(opening(construct.id), outer))
    if opened is None or opened.kind != "completed":
        return None
    given: dict[str, Any] = {"with": opened.value["with"]}
    number = int(tag.rpartition(".")[2]) if numbered else 0
    body = tables.regions[construct.bodies[0]]
    if construct.kind == "each":
        if number >= len(opened.value["items"]):
            return None
        given["value"] = opened.value["items"][number]
    elif construct.kind == "repeat" and number == 0:
        given["value"] = opened.value["value"]
    elif construct.kind == "repeat":
        exit, entry = (seen(Key(gateway, inside(outer, number - 1))) for gateway in (body.exit, body.entry))
        if exit is None or entry is None or over(tables, construct, number, exit, entry):
            return None
        given["value"] = exit.value
    elif region not in construct.bodies:
        return _called(tables, construct, region, tag, seen, given)
    return Outcome("completed", given)


def _called(
    tables: Tables, construct: Construct, region: str, tag: str, seen: Seen, given: dict[str, Any]
) -> Outcome | None:
    """The entry of a handler, or of what an attempt does at its end."""
    exit = seen(Key(tables.regions[construct.bodies[0]].exit, tag))
    if exit is None:
        return None
    chosen = handled(tables, construct, exit)
    if region == construct.cleanup:
        if chosen is not None and seen(Key(tables.regions[chosen[0].region].exit, tag)) is None:
            return None
        return Outcome("completed", given)
    if chosen is None or chosen[0].region != region:
        return None
    return Outcome("completed", {**given, "value": chosen[1]})
