"""The input of a run: bound to the flow's parameters, checked, and its business key taken from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from segue.errors import InvalidInput
from segue.machine import tags
from segue.machine.decide import slot_of
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
    schema = {"properties": {param.name: param.schema for param in plan.inputs}}
    _validate(plan, schema, values, f"the input of {plan.flow!r}")


def _validate(plan: Plan, schema: dict[str, Any], value: Any, what: str) -> None:
    from jsonschema import Draft202012Validator  # costs too much to import for those who never need it
    from jsonschema.exceptions import best_match

    error = best_match(Draft202012Validator({**schema, "types": plan.types}).iter_errors(value))
    if error is not None:
        raise InvalidInput(f"{what} does not fit at {error.json_path}: {error.message}")


def signal_value(plan: Plan, name: str, value: Any) -> Any:
    """The value of a signal, as JSON builtins.

    Raises:
        InvalidInput: The flow waits for no such signal, or the value does not fit its type.
    """
    schemas = {param.name: param.schema for param in plan.signals}
    if name not in schemas:
        known = ", ".join(schemas) or "none"
        raise InvalidInput(f"flow {plan.flow!r} waits for no signal {name!r}", f"its signals: {known}")
    try:
        found = msgspec.to_builtins(value)
    except TypeError as error:
        raise InvalidInput(f"the value of signal {name!r} cannot be sent: {error}") from None
    _validate(plan, schemas[name], found, f"the value of signal {name!r} of {plan.flow!r}")
    return found


def signal_slot(plan: Plan, name: str, match: Any, tag: str) -> str:
    """Which of the waits of one name a signal is for: its match value, or its tag.

    Raises:
        InvalidInput: No wait can take it.
    """
    waits = [node for node in plan.nodes if node.kind == "wait" and node.step == name]
    matching = [node for node in waits if any(arg.name == "match" for arg in node.args)]
    if match is not None:
        if not matching:
            raise InvalidInput(f"no wait for signal {name!r} of {plan.flow!r} has a match", "leave `match` out")
        return slot_of(msgspec.to_builtins(match))
    try:
        depth = len(tags.path(tag))
    except ValueError:
        raise InvalidInput(f"{tag!r} is no tag", 'tags are indices of items and rounds, as in "3" or "3.0"') from None
    depths = {plan.index.depth(node.id) for node in waits if node not in matching}
    if depth in depths:
        return tag
    if not depths:
        raise InvalidInput(f"signal {name!r} of {plan.flow!r} must say which wait it is for", "give its `match` value")
    wanted = " or ".join(str(found) for found in sorted(depths))
    raise InvalidInput(
        f"signal {name!r} of {plan.flow!r} is for an item or a round: its tag has {wanted} indices, not {depth}",
        'give the tag of the wait, as in tag="3"',
    )


def key_of(plan: Plan, values: dict[str, Any]) -> str:
    """The business key that the plan takes from its input, or ""."""
    if plan.key is None:
        return ""
    entry = Outcome("completed", values)
    found = evaluate(plan.key, lambda _: entry)
    if not isinstance(found, str | int) or isinstance(found, bool) or found == "":
        raise InvalidInput(f"the key of {plan.flow!r} must be a text or a whole number, not {found!r}")
    return check_key(str(found))
