"""The JSON Schema of the plan format, for tools in any language; published as `plan.schema.json` beside this module."""

from __future__ import annotations

from typing import Any

import msgspec

from segue.plan.graph import FORMAT, Plan

ID = f"urn:segue:plan:{FORMAT}"


def schema() -> dict[str, Any]:
    """The schema of this version's plans (JSON Schema 2020-12)."""
    (root,), definitions = msgspec.json.schema_components([Plan], ref_template="#/$defs/{name}")
    definitions["Plan"]["properties"]["format"] = {"const": FORMAT, "default": FORMAT}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": ID,
        "title": f"Segue plan, format {FORMAT}",
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


def text() -> str:
    """The published file."""
    return msgspec.json.format(msgspec.json.encode(schema()), indent=2).decode() + "\n"
