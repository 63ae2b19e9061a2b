"""The type of what a body returns or a construct is given, where nothing declares it."""

from __future__ import annotations

from typing import Any

from segue.model import types
from segue.model.refs import is_placeholder, operand_of


def type_of(value: object) -> types.Type:
    """Type of a placeholder, a constant, or a list, dict or struct of these."""
    if is_placeholder(value):
        return operand_of(value).type
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return list[_united(value)]  # type: ignore[misc]
    if type(value) is dict:
        return dict[str, _united(value.values())]  # type: ignore[misc]
    return types.NONE if value is None else type(value)


def _united(values: Any) -> types.Type:
    found = [type_of(value) for value in values]
    return types.union(found) if found else Any
