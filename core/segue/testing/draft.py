"""A plan under construction: regions, their nodes, and what bodies capture from outside, level by level."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from segue.plan.graph import (
    ENTRY,
    EXIT,
    RUN,
    And,
    Arg,
    Condition,
    Construct,
    Get,
    Kind,
    Node,
    Param,
    Plan,
    Region,
    Value,
    gets_of,
    reads_of,
)
from segue.plan.names import entering, leaving, opening

Path = tuple[str | int, ...]


class Frame:
    """A construct under construction: what its `open` captures for its bodies."""

    def __init__(self, name: str, owner: str, position: int) -> None:
        self.name, self.owner, self.position = name, owner, position
        self.captures: dict[str, Value] = {}
        self.regions: list[str] = []


class Scope:
    """A region under construction.

    Attributes:
        region: Its id.
        readable: Its nodes that others may read, the entry first.
        waitable: Its nodes that others may be ordered after.
        unread: Its nodes that nobody reads yet: the sinks, in the end.
        unless: Conditions under which what is added from now on is not run.
    """

    def __init__(self, region: str, entry: str, parent: Scope | None = None, frame: Frame | None = None) -> None:
        self.region, self.entry, self.parent, self.frame = region, entry, parent, frame
        self.level: int = 0 if parent is None else parent.level + 1
        self.readable = [entry]
        self.waitable = [entry]
        self.unread: dict[str, None] = {}
        self.unless: list[Condition] = []

    def read(self, source: Scope, node: str, path: Path, *, optional: bool = False, whole: bool = False) -> Get:
        """A value of this region, or of one around it, which is then captured on the way in.

        Args:
            source: Where the node stands.
            node: The node.
            path: A field of its value.
            optional: Whether its skip is borne.
            whole: Whether a capture takes the whole value of the node and leaves the path to the reader.
        """
        if source is self:
            return Get(node, path, optional)
        assert self.parent is not None
        assert self.frame is not None
        taken, rest = ((), path) if whole else (path, ())
        name = ".".join(map(str, (node, *taken)))
        if name not in self.frame.captures:
            self.frame.captures[name] = self.parent.read(source, node, taken, optional=True, whole=whole)
        return Get(self.entry, ("with", name, *rest), optional)

    @property
    def around(self) -> list[Scope]:
        """This region and those around it."""
        return [self, *(self.parent.around if self.parent else ())]


class Draft:
    """Nodes, regions and constructs in plan order, with the services that hold them."""

    def __init__(self, rng: random.Random, services: int) -> None:
        self.rng = rng
        self.services = [f"s{i}" for i in range(services)]
        self.home = rng.choice(self.services)
        self.nodes = [Node(ENTRY, "entry", self.home)]
        self.regions = [Region(RUN, ENTRY, EXIT)]
        self.constructs: list[Construct] = []
        self.run = Scope(RUN, ENTRY)
        self.signals: set[str] = set()

    def name(self, kind: str) -> str:
        """A name that no node has yet."""
        return f"{kind}{len(self.nodes)}"

    def add(
        self, scope: Scope, name: str, kind: Kind, args: dict[str, Value] | None = None, **more: Any
    ) -> str:  # fmt: skip
        """A node at a random service; without any upstream it starts with its region."""
        given = tuple(Arg(arg, value) for arg, value in (args or {}).items())
        node = Node(
            name, kind, **{"owner": self.rng.choice(self.services), "region": scope.region, "args": given} | more
        )
        self.nodes.append(self._placed(scope, node))
        scope.unread[name] = None
        return name

    def _placed(self, scope: Scope, node: Node) -> Node:
        """The node under the region's conditions, ordered after the entry if nothing else leads to it."""
        guards = [*scope.unless, *([node.guard] if node.guard is not None else [])]
        guard = None if not guards else guards[0] if len(guards) == 1 else And(tuple(guards))
        reads = [get for arg in node.args for get in gets_of(arg.value)]
        if guard is not None:
            reads += reads_of(guard)
        for up in (*(get.node for get in reads), *node.after):
            scope.unread.pop(up, None)
        after = node.after if reads or node.after else (scope.entry,)
        return msgspec.structs.replace(node, guard=guard, after=after)

    def begin(self, scope: Scope, kind: str) -> Frame:
        """The `open` of a construct, whose holder is a random service."""
        name = self.name(kind)
        frame = Frame(name, self.rng.choice(self.services), len(self.nodes))
        self.nodes.append(Node(opening(name), "open", frame.owner, scope.region, construct=name))
        # It keeps its place in plan order; what stands in it is known in the end.
        self.constructs.append(Construct(name, "attempt", scope.region, ()))
        return frame

    def enter(self, scope: Scope, frame: Frame, part: str) -> Scope:
        """A body of a construct."""
        region = f"{frame.name}:{part}"
        entry = entering(region)
        frame.regions.append(region)
        self.regions.append(Region(region, entry, leaving(region), scope.region, frame.name))
        self.nodes.append(Node(entry, "entry", frame.owner, region, construct=frame.name))
        return Scope(region, entry, scope, frame)

    def leave(self, scope: Scope, result: Value | None) -> None:
        """The exit of a region, joining what nobody reads and the result."""
        args = () if result is None else (Arg("result", result),)
        owner, construct = (self.home, "") if scope.frame is None else (scope.frame.owner, scope.frame.name)
        for get in () if result is None else gets_of(result):
            scope.unread.pop(get.node, None)
        sinks = tuple(scope.unread)
        if scope.frame is None and not sinks and result is None:
            sinks = (ENTRY,)
        exit = EXIT if scope.frame is None else leaving(scope.region)
        self.nodes.append(Node(exit, "exit", owner, scope.region, args=args, after=sinks, construct=construct))

    def end(self, scope: Scope, frame: Frame, construct: Construct, opened: Node) -> str:
        """The `close` of a construct, after its bodies.

        Args:
            scope: Where the construct stands.
            frame: Its frame.
            construct: What it is.
            opened: Arguments, guard and order of its `open`.
        """
        captured = tuple(Arg(f"with.{name}", value) for name, value in frame.captures.items())
        opened = msgspec.structs.replace(opened, args=(*opened.args, *captured))
        self.nodes[frame.position] = self._placed(scope, opened)
        place = next(i for i, other in enumerate(self.constructs) if other.id == frame.name)
        self.constructs[place] = construct
        self.nodes.append(Node(frame.name, "close", frame.owner, scope.region, construct=frame.name))
        scope.unread[frame.name] = None
        return frame.name

    def plan(self, **more: Any) -> Plan:
        """The finished plan."""
        return Plan(
            flow="generated",
            home=self.home,
            nodes=tuple(self.nodes),
            regions=tuple(self.regions),
            inputs=(Param("order", {}),),
            output={},
            contracts=(),
            types={},
            constructs=tuple(self.constructs),
            signals=tuple(Param(name, {}) for name in sorted(self.signals)),
            **more,
        )
