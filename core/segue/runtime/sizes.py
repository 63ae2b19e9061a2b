"""How large runs become: what a map or a loop would add beyond the limits is not begun, and the run is told why.

Only maps and loops let a run grow beyond its plan, so they are looked at when a map opens and when a round begins. Each
participant counts the places of items and rounds that it recorded, in the tally of the run as a whole; what a map will
add is taken into account at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from segue.config import LimitsConfig
from segue.machine import tags
from segue.machine.facts import Cause, Fact, Failure, Outcome
from segue.machine.routes import items
from segue.plan.graph import RUN, Construct, Plan
from segue.ports.store import Cell, Join
from segue.runtime.lately import Lately

if TYPE_CHECKING:
    from segue.runtime.work import RunRef

KNOWN = 4_000
"""Runs whose size a process remembers."""


def counter(run: str) -> Join:
    """The tally of a run's places in maps and loops."""
    return Join(run, RUN, "", 0)


def feeds(cell: Cell) -> bool:
    """Whether a cell counts for a join, and not only for the size of its run."""
    return bool(cell.joins) and cell.joins[0].node != RUN


class Sizes:
    """The sizes of runs, as far as this process knows.

    Args:
        limits: How large they may be.
    """

    def __init__(self, limits: LimitsConfig) -> None:
        self._limits = limits
        self._known: Lately[str, int] = Lately(KNOWN)

    def hear(self, tallies: Mapping[Join, int]) -> dict[Join, int]:
        """Take the counts of runs out of what a commit found; the rest are joins."""
        rest = {}
        for join, count in tallies.items():
            if join.node == RUN:
                self._set(join.run, count)
            else:
                rest[join] = count
        return rest

    def limited(self, run: RunRef, fact: Fact) -> Fact | None:
        """The failure that a decision becomes because of the limits, if it does; else what it adds is counted."""
        node = run.plan.index.nodes[fact.key.node]
        if fact.outcome.kind != "completed" or node.kind not in ("open", "entry") or not node.construct:
            return None
        construct = run.plan.index.construct(node)
        number = len(items(fact.outcome)) if node.kind == "open" else 1
        if construct.kind != ("each" if node.kind == "open" else "repeat"):
            return None
        known = self._known.get(run.id) or 0
        added = number * places(run.plan, construct)
        if node.kind == "open" and number > self._limits.items:
            return _failed(
                fact,
                "TooManyItems",
                f"{construct.id} has {number:,} items; limits.items allows {self._limits.items:,}: "
                "hand each item a part of the list, or raise the limit",
            )
        if known + added > self._limits.nodes:
            what = f"{number:,} items" if node.kind == "open" else f"round {tags.last(fact.key.tag) + 1:,}"
            return _failed(
                fact,
                "TooManyNodes",
                f"with {what} of {construct.id} the run has {known + added:,} places; limits.nodes allows "
                f"{self._limits.nodes:,}: let runs of another flow do parts of the work, or raise the limit",
            )
        self._set(run.id, known + added)
        return None

    def _set(self, run: str, count: int) -> None:
        self._known.add([(run, max(count, self._known.get(run) or 0))])


def places(plan: Plan, construct: Construct) -> int:
    """How many nodes one item or round of a construct has, with those of what stands in it once."""
    index = plan.index
    inside = [name for name, scopes in index.scopes.items() if set(construct.bodies) & set(scopes)]
    return sum(node.region in inside for node in plan.nodes)


def _failed(fact: Fact, kind: str, message: str) -> Fact:
    causes = (Cause(*fact.key, Failure(kind, message)),)
    return fact._replace(outcome=Outcome("failed", causes=causes))
