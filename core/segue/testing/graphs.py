"""Random plans, plans shaped like real workflows, and step behaviours, all pure functions of a seed.

Plans are built straight from the structs of `segue.plan.graph`, not through the flow API: so they reach what the API
would not write, and a bug in the compiler cannot hide one in the machine.
"""

from __future__ import annotations

import itertools
import json
import random
import zlib
from collections.abc import Callable
from typing import Any

import msgspec

from segue.machine.facts import Cause, Failure, Outcome
from segue.plan.graph import (
    ENTRY,
    EXIT,
    RUN,
    And,
    Arg,
    Compare,
    Condition,
    Const,
    Fields,
    Get,
    Items,
    Node,
    Not,
    Operand,
    Or,
    Param,
    Plan,
    Region,
    Truth,
    Value,
)

Behaviour = Callable[[str, dict[str, Any], int], Outcome]
"""What a step does: (node, arguments, how often it was executed before) -> completed, failed or cancelled."""

GIVEN: dict[str, Any] = {"order": {"n": 4, "ok": True, "tags": [3, 1], "name": "żółw"}}
"""The input of every run of a generated plan."""

_PATHS: tuple[tuple[str | int, ...], ...] = (
    (),
    (),
    (),
    ("n",),
    ("ok",),
    ("tags",),
    ("tags", 1),
    ("tags", 5),
    ("gone",),
    (0,),
)
_OPERATORS = ("==", "!=", "<", "<=", ">", ">=")
_LITERALS = (None, True, False, 0, 3, 7, 2.5, "żółw", [3, 1])


class Scripted(msgspec.Struct, frozen=True):
    """Steps whose outcome depends on the seed, the node and the arguments.

    Attributes:
        seed: Another seed, other outcomes.
        failing: Share of nodes that fail.
        cancelled: Share of nodes that their service declares cancelled.
        fickle: Return another value at every execution, so that only recording makes results single.
    """

    seed: int = 0
    failing: float = 0.15
    cancelled: float = 0.03
    fickle: bool = False

    def __call__(self, node: str, args: dict[str, Any], executed: int) -> Outcome:
        """Execute a step once."""
        fate = _draw(self.seed, "fate", node) % 1000 / 1000
        if fate < self.failing:
            return Outcome("failed", causes=(Cause(node, error=Failure("Broken", f"{node} broke")),))
        if fate < self.failing + self.cancelled:
            return Outcome("cancelled", causes=(Cause(node),))
        return Outcome("completed", _value(_draw(self.seed, node, args, executed if self.fickle else 0)))


def _draw(*parts: object) -> int:
    return zlib.crc32(json.dumps(parts, sort_keys=True).encode())


def _value(draw: int) -> Any:
    n, shape = draw // 16 % 10, draw % 16
    if shape < 6:
        return n
    if shape < 11:
        return {"n": n, "ok": n % 2 == 0, "tags": list(range(n % 4)), "name": f"№{n}"}
    return (n % 2 == 0, n > 4, None, f"text {n}", [n, n + 1])[shape - 11]


class _Builder:
    """Nodes in the order of their making, with the few draws that every shape needs."""

    def __init__(self, rng: random.Random, services: int) -> None:
        self.rng = rng
        self.services = [f"s{i}" for i in range(services)]
        self.home = rng.choice(self.services)
        self.nodes = [Node(ENTRY, "entry", self.home)]
        self.used: set[str] = set()

    def add(
        self, kind: str, args: tuple[Value, ...], guard: Condition | None = None, after: tuple[str, ...] = ()
    ) -> str:
        """A node that reads these values; without any upstream it starts with the run."""
        reads = {name for value in args for name in _names(value)} | set(after)
        if guard is not None:
            reads |= _condition_names(guard)
        if not reads:
            after, reads = (ENTRY,), {ENTRY}
        self.used |= reads
        name = f"{kind[0]}{len(self.nodes)}"
        named = tuple(Arg(f"a{i}", value) for i, value in enumerate(args))
        owner, step = self.rng.choice(self.services), name if kind == "step" else ""
        self.nodes.append(Node(name, "step" if kind == "step" else "either", owner, RUN, step, named, guard, after))
        return name

    def plan(self, result: Value | None) -> Plan:
        """The finished plan; nodes that nothing reads are its sinks."""
        if result is not None:
            self.used |= set(_names(result))
        sinks = tuple(node.id for node in self.nodes if node.id not in self.used) or (ENTRY,)
        args = () if result is None else (Arg("result", result),)
        return Plan(
            flow="generated",
            home=self.home,
            nodes=(*self.nodes, Node(EXIT, "exit", self.home, args=args, after=sinks)),
            regions=(Region(RUN, ENTRY, EXIT),),
            inputs=(Param("order", {}),),
            output={},
            contracts=(),
            types={},
        )

    def pick(self) -> str:
        """A node to read: mostly a late one, so that plans grow deep as well as wide."""
        recent = self.nodes[-4:] if self.rng.random() < 0.6 else self.nodes
        return self.rng.choice(recent).id

    def get(self) -> Get:
        node = self.pick()
        path = self.rng.choice(_PATHS)
        return Get(node, ("order", *path) if node == ENTRY else path, self.rng.random() < 0.25)

    def operand(self) -> Operand:
        return self.get() if self.rng.random() < 0.6 else Const(self.rng.choice(_LITERALS))

    def value(self, depth: int = 2) -> Value:
        draw = self.rng.random()
        if depth == 0 or draw < 0.65:
            return self.get()
        if draw < 0.75:
            return Const(self.rng.choice(_LITERALS))
        parts = [self.value(depth - 1) for _ in range(self.rng.randint(0, 3))]
        return Items(tuple(parts)) if draw < 0.88 else Fields({f"f{i}": part for i, part in enumerate(parts)})

    def condition(self, depth: int = 2) -> Condition:
        kind = self.rng.choice(("compare", "compare", "truth", "not", "and", "or") if depth else ("compare", "truth"))
        if kind == "truth":
            return Truth(self.get())
        if kind == "compare":
            return Compare(self.rng.choice(_OPERATORS), self.operand(), self.operand())  # type: ignore[arg-type]
        if kind == "not":
            return Not(self.condition(depth - 1))
        parts = tuple(self.condition(depth - 1) for _ in range(self.rng.randint(1, 3)))
        return And(parts) if kind == "and" else Or(parts)

    def step(self, guard: Condition | None = None) -> str:
        args = tuple(self.value() for _ in range(self.rng.choice((0, 1, 1, 1, 2, 3))))
        after = tuple(dict.fromkeys(self.pick() for _ in range(self.rng.choice((0, 0, 0, 1, 2)))))
        if guard is None and self.rng.random() < 0.2:
            guard = self.condition()
        return self.add("step", args, guard, after)

    def either(self, names: list[str]) -> str:
        choices: list[Value] = [Get(name, self.rng.choice(_PATHS)) for name in dict.fromkeys(names)]
        if self.rng.random() < 0.15:
            choices.append(Const("default"))
        return self.add("either", tuple(choices), self.condition(1) if self.rng.random() < 0.1 else None)


def _names(value: Value) -> list[str]:
    if isinstance(value, Get):
        return [value.node]
    parts = value.items if isinstance(value, Items) else value.fields.values() if isinstance(value, Fields) else ()
    return [name for part in parts for name in _names(part)]


def _condition_names(condition: Condition) -> set[str]:
    match condition:
        case Truth(value):
            return {value.node}
        case Not(inner):
            return _condition_names(inner)
        case And(parts) | Or(parts):
            return {name for part in parts for name in _condition_names(part)}
        case Compare(_, left, right):
            return {side.node for side in (left, right) if isinstance(side, Get)}


def random_plan(rng: random.Random, largest: int = 30) -> Plan:
    """A plan of 1 to `largest` nodes over 1 to 6 services, with every construct that plans have.

    Args:
        rng: Source of all choices.
        largest: Bound on the number of nodes between the run's gateways (a motif may add two).
    """
    build = _Builder(rng, rng.randint(1, 6))
    count = rng.randint(1, rng.choice((4, 12, largest)))
    while len(build.nodes) <= count:
        motif = rng.choice(("step",) * 6 + ("either", "race", "when"))
        if motif == "step":
            build.step()
        elif motif == "either":
            build.either([build.pick() for _ in range(rng.randint(2, 4))])
        elif motif == "race":
            build.either([build.step(), build.step()])
        else:
            guard = build.condition()
            build.either([build.step(guard), build.step(Not(guard))])
    result = rng.choice(("none", "const", "get", "get", "get", "value"))
    if result == "get":
        return build.plan(Get(rng.choice(build.nodes).id, rng.choice(_PATHS), rng.random() < 0.3))
    return build.plan({"none": None, "const": Const(7), "value": build.value()}[result])


def workflow_like(rng: random.Random, nodes: int) -> Plan:
    """A plan shaped like traces of scientific workflows.

    Levels, wide fan-out and fan-in, several sources and sinks, and parts that have nothing to do with each other.

    Args:
        rng: Source of all choices.
        nodes: Number of steps; traces have 10 to 1,738.
    """
    build = _Builder(rng, rng.randint(2, 6))
    while (left := nodes - len(build.nodes) + 1) > 0:
        part = left if left < 20 or rng.random() < 0.5 else rng.randint(10, left)
        rng.choice((_scatter, _mosaic, _pipelines, _levels))(build, part)
    return build.plan(Get(build.nodes[-1].id))


def _call(build: _Builder, *names: str) -> str:
    """A step that reads some nodes: many as one list, few as arguments."""
    if len(names) > 3:
        return build.add("step", (Items(tuple(Get(name) for name in names)),))
    return build.add("step", tuple(Get(name) for name in names))


def _scatter(build: _Builder, size: int) -> None:
    """Split, work in parallel on up to 500 pieces, merge; again until the size is reached."""
    while size > 0:
        width = max(1, min(500, size - 2))
        head = _call(build)
        if size > 1:
            work = [_call(build, head) for _ in range(width)] if size > 2 else [head]
            _call(build, *work)
        size -= width + 2


def _mosaic(build: _Builder, size: int) -> None:
    """Sources, overlaps of neighbours, one model of all, a correction of each source with it, one picture."""
    width = min((size - 2) // 3, 400)
    if width < 2:
        return _scatter(build, size)
    sources = [_call(build) for _ in range(width)]
    overlaps = [_call(build, *pair) for pair in itertools.pairwise(sources)]
    model = _call(build, *overlaps)
    _call(build, *[_call(build, source, model) for source in sources])
    rest = size - (3 * width + 1)
    return _scatter(build, rest) if rest > 0 else None


def _pipelines(build: _Builder, size: int) -> None:
    """Chains side by side, merged at the end."""
    width = max(1, min(100, (size - 1) // build.rng.randint(3, 8)))
    ends = [_call(build) for _ in range(min(width, size))]
    left = size - len(ends) - 1
    for i in range(max(0, left)):
        ends[i % len(ends)] = _call(build, ends[i % len(ends)])
    if left >= 0:
        _call(build, *ends)


def _levels(build: _Builder, size: int) -> None:
    """Levels of random width; each node reads a few of the level above; nodes that nobody reads stay sinks."""
    above: list[str] = []
    while size > 0:
        width = min(size, build.rng.choice((1, 3, 10, 40)))
        reads = [build.rng.sample(above, min(len(above), build.rng.choice((1, 1, 2, 3, 8)))) for _ in range(width)]
        above = [_call(build, *names) for names in reads]
        size -= width
