"""Deploying: a plan is checked against the contracts and published, then filters are widened, then it is announced.

The order matters: the durables' filters hold the new plan's subjects before any run of it can begin; nothing earlier
matters to a new plan. Filters are the union over all published plans: runs of old plans end on theirs. Only deploying
sets filters. Of two deploys at the same time each publishes before it sets filters, and looks again afterwards, so
whoever sets them last has seen the other's plans.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from segue.errors import ContractMismatch, PlanError
from segue.plan.check import compatible, problems
from segue.plan.graph import Plan
from segue.plan.projection import COORDINATOR, Mode
from segue.ports.transport import Group, Transport
from segue.runtime.catalog import Catalog
from segue.wire.records import FlowRecord
from segue.wire.subjects import OBSERVER, Subjects

KEY_LIFETIME = 7 * 86400.0


class Deployed(msgspec.Struct, frozen=True):
    """What deploying one flow did. `unknown`: services that have not run yet, so that nothing could be checked."""

    flow: str
    plan: str
    mode: Mode
    previous_plan: str
    previous_mode: str
    unknown: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything is different now."""
        return (self.plan, self.mode) != (self.previous_plan, self.previous_mode)


async def deploy(
    transport: Transport,
    catalog: Catalog,
    subjects: Subjects,
    flows: Sequence[tuple[Plan, Mode]],
    key_lifetime: float = KEY_LIFETIME,
) -> list[Deployed]:
    """Publish plans, so that new runs take them. All flows are checked before anything changes.

    Args:
        transport: Where groups are declared.
        catalog: The registry's copy; must be following.
        subjects: The namespace's subjects.
        flows: Plans with the mode that new runs get.
        key_lifetime: Seconds for which a key is looked for at the other placement after a change of mode.

    Raises:
        PlanError: A plan is not well formed.
        ContractMismatch: A plan does not fit what a running service offers.
    """
    unknown = [check(plan, catalog) for plan, _ in flows]
    plans = [plan for plan, _ in flows]
    for plan in plans:
        await catalog.publish(plan)
    await _widen(transport, subjects, plans)
    done = []
    for (plan, mode), missing in zip(flows, unknown, strict=True):
        before = catalog.flows.get(plan.flow)
        await catalog.announce(_record(plan.flow, plan.hash, mode, key_lifetime, before))
        done.append(
            Deployed(plan.flow, plan.hash, mode, before.plan if before else "", before.mode if before else "", missing)
        )
    await _widen(transport, subjects, plans)
    return done


async def set_mode(catalog: Catalog, flow: str, mode: Mode, key_lifetime: float = KEY_LIFETIME) -> Deployed:
    """Set the mode of a deployed flow's new runs; runs under way end in the mode in which they began.

    Raises:
        UnknownFlow: The flow is not deployed.
    """
    before = catalog.flow(flow)
    await catalog.announce(_record(flow, before.plan, mode, key_lifetime, before))
    return Deployed(flow, before.plan, mode, before.plan, before.mode)


def check(plan: Plan, catalog: Catalog) -> tuple[str, ...]:
    """Check a plan by itself and against what services offer.

    Returns:
        Services that never ran, so that their contracts could not be checked.

    Raises:
        PlanError: The plan is not well formed.
        ContractMismatch: It does not fit what a service offers.
    """
    wrong = problems(plan)
    if wrong:
        raise PlanError(f"plan of {plan.flow!r} is not well formed: {wrong[0]}")
    report = compatible(plan, {name: record.contracts for name, record in catalog.services.items()})
    if report.problems:
        texts = "; ".join(str(problem) for problem in report.problems)
        raise ContractMismatch(
            f"flow {plan.flow!r} does not fit its services: {texts}",
            "deploy the service that offers this first, or change the flow",
        )
    return tuple(report.unknown)


async def _widen(transport: Transport, subjects: Subjects, new: Sequence[Plan]) -> None:
    """Set filters from what the registry says now, until it says nothing new: somebody else may deploy meanwhile."""
    for name in (COORDINATOR, OBSERVER):
        await transport.declare(Group("events", name, subjects.events_of(name)))
    await declare(transport, subjects, sorted({service for plan in new for service in plan.index.services}))


async def declare(transport: Transport, subjects: Subjects, services: Sequence[str]) -> None:
    """Declare the groups of services as the registry says now, until it says nothing new.

    Args:
        transport: Where.
        subjects: The namespace's subjects.
        services: Their names.
    """
    for service in services:
        await transport.declare(Group("commands", service, subjects.commands_of(service)))
    plans: set[str] = set()
    while True:
        async with Catalog(transport.registry).following() as fresh:
            if fresh.plans.keys() <= plans:
                return
            plans = set(fresh.plans)
        for service in services:
            heard = {pattern for plan in fresh.plans.values() for pattern in subjects.heard(plan, service)}
            if heard:
                await transport.declare(Group("events", service, tuple(sorted(heard))))


def _record(flow: str, plan: str, mode: Mode, key_lifetime: float, before: FlowRecord | None) -> FlowRecord:
    changed = before.changed if before is not None else None
    if before is not None and before.mode != mode:
        changed = datetime.now(UTC)
    return FlowRecord(flow, plan, mode, changed, key_lifetime)
