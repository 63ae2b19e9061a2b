"""Fields and items of placeholders: which there are, by the types, and where they are in the JSON form.

A constant one extends the path of a read; a computed one, or one of a computed value, is an operator.
"""

from __future__ import annotations

from typing import Any

from segue.errors import DeclarationError, PlaceholderError
from segue.model import types
from segue.model.operands import NO_NONE, STEP, Operand, apply, gather, sorts
from segue.model.site import here
from segue.plan import graph

_STRINGS = frozenset({"str", "any"})
_WHOLE = frozenset({"int", "any"})


def field(operand: Operand, name: str) -> Operand:
    """A field, by its name in Python.

    Raises:
        DeclarationError: There is none, or it is not always at the same place.
    """
    if operand.type is Any:
        return _inner(operand, name, Any, f".{name}")
    found: list[types.Field | None] = []
    for member in types.members(operand.type):
        if member is types.NONE:
            found.append(None)
            continue
        shape = types.shape(member)
        if shape is None or shape.by_key or name not in shape.fields:
            raise _unknown_field(operand, member, shape, name)
        found.append(shape.fields[name])
    return _pick(operand, found, f".{name}")


def item(operand: Operand, key: object) -> Operand:
    """An item by a constant key or index.

    Raises:
        PlaceholderError: It is no such key.
        DeclarationError: There is no such item.
    """
    if not isinstance(key, str | int) or isinstance(key, bool):
        raise PlaceholderError(
            f"{here()}: an item of {operand.label} is read by {key!r}",
            f"strings and whole numbers can be keys here, constant or computed; for all else {STEP}",
        )
    suffix = f"[{key!r}]"
    if operand.type is Any:
        return _inner(operand, key, Any, suffix)
    found: list[types.Field | None]
    found = [None if part is types.NONE else _item_field(operand, part, key) for part in types.members(operand.type)]
    return _pick(operand, found, suffix)


def computed_item(operand: Operand, key: Operand) -> Operand:
    """An item by a computed key or index.

    Raises:
        DeclarationError: It is no such key, or there are no items.
    """
    found, value = sorts(key.type), key.value
    if operand.type is Any:
        if not found <= _STRINGS | _WHOLE:
            raise _no_key(operand, key, "give a string or a whole number")
        return _at(operand, key, value, Any)
    results = []
    for member in types.members(operand.type):
        array, pair = types.array_item(member), types.mapping_types(member)
        if pair is not None:
            if not found <= _STRINGS | _WHOLE or not types.assignable(key.type, pair[0]):
                raise _no_key(operand, key, f"its keys are {types.show(pair[0])}")
            if not found <= _STRINGS:
                value = apply("text", key).value  # in JSON, keys are strings
        elif array is None or issubclass(types.origin(member), set | frozenset):
            raise DeclarationError(
                f"{here()}: {operand.label} is {types.show(operand.type)}, so no item of it is read by a computed key",
                NO_NONE.format(operand.label) if types.admits_none(operand.type) else f"give a constant, or {STEP}",
            )
        elif not found <= _WHOLE:
            raise _no_key(operand, key, "give a whole number")
        results.append(array if pair is None else pair[1])
    return _at(operand, key, value, types.union(results))


def _at(operand: Operand, key: Operand, value: graph.Value, tp: Any) -> Operand:
    return gather(f"{operand.label}[{key.label}]", graph.Op("at", (operand.value, value)), tp, (operand, key))


def _no_key(operand: Operand, key: Operand, hint: str) -> DeclarationError:
    return DeclarationError(
        f"{here()}: an item of {operand.label} is read by {key.label}, which is {types.show(key.type)}", hint
    )


def _pick(operand: Operand, found: list[types.Field | None], suffix: str) -> Operand:
    """A field that all members of a union have; None stands for the member None, which has no fields."""
    fields = [field for field in found if field is not None]
    if not fields or len({field.key for field in fields}) != 1:
        raise DeclarationError(
            f"{here()}: {operand.label}{suffix} is not at the same place in all of {types.show(operand.type)}"
        )
    if any(field.left_out for field in fields):
        raise DeclarationError(
            f"{here()}: {operand.label}{suffix} is left out of the JSON when it has its default (omit_defaults)",
            "remove omit_defaults from the struct, or read the field in a step",
        )
    parts = [field.type for field in fields]
    tp = types.union([*parts, types.NONE]) if None in found else types.union(parts) if len(parts) > 1 else parts[0]
    absent = None in found or not all(field.required for field in fields)
    return _inner(operand, fields[0].key, tp, suffix, absent and types.admits_none(tp))


def _inner(operand: Operand, key: str | int, tp: types.Type, suffix: str, absent: bool = False) -> Operand:
    """`absent`: it may not be there, which counts as None."""
    value = operand.value
    name = operand.name and operand.name + suffix
    if isinstance(value, graph.Get):
        return operand._replace(value=graph.Get(value.node, (*value.path, key), value.optional), type=tp, name=name)
    read = graph.Op("at", (value, graph.Const(key)))
    return gather(
        operand.label + suffix, graph.Op("default", (read, graph.Const(None))) if absent else read, tp, (operand,)
    )


def _unknown_field(operand: Operand, member: types.Type, shape: types.Shape | None, name: str) -> DeclarationError:
    tp = types.show(member)
    if shape is None:
        hint = _METHODS[name].format(operand.label) if member is str and name in _METHODS else STEP
        return DeclarationError(f"{here()}: {operand.label} is {tp}, which has no field {name!r}", hint)
    if shape.by_key and name in shape.fields:
        return DeclarationError(
            f"{here()}: {operand.label} is {tp}, whose fields are items", f'write {operand.label}["{name}"]'
        )
    if hasattr(member, name):
        return DeclarationError(f"{here()}: {tp}.{name} is no field, and only fields can be read here", STEP)
    return DeclarationError(
        f"{here()}: {tp} has no field {name!r}", f"known fields: {', '.join(shape.fields) or 'none'}"
    )


_METHODS = {
    **{name: f"write expr.{name}({{}})" for name in ("lower", "upper", "strip")},
    "format": 'write expr.text("... {{}} ...", ...)',
    "split": "write expr.split({}, ...)",
    "startswith": "write expr.starts_with({}, ...)",
    "endswith": "write expr.ends_with({}, ...)",
}
"""What to write instead of methods of strings."""


def _item_field(operand: Operand, member: types.Type, key: str | int) -> types.Field:
    shape, pair = types.shape(member), types.mapping_types(member)
    if shape is not None and shape.by_key and isinstance(key, str):
        if key not in shape.fields:
            raise _unknown_field(operand, member, shape, key)
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
    raise DeclarationError(f"{here()}: {operand.label} is {types.show(member)}, which has no item {key!r}")
