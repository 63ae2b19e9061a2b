"""`segue restore`: make the store of a participant good that came from a backup."""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated

import msgspec
from cyclopts import Parameter

from segue import compose
from segue.cli import apps
from segue.cli.options import DEFAULTS, Options, execute
from segue.cli.screen import Screen, clean, count
from segue.config import Config
from segue.errors import ConfigError, NotAccepted, NotPermitted, TransportUnavailable
from segue.hooks import open_store
from segue.plan.projection import COORDINATOR
from segue.runtime import serving
from segue.runtime.locate import ask
from segue.runtime.marks import Marks
from segue.runtime.restore import Restored, restore
from segue.runtime.serving import Wiring
from segue.wire.requests import Ask
from segue.wire.subjects import OBSERVER

ANSWER = 2.0
"""Seconds in which a participant that is served would answer."""

_NOBODY = "0" * 32


class RestoredPart(msgspec.Struct, frozen=True):
    """What came of it; `accepted`: the store was taken as it is, and the journal was not looked at."""

    part: str
    accepted: bool
    runs: int
    facts: int
    missing: int


def restore_part(
    part: str,
    /,
    *,
    accept: Annotated[bool, Parameter(help="Take the store as it is: nothing is folded in.", negative="")] = False,
    options: Options = DEFAULTS,
) -> None:
    """Make a participant's store good that came from a backup: fold in what the journal knows, and let it serve again.

    Stop all replicas of the participant first, and let the observer write what it has not yet. Doing it twice, or to a
    store that lacks nothing, is harmless.

    Parameters
    ----------
    part
        Name of a service of the application, or `coordinator`.
    """
    config, screen = options.load(), options.screen
    if part != COORDINATOR:
        app = apps.load(config)
        if part not in app.services:
            names = ", ".join([COORDINATOR, *app.services])
            raise ConfigError(f"app {app.name!r} has no service {part!r}", f"participants: {names}")
    execute(_restore, screen, config, part, accept)


async def _restore(screen: Screen, config: Config, part: str, accept: bool) -> None:
    async with (
        compose.wired(config, "restore") as wiring,
        aclosing(await open_store(config.store_for(part), part)) as store,
    ):
        host = serving.idle(wiring, part, store)
        await _check_quiet(wiring, part)
        if accept:
            marks, found = Marks(host), Restored()
            await marks.find()
            await marks.accept()
        else:
            await _check_observed(wiring, screen)
            async with compose.journal(config) as journal:
                found = await restore(host, journal)
    told = RestoredPart(part, accept, found.runs, found.facts, found.missing)
    what = (
        "its store counts as current, as it is"
        if accept
        else f"{count(found.missing, 'fact')} of {count(found.runs, 'run')} folded in; its store counts as current"
    )
    screen.show(told, lambda: [clean(f"{part}: {what}")])


async def _check_quiet(wiring: Wiring, part: str) -> None:
    try:
        await ask(wiring, part, [Ask(_NOBODY)], ANSWER)
    except TransportUnavailable:
        return
    raise NotAccepted(f"{part} is being served", "stop all of its replicas first")


async def _check_observed(wiring: Wiring, screen: Screen) -> None:
    try:
        backlog = await wiring.transport.backlog("events", OBSERVER)
    except NotPermitted:
        screen.note("this user may not see whether the observer has written everything: see to it")
        return
    if backlog is not None and backlog.waiting + backlog.delivered:
        raise NotAccepted(
            f"the observer has not written {count(backlog.waiting + backlog.delivered, 'message')} yet",
            "let `segue observe` run until it has",
        )
