"""Random expressions come to what Python, and the algebra of the reference, say that they come to."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from segue import Service, expr, flow
from segue.machine.facts import SKIPPED, Outcome
from segue.machine.values import Unfit, evaluate, holds
from segue.plan import expression
from segue.plan.expression import And, Compare, Condition, Const, Fields, Get, Items, Not, Op, Or, Truth, Value
from segue.plan.graph import load
from segue.plan.words import describe_condition, describe_value
from segue.testing import algebra

Seeds = Callable[[int], Iterator[int]]

# Typed expressions, written by users' means, against Python itself.


class Item(msgspec.Struct):
    name: str
    price: float
    count: int


class Given(msgspec.Struct):
    whole: int
    other: int
    part: float
    text: str
    flag: bool
    numbers: list[float]
    names: list[str]
    items: list[Item]
    table: dict[str, int]
    hole: float | None


class Pair(NamedTuple):
    """A placeholder, and what Python makes of the same."""

    ref: Any
    real: Callable[[], Any]


class Missing(Exception):
    """Something is not there."""


def several(compute: Callable[..., Any], *pairs: Pair) -> Callable[[], Any]:
    """Compute something of values: one that cannot be computed counts before one that is not there."""

    def computed() -> Any:
        found, missing = [], False
        for pair in pairs:
            try:
                found.append(pair.real())
            except Missing:
                missing = True
        if missing:
            raise Missing
        return finite(compute(*found))

    return computed


def finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise OverflowError
    return value


def fold(values: list[Any]) -> Any:
    total: Any = 0
    for value in values:
        total += value
    return total


def written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def found(container: Any, key: Any) -> Any:
    try:
        return container[key]
    except LookupError:
        raise Missing from None


class Writer:
    """Writes typed expressions about a `Given`."""

    def __init__(self, rng: random.Random, ref: Any, real: Given) -> None:
        self.rng, self.ref, self.given = rng, ref, real

    def constant(self, value: Any) -> Pair:
        return Pair(value, lambda: value)

    def field(self, name: str) -> Pair:
        return Pair(getattr(self.ref, name), lambda: getattr(self.given, name))

    def draw(self, depth: int, leaves: list[Callable[[], Pair]], more: list[Callable[[int], Pair]]) -> Pair:
        if depth <= 0 or self.rng.random() < 0.2:
            return self.rng.choice(leaves)()
        return self.rng.choice(more)(depth - 1)

    def placed(self, pair: Pair) -> Pair:
        """Operators are Python's own where both sides are constants, so one side must be none."""
        return pair if hasattr(type(pair.ref), "_segue") or hasattr(type(pair.ref), "_operand") else self.field("whole")

    def number(self, depth: int) -> Pair:
        rng = self.rng
        binary: list[Callable[[Any, Any], Any]] = [
            lambda a, b: a + b,
            lambda a, b: a - b,
            lambda a, b: a * b,
            lambda a, b: a / b,
            lambda a, b: a // b,
            lambda a, b: a % b,
        ]

        def two(depth: int) -> Pair:
            apply = rng.choice(binary)
            sides = [self.placed(self.number(depth)), self.number(depth)]
            rng.shuffle(sides)
            return Pair(apply(sides[0].ref, sides[1].ref), several(apply, *sides))

        def one(depth: int) -> Pair:
            apply = rng.choice([abs, lambda a: -a, lambda a: round(a, 1), lambda a: round(a)])
            pair = self.placed(self.number(depth))
            return Pair(apply(pair.ref), several(apply, pair))

        def extreme(depth: int) -> Pair:
            name, pick = rng.choice([("min", min), ("max", max)])
            parts = [self.number(depth) for _ in range(rng.randint(2, 3))]
            return Pair(getattr(expr, name)(*(p.ref for p in parts)), several(lambda *v: pick(v), *parts))

        def total(depth: int) -> Pair:
            pair = self.numbers(depth)
            return Pair(expr.sum(pair.ref), several(fold, pair))

        def priced(depth: int) -> Pair:
            index = self.index(depth)
            items = self.given.items
            return Pair(self.ref.items[index.ref].price, several(lambda i: found(items, i).price, index))

        def looked_up(depth: int) -> Pair:
            key = self.text(depth)
            table = self.given.table
            return Pair(expr.item(self.ref.table, key.ref), several(lambda k: found(table, k), key))

        leaves = [lambda name=name: self.field(name) for name in ("whole", "other", "part")]
        leaves.append(lambda: self.constant(rng.choice([0, 1, -3, 2.5, 10])))
        hole = self.given.hole
        leaves.append(lambda: Pair(expr.default(self.ref.hole, 0.5), lambda: 0.5 if hole is None else hole))
        more = [two, two, two, one, extreme, total, priced, looked_up, self.length]
        return self.draw(
            depth, leaves, [*more, lambda d: self.branch(d, self.number), lambda d: self.soft(d, self.number)]
        )

    def length(self, depth: int) -> Pair:
        pair = self.rng.choice([self.numbers, self.text, self.names])(depth)
        return Pair(expr.length(pair.ref), several(len, pair))

    def index(self, depth: int) -> Pair:
        pair = self.placed(self.number(depth))
        return Pair(round(pair.ref), several(round, pair))

    def text(self, depth: int) -> Pair:
        rng = self.rng

        def plus(depth: int) -> Pair:
            a, b = self.text(depth), self.text(depth)
            return Pair(expr.text("{}", a.ref) + b.ref, several(lambda x, y: x + y, a, b))

        def template(depth: int) -> Pair:
            parts = [rng.choice([self.text, self.number, self.truth])(depth) for _ in range(2)]
            made = expr.text("<{}|{}>", *(part.ref for part in parts))
            return Pair(made, several(lambda x, y: f"<{written(x)}|{written(y)}>", *parts))

        def changed(depth: int) -> Pair:
            name = rng.choice(["lower", "upper", "strip"])
            pair = self.text(depth)
            return Pair(getattr(expr, name)(pair.ref), several(getattr(str, name), pair))

        def joined(depth: int) -> Pair:
            pair, separator = self.names(depth), self.text(0)
            return Pair(expr.join(pair.ref, separator.ref), several(lambda v, s: s.join(v), pair, separator))

        leaves = [lambda: self.field("text"), lambda: self.constant(rng.choice(["a", "", " Ż ", "x-y"]))]
        more = [plus, template, changed, joined]
        return self.draw(depth, leaves, [*more, lambda d: self.branch(d, self.text), lambda d: self.soft(d, self.text)])

    def numbers(self, depth: int) -> Pair:
        def listed(depth: int) -> Pair:
            parts = [self.number(depth) for _ in range(self.rng.randint(1, 3))]
            return Pair([part.ref for part in parts], several(lambda *v: list(v), *parts))

        def longer(depth: int) -> Pair:
            pair = listed(depth)
            return Pair(self.ref.numbers + pair.ref, several(lambda v: [*self.given.numbers, *v], pair))

        return self.draw(depth, [lambda: self.field("numbers")], [listed, longer])

    def names(self, depth: int) -> Pair:
        def parted(depth: int) -> Pair:
            pair = self.text(depth)
            return Pair(expr.split(pair.ref, "-"), several(lambda v: v.split("-"), pair))

        return self.draw(depth, [lambda: self.field("names")], [parted])

    def truth(self, depth: int) -> Pair:
        rng = self.rng

        def compared(depth: int) -> Pair:
            of = rng.choice([self.number, self.text])
            a, b = of(depth), of(depth)
            left, right = (expr.default(pair.ref, pair.ref) for pair in (a, b))  # `1 == 2.5` is refused
            compare = rng.choice([
                lambda x, y: x == y,
                lambda x, y: x != y,
                lambda x, y: x < y,
                lambda x, y: x <= y,
                lambda x, y: x > y,
                lambda x, y: x >= y,
            ])  # fmt: skip
            return Pair(compare(left, right), unsure(several(compare, a, b)))

        def contained(depth: int) -> Pair:
            a, b = self.names(depth), self.text(depth)
            return Pair(expr.contains(a.ref, b.ref), several(lambda x, y: y in x, a, b))

        def both(depth: int) -> Pair:
            a, b, all_of = self.truth(depth), self.truth(depth), rng.random() < 0.5
            ref = a.ref & b.ref if all_of else a.ref | b.ref

            def real() -> Any:
                truths = [kleene(a), kleene(b)]
                decided = not all_of
                if decided in truths:
                    return decided
                if None in truths:
                    raise Missing
                return not decided

            return Pair(ref, real)

        def negated(depth: int) -> Pair:
            pair = self.truth(depth)

            def real() -> Any:
                value = kleene(pair)
                if value is None:
                    raise Missing
                return not value

            return Pair(~pair.ref, real)

        return self.draw(depth, [lambda: self.field("flag")], [compared, compared, contained, both, negated])

    def branch(self, depth: int, of: Callable[[int], Pair]) -> Pair:
        condition, first, second = self.truth(depth), of(depth), of(depth)

        def real() -> Any:
            return (first if condition.real() else second).real()

        return Pair(expr.choose(condition.ref, first.ref, second.ref), real)

    def soft(self, depth: int, of: Callable[[int], Pair]) -> Pair:
        first, second = of(depth), of(depth)

        def real() -> Any:
            try:
                return first.real()
            except Missing:
                return second.real()

        return Pair(expr.default(first.ref, second.ref), real)


ERRORS = (ArithmeticError, ValueError)


def kleene(pair: Pair) -> bool | None:
    try:
        return bool(pair.real())
    except (Missing, *ERRORS):
        return None


def unsure(real: Callable[[], Any]) -> Callable[[], Any]:
    """A comparison of what cannot be computed is unknown."""

    def compared() -> Any:
        try:
            return real()
        except ERRORS:
            raise Missing from None

    return compared


def given(rng: random.Random) -> Given:
    def words() -> str:
        return rng.choice(["", "a", "Order-7", "x-y-z", "Łódź", " b "])

    return Given(
        whole=rng.randint(-3, 5),
        other=rng.choice([0, 1, 7, 2**70]),
        part=rng.choice([0.0, 0.5, -2.25, 1e300]),
        text=words(),
        flag=rng.random() < 0.5,
        numbers=[rng.choice([0, 1, 2.5, -1]) for _ in range(rng.randint(0, 4))],
        names=[words() for _ in range(rng.randint(0, 3))],
        items=[Item(words(), rng.choice([1, 2.5]), rng.randint(0, 3)) for _ in range(rng.randint(0, 3))],
        table={words(): rng.randint(0, 9) for _ in range(rng.randint(0, 3))},
        hole=rng.choice([None, 1.5]),
    )


shop = Service("shop")


@shop.step
def take(value: Any) -> None: ...


def test_typed_expressions_come_to_what_python_says(seeds: Seeds) -> None:
    sizes, errors, compared = 0, 0, 0
    for seed in seeds(60):
        rng = random.Random(seed)
        real = given(rng)
        pairs: list[Pair] = []

        @flow(home=shop)
        def place(order: Given, rng: Any = None) -> None:
            writer = Writer(random.Random(seed), order, real)  # noqa: B023
            for i in range(12):
                of = writer.rng.choice([writer.number, writer.text, writer.numbers, writer.names, writer.truth])
                pairs.append(of(4))  # noqa: B023
                take.named(f"take-{i}")(pairs[-1].ref)  # noqa: B023

        plan = load(place.plan.json)
        assert plan == place.plan
        entry = Outcome("completed", msgspec.json.decode(msgspec.json.encode({"order": real})))
        for i, pair in enumerate(pairs):
            value = plan.index.nodes[f"take-{i}"].args[0].value
            words = describe_value(value)
            sizes += len(words)
            try:
                expected = pair.real()
            except (Missing, *ERRORS):
                expected = Unfit
            try:
                came: Any = evaluate(value, lambda _: entry)  # noqa: B023
            except Unfit:
                came = Unfit
                errors += 1
            compared += 1
            assert (came, type(came)) == (expected, type(expected)), f"seed {seed}: {words}"
    assert sizes / compared > 20  # or it looked at nothing but fields and constants
    assert 0.02 < errors / compared < 0.5


# Any trees, also those that no flow could have written, against the algebra of the reference.

OPERATORS = (
    "+", "-", "*", "/", "//", "%", "neg", "abs", "round", "min", "max", "sum", "join", "lower", "upper", "strip",
    "split", "starts_with", "ends_with", "text", "length", "contains", "at", "if", "default",
)  # fmt: skip
NODES = {
    "a": Outcome("completed", {"n": 7, "f": -2.5, "s": "x-y", "l": [1, True, "x", None], "m": {"x": 1, "7": [2]}}),
    "b": Outcome("completed", [1, 1.0, 2, 3.5]),
    "c": Outcome("completed", ["x", "", "yx"]),
    "d": Outcome("completed", None),
    "e": SKIPPED,
}
PATHS: Any = ((), ("n",), ("f",), ("s",), ("l",), ("l", 1), ("m",), ("m", "x"), (0,), ("gone",))
LITERALS: Any = (None, True, False, 0, 1, -2, 2.5, 1e3, 10**9, "", "x", "-", [], [1], [True], ["x"], {}, {"x": 1})


class Anything:
    """Trees of any shape."""

    def __init__(self, rng: random.Random, odd: float = 0.0) -> None:
        """`odd`: share of operators with any number of values."""
        self.rng, self.odd = rng, odd

    def value(self, depth: int) -> Value:
        rng, draw = self.rng, self.rng.random()
        if depth <= 0 or draw < 0.25:
            if rng.random() < 0.6:
                return Get(rng.choice("abcde"), rng.choice(PATHS), rng.random() < 0.3)
            return Const(rng.choice(LITERALS))
        if draw < 0.3:
            return Fields({name: self.value(depth - 1) for name in rng.sample("xyz", rng.randint(0, 2))})
        if draw < 0.4:
            return Items(tuple(self.value(depth - 1) for _ in range(rng.randint(0, 3))))
        if draw < 0.45:
            return expression.Test(self.condition(depth - 1))
        name: Any = rng.choice(OPERATORS)
        return Op(name, tuple(self.value(depth - 1) for _ in range(self.arity(name))))

    def arity(self, name: str) -> int:
        if self.rng.random() < self.odd:
            return self.rng.randint(0, 4)
        if name in ("neg", "abs", "round", "min", "max", "sum", "lower", "upper", "strip", "length"):
            return 1
        if name in ("+", "*", "text"):
            return self.rng.randint(2, 3)
        return 3 if name == "if" else 2

    def condition(self, depth: int) -> Condition:
        rng, draw = self.rng, self.rng.random()
        if depth <= 0 or draw < 0.6:
            op: Any = rng.choice(("==", "!=", "<", "<=", ">", ">="))
            return Truth(self.value(depth)) if draw < 0.1 else Compare(op, self.value(depth), self.value(depth))
        if draw < 0.75:
            return Not(self.condition(depth - 1))
        parts = tuple(self.condition(depth - 1) for _ in range(rng.randint(0, 3)))
        return And(parts) if draw < 0.88 else Or(parts)


def test_any_tree_comes_to_what_the_algebra_says(seeds: Seeds) -> None:
    look = NODES.__getitem__
    values, unfit = 0, 0
    for seed in seeds(3000):
        writer = Anything(random.Random(seed))
        value, condition = writer.value(4), writer.condition(3)
        assert msgspec.json.decode(msgspec.json.encode(value), type=Value) == value
        assert msgspec.json.decode(msgspec.json.encode(condition), type=Condition) == condition
        assert describe_value(value)
        assert describe_condition(condition)
        try:
            expected = algebra.build(value, look)
        except algebra.Cannot:
            expected = Unfit
        try:
            came: Any = evaluate(value, look)
        except Unfit:
            came = Unfit
        assert repr(came) == repr(expected), f"seed {seed}: {describe_value(value)}"
        truth = holds(condition, look)
        assert {True: 1, False: 0, None: 0.5}[truth] == algebra.truth(condition, look), f"seed {seed}"
        values += 1
        unfit += came is Unfit
    assert 0.1 < unfit / values < 0.8


def test_nothing_but_unfit_is_raised(seeds: Seeds) -> None:
    for seed in seeds(3000):
        writer = Anything(random.Random(seed), odd=0.3)
        value = writer.value(4)
        assert describe_value(value)
        assert holds(writer.condition(3), NODES.__getitem__) in (True, False, None)
        try:
            came = evaluate(value, NODES.__getitem__)
        except Unfit as error:
            came = str(error)
        assert msgspec.json.encode(came)
