"""What every drawing of a plan shows: nodes by region, edges by what they carry, stages, and what a node needs.

The gateways of constructs say nothing that the construct itself does not say. So a construct is drawn as one thing,
under the name of its `close` and at the place of its `open`, with its bodies inside. Edges never cross the border of a
region: each region is a drawing of its own.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from segue.plan.graph import ENTRY, RUN, Const, Construct, Node, Plan, gets_of, reads_of
from segue.plan.index import CAPTURED
from segue.plan.names import opening
from segue.plan.reading import read_condition, read_value
from segue.plan.words import describe_condition, describe_value

Carries = Literal["data", "guard", "order"]


class Edge(NamedTuple):
    """An upstream and a node that waits for it; an edge that carries several things counts as the first of them."""

    up: str
    down: str
    carries: Carries


class Needs(NamedTuple):
    """What a node waits for, in words: its arguments, choices or terms, its guard, what else it comes after."""

    values: tuple[str, ...]
    guard: str
    after: tuple[str, ...]


class Body(NamedTuple):
    """A region of a construct. `title`: what tells it apart, empty if nothing has to; `result`: its value in words."""

    region: str
    title: str
    result: str


def members(plan: Plan) -> dict[str, list[Node]]:
    """The nodes to draw in each region, in plan order; a construct stands as its `close`."""
    found: dict[str, list[Node]] = {region.id: [] for region in plan.regions}
    for node in plan.nodes:
        if node.kind == "open":
            found[node.region].append(plan.index.nodes[node.construct])
        elif not node.construct and node.kind != "timer":
            found[node.region].append(node)
    return found


def bodies(plan: Plan, construct: Construct) -> list[Body]:
    """The regions of a construct, in plan order."""
    titles = dict.fromkeys(construct.bodies, "")
    if construct.kind == "race":
        titles = {region: f"branch {i}" for i, region in enumerate(construct.bodies, 1)}
    for handler in construct.handlers:
        titles[handler.region] = f"on {'any error' if '*' in handler.errors else ' or '.join(handler.errors)}"
    if construct.cleanup:
        titles[construct.cleanup] = "finally"
    found = []
    for region, title in titles.items():
        results = plan.index.nodes[plan.index.regions[region].exit].args
        found.append(Body(region, title, describe_value(read_value(plan, results[0].value)) if results else ""))
    return found


def follows(construct: Construct) -> list[tuple[str, str]]:
    """Which regions of an attempt may follow which: handlers the body, the cleanup whatever came before."""
    caught = [handler.region for handler in construct.handlers]
    found = [(construct.bodies[0], region) for region in caught]
    if construct.cleanup:
        found += [(region, construct.cleanup) for region in (construct.bodies[0], *caught)]
    return found


def edges(plan: Plan) -> list[Edge]:
    """The edges to draw, in plan order.

    An edge from the run's entry is left out where the node has another upstream: everything follows from the start.
    Those from the entries of bodies are left out in any case.
    """
    found: list[Edge] = []
    for node in drawn(plan):
        source = _source(plan, node)
        data = {get.node for arg in source.args for get in gets_of(arg.value)}
        guard = {get.node for get in reads_of(source.guard)} if source.guard is not None else set()
        carried: dict[str, list[Carries]] = {}
        for up in plan.index.ups[source.id]:
            carries: Carries = "data" if up in data else "guard" if up in guard else "order"
            carried.setdefault(_shown(plan, up), []).append(carries)
        carried.pop("", None)
        if len(carried) > 1:
            carried.pop(ENTRY, None)
        found += [Edge(up, node.id, min(several, key=_CARRIES.index)) for up, several in carried.items()]
    return found


_CARRIES: tuple[Carries, ...] = ("data", "guard", "order")


def drawn(plan: Plan) -> list[Node]:
    """Every node to draw, in plan order; a construct stands as its `close`, before what is in it."""
    return [
        plan.index.nodes[node.construct] if node.kind == "open" else node
        for node in plan.nodes
        if node.kind == "open" or not (node.construct or node.kind == "timer")
    ]


def stages(plan: Plan) -> dict[str, int]:
    """For each node to draw the length of the longest way from the start of its region."""
    found: dict[str, int] = {}
    for node in drawn(plan):
        ups = (_shown(plan, up) for up in plan.index.ups[_source(plan, node).id])
        found[node.id] = max((found[up] + 1 for up in ups if up), default=0)
    return found


def longest(plan: Plan) -> int:
    """The length of the longest way through a run in which each body runs once."""
    found: dict[str, int] = {}
    for node in plan.nodes:
        before = max((found[up] for up in plan.index.ups[node.id]), default=-1)
        found[node.id] = before + (not node.construct and node.kind != "timer")
    return max(found.values())


def _source(plan: Plan, node: Node) -> Node:
    """The node that says what a drawn node waits for."""
    return plan.index.nodes[opening(node.construct)] if node.construct else node


def _shown(plan: Plan, name: str) -> str:
    """The name under which a node is drawn; empty for the entry of a body."""
    node = plan.index.nodes[name]
    if node.kind == "entry" and node.region != RUN:
        return ""
    return node.construct or name


def needs(plan: Plan, node: Node) -> Needs:
    """What a node waits for, in words. An argument of the same name as its value is named once."""
    source = _source(plan, node)
    given = {arg.name: describe_value(read_value(plan, arg.value)) for arg in source.args}
    captured = {name for name in given if name.startswith(f"{CAPTURED}.")}
    own = {name: text for name, text in given.items() if name not in captured}
    values = _terms(plan, plan.index.construct(node), own) if node.construct else _values(node, own)
    read = {get.node for arg in source.args if arg.name not in captured for get in gets_of(arg.value)}
    ups = {_shown(plan, name): None for name in source.after if name not in read}
    guard = "" if source.guard is None else describe_condition(read_condition(plan, source.guard))
    return Needs(tuple(values), guard, tuple(name for name in ups if name))


def _values(node: Node, given: dict[str, str]) -> list[str]:
    if node.kind in ("step", "flow"):
        return [text if text == name else f"{name}={text}" for name, text in given.items()]
    if node.kind == "sleep":
        length = node.args[0].value
        if isinstance(length, Const) and isinstance(length.value, int | float):
            return [f"for {span(length.value)}"]
        return [f"{name} {text}" for name, text in given.items()]
    if node.kind == "wait":
        within = [f"at most {span(node.timeout)}"] if node.timeout else []
        return [*(f"matching {text}" for text in given.values()), *within]
    return list(given.values())


def _terms(plan: Plan, construct: Construct, given: dict[str, str]) -> list[str]:
    """What a construct does with its bodies."""
    found = [f"each of {given['items']}"] if "items" in given else []
    if "initial" in given:
        found.append(f"from {given['initial']}")
    if construct.limit:
        found.append(f"{construct.limit:,} at a time")
    if construct.tolerate:
        found.append(f"{construct.tolerate:,} may fail")
    if construct.until is not None:
        found.append(f"until {describe_condition(read_condition(plan, construct.until))}")
    if construct.kind == "repeat":
        found.append(f"at most {counted(construct.cap, 'round')}{', then its value' * construct.last}")
    if construct.every:
        found.append(f"every {span(construct.every)}")
    if construct.kind == "race":
        count = f"{construct.winners} " if construct.winners > 1 else ""
        found.append(f"the first {count}of {len(construct.bodies)}")
    if construct.timeout:
        found.append(f"at most {span(construct.timeout)}")
    if construct.undo:
        found.append("undone if it fails")
    return found


def call(plan: Plan, node: Node) -> str:
    """Who does what at a node: `payments.charge`, or the holder of anything else and what it does."""
    if node.kind == "step":
        return f"{node.owner}.{node.step}"
    if node.kind in ("entry", "exit"):
        return node.owner
    if node.construct:
        return f"{node.owner}, {plan.index.construct(node).kind}"
    return f"{node.owner}, {_VERBS.get(node.kind, node.kind)} {node.step if node.kind != 'emit' else ''}".rstrip()


_VERBS = {"flow": "runs", "wait": "waits for", "raise": "raises", "emit": "emits", "sleep": "sleeps"}


def span(seconds: float) -> str:
    """A duration in its largest fitting unit: `90 s`, `24 h`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size or seconds == size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds:g} s"


def counted(number: int, what: str) -> str:
    """A number of things."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
