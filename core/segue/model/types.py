"""Types as JSON sees them: their fields, what is assignable to what, and their names in messages.

A value travels between services as JSON, so a type is judged by what it looks like there: a struct is its encoded
field names, a tuple is an array, `True` is no integer, and a `Decimal` is a string that does not compare as a number.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
import uuid
from collections import abc
from datetime import date, datetime
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Required, Union, get_args, get_origin

import msgspec

from segue.errors import DeclarationError

Type = Any
"""A type annotation; there is no better type for it yet."""

NONE = type(None)
_ARRAYS = (list, tuple, set, frozenset, abc.Sequence, abc.Collection, abc.MutableSequence, abc.Set, abc.MutableSet)
_MAPPINGS = (dict, abc.Mapping, abc.MutableMapping)


class Field(NamedTuple):
    """A field of a struct-like type: its name in Python, its place in the JSON form, its type."""

    name: str
    key: str | int
    type: Type
    required: bool
    left_out: bool = False


class Shape(NamedTuple):
    """What a struct-like type looks like: its fields, its tag (place and value), and how people read a field."""

    fields: dict[str, Field]
    tag: tuple[str, str | int] | None
    array: bool
    by_key: bool
    closed: bool


def origin(tp: Type) -> Any:
    """The class of a generic alias: list of `list[int]`; of any other type the type itself."""
    return get_origin(tp) or tp


def bare(tp: Type) -> Type:
    """The type without what says nothing about its JSON form: `Annotated`, `NewType`, aliases, `Required`."""
    while True:
        if origin(tp) in (Annotated, Required, NotRequired):
            tp = get_args(tp)[0]
        elif isinstance(tp, typing.NewType):
            tp = tp.__supertype__
        elif hasattr(tp, "__value__") and not isinstance(tp, type):
            tp = tp.__value__
        else:
            return tp


def members(tp: Type) -> tuple[Type, ...]:
    """The members of a union, flat; of any other type the type itself. An unset field counts as None."""
    tp = bare(tp)
    if origin(tp) in (Union, types.UnionType):
        return tuple(dict.fromkeys(inner for member in get_args(tp) for inner in members(member)))
    return (NONE if tp is None or tp is msgspec.UnsetType else tp,)


def union(parts: abc.Iterable[Type]) -> Type:
    """The union of types; Any if one of them is."""
    found = tuple(dict.fromkeys(inner for part in parts for inner in members(part)))
    return Any if Any in found else Union[found]  # noqa: UP007 - built from a tuple


def admits_none(tp: Type) -> bool:
    """Whether None is declared to be a value of the type; of `Any` it is not said."""
    return NONE in members(tp)


def show(tp: Type) -> str:
    """The type as people write it: `Order | None`, `list[int]`."""
    if tp is None or tp is NONE:
        return "None"
    if tp is Any:
        return "Any"
    parts = get_args(tp)
    outer = origin(tp)
    if outer in (Union, types.UnionType):
        return " | ".join(show(part) for part in parts)
    if outer is Literal:
        return f"Literal[{', '.join(repr(part) for part in parts)}]"
    if outer is Annotated:
        return show(parts[0])
    if parts:
        inner = ", ".join("..." if part is Ellipsis else show(part) for part in parts)
        return f"{getattr(outer, '__name__', outer)}[{inner}]"
    return getattr(tp, "__name__", None) or str(tp)


def shape(tp: Type) -> Shape | None:
    """The fields of a struct, dataclass, TypedDict or NamedTuple; None if the type is none of these.

    Raises:
        DeclarationError: An annotation of the type cannot be resolved.
    """
    return _shape(tp) if isinstance(origin(tp), type) else None


@lru_cache(maxsize=4096)
def _shape(tp: Type) -> Shape | None:
    cls: Any = origin(tp)
    try:
        if issubclass(cls, msgspec.Struct):
            return _struct_shape(tp, cls)
        if dataclasses.is_dataclass(cls):
            return _dataclass_shape(cls)
        if typing.is_typeddict(cls):
            return _typed_dict_shape(cls)
        if issubclass(cls, tuple) and hasattr(cls, "_fields"):
            hints = typing.get_type_hints(cls)
            optional: dict[str, Any] = getattr(cls, "_field_defaults", {})
            names: tuple[str, ...] = cls._fields
            fields = {n: Field(n, i, hints.get(n, Any), n not in optional) for i, n in enumerate(names)}
            return Shape(fields, None, True, False, True)
    except NameError as error:
        raise DeclarationError(
            f"the fields of {show(tp)} cannot be read: {error}", "define the types of fields at module level"
        ) from None
    return None


def _struct_shape(tp: Type, cls: type[msgspec.Struct]) -> Shape:
    config = cls.__struct_config__
    tagged = config.tag is not None and config.tag_field is not None
    fields = {}
    for i, info in enumerate(msgspec.structs.fields(tp)):
        key: str | int = i + int(tagged) if config.array_like else info.encode_name
        left_out = config.omit_defaults and not info.required and not config.array_like
        fields[info.name] = Field(info.name, key, info.type, info.required, left_out)
    tag = (config.tag_field, config.tag) if config.tag is not None and config.tag_field is not None else None
    return Shape(fields, tag, bool(config.array_like), False, bool(config.forbid_unknown_fields))


def _typed_dict_shape(cls: Any) -> Shape:
    required: frozenset[str] = cls.__required_keys__  # counts NotRequired["..."] in, so the hints are asked too
    fields = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        mark = origin(hint)
        fields[name] = Field(name, name, hint, mark is Required or (mark is not NotRequired and name in required))
    return Shape(fields, None, False, True, False)


def _dataclass_shape(cls: Any) -> Shape:
    hints = typing.get_type_hints(cls, include_extras=True)
    missing = dataclasses.MISSING
    fields = {
        info.name: Field(
            info.name, info.name, hints[info.name], info.default is missing and info.default_factory is missing
        )
        for info in dataclasses.fields(cls)
    }
    return Shape(fields, None, False, False, False)


def array_item(tp: Type, index: int | None = None) -> Type | None:
    """Type of the items of an array type (of a fixed tuple: of the one at `index`); None if it is no array."""
    outer = origin(tp)
    if outer not in _ARRAYS:
        return None
    parts = get_args(tp)
    if outer is tuple and parts and parts[-1] is not Ellipsis:
        if index is None:
            return union(parts)
        return parts[index] if -len(parts) <= index < len(parts) else None
    return parts[0] if parts else Any


def mapping_types(tp: Type) -> tuple[Type, Type] | None:
    """Types of keys and values of a mapping type; None if it is no mapping."""
    if origin(tp) not in _MAPPINGS:
        return None
    parts = get_args(tp)
    return (parts[0], parts[1]) if parts else (Any, Any)


def assignable(source: Type, target: Type) -> bool:
    """Whether every value of `source`, as JSON, is one of `target`."""
    target, source = bare(target), bare(source)
    if target is Any or source is Any or source == target:
        return True
    targets = members(target)
    return all(any(_member_assignable(one, other) for other in targets) for one in members(source))


def _member_assignable(source: Type, target: Type) -> bool:
    if target is Any or source is Any or source == target:
        return True
    if origin(source) is Literal:
        if origin(target) is Literal:
            return set(get_args(source)) <= set(get_args(target))
        return all(_member_assignable(type(value), target) for value in get_args(source))
    item, wanted = array_item(source), array_item(target)
    if item is not None and wanted is not None:
        return _array_assignable(source, target)
    pair, wanted_pair = mapping_types(source), mapping_types(target)
    if pair is not None and wanted_pair is not None:
        return assignable(pair[0], wanted_pair[0]) and assignable(pair[1], wanted_pair[1])
    return _class_assignable(source, target)


def _array_assignable(source: Type, target: Type) -> bool:
    if not issubclass(origin(source), origin(target)):
        return False
    ours, theirs = get_args(source), get_args(target)
    fixed = [bool(parts) and parts[-1] is not Ellipsis for parts in (ours, theirs)]
    if origin(target) is tuple and fixed[1]:
        return fixed[0] and len(ours) == len(theirs) and all(map(assignable, ours, theirs))
    return assignable(array_item(source), array_item(target))


def _class_assignable(source: Type, target: Type) -> bool:
    if source is int and target is float:
        return True
    ours, theirs = origin(source), origin(target)
    if not isinstance(ours, type) or not isinstance(theirs, type) or not issubclass(ours, theirs):
        return False
    if issubclass(ours, enum.Enum):
        return True
    source_shape, target_shape = shape(source), shape(target)
    if source_shape is None or target_shape is None:
        return False
    if target_shape.tag is not None and source_shape.tag != target_shape.tag:
        return False
    if target_shape.closed and len(source_shape.fields) > len(target_shape.fields):
        return False
    return ours is not theirs or all(map(assignable, get_args(source), get_args(target)))


Kind = Literal["null", "boolean", "number", "string"]
_KINDS: dict[Type, Kind] = {
    NONE: "null", bool: "boolean", int: "number", float: "number", str: "string", uuid.UUID: "string", date: "string",
}  # fmt: skip


def kinds(tp: Type) -> frozenset[Kind] | None:
    """The JSON kinds of a type whose equality in JSON is equality in Python; None if it has others, or is `Any`.

    Times and decimals are strings in JSON which do not compare as what they stand for, so they are not here.
    """
    found: set[Kind] = set()
    for member in members(tp):
        if origin(member) is Literal:
            values: abc.Iterable[Any] = get_args(member)
        elif isinstance(member, type) and issubclass(member, enum.Enum):
            values = [item.value for item in member]
        else:
            values = ()
            if member not in _KINDS or member is datetime:
                return None
            found.add(_KINDS[member])
        for value in values:
            if type(value) not in _KINDS:
                return None
            found.add(_KINDS[type(value)])
    return frozenset(found)


def ordered(tp: Type) -> frozenset[Kind] | None:
    """The JSON kinds of a type that `<` orders as Python does; None if there are others, such as plain enums."""
    plain = (one for one in members(tp) if isinstance(one, type) and issubclass(one, enum.Enum))
    return None if any(not issubclass(one, int | str) for one in plain) else kinds(tp)


def check_wire(tp: Type, what: str) -> None:
    """Check that values of a type can travel.

    Raises:
        DeclarationError: The type cannot be encoded to JSON and back, or has no schema.
    """
    try:
        msgspec.json.Decoder(tp)
        msgspec.json.schema(tp)
    except (TypeError, ValueError, NameError, KeyError, RecursionError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise DeclarationError(
            f"{what}: {show(tp)} cannot travel as JSON: {reason}",
            "use msgspec structs, dataclasses, typed dicts and builtins",
        ) from None
