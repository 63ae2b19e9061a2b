"""Where a run is: the machine folded over what was published, so that both modes look the same.

Skips and gateways that nobody listens to are never published; here they are derived again, by the same rules. Every
node of the plan has a state, those not reached too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from segue.machine.facts import Await, Fact, Invoke, Key, Outcome, Record, State
from segue.machine.step import decide
from segue.plan.graph import Plan

NodeState = Literal["completed", "skipped", "failed", "aborted", "cancelled", "open", "waiting"]
"""Outcomes, or: `open` (inputs complete, its service has not answered), `waiting` (an input is missing)."""


class NodeStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """A node of a run.

    `waits_for`: the inputs that are missing. `derived`: the outcome was not published, but follows from what was.
    """

    node: str
    state: NodeState
    outcome: Outcome | None = None
    waits_for: tuple[str, ...] = ()
    derived: bool = False


def fold(plan: Plan, facts: Iterable[Fact]) -> dict[str, NodeStatus]:
    """The state of every node, in plan order, given published facts in any order.

    Args:
        plan: The run's plan.
        facts: What was published; repeats are harmless.
    """
    known: dict[Key, Outcome] = {}
    for fact in facts:
        known.setdefault(fact.key, fact.outcome)
    published = frozenset(known)
    found: dict[str, NodeStatus] = {}
    for node in plan.nodes:
        key = Key(node.id)
        if node.kind != "entry" and key not in known:
            effect = decide(plan, State(known), key)
            if isinstance(effect, Record):
                known[key] = effect.fact.outcome
            elif isinstance(effect, Invoke):
                found[node.id] = NodeStatus(node.id, "open")
            elif isinstance(effect, Await):
                found[node.id] = NodeStatus(node.id, "waiting", waits_for=_missing(plan, known, node.id))
        outcome = known.get(key)
        if outcome is not None:
            found[node.id] = NodeStatus(node.id, outcome.kind, outcome, derived=key not in published)
        elif node.id not in found:
            found[node.id] = NodeStatus(node.id, "waiting")
    return found


def _missing(plan: Plan, known: Mapping[Key, Outcome], node: str) -> tuple[str, ...]:
    return tuple(up for up in plan.index.ups[node] if Key(up) not in known)
