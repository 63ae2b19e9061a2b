"""Random expressions over what a region may read: its own nodes, and those around it by capture."""

from __future__ import annotations

import random

from segue.plan.expression import Operator
from segue.plan.graph import (
    ENTRY,
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
)
from segue.plan.names import leaving
from segue.testing.behaviours import COUNTING, LISTING
from segue.testing.draft import Path, Scope

_PATHS: tuple[Path, ...] = ((), (), (), (), ("n",), ("ok",), ("tags",), ("tags", 1), ("tags", 5), ("gone",), (0,))
_FITTING: tuple[tuple[str, tuple[Path, ...]], ...] = (
    (COUNTING, ((), (), (), ("n",))),
    (LISTING, ((), (), (), (0,), (1,))),
    ("each", ((), (), (), (0,), (1,))),
)
"""What there is to read of nodes of these names, mostly."""
_ERROR: tuple[Path, ...] = (("type",), ("node",), ("tag",), ("value",))
_COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
_LITERALS = (None, True, False, 0, 3, 7, 2.5, "żółw", [3, 1])
_OPERATORS: tuple[tuple[Operator, int], ...] = (
    ("+", 2), ("+", 3), ("-", 2), ("*", 2), ("//", 2), ("%", 2), ("neg", 1), ("abs", 1), ("sum", 1), ("max", 1),
    ("length", 1), ("contains", 2), ("at", 2), ("default", 2), ("default", 2), ("if", 3),
)  # fmt: skip


class Phrases:
    """Draws expressions."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def get(self, scope: Scope, *, local: bool = False) -> Get:
        """The value of some node or a field of it; what a region has of its own comes first."""
        around = scope.around
        source = scope if local or self.rng.random() < 0.6 else self.rng.choice(around)
        while not (names := [name for name in source.readable if self._fields(source, name)]):
            source = around[around.index(source) + 1]
        # Mostly a late one, so that plans grow deep as well as wide.
        name = self.rng.choice(names[-4:] if self.rng.random() < 0.6 else names)
        return self._read(scope, source, name)

    def of(self, scope: Scope, name: str) -> Get:
        """The value of one node of the region, or a field of it."""
        return self._read(scope, scope, name)

    def _read(self, scope: Scope, source: Scope, name: str) -> Get:
        path = self.rng.choice(self._fields(source, name))
        whole = name != source.entry and self.rng.random() < 0.5
        return scope.read(source, name, path, optional=self.rng.random() < 0.25, whole=whole)

    def _fields(self, source: Scope, name: str) -> tuple[Path, ...]:
        """What may be read of a node. The message of an error is not fixed, and thus no input of anything."""
        if name != source.entry:
            return next((paths for prefix, paths in _FITTING if name.startswith(prefix)), _PATHS)
        if name == ENTRY:
            return tuple(("order", *path) for path in _PATHS)
        part = source.region.rpartition(":")[2]
        if part.startswith("catch"):
            return tuple(("value", *path) for path in _ERROR)
        return tuple(("value", *path) for path in _PATHS) if part in ("item", "round") else ()

    def number(self, scope: Scope) -> Get:
        """A whole number, or nothing at all."""
        return self._named(scope, COUNTING) or scope.read(scope.around[-1], ENTRY, ("order", "n"))

    def items(self, scope: Scope) -> Value:
        """A list, or nothing at all."""
        draw = self.rng.random()
        if draw < 0.15:
            return Const([0, 1, 2][: self.rng.randrange(4)])
        if draw < 0.3:
            return Items(tuple(self.get(scope) for _ in range(self.rng.randrange(4))))
        return self._named(scope, LISTING) or scope.read(scope.around[-1], ENTRY, ("order", "tags"))

    def _named(self, scope: Scope, prefix: str) -> Get | None:
        found = [(source, name) for source in scope.around for name in source.readable if name.startswith(prefix)]
        if not found:
            return None
        source, name = self.rng.choice(found)
        return scope.read(source, name, (), whole=True)

    def value(self, scope: Scope, depth: int = 2) -> Value:
        """Anything, mostly a node's value."""
        draw = self.rng.random()
        if depth == 0 or draw < 0.65:
            return self.get(scope)
        if draw < 0.75:
            return Const(self.rng.choice(_LITERALS))
        if draw < 0.78:
            return self.computed(scope)
        parts = [self.value(scope, depth - 1) for _ in range(self.rng.randint(0, 3))]
        return Items(tuple(parts)) if draw < 0.9 else Fields({f"f{i}": part for i, part in enumerate(parts)})

    def computed(self, scope: Scope) -> Value:
        """What an operator gives; it does not always fit its values."""
        draw = self.rng.random()
        if draw < 0.25:
            return self.value(scope)
        if draw < 0.35:
            return Test(self.condition(scope, 1))
        name, count = self.rng.choice(_OPERATORS)
        args: list[Value] = []
        for i in range(count):
            if name in ("sum", "max", "length") or (name in ("contains", "at") and i == 0):
                args.append(self.items(scope))
            elif name == "if" and i == 0:
                args.append(Test(self.condition(scope, 1)))
            else:
                args.append(self.rng.choice((self.number(scope), Const(self.rng.choice((1, 2, 3))), self.get(scope))))
        return Op(name, tuple(args))

    def condition(self, scope: Scope, depth: int = 2) -> Condition:
        """A condition, often unknown."""
        kind = self.rng.choice(("compare", "compare", "truth", "not", "and", "or") if depth else ("compare", "truth"))
        if kind == "truth":
            return Truth(self._flag(scope))
        if kind == "compare":
            return Compare(self.rng.choice(_COMPARISONS), self._side(scope), self._side(scope))  # type: ignore[arg-type]
        if kind == "not":
            return Not(self.condition(scope, depth - 1))
        parts = tuple(self.condition(scope, depth - 1) for _ in range(self.rng.randint(1, 3)))
        return And(parts) if kind == "and" else Or(parts)

    def _flag(self, scope: Scope) -> Get:
        return self.get(scope) if self.rng.random() < 0.6 else scope.read(scope.around[-1], ENTRY, ("order", "ok"))

    def _side(self, scope: Scope) -> Value:
        draw = self.rng.random()
        if draw < 0.3:
            return self.get(scope)
        if draw < 0.4:
            return Op("+", (self.get(scope), Const(1)))
        if draw < 0.75:
            return self.number(scope)
        return Const(self.rng.choice((1, 3, 5, 7)) if draw < 0.95 else self.rng.choice(_LITERALS))

    def until(self, scope: Scope) -> Condition:
        """When a loop stops: something about the value of its body's exit."""
        ours = Get(leaving(scope.region), self.rng.choice(((), (), (), ("n",), ("tags", 1))))
        draw = self.rng.random()
        if draw < 0.2:
            return Truth(Get(leaving(scope.region), ("ok",)))
        theirs: Value = Const(self.rng.choice((2, 5, 8)))
        if draw < 0.5:
            theirs = scope.read(scope.around[-1], ENTRY, ("order", "n"))
        found: Condition = Compare(self.rng.choice(("<", ">=", "!=")), ours, theirs)
        return Not(found) if draw > 0.9 else found
