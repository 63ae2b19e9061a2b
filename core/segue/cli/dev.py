"""`segue dev`: a whole app in one process, with the bundled broker if there is one.

The broker listens where the configuration says, if that is a free port of this machine: so the other commands, in the
same folder, find it without a flag. Else it takes a free port, and `dev` says which flag the others need.
"""

from __future__ import annotations

import fcntl
import json
import shlex
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from segue import compose
from segue.cli import apps
from segue.cli.hosting import (
    SCHEDULES,
    counts_of,
    counts_of_observer,
    counts_of_scheduler,
    report_until,
    say_stopped,
    stop_signal,
)
from segue.cli.options import DEFAULTS, Options, execute
from segue.cli.planning import FlowDeployed, deploy_flows, deployed, deployed_lines
from segue.cli.samples import sample
from segue.cli.schedules import schedule_lines
from segue.cli.screen import Screen, clean
from segue.config import Config
from segue.errors import ConfigError, PluginError
from segue.hooks import adapters, redact
from segue.model.app import App
from segue.plan.projection import COORDINATOR
from segue.runtime import schedules
from segue.runtime.deploy import Deployed
from segue.runtime.scheduler import Scheduler
from segue.runtime.schedules import ScheduleDeployed
from segue.wire.subjects import OBSERVER

if TYPE_CHECKING:
    from segue.cli.screen import Line

FOLDER = ".segue"
_MEMORY = "memory://dev"


class Broker(NamedTuple):
    """Where this process and others meet: what it is, in words, and whether other processes reach it."""

    url: str
    words: str
    shared: bool


class DevReady(msgspec.Struct, frozen=True, tag_field="event", tag="ready"):
    """The first line of `segue dev -o json`; `shared`: other processes reach the broker."""

    names: tuple[str, ...]
    transport: str
    namespace: str
    shared: bool
    flows: tuple[FlowDeployed, ...]
    schedules: tuple[ScheduleDeployed, ...]


def dev(app: str | None = None, /, *, options: Options = DEFAULTS) -> None:
    """Run a whole app here: broker, coordinator, all services, observer; deploys its flows. Until Ctrl-C or SIGTERM.

    Parameters
    ----------
    app
        The application, as module:attribute; default: the configured one.
    """
    if app is not None:
        options = Options(**{**vars(options), "app": app})
    config, screen = options.load(), options.screen
    loaded = apps.load(config)
    folder = (config.file.parent if config.file else Path.cwd()) / FOLDER
    with _alone(folder):
        execute(_dev, screen, config, loaded, folder, options)


async def _dev(screen: Screen, config: Config, app: App, folder: Path, options: Options) -> None:
    since = time.monotonic()
    async with stop_signal(screen) as stop:
        async with AsyncExitStack() as stack:
            broker = await stack.enter_async_context(_broker(config, folder))
            inside = _inside(config, broker)
            wiring = await stack.enter_async_context(compose.wired(inside, "dev"))
            hosts = [await stack.enter_async_context(compose.coordinating(inside, wiring))]
            for service in app.hosted().values():
                host = await stack.enter_async_context(compose.serve(inside, wiring, service))
                hosts.append(host)
            observer = await stack.enter_async_context(compose.observing(inside, wiring))
            # After the services: flows are checked against what they offer now, not what they offered last time.
            done = await deploy_flows(inside, wiring, app)
            planned = await schedules.deploy(wiring.catalog, app)
            scheduler = await stack.enter_async_context(Scheduler(wiring).scheduling())

            def counters() -> dict[str, dict[str, int]]:
                found = {host.name: counts_of(host) for host in hosts}
                return found | {SCHEDULES: counts_of_scheduler(scheduler), OBSERVER: counts_of_observer(observer)}

            names = (COORDINATOR, *app.services, OBSERVER)
            flows = tuple(map(deployed, done))
            ready = DevReady(names, redact(broker.url), inside.namespace, broker.shared, flows, tuple(planned))
            flags = _flags(config, broker, options)
            screen.event(ready, lambda: _ready_lines(app, broker, inside, done, planned, flags))
            await report_until(stop, screen, counters, since)
        say_stopped(screen, counters, since)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two of these in one folder would share its state and not its broker."""
    try:
        folder.mkdir(0o700, parents=True, exist_ok=True)
        ignore = folder / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
        lock = (folder / "dev.lock").open("a")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}", "run it in a folder of your own") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another `segue dev` runs with the state in {folder}", "stop it first") from None
        yield


@asynccontextmanager
async def _broker(config: Config, folder: Path) -> AsyncIterator[Broker]:
    scheme = config.transport.partition(":")[0]
    run = adapters().brokers.get(scheme)
    if run is None:
        memory = scheme == "memory"
        yield Broker(config.transport, "this process only" if memory else "as configured", shared=not memory)
        return
    async with AsyncExitStack() as stack:
        try:
            url = await stack.enter_async_context(run(folder / scheme, config.transport))
        except PluginError as error:
            found = Broker(_MEMORY, f"this process only, because {error.message}; {error.hint}", shared=False)
        else:
            found = Broker(url, f"a {scheme} server of its own", shared=True)
        yield found


def _inside(config: Config, broker: Broker) -> Config:
    """The configuration of this process; without a durable broker, stores that outlive it would make no sense."""
    if broker.url != _MEMORY:
        return msgspec.structs.replace(config, transport=broker.url)
    services = {name: msgspec.structs.replace(found, store="") for name, found in config.services.items()}
    return msgspec.structs.replace(config, transport=_MEMORY, store=_MEMORY, services=services)


def _flags(config: Config, broker: Broker, options: Options) -> str:
    """The flags that other commands need to find this broker."""
    given = {name: getattr(options, name) for name in ("config", "transport", "journal", "namespace")}
    if broker.url != config.transport:
        given["transport"] = broker.url
    return "".join(f" --{name} {shlex.quote(value)}" for name, value in given.items() if value)


def _ready_lines(
    app: App,
    broker: Broker,
    config: Config,
    done: Sequence[Deployed],
    planned: Sequence[ScheduleDeployed],
    flags: str,
) -> list[Line]:
    texts = [
        f"{app.name} is ready on {redact(broker.url)} ({broker.words}), namespace {config.namespace}",
        f"journal {redact(config.journal)}",
        f"running {', '.join((COORDINATOR, *app.services, OBSERVER))}",
        "",
    ]
    lines = [*map(clean, texts), *deployed_lines(done)]
    if planned:
        lines += ["", *schedule_lines(planned)]
    if not broker.shared:
        return [*lines, "", "No other process can reach this broker: `segue start` needs a shared one."]
    tries = []
    for each in done[:1]:
        text = json.dumps(sample(apps.plan_of(app.flows[each.flow])), ensure_ascii=False)
        other = "orchestrated" if each.mode == "choreographed" else "choreographed"
        tries = [
            f"segue start {each.flow} --input {shlex.quote(text)} --wait{flags}",
            f"segue runs{flags}",
            f"segue where KEY{flags}",
            f"segue mode {each.flow} {other}{flags}",
        ]
    return [*lines, "", "Try, in another terminal here:", *(clean(f"  {line}") for line in tries), "", "Ctrl-C stops."]
