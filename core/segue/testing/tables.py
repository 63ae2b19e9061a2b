"""A plan as a graph, read from its nodes and constructs anew: the evaluator does not share the machine's index."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from segue.machine.facts import Key
from segue.plan.expression import Condition, Get, Value, gets_of, reads_of
from segue.plan.graph import RUN, Construct, Node, Plan
from segue.plan.names import opening, settling


class Tables:
    """What is asked of a plan again and again.

    Attributes:
        plan: The plan.
        nodes: Node by id.
        place: Position of each node in plan order.
        members: Nodes of each region in plan order.
        reads: What a node's arguments and guard read.
        ups: Nodes of the same region that a node is decided after.
        edges: Where a change of a node can lead.
        constructs: Construct by id, which is also that of its `close`.
        scopes: The regions around a region, itself first.
        depth: How many indices the tags of a node have.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.nodes = {node.id: node for node in plan.nodes}
        self.place = {node.id: i for i, node in enumerate(plan.nodes)}
        self.constructs = {construct.id: construct for construct in plan.constructs}
        self.regions = {region.id: region for region in plan.regions}
        self.members: dict[str, list[Node]] = defaultdict(list)
        self.reads: dict[str, list[Get]] = {}
        self.ups: dict[str, list[str]] = {}
        self.scopes: dict[str, tuple[str, ...]] = {}
        levels: dict[str, int] = {}
        for region in plan.regions:
            above = () if region.parent is None else self.scopes[region.parent]
            self.scopes[region.id] = (region.id, *above)
            inner = region.id != RUN and self.constructs[region.construct].kind in ("each", "repeat")
            levels[region.id] = inner + (0 if region.parent is None else levels[region.parent])
        for node in plan.nodes:
            self.members[node.region].append(node)
            self.reads[node.id] = list(_reads([arg.value for arg in node.args], node.guard))
            self.ups[node.id] = list(dict.fromkeys((*(get.node for get in self.reads[node.id]), *node.after)))
        self.depth = {node.id: levels[node.region] for node in plan.nodes}
        self.edges = self._edges()

    def construct_of(self, region: str) -> Construct | None:
        """The construct that a region belongs to."""
        return self.constructs.get(self.regions[region].construct)

    def within(self, key: Key, scope: str, tag: str) -> bool:
        """Whether a place lies in a region with this tag, at any depth."""
        inside = not tag or key.tag == tag or key.tag.startswith(f"{tag}.")
        return inside and scope in self.scopes[self.nodes[key.node].region]

    def _edges(self) -> dict[str, list[str]]:
        edges: dict[str, list[str]] = {name: [] for name in self.nodes}
        for name, ups in self.ups.items():
            for up in ups:
                edges[up].append(name)
        for region in self.regions.values():
            edges[region.entry].append(region.exit)
        for construct in self.constructs.values():
            opened, exits = opening(construct.id), [self.regions[region].exit for region in construct.regions]
            edges[opened] += [construct.id, *(self.regions[body].entry for body in construct.bodies)]
            ends = [construct.id, *([settling(construct.id)] if construct.kind == "race" else [])]
            for exit in exits:
                edges[exit] += ends
            edges[construct.id] += ends[1:]
            body = self.regions[construct.bodies[0]]
            edges[body.exit] += [self.regions[handler.region].entry for handler in construct.handlers]
            if construct.cleanup:
                for exit in exits[:-1]:
                    edges[exit].append(self.regions[construct.cleanup].entry)
            if construct.kind == "repeat":
                edges[body.exit].append(body.entry)
        return edges


def _reads(values: list[Value], guard: Condition | None) -> Iterator[Get]:
    for value in values:
        yield from gets_of(value)
    if guard is not None:
        yield from reads_of(guard)


def tables(plan: Plan) -> Tables:
    """The tables of a plan, made once."""
    memo = plan.index.memo
    found = memo.get(Tables)
    if not isinstance(found, Tables):
        found = memo[Tables] = Tables(plan)
    return found
