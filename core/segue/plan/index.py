"""Lookup tables of a plan: the graph as the machine walks it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from segue.errors import PlanError
from segue.plan.expression import Const, Get, gets_of, reads_of
from segue.plan.names import RUN, opening

if TYPE_CHECKING:
    from segue.plan.graph import Construct, Node, Plan, Region

CAPTURED = "with"
"""Field of an entry's value that holds what its construct captured; its other field is `value`."""


class Index:
    """Lookup tables of a plan, derived from its nodes and constructs.

    Attributes:
        nodes: Node by id.
        order: Position of each node in plan order.
        regions: Region by id.
        constructs: Construct by id.
        ups: Distinct upstreams of a node (data, guard, order), in order of first use. Of gateways: of the `entry` of a
            body the `open`, of those of handlers the exits that they look at; of an `exit` the entry, the result and
            the sinks; of a `close` the `open` and the exits; of a `settle` the `close` and the exits.
        downs: Nodes that have the node among their upstreams, in plan order.
        required: Upstreams whose skip skips the node.
        captured: Captured values that must be there, else the node is skipped, by name.
        depths: How many indices the tags of a region's nodes have.
        scopes: The regions that a region lies in, itself first, the run last.
        undoable: Regions that have a node in them which may have something to undo, at any depth.
        uncaught: Nodes whose failure no attempt, race or tolerant map contains.
        stopping: Those of them that can fail by themselves, if the first failure stops the run: the home hears them.
        services: Owners of nodes, sorted.
        memo: What others derive from this plan and want to keep.
    """

    __slots__ = (
        "_fed",
        "captured",
        "constructs",
        "depths",
        "downs",
        "memo",
        "nodes",
        "order",
        "regions",
        "required",
        "scopes",
        "services",
        "stopping",
        "uncaught",
        "undoable",
        "ups",
    )

    def __init__(self, plan: Plan) -> None:
        self.nodes: dict[str, Node] = {node.id: node for node in plan.nodes}
        self.order = {node.id: i for i, node in enumerate(plan.nodes)}
        self.regions: dict[str, Region] = {region.id: region for region in plan.regions}
        self.constructs: dict[str, Construct] = {construct.id: construct for construct in plan.constructs}
        self.ups: dict[str, tuple[str, ...]] = {}
        self.required: dict[str, frozenset[str]] = {}
        self.captured: dict[str, frozenset[str]] = {}
        self._known(plan)
        self._regions(plan)
        downs: dict[str, list[str]] = {node.id: [] for node in plan.nodes}
        for node in plan.nodes:
            gets = [get for arg in node.args for get in gets_of(arg.value)]
            needed = [get for get in gets if not get.optional]
            entries = {self.regions[node.region].entry} if node.region != RUN else frozenset()
            self.required[node.id] = frozenset(get.node for get in needed)
            self.captured[node.id] = frozenset(
                str(get.path[1])
                for get in needed
                if get.node in entries and len(get.path) > 1 and get.path[0] == CAPTURED
            )
            self.ups[node.id] = tuple(dict.fromkeys(self._upstreams(node, gets)))
            for up in self.ups[node.id]:
                if up not in downs:
                    raise PlanError(f"node {node.id!r} of flow {plan.flow!r} names an unknown node {up!r}")
                downs[up].append(node.id)
        self.downs = {name: tuple(heirs) for name, heirs in downs.items()}
        self.services = tuple(sorted({node.owner for node in plan.nodes}))
        self.undoable = frozenset(
            scope for node in plan.nodes if node.undoable for scope in self.scopes.get(node.region, ())
        )
        self.uncaught = frozenset(node.id for node in plan.nodes if not self._contained(node.region))
        fast = plan.on_failure == "stop"
        self.stopping = frozenset(name for name in self.uncaught if fast and self._fallible(self.nodes[name]))
        self._fed: dict[frozenset[str], dict[str, tuple[str, ...]]] = {}
        self.memo: dict[Any, Any] = {}

    def fed(self, mine: frozenset[str]) -> dict[str, tuple[str, ...]]:
        """`downs`, of a participant's own nodes only; it is asked for at every fact, so it is kept."""
        found = self._fed.get(mine)
        if found is None:
            found = {node: tuple(down for down in downs if down in mine) for node, downs in self.downs.items()}
            self._fed[mine] = found
        return found

    def depth(self, node: str) -> int:
        """How many indices the tags of a node have."""
        return self.depths[self.nodes[node].region]

    def construct(self, node: Node) -> Construct:
        """The construct that a gateway belongs to."""
        return self.constructs[node.construct]

    def exits(self, construct: Construct) -> tuple[str, ...]:
        """The exits of a construct's regions."""
        return tuple(self.regions[region].exit for region in construct.regions)

    def _known(self, plan: Plan) -> None:
        """Refuse names of regions and constructs that do not exist, so that nothing has to look twice."""
        where = f"of flow {plan.flow!r}"
        for construct in plan.constructs:
            if not construct.bodies:
                raise PlanError(f"construct {construct.id!r} {where} has no body")
            for region in (construct.region, *construct.regions):
                if region not in self.regions:
                    raise PlanError(f"construct {construct.id!r} {where} names an unknown region {region!r}")
        for node in plan.nodes:
            if node.region not in self.regions and node.region != RUN:
                raise PlanError(f"node {node.id!r} {where} lies in an unknown region {node.region!r}")
            inner = node.kind in ("open", "close", "settle") or (node.kind in ("entry", "exit") and node.region != RUN)
            if (node.construct or inner) and node.construct not in self.constructs:
                raise PlanError(f"{node.kind} {node.id!r} {where} belongs to an unknown construct {node.construct!r}")

    def _regions(self, plan: Plan) -> None:
        self.depths = {RUN: 0}
        self.scopes: dict[str, tuple[str, ...]] = {RUN: (RUN,)}
        for region in plan.regions:
            if region.id == RUN:
                continue
            if region.construct not in self.constructs:
                raise PlanError(f"region {region.id!r} of flow {plan.flow!r} belongs to no construct")
            if region.parent not in self.depths:
                raise PlanError(
                    f"region {region.id!r} of flow {plan.flow!r} lies in an unknown or later region {region.parent!r}"
                )
            self.depths[region.id] = self.depths[region.parent] + self.constructs[region.construct].numbered
            self.scopes[region.id] = (region.id, *self.scopes[region.parent])

    def _upstreams(self, node: Node, gets: list[Get]) -> Iterator[str]:
        if node.kind == "exit" and node.region != RUN:
            yield self.regions[node.region].entry
        if node.kind in ("close", "settle"):
            construct = self.constructs[node.construct]
            yield opening(construct.id) if node.kind == "close" else construct.id
            yield from self.exits(construct)
        elif node.kind == "entry" and node.construct:
            yield from self._before_entry(node)
        yield from (get.node for get in gets)
        if node.guard is not None:
            yield from (get.node for get in reads_of(node.guard))
        yield from node.after

    def _before_entry(self, node: Node) -> Iterator[str]:
        construct = self.constructs[node.construct]
        if node.region in construct.bodies:
            yield opening(construct.id)
            return
        yield self.regions[construct.bodies[0]].exit
        if node.region == construct.cleanup:
            yield from (self.regions[handler.region].exit for handler in construct.handlers)

    def _fallible(self, node: Node) -> bool:
        """Whether a node can fail by itself: gateways and plain expressions only pass on what failed before them."""
        if node.kind in ("entry", "settle", "timer"):
            return False
        if node.kind in ("step", "flow", "raise") or (node.kind == "wait" and node.timeout):
            return True
        construct = self.constructs.get(node.construct)
        if construct is not None:
            fails = {"each": "open", "repeat": "" if construct.last else "exit", "race": "close"}.get(construct.kind)
            if node.kind == fails:
                return True
        plain = Const if node.kind == "sleep" else Const | Get
        return any(not isinstance(arg.value, plain) for arg in node.args)

    def _contained(self, region: str) -> bool:
        for scope in self.scopes.get(region, ()):
            if scope == RUN:
                return False
            construct = self.constructs[self.regions[scope].construct]
            if (
                construct.kind == "race"
                or construct.tolerate
                or (construct.kind == "attempt" and scope in construct.bodies)
            ):
                return True
        return False
