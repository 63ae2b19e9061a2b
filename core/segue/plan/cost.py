"""What branches cost in messages when choreographed: whoever waits for a branch must learn which way it went.

A node that a guard skips says so to those who wait for it, and a construct's gateways tell the services in its bodies
when they begin. Orchestrated none of this travels: the coordinator decides everything itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from typing import Literal

import msgspec

from segue.plan.expression import And, Condition, Get, gets_of, reads_of
from segue.plan.graph import Construct, Node, Plan
from segue.plan.names import opening
from segue.plan.outline import counted
from segue.plan.projection import project
from segue.plan.reading import read_condition
from segue.plan.words import describe_condition, shorten

LISTED = 12
"""Most branches in a text; the rest is counted."""
WIDTH = 60
"""Characters of a condition in a text."""


class Load(msgspec.Struct, frozen=True, omit_defaults=True):
    """Messages: events published, how often one is handed to a service, and to which services."""

    events: int = 0
    deliveries: int = 0
    to: tuple[str, ...] = ()


class Cost(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one condition or construct costs.

    Attributes:
        kind: `when`: a condition. `stop`: that the first failure stops the run. Else the kind of the construct.
        name: The condition in words, or the construct's name.
        run: Of a condition what is published if it does not hold: one `skipped` for each node that is not taken. Of a
            construct what its `open` and `close` publish once.
        body: Of a construct what the gateways of its bodies publish, each body counted once.
        skipped: Nodes that are skipped if the condition does not hold.
        subscriptions: How many subscriptions of services exist only because of it.
        notices: Stops that a construct may publish; every service of the plan hears them.
    """

    kind: Literal["when", "each", "repeat", "race", "attempt", "stop"]
    name: str
    run: Load
    body: Load = Load()
    skipped: tuple[str, ...] = ()
    subscriptions: int = 0
    notices: int = 0


def costs(plan: Plan) -> tuple[Cost, ...]:
    """What each condition and each construct of a plan costs, in plan order."""
    heard = {
        emission.node: emission.heard_by for service in plan.index.services for emission in project(plan, service).emits
    }
    found: dict[int, list[Cost]] = {}
    guarded: dict[bytes, tuple[Condition, list[Node]]] = {}
    for node in plan.nodes:
        for part in _parts(node.guard):
            guarded.setdefault(_key(part), (part, []))[1].append(node)
    only = _only(plan)
    for key, (condition, nodes) in guarded.items():
        skipped = _skipped(plan, nodes)
        names = dict.fromkeys(plan.index.nodes[name].construct or name for name in skipped)
        words = describe_condition(read_condition(plan, condition))
        cost = Cost("when", words, _load(heard, skipped), skipped=tuple(names), subscriptions=only.get(key, 0))
        found.setdefault(plan.index.order[nodes[0].id], []).append(cost)
    said: dict[str, list[Node]] = {construct.id: [] for construct in plan.constructs}
    for node in plan.nodes:
        if node.construct and node.id in heard:
            said[node.construct].append(node)
    for construct in plan.constructs:
        cost = _construct(construct, said[construct.id], heard)
        found.setdefault(plan.index.order[opening(construct.id)], []).append(cost)
    if plan.on_failure == "stop":
        found.setdefault(-1, []).append(_stop(plan))
    return tuple(cost for place in sorted(found) for cost in found[place])


def text(plan: Plan, limit: int = LISTED) -> str:
    """The costs for people; empty if the plan has no branches.

    Args:
        plan: The plan.
        limit: Most lines; the rest is counted.
    """
    found = costs(plan)
    if not found:
        return ""
    rows = [(shorten(f"{cost.kind} {cost.name}", WIDTH), _words(plan, cost)) for cost in found[:limit]]
    width = max(len(name) for name, _ in rows)
    lines = [f"{plan.flow} choreographed: messages that branches cost (orchestrated: none)"]
    lines += [f"  {name:<{width}}  {words}" for name, words in rows]
    if len(found) > limit:
        lines.append(f"  … {len(found) - limit:,} more")
    return "\n".join(lines) + "\n"


def _words(plan: Plan, cost: Cost) -> str:
    if cost.kind == "stop":
        parts = []
    elif cost.kind == "when":
        parts = ["not taken: " + _sum(cost.run, "skip")]
    else:
        each = {"each": "an item: ", "repeat": "a round: "}.get(cost.kind, "bodies: ")
        parts = [prefix + _sum(load, "event") for prefix, load in (("", cost.run), (each, cost.body)) if load.events]
    if cost.subscriptions:
        parts.append(counted(cost.subscriptions, "subscription"))
    if cost.notices:
        parts.append(f"at most {counted(cost.notices, 'stop')} to {counted(len(plan.index.services), 'service')}")
    return "; ".join(parts)


def _sum(load: Load, what: str) -> str:
    if not load.events:
        return "nothing"
    heard = f", heard by {_some(load.to)}" if load.to else ", heard by no other service"
    times = f" ({load.deliveries:,} deliveries)" if load.deliveries > load.events else ""
    return counted(load.events, what) + heard + times


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4:,} more" if len(names) > 4 else "")


def _construct(construct: Construct, gates: list[Node], heard: dict[str, tuple[str, ...]]) -> Cost:
    inner = [gate.id for gate in gates if gate.kind in ("entry", "exit")]
    return Cost(
        construct.kind,
        construct.id,
        _load(heard, (gate.id for gate in gates if gate.id not in inner)),
        _load(heard, inner),
        subscriptions=sum(len(heard[gate.id]) for gate in gates),
        notices=_stops(construct),
    )


def _stop(plan: Plan) -> Cost:
    """What the home hears only because the first failure stops the run."""
    index = plan.index
    alone = [
        name
        for name in index.stopping
        if plan.home not in (index.nodes[name].owner, *(index.nodes[down].owner for down in index.downs[name]))
    ]
    load = Load(0, len(alone), (plan.home,) if alone else ())
    return Cost("stop", "at the first failure", load, subscriptions=len(alone), notices=1)


def _stops(construct: Construct) -> int:
    if construct.kind == "race":
        return len(construct.bodies) - construct.winners
    return int(construct.kind == "attempt" and (construct.undo or construct.timeout > 0))


def _load(heard: dict[str, tuple[str, ...]], names: Iterable[str]) -> Load:
    said = [heard[name] for name in names if name in heard]
    return Load(len(said), sum(map(len, said)), tuple(sorted({service for each in said for service in each})))


def _parts(guard: Condition | None) -> Iterator[Condition]:
    """The conditions that must all hold: those of nested blocks."""
    match guard:
        case None:
            return
        case And(parts):
            for part in parts:
                yield from _parts(part)
        case _:
            yield guard


def _key(condition: Condition) -> bytes:
    return msgspec.json.encode(condition)


def _only(plan: Plan) -> dict[bytes, int]:
    """For each condition how many subscriptions nothing else needs."""
    index = plan.index
    needed: dict[tuple[str, str], set[bytes]] = {}
    for node in plan.nodes:
        parts = [(_key(part), {get.node for get in reads_of(part)}) for part in _parts(node.guard)]
        taken = {get.node for arg in node.args for get in gets_of(arg.value)} | set(node.after)
        for up in index.ups[node.id]:
            if index.nodes[up].owner != node.owner:
                why = {key for key, reads in parts if up in reads} if up not in taken else set()
                needed.setdefault((node.owner, up), set()).update(why or {b""})
    for name in index.stopping:
        needed.setdefault((plan.home, name), set()).add(b"")
    found: dict[bytes, int] = {}
    for why in needed.values():
        if len(why) == 1:
            (key,) = why
            found[key] = found.get(key, 0) + 1
    return found


def _skipped(plan: Plan, nodes: list[Node]) -> list[str]:
    """What is skipped if these nodes are, themselves included, in plan order; it ends at the exits of regions."""
    index = plan.index
    skipped: dict[str, None] = {}
    heap: list[int] = []
    waiting: set[int] = set()
    first = {node.id for node in nodes}

    def reach(name: str) -> None:
        place = index.order[name]
        if place not in waiting:
            waiting.add(place)
            heappush(heap, place)

    for name in first:
        reach(name)
    while heap:
        node = plan.nodes[heappop(heap)]
        if node.id in first or _follows(plan, node, skipped):
            skipped[node.id] = None
            for down in index.downs[node.id]:
                reach(down)
    return list(skipped)


def _follows(plan: Plan, node: Node, skipped: dict[str, None]) -> bool:
    """Whether a node is skipped because these are."""
    if node.kind in ("entry", "exit", "settle"):
        return False
    if node.kind in ("close", "timer"):
        return plan.index.ups[node.id][0] in skipped
    if node.kind == "either":
        return all(isinstance(arg.value, Get) and arg.value.node in skipped for arg in node.args)
    return not plan.index.required[node.id].isdisjoint(skipped)
