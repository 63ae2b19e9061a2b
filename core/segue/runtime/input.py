"""The input of a run: bound to the flow's parameters, checked, and its business key taken from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from segue.errors import InvalidInput
from segue.machine.facts import Outcome
from segue.machine.values import evaluate
from segue.model.flow import Flow
from segue.plan.graph import Plan
from segue.runtime.ids import check_key


def bind(flow: Flow[..., Any] | None, plan: Plan, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The input of a run, by parameter, as JSON builtins.

    Raises:
        InvalidInput: Missing, unknown or wrongly typed arguments.
    """
    names = [param.name for param in plan.inputs]
    if len(args) > len(names):
        raise InvalidInput(f"flow {plan.flow!r} takes {len(names)} arguments, {len(args)} were given")
    values = dict(zip(names, args, strict=False))
    twice, unknown = values.keys() & kwargs.keys(), kwargs.keys() - set(names)
    for name in sorted(twice | unknown):
        raise InvalidInput(f"flow {plan.flow!r} {'got twice' if name in twice else 'has no parameter'} {name!r}")
    values |= kwargs
    for param in plan.inputs:
        if param.required and param.name not in values:
            raise InvalidInput(f"flow {plan.flow!r} needs {param.name!r}")
    if flow is not None:
        return flow.encode_input(values)
    for param in plan.inputs:
        if "default" in param.schema:
            values.setdefault(param.name, param.schema["default"])
    try:
        found: dict[str, Any] = msgspec.to_builtins(values)
    except TypeError as error:
        raise InvalidInput(f"the input of {plan.flow!r} cannot be sent: {error}") from None
    _fits(plan, found)
    return found


def _fits(plan: Plan, values: dict[str, Any]) -> None:
    """Whoever starts a flow by name has not its types, but its plan has their schemas."""
    from jsonschema import Draft202012Validator  # costs too much to import for those who never need it
    from jsonschema.exceptions import best_match

    schema = {"properties": {param.name: param.schema for param in plan.inputs}, "types": plan.types}
    error = best_match(Draft202012Validator(schema).iter_errors(values))
    if error is not None:
        raise InvalidInput(f"the input of {plan.flow!r} does not fit at {error.json_path}: {error.message}")


def key_of(plan: Plan, values: dict[str, Any]) -> str:
    """The business key that the plan takes from its input, or ""."""
    if plan.key is None:
        return ""
    entry = Outcome("completed", values)
    found = evaluate(plan.key, lambda _: entry)
    if not isinstance(found, str | int) or isinstance(found, bool) or found == "":
        raise InvalidInput(f"the key of {plan.flow!r} must be a text or a whole number, not {found!r}")
    return check_key(str(found))
