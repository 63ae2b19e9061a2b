"""`segue purge`: forget runs that are long over, at every participant that answers, and in the journal."""

from __future__ import annotations

import time
from typing import Annotated

import msgspec
from cyclopts import Parameter

from segue import compose
from segue.cli.options import DEFAULTS, Options, execute
from segue.cli.screen import Screen, clean, table
from segue.config import Config, duration
from segue.errors import ConfigError, SegueError
from segue.plan.projection import COORDINATOR
from segue.runtime.locate import ask
from segue.runtime.purge import in_words, purge_journal
from segue.runtime.serving import Wiring
from segue.wire.requests import Purge, Purged, Refused

JOURNAL = "journal"
ANSWER = 60.0
"""Seconds to wait for a participant that deletes."""

INCOMPLETE = 1


class PurgedAt(msgspec.Struct, frozen=True):
    """A line of `segue purge`: what was forgotten where, or why nothing was.

    `runs` are over and forgotten, with their `rows`; `open` are old, but not over for so long; of `unsure` nobody could
    say whether they are over.
    """

    where: str
    runs: int = 0
    rows: int = 0
    open: int = 0
    unsure: int = 0
    error: str = ""


def purge(
    *,
    before: Annotated[str, Parameter(help="How long they are over: 45d, 12h; by default as configured.")] = "",
    flow: Annotated[str, Parameter(help="Only runs of this flow.")] = "",
    dry_run: Annotated[bool, Parameter(help="Change nothing, and only count.", negative="")] = False,
    options: Options = DEFAULTS,
) -> int:
    """Forget runs that ended long ago: what participants recorded, large values, history.

    Participants and the observer do it by themselves (retention.state, retention.journal); this does it now. Runs that
    are open are never touched, and nothing is forgotten earlier than configured. Exits with 1 if somebody is silent.
    """
    config, screen = options.load(), options.screen
    age = duration(before, " (--before)") if before else 0.0
    if not (before or config.retention.state or config.retention.journal):
        raise ConfigError("runs are kept for ever (retention.state and retention.journal are 0)", "give --before")
    found: list[PurgedAt] = execute(_purge, screen, config, Purge(age, flow, dry_run))
    return INCOMPLETE if any(line.error for line in found) else 0


async def _purge(screen: Screen, config: Config, request: Purge) -> list[PurgedAt]:
    kept, found = config.retention, []
    async with compose.wired(config, "purge") as wiring:
        state = request.before or kept.state
        if state:
            asked = msgspec.structs.replace(request, before=state)
            found += [await _at(wiring, name, asked) for name in _participants(wiring)]
    history = request.before or kept.journal
    if history:
        if history < kept.journal:
            error = f"the journal keeps runs for {in_words(kept.journal)} after their end (retention.journal)"
            found.append(PurgedAt(JOURNAL, error=error))
        else:
            async with compose.journal(config) as journal:
                done = await purge_journal(journal, time.time() - history, request.flow, request.dry)
            found.append(_line(JOURNAL, [done]))
    rows = [
        (clean(line.where), str(line.runs), str(line.rows), str(line.open), str(line.unsure), clean(line.error))
        for line in found
    ]
    head = ("where", "over" if request.dry else "forgotten", "rows", "open", "unsure", "")
    screen.show(found, lambda: table(head, rows))
    return found


def _participants(wiring: Wiring) -> list[str]:
    """All services, and the coordinator if it may have runs."""
    flows = wiring.catalog.flows.values()
    orchestrated = any(record.mode == "orchestrated" or record.changed is not None for record in flows)
    return [*([COORDINATOR] if orchestrated else []), *sorted(wiring.catalog.services)]


async def _at(wiring: Wiring, name: str, request: Purge) -> PurgedAt:
    """Let a participant forget, until it has looked at all old runs."""
    parts: list[Purged] = []
    while not parts or parts[-1].after:
        after = parts[-1].after if parts else ""
        try:
            [reply] = await ask(wiring, name, [msgspec.structs.replace(request, after=after)], ANSWER if parts else 5.0)
        except SegueError as error:
            return msgspec.structs.replace(_line(name, parts), error=error.message)
        if not isinstance(reply, Purged):
            reason = reply.reason if isinstance(reply, Refused) else f"answered with {type(reply).__name__}"
            return msgspec.structs.replace(_line(name, parts), error=reason)
        parts.append(reply)
    return _line(name, parts)


def _line(name: str, parts: list[Purged]) -> PurgedAt:
    sums = (sum(getattr(part, field) for part in parts) for field in ("runs", "rows", "open", "unsure"))
    return PurgedAt(name, *sums)
