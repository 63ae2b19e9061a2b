"""Arguments and results: Python values with placeholders in them become values of the plan, checked against types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from segue.model import types
from segue.model.refs import is_placeholder, operand_of
from segue.model.rewrite import rewrite
from segue.model.signature import Misfit
from segue.plan.graph import Const, Fields, Get, Items, Op, Test, Value, gets_of

if TYPE_CHECKING:
    from segue.model.tracing import Trace


def lower(trace: Trace, value: object, target: types.Type, what: str) -> Value:
    """Turn a value into one of the plan.

    What reads a node that may be skipped gives None where the type admits it.

    Args:
        trace: The flow that it is used in.
        value: A placeholder, a constant, or a list, dict, struct or dataclass of these.
        target: The type that it must fit.
        what: What the value is, for messages.

    Raises:
        Misfit: It does not fit, or cannot travel.
        DeclarationError: A placeholder in it is of another flow.
    """
    if is_placeholder(value):
        return _placeholder(trace, value, target, what)
    if isinstance(value, msgspec.Struct | list | tuple | dict) or types.shape(type(value)) is not None:
        return _composite(trace, value, target, what)
    return _literal(value, target, what)


def lower_result(trace: Trace, value: object, target: types.Type, what: str) -> Value:
    """Turn what a body returned into a value of the plan, in which a skipped node gives None.

    Raises:
        Misfit: It does not fit the return annotation.
        DeclarationError: A placeholder in it is of another flow.
    """
    return _all_optional(trace, lower(trace, value, target, what))


def _all_optional(trace: Trace, value: Value) -> Value:
    match value:
        case Items(items):
            return Items(tuple(_all_optional(trace, item) for item in items))
        case Fields(fields):
            return Fields({name: _all_optional(trace, item) for name, item in fields.items()})
        case Op() | Test():
            return _or_none(value) if _may_skip(trace, value) else value
    return _or_none(value)


def _may_skip(trace: Trace, value: Value) -> bool:
    return any(trace.may_skip(get) for get in gets_of(value) if not get.optional)


def _or_none(value: Value) -> Value:
    """The value, or None if something that it reads was skipped."""
    soft = rewrite(value, lambda get: Get(get.node, get.path, True))
    return Op("default", (soft, Const(None))) if isinstance(value, Op | Test) else soft


def _placeholder(trace: Trace, placeholder: object, target: types.Type, what: str) -> Value:
    trace.own(placeholder)
    operand = operand_of(placeholder)
    if not types.assignable(operand.type, target):
        raise Misfit(f"{what} must be {types.show(target)}, but {operand.label} is {types.show(operand.type)}")
    soft = types.admits_none(target) and _may_skip(trace, operand.value)
    return trace.reach_value(_or_none(operand.value) if soft else operand.value)


def _literal(value: object, target: types.Type, what: str) -> Const:
    try:
        literal = msgspec.json.decode(msgspec.json.encode(value, order="deterministic"))
        msgspec.convert(literal, target, str_keys=True)
    except (TypeError, ValueError) as error:
        got = "nothing (None)" if value is None else repr(value)
        raise Misfit(f"{what} must be {types.show(target)}, got {got}: {error}") from None
    return Const(literal)


def _composite(trace: Trace, value: Any, target: types.Type, what: str) -> Value:
    """Try the members of a union in turn; the message is that of the only one, or of the union."""
    candidates = [member for member in types.members(target) if member is not types.NONE] or [types.NONE]
    for member in candidates:
        try:
            return _as_member(trace, value, member, what)
        except Misfit:
            if len(candidates) == 1:
                raise
    raise _misfit(value, target, what)


def _as_member(trace: Trace, value: Any, target: types.Type, what: str) -> Value:
    cls: Any = type(value)
    shape = types.shape(cls)
    if shape is not None and cls is not dict:
        if target is not Any and not types.assignable(cls, types.origin(target)):
            raise _misfit(value, target, what)
        return _struct(trace, value, target if target is not Any and types.origin(target) is cls else cls, what)
    if isinstance(value, dict):
        return _mapping(trace, value, target, what)
    return _array(trace, value, target, what)


def _struct(trace: Trace, value: Any, tp: types.Type, what: str) -> Value:
    shape = types.shape(tp)
    assert shape is not None
    fields = {
        field.key: lower(trace, getattr(value, field.name), field.type, f"{what}, field {field.name!r},")
        for field in shape.fields.values()
        if getattr(value, field.name) is not msgspec.UNSET
    }
    tag: dict[str, Value] = {shape.tag[0]: Const(shape.tag[1])} if shape.tag else {}
    if shape.array:
        return _items([*tag.values(), *fields.values()])
    return _fields({**tag, **{str(key): item for key, item in fields.items()}})


def _mapping(trace: Trace, value: Mapping[Any, Any], target: types.Type, what: str) -> Value:
    shape, pair = types.shape(target), types.mapping_types(target)
    if target is Any or pair is not None:
        key_type, item_type = pair or (Any, Any)
        found = {}
        for key, item in value.items():
            name = _key(key, key_type, what)
            found[name] = lower(trace, item, item_type, f"{what}, item {name!r},")
        return _fields(found)
    if shape is None or shape.array:
        raise _misfit(value, target, what)
    known: dict[object, types.Field] = {field.key: field for field in shape.fields.values()}
    tag = shape.tag[0] if shape.tag else None
    unknown = [key for key in value if key not in known and key != tag]
    if unknown:
        raise Misfit(
            f"{what} is {types.show(target)}, which has no field {unknown[0]!r}",
            f"known fields: {', '.join(map(str, known))}",
        )
    lacking = [field.name for field in known.values() if field.required and field.key not in value]
    if lacking:
        raise Misfit(f"{what} is {types.show(target)}, and its field {lacking[0]!r} is missing")
    fields: dict[str, Value] = {str(tag): _literal(value[tag], Any, what)} if tag in value else {}
    for key, item in value.items():
        if key != tag:
            fields[key] = lower(trace, item, known[key].type, f"{what}, field {key!r},")
    return _fields(fields)


def _key(key: object, tp: types.Type, what: str) -> str:
    try:
        name = next(iter(msgspec.json.decode(msgspec.json.encode({key: None}))))
        msgspec.convert({name: None}, dict[tp, Any], str_keys=True)
    except (TypeError, ValueError) as error:
        raise Misfit(f"{what} has the key {key!r}, which does not fit: {error}") from None
    return str(name)


def _array(trace: Trace, value: Any, target: types.Type, what: str) -> Value:
    array = target if target is not Any else list[Any]
    outer, parts = types.origin(array), get_args(array)
    if types.array_item(array) is None or not (types.assignable(list, outer) or isinstance(value, outer)):
        raise _misfit(value, target, what)
    if outer is tuple and parts and Ellipsis not in parts and len(parts) != len(value):
        raise Misfit(f"{what} must be {types.show(target)}, got {len(value)} items")
    return _items(lower(trace, item, types.array_item(array, i), f"{what}, item {i},") for i, item in enumerate(value))


def _items(items: Iterable[Value]) -> Value:
    found = tuple(items)
    if all(isinstance(item, Const) for item in found):
        return Const([item.value for item in found if isinstance(item, Const)])
    return Items(found)


def _fields(fields: dict[str, Value]) -> Value:
    fields = dict(sorted(fields.items()))  # as in the plan's JSON, so that all who hold the plan build the same bytes
    if all(isinstance(item, Const) for item in fields.values()):
        return Const({name: item.value for name, item in fields.items() if isinstance(item, Const)})
    return Fields(fields)


def _misfit(value: object, target: types.Type, what: str) -> Misfit:
    return Misfit(f"{what} must be {types.show(target)}, got a {type(value).__name__}")
