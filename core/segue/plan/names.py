"""Names of what a plan is made of. Users' names have no dot and no colon, so these cannot collide with them."""

from __future__ import annotations

RUN = "run"
"""The root region, and the name under which the run itself speaks."""

ENTRY, EXIT = "run.entry", "run.exit"
"""Gateways of the root region."""

NOTICE = "run:notice"
"""What concerns more of a run than one node is published under this name, with its author behind it."""

TIMER = "run:timer"
"""The node that watches a run's deadline."""


def opening(construct: str) -> str:
    """The `open` gateway of a construct."""
    return f"{construct}:open"


def settling(construct: str) -> str:
    """The `settle` gateway of a race."""
    return f"{construct}:settle"


def watching(construct: str) -> str:
    """The timer of an attempt."""
    return f"{construct}:timer"


def entering(region: str) -> str:
    """The `entry` gateway of a region."""
    return f"{region}:entry"


def leaving(region: str) -> str:
    """The `exit` gateway of a region."""
    return f"{region}:exit"
