"""Services for a generated plan: each step returns a digest of what it got, and complains if it came too early."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from segue import Service, current
from segue.machine.facts import Outcome
from segue.plan.graph import Plan

CALLS: Counter[tuple[str, str]] = Counter()
Check = Callable[[str, str], None]


def digest(node: str, args: list[Any]) -> int:
    """What a step returns."""
    return zlib.crc32(node.encode() + msgspec.json.encode(args))


def behave(node: str, args: dict[str, Any]) -> Outcome:
    """The same, for an evaluator."""
    return Outcome("completed", digest(node, [args[name] for name in sorted(args)]))


def services_of(plan: Plan, check: Check) -> dict[str, Service]:
    """The services that own the plan's steps; `check(run, node)` is called when a step begins."""
    found = {name: Service(name) for name in plan.index.services}
    for node in plan.nodes:
        if node.kind == "step":
            found[node.owner].step(_function(node.step, sorted(arg.name for arg in node.args), check))
    return found


def _function(name: str, parameters: list[str], check: Check) -> Any:
    def call(*args: Any) -> int:
        here = current()
        check(here.run, here.node)
        CALLS[here.run, here.node] += 1
        return digest(here.node, list(args))

    space: dict[str, Any] = {"call": call, "Any": Any}
    given = ", ".join(f"{parameter}: Any" for parameter in parameters)
    exec(f"async def {name}({given}) -> Any:\n    return call({', '.join(parameters)})\n", space)
    return space[name]
