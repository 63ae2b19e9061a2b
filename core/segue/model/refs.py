"""Placeholders: what a flow body sees instead of values while it is traced.

A `Ref` stands for the value of a node or for a field of it, a `Computed` for what is computed of these, a `Condition`
for a comparison; they know their types. They offer what can be written down in a plan: fields, items, arithmetic,
comparisons. What Python does not let a placeholder take over (`len`, `in`, `and`, f-strings) and all else needs the
value, which exists only when the flow runs, and raises a `PlaceholderError` that names the place and the construct to
use instead. Nothing may silently do something else: so `isinstance` raises too (Python asks for `__class__`), and so
does `hash` (`ref in {"a", "b"}`). What cannot be caught is `is`, also in `case None`: it is always false.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import msgspec

from segue.errors import DeclarationError, PlaceholderError
from segue.model import access, types
from segue.model.operands import STEP, Comparison, Operand, apply, compare, gather, sorts
from segue.model.site import here
from segue.plan import graph
from segue.plan.expression import Operator

if TYPE_CHECKING:
    from segue.model.tracing import Trace


class Source(NamedTuple):
    """What a `Ref` stands for."""

    trace: Trace
    node: str
    path: tuple[str | int, ...]
    type: types.Type
    label: str


def _refuse(construct: str, hint: str) -> Callable[..., NoReturn]:
    def refuse(self: Placeholder, *_: object, **__: object) -> NoReturn:
        raise PlaceholderError(
            f"{here()}: {construct} needs the value of {label(self)}, which is known only when the flow runs", hint
        )

    return refuse


_LOOP = "each(items, body) does it for every item; a flow body can only loop over what is known when it is traced"
_TEXT = 'write expr.text("order {} of {}", a, b)'
_NUMBER = "round(x) gives a whole number, x // 1 rounds down; what is no number yet becomes one in a step"
_GUARD = (
    "use `with when(condition):` for a choice between steps, expr.choose(condition, a, b) for one between values; "
    "`&`, `|` and `~` for and, or and not; expr.contains() for `in`; expr.min() and expr.max()"
)


_unhashable = _refuse(
    "a set, a dict key or `in` on one of them",
    "write expr.contains([...], value), or expr.item(table, key) to look something up; placeholders can be in lists",
)


def _binary(op: Operator) -> Callable[[Placeholder, object], Ref | Computed]:
    def applied(self: Placeholder, other: object) -> Ref | Computed:
        return computed(apply(op, operand_of(self), operand_of(other)))

    return applied


def _reflected(op: Operator) -> Callable[[Placeholder, object], Ref | Computed]:
    def applied(self: Placeholder, other: object) -> Ref | Computed:
        return computed(apply(op, operand_of(other), operand_of(self)))

    return applied


def _unary(op: Operator, shown: str) -> Callable[[Placeholder], Ref | Computed]:
    def applied(self: Placeholder) -> Ref | Computed:
        return computed(apply(op, operand_of(self), shown=shown))

    return applied


def _comparison(op: Comparison) -> Callable[[Placeholder, object], Condition]:
    def compared(self: Placeholder, other: object) -> Condition:
        left, right = operand_of(self), operand_of(other)
        made = gather(f"`{op}`", graph.Test(compare(op, left, right)), bool, (left, right))
        return Condition(made)

    return compared


class Placeholder:
    """What all placeholders have in common: operators, and what is refused."""

    __slots__ = ()

    def __and__(self, other: object) -> Condition:
        return _combine(graph.And, "&", self, other)

    def __or__(self, other: object) -> Condition:
        return _combine(graph.Or, "|", self, other)

    def __rand__(self, other: object) -> Condition:
        return _combine(graph.And, "&", other, self)

    def __ror__(self, other: object) -> Condition:
        return _combine(graph.Or, "|", other, self)

    def __invert__(self) -> Condition:
        found = condition_of(self, "`~`")
        return _condition("`~`", graph.Not(found._condition), found)

    def __round__(self, digits: object = None) -> Ref | Computed:
        given = () if digits is None else (operand_of(digits),)
        return computed(apply("round", operand_of(self), *given, shown="round()"))

    __add__, __radd__ = _binary("+"), _reflected("+")
    __sub__, __rsub__ = _binary("-"), _reflected("-")
    __mul__, __rmul__ = _binary("*"), _reflected("*")
    __truediv__, __rtruediv__ = _binary("/"), _reflected("/")
    __floordiv__, __rfloordiv__ = _binary("//"), _reflected("//")
    __mod__, __rmod__ = _binary("%"), _reflected("%")
    __neg__, __abs__ = _unary("neg", "`-`"), _unary("abs", "abs()")
    __eq__, __ne__ = _comparison("=="), _comparison("!=")  # type: ignore[assignment]
    __lt__, __le__ = _comparison("<"), _comparison("<=")
    __gt__, __ge__ = _comparison(">"), _comparison(">=")

    __bool__ = _refuse("`if`, `and`, `or`, `not`, `in` or a chained comparison", _GUARD)
    __iter__ = __reversed__ = __next__ = __aiter__ = _refuse("iteration or unpacking", _LOOP)
    __len__ = _refuse("len()", "write expr.length(x)")
    __contains__ = _refuse("`in`", "write expr.contains(items, x)")
    __hash__ = _unhashable
    __str__ = __format__ = __bytes__ = __fspath__ = _refuse("text formatting (str, print, an f-string)", _TEXT)
    __int__ = __index__ = __float__ = __complex__ = _refuse("conversion to a number", _NUMBER)
    __trunc__ = __floor__ = __ceil__ = _refuse("rounding by math", _NUMBER)
    __divmod__ = __rdivmod__ = _refuse("divmod()", "use // and %")
    __pow__ = __rpow__ = _refuse("`**`", f"multiply, or {STEP}")
    __matmul__ = __rmatmul__ = __pos__ = _refuse("arithmetic of this kind", STEP)
    __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = __xor__ = __rxor__ = _refuse("arithmetic with bits", STEP)
    __call__ = _refuse("a call", "only steps are called in a flow body; placeholders have fields, no methods")
    __await__ = _refuse("`await`", "a flow body awaits nothing: a step call returns at once, data use makes the order")
    __enter__ = __exit__ = __aenter__ = __aexit__ = _refuse("`with`", "open it inside the step that uses it")
    __setitem__ = __delitem__ = _refuse("changing an item", "values never change: make a new one in a step")
    __copy__ = __deepcopy__ = __reduce_ex__ = _refuse("copying or pickling", "use the placeholder itself")

    if not TYPE_CHECKING:

        @property
        def __class__(self):
            _refuse("isinstance() or `match`", "look at a field with == in `with when(...)`, or decide in a step")(self)


class _Data(Placeholder):
    """What `Ref` and `Computed` have in common: fields and items."""

    __slots__ = ()

    def __repr__(self) -> str:
        operand = operand_of(self)
        return f"<placeholder {operand.label}: {types.show(operand.type)}>"

    def __getattr__(self, name: str) -> Ref | Computed:
        if name.startswith("__"):
            raise AttributeError(name)
        return computed(access.field(operand_of(self), name))

    def __getitem__(self, key: object) -> Ref | Computed:
        if is_placeholder(key):
            return computed(access.computed_item(operand_of(self), operand_of(key)))
        return computed(access.item(operand_of(self), key))

    def __setattr__(self, name: str, value: object) -> None:
        _refuse(f"setting .{name}", "values never change: make a new one in a step")(self)

    def __delattr__(self, name: str) -> None:
        _refuse(f"deleting .{name}", "values never change: make a new one in a step")(self)


class Ref(_Data):
    """A placeholder for a value. Type checkers do not see it: to them `charge(order)` is a `Receipt`."""

    __slots__ = ("_segue",)
    _segue: Source

    def __init__(self, source: Source) -> None:
        object.__setattr__(self, "_segue", source)


class Computed(_Data):
    """A placeholder for what is computed of others. To type checkers `order.total * 2` is a `float`."""

    __slots__ = ("_operand",)
    _operand: Operand

    def __init__(self, operand: Operand) -> None:
        object.__setattr__(self, "_operand", operand)


class Condition(Placeholder):
    """A comparison of placeholders, for `when`; also a value, a bool."""

    __slots__ = ("_operand",)

    def __init__(self, operand: Operand) -> None:
        self._operand = operand

    def __repr__(self) -> str:
        return f"<condition {self._operand.label}>"

    @property
    def _condition(self) -> graph.Condition:
        value = self._operand.value
        return value.condition if isinstance(value, graph.Test) else graph.Truth(value)

    __getitem__ = _refuse("an item of a condition", STEP)


def is_placeholder(value: object) -> bool:
    """Whether a value is a placeholder; `isinstance` would be refused."""
    return type(value) in (Ref, Computed, Condition)


def computed(operand: Operand) -> Ref | Computed:
    """The placeholder for an operand of a flow."""
    value = operand.value
    if isinstance(value, graph.Get) and operand.trace is not None:
        return Ref(Source(operand.trace, value.node, value.path, operand.type, operand.label))
    return Computed(operand)


def operand_of(value: object) -> Operand:
    """What a value is in an expression: a placeholder, a constant, or a list or dict of these.

    Raises:
        DeclarationError: It is none of these, or cannot travel.
    """
    if type(value) is Ref:
        source = value._segue
        return Operand(source.trace, graph.Get(source.node, source.path), source.type, source.label)
    if type(value) is Computed or type(value) is Condition:
        return value._operand
    if type(value) in (list, tuple) and value:
        parts = [operand_of(item) for item in value]  # type: ignore[attr-defined]
        tp: types.Type = list[types.union(part.type for part in parts)]  # type: ignore[misc]
        if all(isinstance(part.value, graph.Const) for part in parts):
            return Operand(None, _constant(value), tp)
        return gather("a list", graph.Items(tuple(part.value for part in parts)), tp, parts)
    if type(value) is dict and value:
        keyed = {_key(key): operand_of(item) for key, item in value.items()}
        tp = dict[types.union(map(type, value)), types.union(part.type for part in keyed.values())]  # type: ignore[misc]
        constants = {name: part.value.value for name, part in keyed.items() if isinstance(part.value, graph.Const)}
        if len(constants) == len(keyed):
            return Operand(None, graph.Const(constants), tp)
        return gather("a dict", graph.Fields({n: p.value for n, p in keyed.items()}), tp, keyed.values())
    return Operand(None, _constant(value), types.NONE if value is None else type(value), repr(value))


def _constant(value: object) -> graph.Const:
    try:
        return graph.Const(msgspec.json.decode(msgspec.json.encode(value, order="deterministic")))
    except (TypeError, ValueError) as error:
        raise DeclarationError(f"{here()}: {value!r} cannot be used in an expression: {error}") from None


def _key(key: object) -> str:
    """A key of a dict as JSON has it."""
    try:
        return str(next(iter(msgspec.json.decode(msgspec.json.encode({key: None})))))
    except (TypeError, ValueError) as error:
        raise DeclarationError(f"{here()}: {key!r} cannot be a key in an expression: {error}") from None


def trace_of(placeholder: object) -> Trace | None:
    """The flow that a placeholder is of."""
    return operand_of(placeholder).trace


def label(placeholder: object) -> str:
    """A placeholder's name in messages: `order.total`, `charge(...).id`, `order.total * 2`."""
    return operand_of(placeholder).label


def condition_of(value: object, construct: str) -> Condition:
    """The condition that a value is: a comparison, or a boolean placeholder.

    Args:
        value: What was given.
        construct: What it was given to, for the message.

    Raises:
        DeclarationError: It is neither.
    """
    if type(value) is Condition:
        return value
    if not is_placeholder(value):
        raise DeclarationError(
            f"{here()}: {construct} needs a condition on a placeholder, got {value!r}",
            "use a plain `if` for what is known when the flow is traced",
        )
    operand = operand_of(value)
    if not sorts(operand.type) - {"none"} <= {"any", "bool"} or operand.type is types.NONE:
        raise DeclarationError(
            f"{here()}: {construct} needs a condition, but {operand.label} is {types.show(operand.type)}",
            f"compare it, as in `{operand.label} == ...`",
        )
    return Condition(operand)


def _condition(shown: str, condition: graph.Condition, *parts: Condition) -> Condition:
    return Condition(gather(shown, graph.Test(condition), bool, [part._operand for part in parts]))


def _combine(kind: type[graph.And | graph.Or], construct: str, left: object, right: object) -> Condition:
    shown = f"`{construct}`"
    sides = condition_of(left, shown), condition_of(right, shown)
    return _condition(shown, joined(kind, (sides[0]._condition, sides[1]._condition)), *sides)


def joined(kind: type[graph.And | graph.Or], parts: tuple[graph.Condition, ...]) -> graph.Condition:
    """The conjunction or disjunction of conditions, without needless nesting."""
    flat: list[graph.Condition] = []
    for part in parts:
        flat.extend(part.conditions if isinstance(part, kind) else (part,))
    return kind(tuple(flat))
