"""JSON Schemas of signatures, as plans and services carry them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from segue.errors import DeclarationError
from segue.model.signature import UNANNOTATED, Parameter, Signature
from segue.plan.graph import Contract, Param

_LITERAL = frozenset({"default", "enum", "const", "examples"})
"""Keywords whose values are data, not schemas."""


def contracts(signatures: Sequence[Signature]) -> tuple[tuple[Contract, ...], dict[str, Any]]:
    """Contracts of signatures, with the schemas of the types that they name.

    Docstrings are left out: editing one does not make another plan.

    Returns:
        A contract for each signature in the order given, and the types by name.

    Raises:
        DeclarationError: Two different types have one full name.
    """
    return _contracts(signatures, "#/types/{name}")


def standalone(signatures: Iterable[Signature]) -> tuple[Contract, ...]:
    """Contracts of signatures whose schemas bring the types that they name with them, as `$defs`.

    Raises:
        DeclarationError: Two different types have one full name.
    """
    made = []
    for signature in signatures:
        (contract,), defs = _contracts([signature], "#/$defs/{name}")
        inputs = tuple(Param(param.name, _with(param.schema, defs), param.required) for param in contract.inputs)
        made.append(Contract(contract.service, contract.step, inputs, _with(contract.output, defs)))
    return tuple(made)


def _with(schema: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "$defs": defs} if b'"$ref"' in msgspec.json.encode(schema) else schema


def _contracts(signatures: Sequence[Signature], template: str) -> tuple[tuple[Contract, ...], dict[str, Any]]:
    wanted = []
    for signature in signatures:
        wanted += [parameter.type for parameter in signature.parameters]
        wanted.append(Any if signature.returns is UNANNOTATED else signature.returns)
    try:
        schemas, components = msgspec.json.schema_components(wanted, ref_template=template)
    except KeyError as error:
        cls = error.args[0]
        raise DeclarationError(
            f"two different types are both named {getattr(cls, '__module__', '')}.{getattr(cls, '__qualname__', cls)}",
            "rename one of them, or define it only once",
        ) from None
    found = iter([_plain(schema) for schema in schemas])
    made = []
    for signature in signatures:
        params = tuple(_param(parameter, next(found)) for parameter in signature.parameters)
        made.append(Contract(signature.service, signature.step, params, next(found)))
    return tuple(made), {name: _plain(component) for name, component in components.items()}


def _param(parameter: Parameter, schema: dict[str, Any]) -> Param:
    if parameter.required:
        return Param(parameter.name, schema)
    return Param(parameter.name, {**schema, "default": as_json(parameter.default)}, False)


def as_json(value: Any) -> Any:
    """A value as it looks after its journey: JSON builtins."""
    return msgspec.json.decode(msgspec.json.encode(value, order="deterministic"))


def _plain(schema: Any) -> Any:
    return _strip(as_json(schema))


def _strip(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strip(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value if key in _LITERAL else _named(value) if key == "properties" else _strip(value)
        for key, value in schema.items()
        if key != "description"
    }


def _named(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: _strip(schema) for name, schema in properties.items()}
