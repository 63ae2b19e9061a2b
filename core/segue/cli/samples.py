"""Sample input of a flow, from its JSON Schema: something that a person can edit and start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segue.plan.graph import Plan

_DEEPEST = 8
_PLAIN: dict[str, Any] = {"string": "text", "integer": 1, "number": 1.0, "boolean": True, "null": None}


def sample(plan: Plan) -> Any:
    """A sample: the value of the only parameter, or an object of all required ones."""
    values = {param.name: _value(param.schema, plan.types, 0) for param in plan.inputs if param.required}
    if len(plan.inputs) == 1 and values:
        (value,) = values.values()
        only = plan.inputs[0].name
        return {only: value} if isinstance(value, dict) and list(value) == [only] else value
    return values


def _value(schema: Mapping[str, Any], types: Mapping[str, Any], depth: int) -> Any:
    """A value that fits a schema; what is optional is left out, and so is what is too deep."""
    if "$ref" in schema and depth < _DEEPEST:
        return _value(types.get(schema["$ref"].rpartition("/")[2], {}), types, depth + 1)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        if schema.get(key):
            return schema[key][0]
    for key in ("anyOf", "oneOf"):
        if {"type": "null"} in schema.get(key, ()):
            return None
        if schema.get(key) and depth < _DEEPEST:
            return _value(schema[key][0], types, depth + 1)
    kind = schema.get("type")
    if kind == "object":
        needed, fields = schema.get("required", ()), schema.get("properties", {})
        return {name: _value(fields.get(name, {}), types, depth + 1) for name in needed} if depth < _DEEPEST else {}
    if kind == "array":
        return [_value(item, types, depth + 1) for item in schema.get("prefixItems", ())]
    return _PLAIN.get(str(kind), "text")
