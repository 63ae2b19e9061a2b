"""The events that announce what a participant decided, or what an attempt came to."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from segue.machine.facts import AnyFact
from segue.runtime.work import Returned, RunRef
from segue.wire import envelope
from segue.wire.envelope import Event
from segue.wire.said import Said, say


def said_again(event: Event, raw: bytes, redrive: int) -> tuple[Event, bytes]:
    """An event as it is published under a redrive: another body, or a broker drops it as a repeat of what was lost."""
    if redrive == event.redrive:
        return event, raw
    event = msgspec.structs.replace(event, redrive=redrive)
    return event, envelope.encode(event)


def make_event(run: RunRef, fact: AnyFact, source: str, time: datetime, **more: Any) -> Event:
    """The event that announces a fact."""
    said = say(fact)
    return _event(run, said, source, time, said.id(run.id), **more)


def result_event(item: Returned, source: str, time: datetime) -> Event:
    """The event that announces what an attempt came to."""
    job = item.job
    said = Said(job.key.node, job.key.tag, job.revision, item.kind, item.data)
    kind = item.kind
    if kind == envelope.ATTEMPT_FAILED:
        # A node fails for good once, but may fail to be retried often.
        kind = f"{kind}/{job.attempt}" + ("/undo" if job.undo else "")
    name = envelope.event_id(job.run.id, job.key.node, job.key.tag, job.revision, kind)
    more = {"attempt": job.attempt, "began": item.began, "traceparent": item.traceparent}
    return _event(job.run, said, source, time, name, **more)


def _event(run: RunRef, said: Said, source: str, time: datetime, name: str, **more: Any) -> Event:
    of = Origin(run.id, run.plan.hash, run.plan.flow, run.key)
    return announced(of, said, source, time, name, epoch=run.epoch, **more)


class Origin(NamedTuple):
    """The run that an event is about, for those who do not have its plan."""

    run: str
    plan: str
    flow: str
    key: str


def announced(of: Origin, said: Said, source: str, time: datetime, name: str, **more: Any) -> Event:
    """The event that says something."""
    return Event(
        id=name,
        source=source,
        type=envelope.TYPE + said.kind,
        subject=f"{of.flow}/{said.node}",
        time=time,
        run=of.run,
        plan=of.plan,
        flow=of.flow,
        node=said.node,
        specversion=envelope.SPEC,
        data=msgspec.Raw(said.data),
        tag=said.tag,
        revision=said.revision,
        winners=said.winners,
        key=of.key,
        **more,
    )
