"""Projection: what each participant hears and says, in each mode (endpoint projection of choreographic programming).

Choreographed, a service hears the outcomes of the upstreams of its nodes, except those that it decides itself. What a
body captures from outside travels in its entry, so nobody hears across the border of a region; only the home of a flow
that the first failure stops hears of every node that can fail it. Orchestrated, the coordinator holds all nodes and
hears what the services executed. Notices (stops, undo tokens and the like) go to every service of a plan, since each
may have to stop or undo something.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from segue.plan.graph import ENTRY, EXIT, Plan

Mode = Literal["orchestrated", "choreographed"]
MODES: tuple[Mode, ...] = ("orchestrated", "choreographed")
COORDINATOR = "coordinator"

PUBLIC = frozenset({"step", "flow", "emit", "wait", "sleep", "raise", "close"})
"""Kinds of nodes whose outcomes are published in any case: what happened, for everybody. The rest is bookkeeping."""


class Emission(msgspec.Struct, frozen=True):
    """A node whose outcome is published, and the services that hear it (the observer hears everything)."""

    node: str
    heard_by: tuple[str, ...]


class Projection(msgspec.Struct, frozen=True):
    """The part of a plan that one participant needs.

    Attributes:
        participant: Who.
        nodes: The nodes that it decides, in plan order.
        hears: Nodes whose outcomes it must hear, in plan order: of others, and its own that another run decides.
        emits: Its nodes whose outcomes are published.
    """

    participant: str
    nodes: tuple[str, ...]
    hears: tuple[str, ...]
    emits: tuple[Emission, ...]


def holder(plan: Plan, mode: Mode) -> str:
    """Who accepts the starts of a flow: its home, or the coordinator."""
    return plan.home if mode == "choreographed" else COORDINATOR


def participants(plan: Plan, mode: Mode) -> tuple[str, ...]:
    """Who decides nodes of the plan."""
    return plan.index.services if mode == "choreographed" else (COORDINATOR,)


def project(plan: Plan, service: str) -> Projection:
    """The choreographed part of one service; empty if it owns no node of the plan."""
    found: dict[str, Projection] | None = plan.index.memo.get(project)
    if found is None:
        found = plan.index.memo[project] = _projections(plan)
    return found.get(service) or Projection(service, (), (), ())


def _projections(plan: Plan) -> dict[str, Projection]:
    """All at once, since a plan is walked as a whole anyway."""
    index = plan.index
    nodes: dict[str, list[str]] = {service: [] for service in index.services}
    hears: dict[str, dict[str, None]] = {service: {} for service in index.services}
    emits: dict[str, list[Emission]] = {service: [] for service in index.services}
    for node in plan.nodes:
        nodes[node.owner].append(node.id)
        hearers = dict.fromkeys(index.nodes[down].owner for down in index.downs[node.id])
        if node.id in index.stopping:
            hearers[plan.home] = None
        if node.kind == "flow":
            # What became of a child is published by the child's home: the owner hears it as others do.
            hearers = {node.owner: None, **hearers}
        else:
            hearers.pop(node.owner, None)
        for hearer in hearers:
            hears[hearer][node.id] = None
        if hearers or node.kind in PUBLIC or node.id in (ENTRY, EXIT):
            emits[node.owner].append(Emission(node.id, tuple(hearers)))
    return {
        service: Projection(service, tuple(nodes[service]), tuple(hears[service]), tuple(emits[service]))
        for service in index.services
    }
