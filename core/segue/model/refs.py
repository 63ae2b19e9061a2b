"""Placeholders: what a flow body sees instead of values while it is traced.

A `Ref` stands for the value of a node or for a field of it, and knows its type. It offers what can be written down in a
plan: fields, constant keys, comparisons. All else needs the value, which exists only when the flow runs, and raises a
`PlaceholderError` that names the place and the construct to use instead. Nothing may silently do something else: so
`isinstance` raises too (Python asks for `__class__`), and so does `hash` (`ref in {"a", "b"}`). What cannot be caught
is `is`, also in `case None`: it is always false.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

import msgspec

from segue.errors import DeclarationError, PlaceholderError
from segue.model import types
from segue.model.site import here
from segue.plan import graph

if TYPE_CHECKING:
    from segue.model.tracing import Trace

Op = Literal["==", "!=", "<", "<=", ">", ">="]


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


_LOOP = "loop inside a step; a flow body can only loop over what is known when it is traced"
_STEP = "compute it in a step, and call that step here"
_TEXT = "build the text in a step, and call that step here"
_GUARD = "use `with when(condition):` for a choice; `&`, `|` and `~` for and, or and not; either() for a default"


_unhashable = _refuse("a set, a dict key or `in` on one of them", "keep placeholders in lists; compare with ==")


class Placeholder:
    """What `Ref` and `Condition` have in common: conditions can be made of them, and the rest is refused."""

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
        return Condition(found._trace, graph.Not(found._condition))

    __bool__ = _refuse("`if`, `and`, `or`, `not`, `in` or a chained comparison", _GUARD)
    __iter__ = __reversed__ = __next__ = __aiter__ = _refuse("iteration or unpacking", _LOOP)
    __len__ = _refuse("len()", _STEP)
    __contains__ = _refuse("`in`", "compare with ==, joined by `|`, or ask in a step")
    __hash__ = _unhashable
    __str__ = __format__ = __bytes__ = __fspath__ = _refuse("text formatting (str, print, an f-string)", _TEXT)
    __int__ = __index__ = __float__ = __complex__ = _refuse("conversion to a number", _STEP)
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse("arithmetic", _STEP)
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _refuse("arithmetic", _STEP)
    __divmod__ = __rdivmod__ = __pow__ = __rpow__ = __matmul__ = __rmatmul__ = _refuse("arithmetic", _STEP)
    __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = __xor__ = __rxor__ = _refuse("arithmetic", _STEP)
    __neg__ = __pos__ = __abs__ = __round__ = __trunc__ = __floor__ = __ceil__ = _refuse("arithmetic", _STEP)
    __call__ = _refuse("a call", "only steps are called in a flow body; placeholders have fields, no methods")
    __await__ = _refuse("`await`", "a flow body awaits nothing: a step call returns at once, data use makes the order")
    __enter__ = __exit__ = __aenter__ = __aexit__ = _refuse("`with`", "open it inside the step that uses it")
    __setitem__ = __delitem__ = _refuse("changing an item", "values never change: make a new one in a step")
    __copy__ = __deepcopy__ = __reduce_ex__ = _refuse("copying or pickling", "use the placeholder itself")


class Ref(Placeholder):
    """A placeholder for a value. Type checkers do not see it: to them `charge(order)` is a `Receipt`."""

    __slots__ = ("_segue",)
    _segue: Source

    def __init__(self, source: Source) -> None:
        object.__setattr__(self, "_segue", source)

    def __repr__(self) -> str:
        return f"<placeholder {self._segue.label}: {types.show(self._segue.type)}>"

    if not TYPE_CHECKING:

        @property
        def __class__(self):
            _refuse("isinstance() or `match`", "look at a field with == in `with when(...)`, or decide in a step")(self)

    def __getattr__(self, name: str) -> Ref:
        if name.startswith("__"):
            raise AttributeError(name)
        return _field(self, name)

    def __getitem__(self, key: object) -> Ref:
        return _item(self, key)

    def __setattr__(self, name: str, value: object) -> None:
        _refuse(f"setting .{name}", "values never change: make a new one in a step")(self)

    def __delattr__(self, name: str) -> None:
        _refuse(f"deleting .{name}", "values never change: make a new one in a step")(self)

    def __eq__(self, other: object) -> Condition:  # type: ignore[override]
        return _compare(self, "==", other)

    def __ne__(self, other: object) -> Condition:  # type: ignore[override]
        return _compare(self, "!=", other)

    def __lt__(self, other: object) -> Condition:
        return _compare(self, "<", other)

    def __le__(self, other: object) -> Condition:
        return _compare(self, "<=", other)

    def __gt__(self, other: object) -> Condition:
        return _compare(self, ">", other)

    def __ge__(self, other: object) -> Condition:
        return _compare(self, ">=", other)

    __hash__ = _unhashable


class Condition(Placeholder):
    """A comparison of placeholders, for `when`."""

    __slots__ = ("_condition", "_trace")

    def __init__(self, trace: Trace, condition: graph.Condition) -> None:
        self._trace = trace
        self._condition = condition

    def __repr__(self) -> str:
        return f"<condition {self._condition}>"

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse(
        "comparing a condition", "use the condition itself, or `~condition`"
    )
    __hash__ = _unhashable
    __getitem__ = _refuse("an item of a condition", _STEP)


def is_ref(value: object) -> bool:
    """Whether a value is a `Ref`; `isinstance` would be refused."""
    return type(value) is Ref


def label(placeholder: Placeholder) -> str:
    """A placeholder's name in messages: `order.total`, `charge(...).id`."""
    return placeholder._segue.label if type(placeholder) is Ref else "a condition"


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
    if type(value) is Ref:
        source = value._segue
        if source.type is Any or _is_boolean(source.type):
            return Condition(source.trace, graph.Truth(graph.Get(source.node, source.path)))
        raise DeclarationError(
            f"{here()}: {construct} needs a condition, but {source.label} is {types.show(source.type)}",
            f"compare it, as in `{source.label} == ...`",
        )
    raise DeclarationError(
        f"{here()}: {construct} needs a condition on a placeholder, got {value!r}",
        "use a plain `if` for what is known when the flow is traced",
    )


def _is_boolean(tp: types.Type) -> bool:
    return (types.kinds(tp) or frozenset()) - {"null"} == {"boolean"}


def _combine(kind: type[graph.And | graph.Or], construct: str, left: object, right: object) -> Condition:
    sides = condition_of(left, f"`{construct}`"), condition_of(right, f"`{construct}`")
    if sides[0]._trace is not sides[1]._trace:
        raise DeclarationError(f"{here()}: `{construct}` joins conditions of two different flows")
    return Condition(sides[0]._trace, joined(kind, (sides[0]._condition, sides[1]._condition)))


def joined(kind: type[graph.And | graph.Or], parts: tuple[graph.Condition, ...]) -> graph.Condition:
    """The conjunction or disjunction of conditions, without needless nesting."""
    flat: list[graph.Condition] = []
    for part in parts:
        flat.extend(part.conditions if isinstance(part, kind) else (part,))
    return kind(tuple(flat))


def _compare(ref: Ref, op: Op, other: object) -> Condition:
    source = ref._segue
    get = graph.Get(source.node, source.path)
    if type(other) is Condition:
        raise DeclarationError(f"{here()}: `{op}` compares {source.label} with a condition", _GUARD)
    if type(other) is Ref:
        if other._segue.trace is not source.trace:
            raise DeclarationError(f"{here()}: `{op}` compares placeholders of two different flows")
        _check_comparable(source, op, other._segue.type, other._segue.label)
        return Condition(source.trace, graph.Compare(op, get, graph.Get(other._segue.node, other._segue.path)))
    return Condition(source.trace, graph.Compare(op, get, _constant(source, op, other)))


def _constant(source: Source, op: Op, value: object) -> graph.Const:
    try:
        literal = msgspec.json.decode(msgspec.json.encode(value))
        if source.type is not Any and op in ("==", "!="):
            msgspec.convert(literal, source.type)
    except (TypeError, ValueError):
        raise DeclarationError(
            f"{here()}: {source.label} is {types.show(source.type)}; `{op} {value!r}` compares it with what it never is"
        ) from None
    _check_comparable(source, op, type(value), repr(value))
    return graph.Const(literal)


def _check_comparable(source: Source, op: Op, other: types.Type, name: str) -> None:
    """Refuse comparisons that would always be unknown, or that mean something else in JSON."""
    if source.type is Any or other is Any:
        return
    equality = op in ("==", "!=")
    if equality and other is types.NONE and types.admits_none(source.type):
        return
    known = types.kinds if equality else types.ordered
    ours, theirs = known(source.type), known(other)
    for found, tp, what in ((ours, source.type, source.label), (theirs, other, name)):
        if found is None:
            raise DeclarationError(
                f"{here()}: `{op}` cannot compare {what}, which is {types.show(tp)}",
                "numbers, strings, booleans, enums, UUIDs, dates and None can be compared; compare a field, or "
                "decide in a step that returns a bool",
            )
    if not _fits(op, ours or frozenset(), theirs or frozenset()):
        raise DeclarationError(
            f"{here()}: `{op}` cannot compare {source.label}, which is {types.show(source.type)}, "
            f"with {name}, which is {types.show(other)}"
        )


def _fits(op: Op, ours: frozenset[types.Kind], theirs: frozenset[types.Kind]) -> bool:
    if op in ("==", "!="):
        return bool(ours & theirs)
    values = ours - {"null"}
    return values == theirs - {"null"} and values in ({"number"}, {"string"})


def _field(ref: Ref, name: str) -> Ref:
    source = ref._segue
    if source.type is Any:
        return _inner(source, name, Any, f".{name}")
    found: list[types.Field | None] = []
    for member in types.members(source.type):
        if member is types.NONE:
            found.append(None)
            continue
        shape = types.shape(member)
        if shape is None or shape.by_key or name not in shape.fields:
            raise _unknown_field(source, member, shape, name)
        found.append(shape.fields[name])
    return _pick(source, found, f".{name}")


def _pick(source: Source, found: list[types.Field | None], suffix: str) -> Ref:
    """A field that all members of a union have; None stands for the member None, which has no fields."""
    fields = [field for field in found if field is not None]
    if not fields or len({field.key for field in fields}) != 1:
        raise DeclarationError(
            f"{here()}: {source.label}{suffix} is not at the same place in all of {types.show(source.type)}"
        )
    if any(field.left_out for field in fields):
        raise DeclarationError(
            f"{here()}: {source.label}{suffix} is left out of the JSON when it has its default (omit_defaults)",
            "remove omit_defaults from the struct, or read the field in a step",
        )
    parts = [field.type for field in fields]
    tp = types.union([*parts, types.NONE]) if None in found else types.union(parts) if len(parts) > 1 else parts[0]
    return _inner(source, fields[0].key, tp, suffix)


def _inner(source: Source, key: str | int, tp: types.Type, suffix: str) -> Ref:
    return Ref(Source(source.trace, source.node, (*source.path, key), tp, source.label + suffix))


def _unknown_field(source: Source, member: types.Type, shape: types.Shape | None, name: str) -> DeclarationError:
    tp = types.show(member)
    if shape is None:
        return DeclarationError(f"{here()}: {source.label} is {tp}, which has no field {name!r}", _STEP)
    if shape.by_key and name in shape.fields:
        return DeclarationError(
            f"{here()}: {source.label} is {tp}, whose fields are items", f'write {source.label}["{name}"]'
        )
    if hasattr(member, name):
        return DeclarationError(f"{here()}: {tp}.{name} is no field, and only fields can be read here", _STEP)
    return DeclarationError(
        f"{here()}: {tp} has no field {name!r}", f"known fields: {', '.join(shape.fields) or 'none'}"
    )


def _item(ref: Ref, key: object) -> Ref:
    source = ref._segue
    if type(key) in (Ref, Condition, slice) or not isinstance(key, str | int) or isinstance(key, bool):
        what = "a placeholder" if type(key) in (Ref, Condition) else f"{key!r}"
        raise PlaceholderError(
            f"{here()}: an item of {source.label} is read by {what}",
            "only constant strings and whole numbers can be keys here; pick the item in a step",
        )
    suffix = f"[{key!r}]"
    if source.type is Any:
        return _inner(source, key, Any, suffix)
    found: list[types.Field | None]
    found = [None if part is types.NONE else _item_field(source, part, key) for part in types.members(source.type)]
    return _pick(source, found, suffix)


def _item_field(source: Source, member: types.Type, key: str | int) -> types.Field:
    shape, pair = types.shape(member), types.mapping_types(member)
    if shape is not None and shape.by_key and isinstance(key, str):
        if key not in shape.fields:
            raise _unknown_field(source, member, shape, key)
        field = shape.fields[key]
        return field if field.required else field._replace(type=types.union([field.type, types.NONE]))
    if pair is not None and types.assignable(type(key), pair[0]):
        return types.Field(str(key), str(key), pair[1], True)
    if isinstance(key, int):
        if shape is not None and issubclass(member, tuple) and 0 <= key < len(shape.fields):
            return tuple(shape.fields.values())[key]
        tp = types.array_item(member, key)
        if tp is not None and not issubclass(types.origin(member), set | frozenset):
            return types.Field(str(key), key, tp, True)
    raise DeclarationError(f"{here()}: {source.label} is {types.show(member)}, which has no item {key!r}")
