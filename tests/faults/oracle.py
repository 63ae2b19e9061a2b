"""What must hold after faults: all runs ended, every call had its effect, one counted, and every repeat has a cause.

The effects are counted in a database that the steps write themselves; what counted is read from the results that
clients got, from the undos, and from the journal.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import battered

from segue.ports.journal import Journal
from segue.wire import envelope
from segue.wire.envelope import Ended

Call = tuple[str, str, str, str]
"""Run, node, tag, and whether it was done or undone."""


class Effect(NamedTuple):
    """A row of the table of effects."""

    run: str
    node: str
    tag: str
    what: str
    value: str
    token: str
    pid: int
    began: float
    at: float


class Span(NamedTuple):
    """A fault that may make steps run again: from when until when, and in which process; 0 is any."""

    since: float
    until: float
    pid: int = 0


class Runs(NamedTuple):
    """What clients know: flow and number of each run by id, and how it ended."""

    numbers: dict[str, tuple[str, int]]
    ends: dict[str, Ended]


class Counts(NamedTuple):
    """What was counted."""

    runs: int
    effects: int
    repeated: int


def effects(path: Path) -> dict[Call, list[Effect]]:
    """All effects by call, in the order of time."""
    found: dict[Call, list[Effect]] = defaultdict(list)
    with sqlite3.connect(path) as database:
        for row in database.execute(f"select {battered.COLUMNS} from effect order by at"):
            effect = Effect(*row)
            found[effect[:4]].append(effect)
    return found


def check(path: Path, runs: Runs, faults: Sequence[Span], once: Collection[str] = ()) -> Counts:
    """Compare effects with results.

    Args:
        path: The table of effects.
        runs: What clients know.
        faults: What may have made a step run again: nothing else may.
        once: Nodes whose calls must have exactly one effect, whatever was killed.

    Returns:
        What was counted.
    """
    found = effects(path)
    assert set(runs.ends) == set(runs.numbers), f"{len(runs.numbers) - len(runs.ends)} runs have not ended"
    for run, (flow, number) in runs.numbers.items():
        _check_run(found, run, flow, number, runs.ends[run])
    assert {call[0] for call in found} <= set(runs.numbers), "effects of runs that nobody started"
    repeated = 0
    for call, rows in found.items():
        assert len({row.token for row in rows}) == 1, f"{call} ran with several idempotency keys"
        assert call[1] not in once or len(rows) == 1, f"{call} has {len(rows)} effects"
        for first, second in pairwise(rows):
            repeated += 1
            assert _explained(first, second, faults), f"no fault explains why {second} repeats {first}"
    return Counts(len(runs.ends), sum(map(len, found.values())), repeated)


def _check_run(found: dict[Call, list[Effect]], run: str, flow: str, number: int, ended: Ended) -> None:
    declined = flow == "saga" and number % 8 == 1
    calls = battered.EXPECTED[flow]
    assert ended.status == ("failed" if declined else "completed"), (run, flow, ended)
    for node, tag in calls:
        done = found.get((run, node, tag, "did"), [])
        undone = {row.value for row in found.get((run, node, tag, "undid"), [])}
        if declined and node == "settle":
            assert not done
        else:
            assert done, f"{flow} {number}: {node} {tag} has no effect"
        if declined and node != "settle":
            assert len(undone) == 1, f"{flow} {number}: {node} was undone for {undone}"
            assert undone <= {row.value for row in done}
        else:
            assert not undone, f"{flow} {number}: {node} was undone"
    if not declined:
        counted = set(re.split("[>,|]", json.loads(bytes(ended.value)).rpartition(":")[2]))
        executed = {(node, tag): {row.value for row in found[run, node, tag, "did"]} for node, tag in calls}
        assert len(counted) == len(calls), f"{flow} {number} has {ended.value!r}"
        for call, values in executed.items():
            assert len(counted & values) == 1, f"{flow} {number}: {call} counts {counted & values} of {values}"


def _explained(first: Effect, second: Effect, faults: Sequence[Span]) -> bool:
    """Whether a fault lies between the beginning of one execution and the end of the next.

    A kill explains what is executed after it; a freeze also what the frozen process itself executes late.
    """
    return any(
        fault.pid in ((0, first.pid, second.pid) if fault.until > fault.since else (first.pid,))
        and fault.since <= second.at
        and fault.until >= first.began
        for fault in faults
    )


async def check_history(journal: Journal, runs: Runs) -> int:
    """Compare the journal with the results: a whole history of each run, and one outcome of each call.

    Returns:
        How many events it holds.
    """
    count = 0
    for run, (flow, number) in runs.numbers.items():
        events = [envelope.decode(entry.body) for entry in await journal.history(run)]
        count += len(events)
        outcomes: dict[tuple[str, str], set[tuple[str, bytes]]] = defaultdict(set)
        for event in events:
            if event.kind in envelope.OUTCOMES:
                outcomes[event.node + ("/" + event.kind) * (event.node == "run"), event.tag].add(
                    (event.kind, bytes(event.data))
                )
        for place, values in outcomes.items():
            assert len(values) == 1, f"{flow} {number}: {place} is {values}"
        wanted = {("run/started", ""), ("run/ended", ""), *battered.EXPECTED[flow]}
        assert wanted <= set(outcomes), f"{flow} {number}: the journal lacks {wanted - set(outcomes)}"
    return count
