"""`segue serve`, `segue coordinator`, `segue scheduler`, `segue observe`: run until a signal says stop.

Stopping is leaving the contexts in order, never a cancellation: a participant that is left finishes what it took and
hands back the rest. So the first signal only sets an event; the second one ends the process at once, which is safe too:
what was not acknowledged comes again.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import anyio
import msgspec
from anyio.abc import TaskStatus

from segue import compose
from segue.cli import apps
from segue.cli.options import DEFAULTS, Options, execute
from segue.cli.program import INTERRUPTED
from segue.cli.screen import Screen, clean, count, span
from segue.config import Config
from segue.errors import ConfigError
from segue.hooks import redact
from segue.model.service import Service
from segue.plan.projection import COORDINATOR
from segue.runtime.observer import Observer
from segue.runtime.participant import Participant
from segue.runtime.process import settle
from segue.runtime.scheduler import Scheduler
from segue.wire.subjects import OBSERVER

SCHEDULER, SCHEDULES = "scheduler", "schedules"
"""What a scheduler is called, and what it counts under."""

PROGRESS = 5.0
"""Seconds between two looks at the counters."""

Counters = Callable[[], Mapping[str, Mapping[str, int]]]
"""By participant: what it did since it started, by what it is called."""


class Ready(msgspec.Struct, frozen=True, tag_field="event", tag="ready"):
    """The first line of a long-running command with `-o json`."""

    names: tuple[str, ...]
    transport: str
    namespace: str


class Progress(msgspec.Struct, frozen=True, tag_field="event", tag="progress"):
    """What participants did since they started; printed when it changed."""

    seconds: float
    counts: Mapping[str, Mapping[str, int]]


class Stopped(msgspec.Struct, frozen=True, tag_field="event", tag="stopped"):
    """The last line: all was left in order."""

    seconds: float
    counts: Mapping[str, Mapping[str, int]]


def serve(service: str, /, *, options: Options = DEFAULTS) -> None:
    """Run a replica of a service, until Ctrl-C or SIGTERM. Run as many as you like.

    Parameters
    ----------
    service
        Name of a service of the application.
    """
    config, screen = options.load(), options.screen
    app = apps.load(config)
    if service not in app.services:
        names = ", ".join(app.services) or "none"
        raise ConfigError(f"app {app.name!r} has no service {service!r}", f"its services: {names}")
    execute(_serve, screen, config, app.hosted()[service])


def coordinator(*, options: Options = DEFAULTS) -> None:
    """Run a coordinator, until Ctrl-C or SIGTERM. Orchestrated runs need one; run several if you like.

    It also starts what is due by schedules.
    """
    execute(_coordinate, options.screen, options.load())


def schedule(*, options: Options = DEFAULTS) -> None:
    """Run a scheduler, until Ctrl-C or SIGTERM: it starts what is due by schedules. Run as many as you like.

    Where a coordinator runs, none is needed.
    """
    execute(_schedule, options.screen, options.load())


def observe(*, options: Options = DEFAULTS) -> None:
    """Run the observer, until Ctrl-C or SIGTERM: it writes the journal, which `runs` and `where` read."""
    execute(_observe, options.screen, options.load())


@asynccontextmanager
async def stop_signal(screen: Screen) -> AsyncIterator[anyio.Event]:
    """An event that the first SIGINT or SIGTERM sets; the second one ends the process at once."""
    stop = anyio.Event()

    async def watch(*, task_status: TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                if stop.is_set():
                    sys.stdout.flush()
                    os._exit(INTERRUPTED)
                stop.set()
                screen.note("stopping in order; once more: at once")

    async with anyio.create_task_group() as tasks:
        await tasks.start(watch)
        yield stop
        tasks.cancel_scope.cancel()


async def report_until(stop: anyio.Event, screen: Screen, counters: Counters, since: float) -> None:
    """Print the counters now and then, when they changed, until the event is set."""
    settle()  # everything is open now
    shown = counters()
    while not stop.is_set():
        with anyio.move_on_after(PROGRESS):
            await stop.wait()
        now = counters()
        if now != shown and not stop.is_set():
            shown = now
            lines = count_lines(now, time.strftime("%H:%M:%S"))
            screen.event(Progress(_passed(since), now), lines.copy)


def say_stopped(screen: Screen, counters: Counters, since: float) -> None:
    """Print the last line."""
    seconds, counts = _passed(since), counters()
    screen.event(Stopped(seconds, counts), lambda: [f"stopped after {span(seconds)}", *count_lines(counts, " ")])


def count_lines(counts: Mapping[str, Mapping[str, int]], label: str) -> list[str]:
    """One line: the counters that are not zero, by participant."""
    parts = [
        f"{name}: " + ", ".join(count(number, what.removesuffix("s")) for what, number in found.items() if number)
        for name, found in counts.items()
        if any(found.values())
    ]
    return [clean(f"{label} {'; '.join(parts)}")] if parts else []


def counts_of(host: Participant) -> dict[str, int]:
    """What a participant did since it started."""
    found = host.counts
    return {"starts": found.started, "events": found.events, "calls": found.calls, "ends": found.ended}


def counts_of_scheduler(scheduler: Scheduler) -> dict[str, int]:
    """What a scheduler did since it started."""
    found = scheduler.counts
    return {"starts": found.started, "skips": found.skipped, "lapses": found.missed, "failures": found.failed}


def counts_of_observer(observer: Observer) -> dict[str, int]:
    """What an observer did since it started."""
    return {"records": observer.written}


async def _serve(screen: Screen, config: Config, service: Service) -> None:
    since = time.monotonic()
    async with stop_signal(screen) as stop:
        async with compose.wired(config, service.name) as wiring, compose.serve(config, wiring, service) as host:
            steps = count(len(service.steps), "step")
            _say_ready(screen, config, service.name, f"{steps}, replica {host.replica}")
            await report_until(stop, screen, lambda: {service.name: counts_of(host)}, since)
        say_stopped(screen, lambda: {service.name: counts_of(host)}, since)


async def _coordinate(screen: Screen, config: Config) -> None:
    since = time.monotonic()
    async with stop_signal(screen) as stop:
        async with (
            compose.wired(config, COORDINATOR) as wiring,
            compose.coordinating(config, wiring) as host,
            Scheduler(wiring).scheduling() as scheduler,
        ):

            def counters() -> dict[str, dict[str, int]]:
                return {COORDINATOR: counts_of(host), SCHEDULES: counts_of_scheduler(scheduler)}

            _say_ready(screen, config, COORDINATOR, f"replica {host.replica}")
            await report_until(stop, screen, counters, since)
        say_stopped(screen, counters, since)


async def _schedule(screen: Screen, config: Config) -> None:
    since = time.monotonic()
    async with stop_signal(screen) as stop:
        async with compose.wired(config, SCHEDULER) as wiring, Scheduler(wiring).scheduling() as scheduler:
            _say_ready(screen, config, SCHEDULER, count(len(wiring.catalog.schedules), "schedule"))
            await report_until(stop, screen, lambda: {SCHEDULES: counts_of_scheduler(scheduler)}, since)
        say_stopped(screen, lambda: {SCHEDULES: counts_of_scheduler(scheduler)}, since)


async def _observe(screen: Screen, config: Config) -> None:
    since = time.monotonic()
    async with stop_signal(screen) as stop:
        async with compose.wired(config, OBSERVER) as wiring, compose.observing(config, wiring) as observer:
            _say_ready(screen, config, OBSERVER, f"journal {redact(config.journal)}")
            await report_until(stop, screen, lambda: {OBSERVER: counts_of_observer(observer)}, since)
        say_stopped(screen, lambda: {OBSERVER: counts_of_observer(observer)}, since)


def _say_ready(screen: Screen, config: Config, name: str, more: str) -> None:
    url = redact(config.transport)
    line = clean(f"{name} is ready: {url}, namespace {config.namespace}, {more}")
    screen.event(Ready((name,), url, config.namespace), lambda: [line])


def _passed(since: float) -> float:
    return round(time.monotonic() - since, 3)
