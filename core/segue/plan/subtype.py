"""Whether every value of one JSON Schema is taken by another: structural subtyping, as far as plans need it.

The answer may be a false alarm, never a false calm: what is not understood must be equal. An object is taken to have
the properties that its schema names and no others, because a struct writes no others; one that names none may have
any. References are compared once per pair; a pair met again inside itself is taken to fit (the greatest fixed point),
so recursive types end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]
_NOTES = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment", "$defs"}
    | {"discriminator"}
)
_SHAPE = frozenset(
    {"type", "enum", "const", "anyOf", "oneOf", "properties", "required", "additionalProperties"}
    | {"items", "prefixItems", "minItems", "maxItems"}
)
_LOWER = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})
_UPPER = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})
_COUNTS = frozenset({"minLength", "minItems", "minProperties"})
_TYPES: tuple[tuple[type, frozenset[str]], ...] = (
    (bool, frozenset({"boolean"})),
    (int, frozenset({"integer", "number"})),
    (float, frozenset({"number"})),
    (str, frozenset({"string"})),
    (dict, frozenset({"object"})),
    (list, frozenset({"array"})),
)
_ALL = ("array", "boolean", "integer", "null", "number", "object", "string")


def difference(writer: Schema, reader: Schema, written: Schema, read: Schema) -> str:
    """The first reason why a value of `writer` may not be taken by `reader`; "" if each one is.

    Args:
        writer: Schema of what is given.
        reader: Schema of what is taken.
        written: Definitions that the writer's references point to, by name, besides its own `$defs`.
        read: Definitions that the reader's references point to, by name, besides its own `$defs`.
    """
    comparison = _Comparison({**written, **writer.get("$defs", {})}, {**read, **reader.get("$defs", {})})
    try:
        return comparison.compare(writer, reader, "")
    except RecursionError:
        return "the types are nested too deep to be compared"


class _Comparison:
    def __init__(self, written: Schema, read: Schema) -> None:
        self.written, self.read = written, read
        self.met: set[tuple[str, str]] = set()

    def compare(self, writer: Any, reader: Any, at: str) -> str:
        if reader is True or writer is False or reader == {}:
            return ""
        if reader is False:
            return f"{at}is given and not taken"
        writer = {} if writer is True else writer
        names = (_name(writer), _name(reader))
        if any(names):
            pair = (_json(writer), _json(reader))
            if pair in self.met:
                return ""
            self.met.add(pair)
            for name, known, side in zip(names, (self.written, self.read), ("given", "taken"), strict=True):
                if name and name not in known:
                    return f"{at}the type {name} that is {side} is not described"
            return self.compare(_resolved(writer, self.written), _resolved(reader, self.read), at)
        values = _values(writer)
        if values is not None and len(values) > 1:
            return next(filter(None, (self.compare({"const": value}, reader, at) for value in values)), "")
        for keyword in ("anyOf", "oneOf"):
            if keyword in writer:
                return next(filter(None, (self.compare(choice, reader, at) for choice in writer[keyword])), "")
        for keyword in ("anyOf", "oneOf"):
            if keyword in reader:
                return self._one_of(writer, reader[keyword], at)
        return self._plain(writer, reader, at)

    def _one_of(self, writer: Schema, choices: list[Any], at: str) -> str:
        found = []
        for choice in choices:
            met = set(self.met)
            found.append(self.compare(writer, choice, at))
            if not found[-1]:
                return ""
            # What a failed choice assumed about recursive types does not hold.
            self.met = met
        return (
            found[0] if len(choices) == 1 else f"{at}{_brief(writer)} is given, {_brief({'anyOf': choices})} is taken"
        )

    def _plain(self, writer: Schema, reader: Schema, at: str) -> str:
        values = _values(writer)
        if values is not None:
            odd = [value for value in values if not _takes(reader, value)]
            return f"{at}{_json(odd[0])} is given, {_brief(reader)} is taken" if odd else ""
        if _values(reader) is not None:
            return f"{at}{_brief(writer)} is given, {_brief(reader)} is taken"
        given, taken = _types(writer), _types(reader)
        lost = given - taken - ({"integer"} if "number" in taken else set())
        if lost:
            return f"{at}{_brief(writer)} is given, {_brief(reader)} is taken"
        found = self._limits(writer, reader, at)
        if not found and "object" in given:
            found = self._objects(writer, reader, at)
        if not found and "array" in given:
            found = self._arrays(writer, reader, at)
        return found

    def _limits(self, writer: Schema, reader: Schema, at: str) -> str:
        for keyword in sorted(reader.keys() - _NOTES - (_SHAPE - _LOWER - _UPPER)):
            want, have = reader[keyword], writer.get(keyword)
            if want == 0 and keyword in _COUNTS:
                continue
            if keyword in _LOWER and have is not None and have >= want:
                continue
            if keyword in _UPPER and have is not None and have <= want:
                continue
            if have != want:
                return f"{at}{keyword} {_json(want)} is demanded, {'none' if have is None else _json(have)} is promised"
        return ""

    def _objects(self, writer: Schema, reader: Schema, at: str) -> str:
        given, taken = writer.get("properties", {}), reader.get("properties", {})
        rest_given = writer.get("additionalProperties", "properties" not in writer)
        rest_taken = reader.get("additionalProperties", True)
        for name, schema in given.items():
            found = self.compare(schema, taken.get(name, rest_taken), f"{at}field {name!r}: ")
            if found:
                return found
        for name in reader.get("required", ()):
            if name not in writer.get("required", ()):
                return f"{at}field {name!r} is required and {'may be missing' if name in given else 'not given'}"
        if rest_given is False:
            return ""
        for name in sorted(taken.keys() - given.keys()):
            found = self.compare(rest_given, taken[name], f"{at}field {name!r}: ")
            if found:
                return found
        return self.compare(rest_given, rest_taken, f"{at}values: ")

    def _arrays(self, writer: Schema, reader: Schema, at: str) -> str:
        first_given, first_taken = writer.get("prefixItems", []), reader.get("prefixItems", [])
        rest_given, rest_taken = writer.get("items", True), reader.get("items", True)
        most = max(len(first_given), len(first_taken))
        for i in range(most):
            given = first_given[i] if i < len(first_given) else rest_given
            taken = first_taken[i] if i < len(first_taken) else rest_taken
            found = self.compare(given, taken, f"{at}item {i}: ")
            if found:
                return found
        if writer.get("maxItems", most + 1) <= most:
            return ""
        return self.compare(rest_given, rest_taken, f"{at}items: ")


def _name(schema: Any) -> str:
    """The name that a reference points to, in whatever place the definitions are."""
    ref = schema.get("$ref", "") if isinstance(schema, Mapping) else ""
    return str(ref).rpartition("/")[2].replace("~1", "/").replace("~0", "~")


def _resolved(schema: Any, known: Schema) -> Any:
    """What a reference points to, with what stands beside the reference."""
    name = _name(schema)
    return {**known[name], **{key: value for key, value in schema.items() if key != "$ref"}} if name else schema


def _types(schema: Schema) -> set[str]:
    named = schema.get("type", _ALL)
    return {named} if isinstance(named, str) else set(named)


def _values(schema: Schema) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _takes(reader: Schema, value: Any) -> bool:
    values = _values(reader)
    if values is not None:
        return any(_json(value) == _json(other) for other in values)
    if reader.keys() - _NOTES - {"type"}:
        return False
    kinds = next((kinds for kind, kinds in _TYPES if isinstance(value, kind)), frozenset({"null"}))
    return bool(kinds & _types(reader))


def _brief(schema: Any) -> str:
    """A schema in a few words."""
    if not isinstance(schema, Mapping):
        return "anything" if schema else "nothing"
    if _name(schema):
        return _name(schema)
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            return " or ".join(_brief(choice) for choice in schema[keyword])
    values = _values(schema)
    if values is not None:
        return ("one of " if len(values) > 1 else "") + ", ".join(map(_json, values))
    named = schema.get("title") or schema.get("type", "anything")
    text = named if isinstance(named, str) else " or ".join(named)
    return f"{text} ({schema['format']})" if "format" in schema else text


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
