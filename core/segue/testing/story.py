"""What happened in a run, as whoever watched it can tell, and how the run looked in each of its revisions."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import msgspec

from segue.machine.facts import DEAD, Cause, Key, Outcome, Reason
from segue.plan.graph import RUN, Plan
from segue.testing.reach import revision_of
from segue.testing.tables import tables
from segue.testing.verdicts import handled

Place = tuple[Key, int]
"""A node with its tag, and the revision that decided it."""

Scope = tuple[str, str, int]
"""A region with its tag, and the revision in which it was stopped."""


class Violation(AssertionError):
    """Something does not hold that must hold in every run."""


class End(NamedTuple):
    """How a revision of a run ended.

    `calls` and `undos`: how many entries of `Story.calls` and `Story.undos` there were at that moment.
    """

    revision: int
    status: str
    causes: tuple[Cause, ...] = ()
    calls: int | None = None
    undos: int | None = None


class Story(msgspec.Struct):
    """What happened in a run, through all its revisions.

    Attributes:
        outcomes: What the holder of each place recorded, by place and revision.
        calls: Every execution of a step, in order: place, revision, arguments.
        executions: How often each call was executed, by place and revision.
        undos: Undo calls that succeeded, in order; a repeated execution of the same one counts once.
        completed_at_service: The recorded result of each call, whatever its kind.
        stops: Why a scope was stopped, by (scope, tag, revision).
        ends: Every end that was announced, in order; the same end announced again counts once.
        open: What the holders still wait for.
        resets: Seeds of revision 2, 3 and so on.
        copies: Outcomes as published or heard anywhere.
        signals: Values that were sent, by (name, slot), in any order.
    """

    outcomes: dict[Place, Outcome]
    calls: list[tuple[Key, int, dict[str, Any]]] = []
    executions: Counter[Place] = msgspec.field(default_factory=Counter)
    undos: list[Place] = []
    completed_at_service: dict[Place, Outcome] = {}
    stops: dict[Scope, Reason] = {}
    ends: list[End] = []
    open: list[str] = []
    resets: list[tuple[Key, ...]] = []
    copies: list[tuple[Key, int, Outcome]] = []
    signals: dict[tuple[str, str], list[Any]] = {}


class View:
    """A run as it was when a revision ended: what was kept, and what was decided anew.

    Attributes:
        revision: The revision.
        outcomes: Outcome by place.
        stopped: Scopes whose completed nodes must have been undone by then, with the reason: those that were stopped,
            and those that must have been, by what became of them.
    """

    def __init__(self, plan: Plan, story: Story, revision: int) -> None:
        self.plan, self.story, self.revision = plan, story, revision
        self.tables = tables(plan)
        self.outcomes = {
            key: outcome for (key, decided), outcome in story.outcomes.items() if decided == self.decided(key, revision)
        }
        self.stopped: dict[Scope, Reason] = {
            scope: reason for scope, reason in story.stops.items() if scope[2] <= revision
        } | self._due()

    def decided(self, key: Key, revision: int | None = None) -> int:
        """The revision that a place was decided in, seen from one."""
        upto = self.revision if revision is None else revision
        return revision_of(self.plan, key, self.story.resets[: upto - 1]) if self.story.resets else 1

    def look(self, key: Key, name: str) -> Outcome:
        """What a place sees of another node.

        Raises:
            Violation: Nothing, since that node is not final.
        """
        found = self.outcomes.get(Key(name, key.tag))
        if found is None:
            raise Violation(f"I2 every node final: {shown(key)} was decided before {name} was, or {name} never was")
        return found

    def covering(self, key: Key) -> list[Scope]:
        """The stopped scopes that a place is in, as it is in this revision."""
        mine = self.decided(key)
        return [
            scope
            for scope in self.stopped
            if self.tables.within(key, scope[0], scope[1]) and self.decided(key, scope[2]) == mine
        ]

    def undoing(self, key: Key) -> list[Scope]:
        """Those of them whose completed nodes are undone: an attempt that is only out of time may leave them be."""
        return [scope for scope in self.covering(key) if self.stopped[scope] != "timeout" or self._undoes(scope[0])]

    def _undoes(self, body: str) -> bool:
        return self.tables.constructs[self.tables.regions[body].construct].undo

    @property
    def run_stopped(self) -> bool:
        """Whether the run itself was stopped in this revision."""
        return (RUN, "", self.revision) in self.story.stops

    def timed_out(self, construct: str, tag: str) -> bool:
        """Whether an attempt was out of time: what its body came to does not count then."""
        timed = self.tables.constructs[construct]
        return timed.timeout > 0 and self.story.stops.get(self._scope(timed.bodies[0], tag)) == "timeout"

    def _scope(self, region: str, tag: str) -> Scope:
        """The stop of a region that counts in this revision, if there is one."""
        return region, tag, self.decided(Key(self.tables.regions[region].exit, tag))

    def _due(self) -> dict[Scope, Reason]:
        found: dict[Scope, Reason] = {}
        if any(end.revision == self.revision and end.status != "completed" for end in self.story.ends):
            found[RUN, "", self.revision] = "failed"
        for key, outcome in self.outcomes.items():
            construct = self.tables.constructs.get(key.node)
            if construct is None:
                continue
            if construct.kind == "race" and outcome.kind == "completed":
                lost = [body for i, body in enumerate(construct.bodies) if i not in outcome.winners]
                found |= {self._scope(body, key.tag): "lost" for body in lost}
            elif construct.undo:
                body = construct.bodies[0]
                exit = self.outcomes.get(Key(self.tables.regions[body].exit, key.tag))
                chosen = None if exit is None or exit.kind not in DEAD else handled(self.tables, construct, exit)
                entry = chosen and self.outcomes.get(Key(self.tables.regions[chosen[0].region].entry, key.tag))
                if entry and entry.kind == "completed":
                    found[self._scope(body, key.tag)] = "caught"
        return found


def shown(key: Key) -> str:
    """A place for people."""
    return f"{key.node}[{key.tag}]" if key.tag else key.node
