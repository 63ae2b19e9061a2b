"""The plan: a flow's compiled, immutable, hashed, serialisable form.

A plan is a list of nodes in *plan order* (the order of declaration, which is a topological order) inside a tree of
regions. Every region has an `entry` and an `exit` gateway; the root region is the run. A construct (`each`, `repeat`,
`race`, `attempt`) stands in a region as two nodes, `open` and `close`, and owns the regions of its bodies; `close` has
the construct's name, since the outcome of the construct is its own. What is inside a region is seen outside only
through `close`, and what a body reads from outside is captured by `open` and handed in by the `entry`: so data, guard
and order edges never cross the border of a region.

Edges are not stored: a node's upstreams are what its arguments, its guard and its `after` name, and those of gateways
follow from the constructs. So there is one truth, and the index is derived.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any, Literal

import msgspec

from segue.errors import PlanError
from segue.plan.expression import (
    And,
    Compare,
    Condition,
    Const,
    Fields,
    Get,
    Items,
    Not,
    Op,
    Or,
    Test,
    Truth,
    Value,
    gets_of,
    reads_of,
)
from segue.plan.index import Index
from segue.plan.names import ENTRY, EXIT, RUN
from segue.plan.structure import structure

FORMAT = 1


class Arg(msgspec.Struct, frozen=True):
    """A named argument of a call."""

    name: str
    value: Value


Kind = Literal[
    "entry", "exit", "open", "close", "settle", "timer",
    "step", "either", "value", "emit", "raise", "wait", "sleep", "flow",
]  # fmt: skip


class Node(msgspec.Struct, frozen=True, omit_defaults=True):
    """A place in the graph.

    Attributes:
        id: Its name; gateways have a colon in theirs, users' names have none.
        kind: `step`: a call. `either`: the first completed of its arguments. `value`: an expression. `emit`: an
            expression that is published in any case. `raise`: fails with its arguments. `wait`: for a signal. `sleep`:
            for time. `flow`: a run of another flow. `timer`: ends the scope that it watches when its time is over.
            `entry`, `exit`: of a region. `open`, `close`, `settle`: of a construct.
        owner: The service that holds it when choreographed.
        region: The region that it stands in; of an entry or exit the one that it belongs to.
        step: Of a step its name in the owner's service; of a wait the signal's name; of a raise the error's type; of a
            flow its name; of an `emit` the event's name.
        args: Of a step its arguments; of `either` the choices in declared order; of an exit the single `result`; of
            `value` and `emit` the single `value`; of a wait `match`; of a sleep `seconds` or `until`; of a raise
            `message` and `value`; of a flow its inputs; of an `open` what the entries hand in: `items` (each) or
            `initial` (repeat), and one `with.<name>` for each value that a body captures.
        guard: Condition without which it is skipped.
        after: Upstreams that only order; of an exit its sinks.
        construct: Of a gateway the construct that it belongs to.
        undo: Whether its step can be undone.
        timeout: Seconds after which a wait fails or a timer ends its scope; 0 for never.
    """

    id: str
    kind: Kind
    owner: str
    region: str = RUN
    step: str = ""
    args: tuple[Arg, ...] = ()
    guard: Condition | None = None
    after: tuple[str, ...] = ()
    construct: str = ""
    undo: bool = False
    timeout: float = 0.0

    @property
    def undoable(self) -> bool:
        """Whether it may have something to undo: its step can be undone, or it is a run, and those are looked up."""
        return self.undo or self.kind == "flow"


class Region(msgspec.Struct, frozen=True, omit_defaults=True):
    """A scope of nodes; what is inside is seen outside only through its gateways."""

    id: str
    entry: str
    exit: str
    parent: str | None = None
    construct: str = ""


class Handler(msgspec.Struct, frozen=True):
    """A region that an attempt runs when its body failed with one of these errors, by class name; "*" is any."""

    errors: tuple[str, ...]
    region: str


class Construct(msgspec.Struct, frozen=True, omit_defaults=True):
    """Bodies with one holder.

    Attributes:
        id: Its name, and that of its `close` node.
        kind: `each`: the body for every item. `repeat`: the body again and again. `race`: the first `winners` branches
            to complete. `attempt`: the body, and a handler if it failed.
        region: The region that it stands in.
        bodies: Regions: the body, or the branches of a race.
        limit: Items of an `each` under way at a time; 0 for all.
        tolerate: Failed items that an `each` bears; their results are None.
        until: When a `repeat` stops: a condition on the value of its body's exit (and captures, from its entry).
        cap: Rounds of a `repeat` at most.
        last: Whether a `repeat` that reached its cap completes with its last value, instead of failing.
        every: Seconds between the rounds of a `repeat`.
        winners: Branches of a race that must complete.
        handlers: Of an attempt, in declared order; the first that fits is run.
        cleanup: Region that an attempt runs at its end in any case.
        undo: Whether an attempt undoes its failed body before the handler starts.
        timeout: Seconds after which an attempt's body is stopped and counts as failed with `Timeout`; 0 for never.
    """

    id: str
    kind: Literal["each", "repeat", "race", "attempt"]
    region: str
    bodies: tuple[str, ...]
    limit: int = 0
    tolerate: int = 0
    until: Condition | None = None
    cap: int = 0
    last: bool = False
    every: float = 0.0
    winners: int = 1
    handlers: tuple[Handler, ...] = ()
    cleanup: str = ""
    undo: bool = False
    timeout: float = 0.0

    @property
    def regions(self) -> tuple[str, ...]:
        """All its regions, in plan order."""
        return (
            *self.bodies,
            *(handler.region for handler in self.handlers),
            *((self.cleanup,) if self.cleanup else ()),
        )

    @property
    def numbered(self) -> bool:
        """Whether its body exists many times, told apart by one more index in the tag."""
        return self.kind in ("each", "repeat")


class Param(msgspec.Struct, frozen=True, omit_defaults=True):
    """A parameter with its JSON Schema (references point into `Plan.types`)."""

    name: str
    schema: dict[str, Any]
    required: bool = True


class Contract(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a step takes and gives, without its code; `undo`: it can be undone."""

    service: str
    step: str
    inputs: tuple[Param, ...]
    output: dict[str, Any]
    undo: bool = False


class Plan(msgspec.Struct, frozen=True, dict=True):
    """A compiled flow. Two builds of the same flow give the same hash.

    Attributes:
        flow: Its name.
        home: The service that starts and ends its runs when choreographed.
        nodes: In plan order.
        regions: The run first, then those of the constructs, in plan order.
        inputs: Parameters of the flow.
        output: Schema of the result.
        contracts: The steps that it calls.
        types: Schemas that others refer to.
        key: Where a run's key comes from.
        on_failure: What the first uncaught failure does: `drain` lets independent branches finish, `stop` stops them.
        constructs: In plan order.
        signals: What runs wait for: name and schema of the value.
        deadline: Seconds after which a run is stopped; 0 for never.
        format: Version of this format.
    """

    flow: str
    home: str
    nodes: tuple[Node, ...]
    regions: tuple[Region, ...]
    inputs: tuple[Param, ...]
    output: dict[str, Any]
    contracts: tuple[Contract, ...]
    types: dict[str, Any]
    key: Value | None = None
    on_failure: Literal["drain", "stop"] = "drain"
    constructs: tuple[Construct, ...] = ()
    signals: tuple[Param, ...] = ()
    deadline: float = 0.0
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


_encode = msgspec.json.Encoder(order="sorted").encode
_decoder = msgspec.json.Decoder(Plan)

__all__ = [
    "ENTRY", "EXIT", "FORMAT", "RUN", "And", "Arg", "Compare", "Condition", "Const", "Construct", "Contract", "Fields",
    "Get", "Handler", "Index", "Items", "Kind", "Node", "Not", "Op", "Or", "Param", "Plan", "Region", "Test", "Truth",
    "Value", "gets_of", "load", "reads_of",
]  # fmt: skip


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
    try:
        found = structure(plan)
    except RecursionError:
        raise PlanError(f"an expression in the plan of {plan.flow!r} is nested too deeply") from None
    if found:
        raise PlanError(f"plan of {plan.flow!r} cannot be run: {found[0]}")
    return plan
