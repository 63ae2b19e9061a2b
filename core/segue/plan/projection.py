"""Projection: what each participant hears and says, in each mode (endpoint projection of choreographic programming).

Choreographed, a service hears the outcomes of the upstreams of its nodes, except those that it decides itself.
Orchestrated, the coordinator holds all nodes and hears what the services executed.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from segue.plan.graph import EXIT, Plan

Mode = Literal["orchestrated", "choreographed"]
MODES: tuple[Mode, ...] = ("orchestrated", "choreographed")
COORDINATOR = "coordinator"


class Emission(msgspec.Struct, frozen=True):
    """A node whose outcome is published, and the participants that hear it (the observer hears everything)."""

    node: str
    heard_by: tuple[str, ...]


class Projection(msgspec.Struct, frozen=True):
    """The part of a plan that one participant needs.

    Attributes:
        participant: Who.
        nodes: The nodes that it decides, in plan order.
        hears: Nodes of others whose outcomes it must hear, in plan order.
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
    index = plan.index
    nodes = tuple(node.id for node in plan.nodes if node.owner == service)
    mine = frozenset(nodes)
    heard = {up for name in nodes for up in index.ups[name]} - mine
    emits = []
    for name in nodes:
        hearers = tuple(dict.fromkeys(index.nodes[down].owner for down in index.downs[name]))
        others = tuple(hearer for hearer in hearers if hearer != service)
        if others or name == EXIT or index.nodes[name].kind in ("step", "entry"):
            emits.append(Emission(name, others))
    return Projection(service, nodes, tuple(sorted(heard, key=index.order.__getitem__)), tuple(emits))
