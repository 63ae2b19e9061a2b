"""Names that travel in subjects: services, steps, flows and nodes."""

from __future__ import annotations

import re

from segue.errors import DeclarationError

_NAME = re.compile(r"[a-z0-9_-]{1,64}")

RESERVED_SERVICES = frozenset({"coordinator", "observer"})
"""Participants that are no services."""

RESERVED_NODES = frozenset({"run"})
"""The run itself speaks under this name: `<flow>.run.started`, `<flow>.run.ended`."""


def check_name(name: str, what: str, where: str = "") -> str:
    """Return `name` if it may stand in a subject.

    Args:
        name: 1 to 64 characters of `[a-z0-9_-]`.
        what: What carries the name, for the message ("service", "flow").
        where: File and line, for the message.

    Raises:
        DeclarationError: The name has other characters or another length.
    """
    if not _NAME.fullmatch(name):
        raise DeclarationError(
            f"{where + ': ' if where else ''}{what} name {name!r} is not allowed",
            "names are 1 to 64 characters of a-z, 0-9, _ and -",
        )
    return name
