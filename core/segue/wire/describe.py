"""Who hears whom, in both modes: the projections of a plan with their subjects, for people and machines."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from segue.plan.graph import ENTRY, EXIT, RUN, Plan
from segue.plan.projection import COORDINATOR, PUBLIC, holder, project
from segue.wire.said import public_node
from segue.wire.subjects import Subjects

LISTED = 12
"""Most lines of one kind in a text report; the rest is counted."""


class Heard(msgspec.Struct, frozen=True):
    """A subscription: the outcomes of `node`, decided by `source`."""

    subject: str
    node: str
    source: str


class Said(msgspec.Struct, frozen=True):
    """A publication: the outcomes of `node`, and who hears them (besides the observer)."""

    subject: str
    node: str
    heard_by: tuple[str, ...]


class Told(msgspec.Struct, frozen=True):
    """A command and the nodes that it is sent for."""

    subject: str
    service: str
    nodes: tuple[str, ...]


class ServicePart(msgspec.Struct, frozen=True):
    """What a service does in a choreographed run. `accepts`: starts of the flow are accepted here."""

    service: str
    accepts: bool
    nodes: tuple[str, ...]
    hears: tuple[Heard, ...]
    says: tuple[Said, ...]


class CoordinatorPart(msgspec.Struct, frozen=True):
    """What the coordinator does in an orchestrated run; `hears` are subjects that it shares between all flows."""

    hears: tuple[str, ...]
    tells: tuple[Told, ...]


class Traffic(msgspec.Struct, frozen=True):
    """What one run costs on the wire if each of its steps runs once; events that are ready together share a message.

    Attributes:
        commands: Calls sent to services.
        events: Outcomes published.
        deliveries: Commands and events handed to a participant, the observer not counted.
    """

    commands: int
    events: int
    deliveries: int


class Report(msgspec.Struct, frozen=True):
    """A plan, as its participants see it; `notices` is the subject that all its services hear besides the others."""

    flow: str
    plan: str
    home: str
    notices: str
    choreographed: tuple[ServicePart, ...]
    choreographed_traffic: Traffic
    orchestrated: CoordinatorPart
    orchestrated_traffic: Traffic


def describe(plan: Plan, subjects: Subjects) -> Report:
    """Who hears and says what in each mode.

    Args:
        plan: The plan to describe.
        subjects: The namespace that it is deployed in.
    """
    parts = tuple(_service(plan, subjects, service) for service in plan.index.services)
    says = [said for part in parts for said in part.says]
    told: dict[tuple[str, str], list[str]] = {}
    for node in plan.nodes:
        if node.kind == "step":
            told.setdefault((node.owner, node.step), []).append(node.id)
    steps = sum(map(len, told.values()))
    children = sum(node.kind == "flow" for node in plan.nodes)
    published = sum(node.kind in PUBLIC or node.id in (ENTRY, EXIT) for node in plan.nodes)
    return Report(
        flow=plan.flow,
        plan=plan.hash,
        home=plan.home,
        notices=subjects.notices("choreographed", plan.flow),
        choreographed=parts,
        choreographed_traffic=Traffic(0, len(says), sum(len(said.heard_by) for said in says)),
        orchestrated=CoordinatorPart(
            subjects.events_of(COORDINATOR),
            tuple(Told(subjects.command(*call), call[0], tuple(nodes)) for call, nodes in sorted(told.items())),
        ),
        orchestrated_traffic=Traffic(steps, published, 2 * steps + children),
    )


def _service(plan: Plan, subjects: Subjects, service: str) -> ServicePart:
    projection, index = project(plan, service), plan.index
    _, *patterns = subjects.heard(plan, service)
    return ServicePart(
        service=service,
        accepts=holder(plan, "choreographed") == service,
        nodes=projection.nodes,
        hears=tuple(
            Heard(subject, public_node(name), index.nodes[name].owner)
            for subject, name in zip(patterns, projection.hears, strict=True)
        ),
        says=tuple(
            Said(_subject(plan, subjects, emission.node), public_node(emission.node), emission.heard_by)
            for emission in projection.emits
        ),
    )


def _subject(plan: Plan, subjects: Subjects, node: str) -> str:
    kind = {ENTRY: "started", EXIT: "ended"}.get(node, "*")
    return subjects.event("choreographed", plan.flow, public_node(node), kind)


def text(report: Report, limit: int = LISTED) -> str:
    """A report for people.

    Args:
        report: What `describe` found.
        limit: Most subscriptions, publications and commands listed of each participant; the rest is counted.
    """
    cost = report.choreographed_traffic
    lines = [f"{report.flow} choreographed: {_count(cost.events, 'event')}, {_deliveries(cost)} in a run"]
    for part in report.choreographed:
        home = ", accepts starts" if part.accepts else ""
        lines.append(
            f"  {part.service}{home}: decides {_some([_shown(node) for node in part.nodes if ':' not in node])}"
        )
        hears = [(heard.subject, f"from {heard.source}") for heard in part.hears]
        says = [(said.subject, f"to {_some(said.heard_by)}" if said.heard_by else "") for said in part.says]
        lines += _table([("hears", hears), ("says", says)], limit)
    lines.append(f"  all of them hear {report.notices}: stops, undo, pauses, retries and signals")
    cost = report.orchestrated_traffic
    counts = f"{_count(cost.commands, 'command')}, {_count(cost.events, 'event')}, {_deliveries(cost)}"
    lines += ["", f"{report.flow} orchestrated: {counts} in a run", f"  {COORDINATOR}, accepts starts: decides all"]
    heard = [(subject, "") for subject in report.orchestrated.hears]
    tells = [(told.subject, f"for {_some(told.nodes)}") for told in report.orchestrated.tells]
    lines += _table([("hears", heard), ("tells", tells)], limit)
    return "\n".join(lines) + "\n"


def _table(parts: Sequence[tuple[str, Sequence[tuple[str, str]]]], limit: int) -> list[str]:
    width = max((len(subject) for _, rows in parts for subject, _ in rows[:limit]), default=0)
    lines = []
    for verb, rows in parts:
        lines += [f"    {verb:<5}  {subject:<{width}}  {who}".rstrip() for subject, who in rows[:limit]]
        if len(rows) > limit:
            lines.append(f"    {verb:<5}  … {len(rows) - limit:,} more")
    return lines


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4:,} more" if len(names) > 4 else "")


def _shown(node: str) -> str:
    return {ENTRY: f"{RUN}.started", EXIT: f"{RUN}.ended"}.get(node, node)


def _deliveries(cost: Traffic) -> str:
    return f"{cost.deliveries:,} {'delivery' if cost.deliveries == 1 else 'deliveries'}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
