"""The plan: a flow's compiled, immutable, hashed, serialisable form.

A plan is a list of nodes in *plan order* (the order of declaration, which is a topological order) inside a tree of
regions. Every region has an `entry` and an `exit` gateway; the root region is the run. Edges are not stored: a node's
upstreams are what its arguments, its guard and its `after` name. So there is one truth, and the indexes are derived.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

import msgspec

from segue.errors import PlanError

FORMAT = 1
RUN = "run"
ENTRY, EXIT = "run.entry", "run.exit"
"""Gateways of the root region. Names of users' nodes have no dot, so these cannot collide."""


class Get(msgspec.Struct, frozen=True, omit_defaults=True, tag="get"):
    """The value of a node, or a field of it; `optional`: a skipped node gives None instead of a skip."""

    node: str
    path: tuple[str | int, ...] = ()
    optional: bool = False


class Const(msgspec.Struct, frozen=True, tag="const"):
    """A literal, as JSON builtins."""

    value: Any


class Items(msgspec.Struct, frozen=True, tag="items"):
    """A list of values."""

    items: tuple[Value, ...]


class Fields(msgspec.Struct, frozen=True, tag="fields"):
    """A mapping or struct of values."""

    fields: dict[str, Value]


Value = Get | Const | Items | Fields
Operand = Get | Const


class Compare(msgspec.Struct, frozen=True, tag="compare"):
    """left op right; unknown if a side is unknown or the sides cannot be compared."""

    op: Literal["==", "!=", "<", "<=", ">", ">="]
    left: Operand
    right: Operand


class Truth(msgspec.Struct, frozen=True, tag="truth"):
    """A boolean value used as a condition."""

    value: Get


class Not(msgspec.Struct, frozen=True, tag="not"):
    """Negation; not(unknown) is unknown."""

    condition: Condition


class And(msgspec.Struct, frozen=True, tag="and"):
    """Conjunction, three-valued (Kleene)."""

    conditions: tuple[Condition, ...]


class Or(msgspec.Struct, frozen=True, tag="or"):
    """Disjunction, three-valued (Kleene)."""

    conditions: tuple[Condition, ...]


Condition = Compare | Truth | Not | And | Or


class Arg(msgspec.Struct, frozen=True):
    """A named argument of a call."""

    name: str
    value: Value


Kind = Literal["entry", "exit", "step", "either"]


class Node(msgspec.Struct, frozen=True, omit_defaults=True):
    """A place in the graph.

    `step`: the name of the step in the owner's service. `args`: of a step its arguments; of `either` the choices in
    declared order; of an exit the single argument `result`. `after`: upstreams that only order; of an exit its sinks.
    """

    id: str
    kind: Kind
    owner: str
    region: str = RUN
    step: str = ""
    args: tuple[Arg, ...] = ()
    guard: Condition | None = None
    after: tuple[str, ...] = ()


class Region(msgspec.Struct, frozen=True, omit_defaults=True):
    """A scope of nodes; what is inside is seen outside only through its gateways."""

    id: str
    entry: str
    exit: str
    parent: str | None = None


class Param(msgspec.Struct, frozen=True, omit_defaults=True):
    """A parameter with its JSON Schema (references point into `Plan.types`)."""

    name: str
    schema: dict[str, Any]
    required: bool = True


class Contract(msgspec.Struct, frozen=True):
    """What a step takes and gives, without its code."""

    service: str
    step: str
    inputs: tuple[Param, ...]
    output: dict[str, Any]


class Plan(msgspec.Struct, frozen=True, dict=True):
    """A compiled flow. Two builds of the same flow give the same hash."""

    flow: str
    home: str
    nodes: tuple[Node, ...]
    regions: tuple[Region, ...]
    inputs: tuple[Param, ...]
    output: dict[str, Any]
    contracts: tuple[Contract, ...]
    types: dict[str, Any]
    key: Value | None = None
    on_failure: Literal["drain"] = "drain"
    format: int = FORMAT

    @cached_property
    def json(self) -> bytes:
        """Canonical JSON: sorted keys, no white space."""
        return _encode(self)

    @cached_property
    def hash(self) -> str:
        """First 32 hex digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.json).hexdigest()[:32]

    @cached_property
    def index(self) -> Index:
        """Lookup tables derived from the nodes."""
        return Index(self)


class Index:
    """Lookup tables of a plan: the graph as the machine walks it.

    Attributes:
        nodes: Node by id.
        order: Position of each node in plan order.
        ups: Distinct upstreams of a node (data, guard, order), in order of first use.
        downs: Nodes that have the node among their upstreams, in plan order.
        required: Upstreams whose skip skips the node.
        services: Owners of nodes, sorted.
    """

    __slots__ = ("_fed", "downs", "nodes", "order", "required", "services", "ups")

    def __init__(self, plan: Plan) -> None:
        self.nodes = {node.id: node for node in plan.nodes}
        self.order = {node.id: i for i, node in enumerate(plan.nodes)}
        self.ups: dict[str, tuple[str, ...]] = {}
        self.required: dict[str, frozenset[str]] = {}
        downs: dict[str, list[str]] = {node.id: [] for node in plan.nodes}
        for node in plan.nodes:
            gets = [get for arg in node.args for get in gets_of(arg.value)]
            names = [get.node for get in gets]
            if node.guard is not None:
                names += [get.node for get in reads_of(node.guard)]
            self.ups[node.id] = tuple(dict.fromkeys((*names, *node.after)))
            self.required[node.id] = frozenset(get.node for get in gets if not get.optional)
            for up in self.ups[node.id]:
                if up not in downs:
                    raise PlanError(f"node {node.id!r} of flow {plan.flow!r} names an unknown node {up!r}")
                downs[up].append(node.id)
        self.downs = {name: tuple(heirs) for name, heirs in downs.items()}
        self.services = tuple(sorted({node.owner for node in plan.nodes}))
        self._fed: dict[frozenset[str], dict[str, tuple[str, ...]]] = {}

    def fed(self, mine: frozenset[str]) -> dict[str, tuple[str, ...]]:
        """`downs`, of a participant's own nodes only; it is asked for at every fact, so it is kept."""
        found = self._fed.get(mine)
        if found is None:
            found = {node: tuple(down for down in downs if down in mine) for node, downs in self.downs.items()}
            self._fed[mine] = found
        return found


def gets_of(value: Value) -> Iterator[Get]:
    """Every node value that a value is made of."""
    match value:
        case Get():
            yield value
        case Items(items):
            for item in items:
                yield from gets_of(item)
        case Fields(fields):
            for item in fields.values():
                yield from gets_of(item)


def reads_of(condition: Condition) -> Iterator[Get]:
    """Every node value that a condition reads."""
    match condition:
        case Compare(_, left, right):
            yield from (side for side in (left, right) if isinstance(side, Get))
        case Truth(value):
            yield value
        case Not(inner):
            yield from reads_of(inner)
        case And(parts) | Or(parts):
            for part in parts:
                yield from reads_of(part)


_encode = msgspec.json.Encoder(order="sorted").encode
_decoder = msgspec.json.Decoder(Plan)


def load(data: bytes | str) -> Plan:
    """Read a plan from JSON; `load(plan.json) == plan`.

    Raises:
        PlanError: Broken JSON, wrong shape, unknown format, unknown node, or a cycle.
    """
    try:
        plan = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PlanError(f"not a plan: {error}", "export it again with `segue plan FLOW --output json`") from None
    if plan.format != FORMAT:
        raise PlanError(f"plan format {plan.format} is not known here (this Segue reads format {FORMAT})")
    _check(plan)
    return plan


def _check(plan: Plan) -> None:
    index = plan.index
    if len(index.nodes) != len(plan.nodes):
        raise PlanError(f"plan of {plan.flow!r} has two nodes of one name")
    for gateway in (ENTRY, EXIT):
        if gateway not in index.nodes:
            raise PlanError(f"plan of {plan.flow!r} has no {gateway!r}")
    for node in plan.nodes:
        late = [up for up in index.ups[node.id] if index.order[up] >= index.order[node.id]]
        if late:
            raise PlanError(f"plan of {plan.flow!r} has a cycle or is out of order: {node.id!r} needs {late[0]!r}")
        if node.kind != "entry" and not index.ups[node.id]:
            raise PlanError(f"node {node.id!r} of {plan.flow!r} cannot be reached from the start")
