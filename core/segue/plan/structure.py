"""What a sound plan is made of: regions with their gateways, constructs with their bodies, edges inside regions.

The rules are those that the machine relies on and does not look at again: it walks a plan without a doubt.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from segue.plan.expression import DEPTH_LIMIT, Get, depth_of, gets_of, reads_of
from segue.plan.index import CAPTURED
from segue.plan.names import ENTRY, EXIT, RUN, TIMER, entering, leaving, opening, settling, watching

if TYPE_CHECKING:
    from segue.plan.graph import Construct, Node, Plan, Region

VALUE = "value"
"""Field of an entry's value: the item, the carried value or the error."""


def structure(plan: Plan) -> list[str]:
    """What is wrong with a plan's structure, one line each; empty if the machine can walk it.

    Raises:
        PlanError: A name of a node, region or construct that does not exist.
    """
    index = plan.index
    found = list(_names(plan))
    for region in plan.regions:
        found += _region(plan, region)
    found += _run(plan)
    for construct in plan.constructs:
        found += _construct(plan, construct)
    for node in plan.nodes:
        late = [up for up in index.ups[node.id] if index.order[up] >= index.order[node.id]]
        if late:
            found.append(f"node {node.id!r} needs {late[0]!r}, which comes after it: a cycle, or out of order")
        found += [*_node(node), *_references(plan, node)]
        if node.kind == "timer":
            found += _timer(plan, node)
    found += _signals(plan)
    return found or list(_reach(plan))


def _names(plan: Plan) -> Iterator[str]:
    index = plan.index
    if len(index.nodes) != len(plan.nodes):
        yield "two nodes have the same name"
    if len(index.regions) != len(plan.regions):
        yield "two regions have the same name"
    if len(index.constructs) != len(plan.constructs):
        yield "two constructs have the same name"
    used = [region for construct in plan.constructs for region in construct.regions]
    if len(set(used)) != len(used):
        yield "two bodies share a region"


def _run(plan: Plan) -> Iterator[str]:
    index = plan.index
    root = index.regions.get(RUN)
    if root is None or (root.entry, root.exit, root.parent) != (ENTRY, EXIT, None):
        yield f"the region {RUN!r} with {ENTRY!r} and {EXIT!r} is missing"
    gateways = {name for region in plan.regions for name in (region.entry, region.exit)}
    for name in (ENTRY, EXIT, TIMER):
        node = index.nodes.get(name)
        if node is not None and node.owner != plan.home:
            yield f"{name!r} is owned by {node.owner!r}, not by the home {plan.home!r}"
    for node in plan.nodes:
        if node.kind in ("entry", "exit") and node.id not in gateways:
            yield f"{node.kind} {node.id!r} belongs to no region"
        if node.kind == "timer" and not node.construct and node.id != TIMER:
            yield f"timer {node.id!r} watches nothing"
    if plan.deadline < 0 or (plan.deadline > 0) != (TIMER in index.nodes):
        yield f"a run's deadline and {TIMER!r} go together"


def _region(plan: Plan, region: Region) -> Iterator[str]:
    nodes, inner = plan.index.nodes, region.id != RUN
    for name, kind in ((region.entry, "entry"), (region.exit, "exit")):
        gateway = nodes.get(name)
        if gateway is None or (gateway.kind, gateway.region) != (kind, region.id):
            yield f"region {region.id!r} has no {kind} {name!r}"
        elif inner and gateway.construct != region.construct:
            yield f"{kind} {name!r} is not of the construct {region.construct!r}, which its region belongs to"
    if not inner:
        return
    construct = plan.index.constructs[region.construct]
    if (region.entry, region.exit) != (entering(region.id), leaving(region.id)):
        yield f"the gateways of region {region.id!r} are not named after it"
    if region.parent != construct.region:
        yield f"region {region.id!r} lies in {region.parent!r}, its construct {construct.id!r} in {construct.region!r}"
    if region.id not in construct.regions:
        yield f"region {region.id!r} is no body of its construct {construct.id!r}"


def _construct(plan: Plan, construct: Construct) -> Iterator[str]:
    index, name = plan.index, f"{construct.kind} {construct.id!r}"
    wanted = {opening(construct.id): "open", construct.id: "close"}
    if construct.kind == "race":
        wanted[settling(construct.id)] = "settle"
    if construct.timeout:
        wanted[watching(construct.id)] = "timer"
    for gateway, kind in wanted.items():
        node = index.nodes.get(gateway)
        if node is None or (node.kind, node.region, node.construct) != (kind, construct.region, construct.id):
            yield f"{name} has no {kind} {gateway!r} in {construct.region!r}"
    for region in construct.regions:
        if index.regions[region].construct != construct.id:
            yield f"region {region!r} is a body of {name} and belongs to {index.regions[region].construct!r}"
        wanted |= {entering(region): "entry", leaving(region): "exit"}
    gateways = [node for node in plan.nodes if node.construct == construct.id]
    yield from (f"{name} has a needless {node.kind} {node.id!r}" for node in gateways if node.id not in wanted)
    holders = sorted({node.owner for node in gateways})
    if len(holders) > 1:
        yield f"{name} has more than one holder: {', '.join(holders)}"
    yield from (f"{name}: {text}" for text in [*_terms(construct), *_opened(plan, construct)])


def _terms(construct: Construct) -> Iterator[str]:
    """What a construct of this kind may say of itself."""
    if construct.kind != "race" and len(construct.bodies) != 1:
        yield f"it has {len(construct.bodies)} bodies instead of one"
    if min(construct.limit, construct.tolerate, construct.every, construct.timeout) < 0:
        yield "a limit or a time is negative"
    if construct.kind == "repeat" and construct.cap < 1:
        yield f"its cap is {construct.cap}, so it would never run"
    if construct.kind == "race" and not 1 <= construct.winners <= len(construct.bodies):
        yield f"{construct.winners} of {len(construct.bodies)} branches cannot win"
    if construct.kind != "repeat" and construct.until is not None:
        yield "only a repeat has an until"
    if construct.kind != "attempt" and (construct.handlers or construct.cleanup or construct.timeout):
        yield "only an attempt has handlers, a finally and a timeout"
    yield from (f"handler {handler.region!r} takes no error" for handler in construct.handlers if not handler.errors)


def _opened(plan: Plan, construct: Construct) -> Iterator[str]:
    """What `open` must hand in, and what the `until` may read."""
    index = plan.index
    opened = index.nodes.get(opening(construct.id))
    given = {} if opened is None else {arg.name: arg.value for arg in opened.args}
    own = {"each": {"items"}, "repeat": {"initial"}}.get(construct.kind, set())
    yield from (f"its open does not give {name!r}" for name in sorted(own - given.keys()))
    for name, value in given.items():
        if not name.startswith(f"{CAPTURED}."):
            if name not in own:
                yield f"its open gives {name!r}, which no body of it reads"
        elif not isinstance(value, Get) or not value.optional:
            yield f"its open captures {name!r} otherwise than by an optional value"
    if construct.until is None:
        return
    body = index.regions[construct.bodies[0]]
    for get in reads_of(construct.until):
        if get.node not in (body.entry, body.exit):
            yield f"its until reads {get.node!r}: it may read the result of its body and what the body captured"
        elif get.node == body.entry:
            yield from (f"its until {text}" for text in _from_entry(plan, body, get))


def _node(node: Node) -> Iterator[str]:
    names = [arg.name for arg in node.args]
    if len(set(names)) != len(names):
        yield f"node {node.id!r} has two arguments of the same name"
    if node.kind == "either" and not node.args:
        yield f"node {node.id!r} has no choices"
    if node.kind in ("value", "emit") and names != ["value"]:
        yield f"node {node.id!r} has no single value"
    if node.kind == "sleep" and names not in (["seconds"], ["until"]):
        yield f"node {node.id!r} does not say how long it sleeps"
    if node.kind in ("step", "wait", "raise", "flow") and not node.step:
        yield f"node {node.id!r} does not say what it is to {'raise' if node.kind == 'raise' else 'call or wait for'}"
    if node.kind == "exit" and names not in ([], ["result"]):
        yield f"exit {node.id!r} has more than a result"
    parts = [*(arg.value for arg in node.args), *((node.guard,) if node.guard is not None else ())]
    if any(depth_of(part) > DEPTH_LIMIT for part in parts):
        yield f"node {node.id!r} has an expression of more than {DEPTH_LIMIT} levels"
    if node.timeout < 0:
        yield f"node {node.id!r} has a timeout of {node.timeout:g} seconds"


def _timer(plan: Plan, node: Node) -> Iterator[str]:
    """A timer begins with what it watches."""
    construct = plan.index.constructs.get(node.construct)
    start, seconds = (ENTRY, plan.deadline) if construct is None else (opening(construct.id), construct.timeout)
    if (node.after, node.args, node.guard) != ((start,), (), None):
        yield f"timer {node.id!r} begins otherwise than with {start!r}"
    if node.timeout != seconds:
        yield f"timer {node.id!r} is set to {node.timeout:g} seconds instead of {seconds:g}"


def _references(plan: Plan, node: Node) -> Iterator[str]:
    """Edges stay within a region; what comes from outside is in the value of the region's entry."""
    index = plan.index
    reads = [get for arg in node.args for get in gets_of(arg.value)]
    if node.guard is not None:
        reads += reads_of(node.guard)
    for name in dict.fromkeys([*(get.node for get in reads), *node.after]):
        region = index.nodes[name].region
        if region != node.region:
            yield (
                f"node {node.id!r} in {node.region!r} refers to {name!r} in {region!r}: no reference may cross the "
                "border of a region"
            )
        if index.nodes[name].kind in ("open", "timer") and node.kind != "timer":
            yield f"node {node.id!r} refers to the {index.nodes[name].kind} {name!r}, which says nothing to it"
    for get in reads:
        entry = index.regions.get(index.nodes[get.node].region)
        if entry is not None and entry.id != RUN and get.node == entry.entry:
            yield from (f"node {node.id!r} {text}" for text in _from_entry(plan, entry, get))


def _from_entry(plan: Plan, region: Region, get: Get) -> Iterator[str]:
    """Whether what is read from the entry of a body is there."""
    construct = plan.index.constructs[region.construct]
    field = get.path[0] if get.path else ""
    if field == CAPTURED:
        opened = plan.index.nodes.get(opening(construct.id))
        given = {arg.name for arg in opened.args} if opened is not None else set()
        name = get.path[1] if len(get.path) > 1 else ""
        if f"{CAPTURED}.{name}" not in given:
            yield f"reads {name!r} from outside, which the open of {construct.id!r} does not capture"
    elif field != VALUE:
        yield f"reads {field!r} from {get.node!r}, which only has {VALUE!r} and {CAPTURED!r}"
    elif not construct.numbered and all(handler.region != region.id for handler in construct.handlers):
        yield f"reads a value from {get.node!r}, and {construct.kind} {construct.id!r} hands none in"


def _signals(plan: Plan) -> Iterator[str]:
    declared = {param.name for param in plan.signals}
    holders: dict[str, dict[str, str]] = {}
    for node in plan.nodes:
        if node.kind == "wait":
            holders.setdefault(node.step, {}).setdefault(node.owner, node.id)
            if node.step not in declared:
                yield f"wait {node.id!r} is for a signal {node.step!r} that the plan does not declare"
    for signal, waits in holders.items():
        if len(waits) > 1:
            told = ", ".join(f"{name!r} at {owner}" for owner, name in waits.items())
            yield f"signal {signal!r} has more than one holder: {told}"


def _reach(plan: Plan) -> Iterator[str]:
    """Within each region, forward from the entry and back from the exit; the plan is known to be in order."""
    index = plan.index
    region = {node.id: node.region for node in plan.nodes}
    reached = {at.entry for at in plan.regions}
    for node in plan.nodes:
        if any(up in reached and region[up] == node.region for up in index.ups[node.id]):
            reached.add(node.id)
    leads = {at.exit for at in plan.regions}
    for node in reversed(plan.nodes):
        if any(down in leads and region[down] == node.region for down in index.downs[node.id]):
            leads.add(node.id)
    for node in plan.nodes:
        at = "" if node.region == RUN else f" of {node.region!r}"
        if node.id not in reached:
            yield f"node {node.id!r} cannot be reached from the start{at}"
        if node.id not in leads and node.kind != "timer":
            yield f"node {node.id!r} leads nowhere: the exit{at} does not join it"
