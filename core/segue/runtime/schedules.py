"""Schedules in the registry: deployed with an app or added by hand, paused, resumed and removed."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Literal

import msgspec

from segue.errors import DeclarationError, TransportUnavailable
from segue.model.app import App
from segue.model.schedule import Schedule
from segue.plan.graph import Plan
from segue.runtime.catalog import Catalog
from segue.runtime.input import bind
from segue.schedule.timetable import EPOCH
from segue.wire.records import FlowRecord
from segue.wire.schedules import ScheduleRecord

Change = Literal["new", "changed", "as it was", "removed"]


class ScheduleDeployed(msgspec.Struct, frozen=True):
    """What deploying did to one schedule."""

    schedule: str
    flow: str
    change: Change


def record_of(schedule: Schedule, app: str) -> ScheduleRecord:
    """The record of a declared schedule, from now on."""
    return ScheduleRecord(
        schedule.name,
        schedule.flow.name,
        schedule.timing,
        datetime.now(UTC),
        schedule.overlap,
        schedule.patience,
        schedule.arguments,
        schedule.due_as,
        app,
    )


async def deploy(catalog: Catalog, app: App, flows: Collection[str] = ()) -> list[ScheduleDeployed]:
    """Set an app's schedules; those that it declares no more are removed. Its flows must be deployed.

    A schedule that is paused stays so. Due times of a schedule that is new, or due at other times than before, count
    from now on.

    Args:
        catalog: The registry's copy; must be following.
        app: The app.
        flows: Only schedules of these flows; none: all.

    Raises:
        UnknownFlow: A flow is not deployed.
        InvalidInput: The input of a schedule does not fit its flow; nothing was changed.
        DeclarationError: Another app, or somebody by hand, has a schedule of such a name; nothing was changed.
    """
    declared = {
        schedule.name: record_of(schedule, app.name)
        for schedule in app.schedules.values()
        if not flows or schedule.flow.name in flows
    }
    for record in declared.values():
        _check_owner(catalog, record)
        await check(catalog, record)
    done = []
    for record in declared.values():
        before = catalog.schedules.get(record.name)
        if before is not None:
            since = before.since if _same_times(before, record) else record.since
            record = msgspec.structs.replace(record, since=since, paused=before.paused)
        await catalog.set_schedule(record)
        change: Change = "new" if before is None else "as it was" if before == record else "changed"
        done.append(ScheduleDeployed(record.name, record.flow, change))
    for record in _gone(catalog.schedules.values(), app, flows):
        await catalog.drop_schedule(record.name)
        done.append(ScheduleDeployed(record.name, record.flow, "removed"))
    return done


async def add(catalog: Catalog, record: ScheduleRecord) -> None:
    """Add a schedule by hand.

    Raises:
        UnknownFlow: Its flow is not deployed.
        InvalidInput: Its input does not fit the flow.
        DeclarationError: There is one of this name.
    """
    if record.name in catalog.schedules:
        raise DeclarationError(
            f"there is a schedule {record.name!r} already", f"segue schedule remove {record.name}, or take another name"
        )
    await check(catalog, record)
    await catalog.set_schedule(record)


async def remove(catalog: Catalog, name: str) -> ScheduleRecord:
    """Remove a schedule; runs under way go on.

    Raises:
        UnknownSchedule: There is none of this name.
    """
    record = catalog.schedule(name)
    await catalog.drop_schedule(name)
    return record


async def set_paused(catalog: Catalog, name: str, paused: bool) -> ScheduleRecord:
    """Pause a schedule, so that nothing is started, or resume it: due times count from now on.

    Raises:
        UnknownSchedule: There is none of this name.
    """
    record = catalog.schedule(name)
    if record.paused != paused:
        since = record.since if paused else datetime.now(UTC)
        record = msgspec.structs.replace(record, paused=paused, since=since)
        await catalog.set_schedule(record)
    return record


async def check(catalog: Catalog, record: ScheduleRecord) -> None:
    """Check a schedule's input against its flow.

    Raises:
        UnknownFlow: The flow is not deployed.
        InvalidInput: The input does not fit.
    """
    _, plan = await target(catalog, record)
    bind(None, plan, (), record.arguments(EPOCH))


async def target(catalog: Catalog, record: ScheduleRecord) -> tuple[FlowRecord, Plan]:
    """The flow that a schedule starts, as it is deployed now.

    Raises:
        UnknownFlow: It is not deployed.
        TransportUnavailable: Its plan is not in the registry.
    """
    flow = catalog.flow(record.flow)
    plan = await catalog.plan(flow.plan)
    if plan is None:
        raise TransportUnavailable(f"plan {flow.plan} of flow {flow.flow!r} is not in the registry", "deploy it again")
    return flow, plan


def _check_owner(catalog: Catalog, record: ScheduleRecord) -> None:
    before = catalog.schedules.get(record.name)
    if before is not None and before.app != record.app:
        owner = f"of app {before.app!r}" if before.app else "that was added by hand"
        raise DeclarationError(
            f"there is a schedule {record.name!r} {owner}", f"segue schedule remove {record.name}, or rename this one"
        )


def _same_times(before: ScheduleRecord, after: ScheduleRecord) -> bool:
    return (before.flow, before.timing) == (after.flow, after.timing)


def _gone(records: Iterable[ScheduleRecord], app: App, flows: Collection[str]) -> list[ScheduleRecord]:
    return [
        record
        for record in records
        if record.app == app.name and record.name not in app.schedules and (not flows or record.flow in flows)
    ]
