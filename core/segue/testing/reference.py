"""An independent evaluator: what a run must come to, worked out from the rules' text without the machine.

It walks the tree of regions once, from outside in, and knows no events, no time and no participants. So it answers only
where these do not matter: no races, no signal against a timeout, no timeouts of scopes, no cancel, and failures that
drain. There the answer is a function of the input and of what steps and signals bring.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from segue.machine.facts import DEAD, Cause, Failure, Key, Outcome
from segue.plan.graph import ENTRY, EXIT, RUN, Construct, Node, Plan
from segue.testing.behaviours import Sent
from segue.testing.reach import revision_of
from segue.testing.tables import tables
from segue.testing.verdicts import (
    LOOP_CAP,
    TIMEOUT,
    UNFIT,
    broken,
    closed,
    entered,
    exited,
    handled,
    inside,
    slot,
    verdict,
)

CHILD = "RunFailed"
"""What every failure of a child run is to its parent, besides what it is."""


class Around(Protocol):
    """What the evaluator asks of the world around a run; a `Behaviour` will do."""

    def __call__(self, key: Key, args: dict[str, Any], revision: int = 1) -> Outcome:
        """The result of the step, or child run, of a node."""

    def signal(self, name: str, slot: str) -> Sent | None:
        """The signal for a slot, if one is ever sent."""


class Expected(msgspec.Struct, frozen=True):
    """What a run must come to, in its last revision.

    Attributes:
        outcomes: Outcome of every place of every region that is opened; timers are left out.
        revisions: The revision that decided each of them.
        calls: Arguments of every step that must run, and of no other.
        status: How the run ends.
        result: Its value, None unless completed.
        causes: Of a run that did not complete, in plan order.
        undone: What must be undone, in this revision or an earlier one, with the revision that it ran in.
        compensated: What must be undone in this revision because the run failed.
        earlier: What the revision before must have come to.
    """

    outcomes: dict[Key, Outcome]
    revisions: dict[Key, int]
    calls: dict[Key, dict[str, Any]]
    status: str
    result: Any
    causes: tuple[Cause, ...]
    undone: frozenset[tuple[Key, int]]
    compensated: frozenset[Key]
    earlier: Expected | None = None

    @property
    def seeds(self) -> frozenset[Key]:
        """Where a retry of this end begins, besides the node that somebody chose."""
        return self.compensated | {Key(EXIT)} | {Key(cause.node, cause.tag) for cause in self.causes}

    @property
    def every_outcome(self) -> dict[tuple[Key, int], Outcome]:
        """Outcomes of all revisions."""
        found = {} if self.earlier is None else self.earlier.every_outcome
        return found | {(key, self.revisions[key]): outcome for key, outcome in self.outcomes.items()}

    @property
    def every_call(self) -> dict[tuple[Key, int], dict[str, Any]]:
        """Calls of all revisions."""
        found = {} if self.earlier is None else self.earlier.every_call
        return found | {(key, self.revisions[key]): args for key, args in self.calls.items()}


def evaluate(plan: Plan, given: Any, around: Around, resets: Sequence[tuple[Key, ...]] = ()) -> Expected:
    """Evaluate a plan.

    Args:
        plan: Any plan without races, whose timers never matter.
        given: The run's input.
        around: What steps do and which signals are sent; a wait with a timeout fails if none is.
        resets: Seeds of revision 2, 3 and so on, if the run was retried.

    Raises:
        ValueError: What the run comes to depends on time, or it never ends.
    """
    earlier = evaluate(plan, given, around, resets[:-1]) if resets else None
    return _Evaluation(plan, around, resets).expected(given, earlier)


def bare(outcome: Outcome) -> Outcome:
    """An outcome without the wording of errors that no step made, for comparison."""
    if outcome.kind == "completed":
        value = outcome.value
        error = value.get("value") if isinstance(value, Mapping) and "with" in value else None
        if isinstance(error, Mapping) and "message" in error and error.get("type") in (UNFIT, LOOP_CAP, TIMEOUT):
            return msgspec.structs.replace(outcome, value={**value, "value": {**error, "message": ""}})
        return outcome
    if not any(cause.error is not None for cause in outcome.causes):
        return outcome
    return msgspec.structs.replace(outcome, causes=tuple(map(_bare, outcome.causes)))


def _bare(cause: Cause) -> Cause:
    if cause.error is None or cause.error.type not in (UNFIT, LOOP_CAP, TIMEOUT):
        return cause
    return Cause(cause.node, cause.tag, Failure(cause.error.type, ""))


def _from_child(node: Node, cause: Cause) -> Cause:
    """A failure of a child run, as its parent sees it."""
    error = cause.error
    if error is None:
        return cause
    text = f"{node.step}: {error.message}"
    return Cause(cause.node, cause.tag, Failure(error.type, text, bases=(*error.bases, CHILD), value=error.value))


class _Evaluation:
    def __init__(self, plan: Plan, around: Around, resets: Sequence[tuple[Key, ...]]) -> None:
        self.plan, self.around, self.resets = plan, around, resets
        self.tables = tables(plan)
        self.outcomes: dict[Key, Outcome] = {}
        self.calls: dict[Key, dict[str, Any]] = {}
        self.undone: set[Key] = set()

    def expected(self, given: Any, earlier: Expected | None) -> Expected:
        self.outcomes[Key(ENTRY)] = Outcome("completed", given)
        self.region(RUN, "")
        end = self.outcomes[Key(EXIT)]
        before = frozenset() if earlier is None else earlier.undone
        revisions = {key: self.revision(key) for key in self.outcomes}
        caught = {(key, revisions[key]) for key in self.undone}
        failed = self.undoable(RUN, "") if end.kind in DEAD else []
        compensated = frozenset(key for key in failed if (key, revisions[key]) not in before | caught)
        return Expected(
            outcomes=self.outcomes,
            revisions=revisions,
            calls=self.calls,
            status="failed" if end.kind in ("failed", "aborted") else end.kind,
            result=end.value,
            causes=end.causes,
            undone=before | caught | {(key, revisions[key]) for key in compensated},
            compensated=compensated,
            earlier=earlier,
        )

    def revision(self, key: Key) -> int:
        return revision_of(self.plan, key, self.resets) if self.resets else 1

    def undoable(self, scope: str, tag: str) -> list[Key]:
        """What completed in a scope and can be undone."""
        return [
            key
            for key, outcome in self.outcomes.items()
            if self.tables.nodes[key.node].undoable
            and outcome.kind == "completed"
            and self.tables.within(key, scope, tag)
        ]

    def region(self, region: str, tag: str) -> None:
        """Everything in a region that is opened."""
        if region != RUN:
            entry = entered(self.tables, region, tag, self.outcomes.get)
            assert entry is not None, f"{region} is not opened"
            self.outcomes[Key(self.tables.regions[region].entry, tag)] = entry
        for node in self.tables.members[region]:
            if node.kind not in ("entry", "timer"):
                key = Key(node.id, tag)
                self.outcomes[key] = self.node(node, key)

    def node(self, node: Node, key: Key) -> Outcome:
        def look(name: str) -> Outcome:
            return self.outcomes[Key(name, key.tag)]

        if node.kind == "exit":
            return exited(self.tables, node.region, key.tag, look)
        if node.kind == "close":
            return self.construct(self.tables.constructs[node.id], key.tag)
        found = verdict(self.tables, key, look)
        return found if isinstance(found, Outcome) else self.act(node, key, found)

    def act(self, node: Node, key: Key, args: dict[str, Any]) -> Outcome:
        if node.kind == "sleep":
            return Outcome("completed")
        if node.kind == "wait":
            sent = self.around.signal(node.step, slot(args, key.tag))
            if sent is None and not node.timeout:
                raise ValueError(f"{node.id} waits for ever: nobody sends {node.step!r}")
            return broken(key, TIMEOUT) if sent is None else Outcome("completed", sent.value)
        self.calls[key] = args
        outcome = self.around(key, args, self.revision(key))
        return (
            outcome
            if node.kind == "step"
            else msgspec.structs.replace(outcome, causes=tuple(_from_child(node, cause) for cause in outcome.causes))
        )

    def construct(self, construct: Construct, tag: str) -> Outcome:
        """What a construct comes to, after all its regions."""
        opened = self.outcomes[Key(f"{construct.id}:open", tag)]
        body = construct.bodies[0]
        if opened.kind != "completed":
            pass
        elif construct.kind == "each":
            for i in range(len(opened.value["items"])):
                self.region(body, inside(tag, i))
        elif construct.kind == "repeat":
            number = 0
            while entered(self.tables, body, inside(tag, number), self.outcomes.get) is not None:
                self.region(body, inside(tag, number))
                number += 1
        elif construct.kind == "attempt":
            self.attempt(construct, tag)
        else:
            raise ValueError(f"{construct.id} is a race: who wins is a matter of time")
        found = closed(self.tables, construct, tag, self.outcomes.get)
        assert found is not None, f"{construct.id} is not final"
        return found

    def attempt(self, construct: Construct, tag: str) -> None:
        body = construct.bodies[0]
        self.region(body, tag)
        chosen = handled(self.tables, construct, self.outcomes[Key(self.tables.regions[body].exit, tag)])
        if chosen is not None:
            if construct.undo:
                self.undone.update(self.undoable(body, tag))
            self.region(chosen[0].region, tag)
        if construct.cleanup:
            self.region(construct.cleanup, tag)
