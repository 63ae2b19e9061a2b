"""What must hold of every single outcome: it follows from those around it, from what was called, or from a stop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segue.machine.facts import DEAD, Key, Outcome
from segue.plan.graph import RUN, Construct, Node
from segue.testing.reference import bare
from segue.testing.story import View, Violation, shown
from segue.testing.verdicts import TIMEOUT, closed, entered, exited, slot, verdict

_FOLLOWS = "I11 outcomes follow from their inputs"


class Consistency:
    """Checks the outcomes of a revision.

    Args:
        view: The run in that revision.
        calls: Arguments of the calls of the revision.
    """

    def __init__(self, view: View, calls: Mapping[Key, dict[str, Any]]) -> None:
        self.view, self.calls = view, calls
        self.tables = view.tables

    def check(self) -> None:
        """Check every outcome that this revision decided, and every call.

        Raises:
            Violation: One does not follow.
        """
        for key, outcome in self.view.outcomes.items():
            if self.view.decided(key) == self.view.revision:
                self.outcome(key, self.tables.nodes[key.node], outcome)
        for key in self.calls:
            if key not in self.view.outcomes:
                raise Violation(f"I2 every node final: {shown(key)} was called and has no outcome")

    def outcome(self, key: Key, node: Node, outcome: Outcome) -> None:
        if node.kind == "timer" or node.id == "run.entry":
            return
        if node.kind == "entry":
            self.entry(key, node, outcome)
        elif node.kind == "exit":
            self.exit(key, node, outcome)
        elif node.kind == "close":
            self.close(key, self.tables.constructs[node.id], outcome)
        elif node.kind == "settle":
            self.same(key, outcome, Outcome("completed"))
        else:
            self.plain(key, node, outcome)

    def plain(self, key: Key, node: Node, outcome: Outcome) -> None:
        expected = verdict(self.tables, key, lambda name: self.view.look(key, name))
        if isinstance(expected, Outcome):
            if key in self.calls:
                raise Violation(f"I8 no step ran on a dead input: {shown(key)} was called, but is {expected.kind}")
            if node.kind == "either" or not self.stopped(key, outcome):
                self.same(key, outcome, expected)
        elif node.kind in ("step", "flow"):
            self.call(key, node, outcome, expected)
        elif not self.stopped(key, outcome):
            self.held(key, node, outcome, expected)

    def call(self, key: Key, node: Node, outcome: Outcome, args: dict[str, Any]) -> None:
        called = self.calls.get(key)
        if called is not None and called != args:
            raise Violation(f"I8 steps run on their inputs: {shown(key)} was called with {called}, not with {args}")
        if called is None and not self.stopped(key, outcome):
            raise Violation(f"{_FOLLOWS}: {shown(key)} is {outcome.kind}, but was never called")
        if outcome.kind not in ("completed", "failed", "cancelled"):
            raise Violation(f"{_FOLLOWS}: {shown(key)} is {outcome.kind}, though all its inputs were there")

    def held(self, key: Key, node: Node, outcome: Outcome, args: dict[str, Any]) -> None:
        """A wait or a sleep."""
        fits = outcome.kind == "completed"
        if node.kind == "wait" and fits:
            fits = outcome.value in self.view.story.signals.get((node.step, slot(args, key.tag)), [])
        elif node.kind == "wait" and outcome.kind == "failed":
            errors = [cause.error.type for cause in outcome.causes if cause.error is not None]
            fits = node.timeout > 0 and errors == [TIMEOUT]
        if not fits:
            raise Violation(f"{_FOLLOWS}: {shown(key)} is {outcome}, which no signal and no time can have made it")

    def entry(self, key: Key, node: Node, outcome: Outcome) -> None:
        if self.view.timed_out(node.construct, key.tag) or self.stopped(key, outcome):
            return
        expected = entered(self.tables, node.region, key.tag, self.view.outcomes.get)
        if expected is None:
            raise Violation(f"{_FOLLOWS}: {shown(key)} was opened, which nothing asked for")
        self.same(key, outcome, expected)

    def exit(self, key: Key, node: Node, outcome: Outcome) -> None:
        expected = exited(self.tables, node.region, key.tag, lambda name: self.view.look(key, name))
        # A run that was stopped did not complete, even if everything in it did.
        if node.region != RUN or outcome.kind not in DEAD or not self.view.run_stopped:
            self.same(key, outcome, expected)

    def close(self, key: Key, construct: Construct, outcome: Outcome) -> None:
        if self.view.timed_out(construct.id, key.tag):
            self.late(key, construct, outcome)
            return
        if construct.kind == "race" and outcome.kind == "completed":
            return self.race(key, construct, outcome)
        expected = closed(self.tables, construct, key.tag, self.view.outcomes.get)
        if expected is None:
            raise Violation(f"I2 every node final: {shown(key)} is {outcome.kind} before all that it joins is final")
        self.same(key, outcome, expected)

    def late(self, key: Key, construct: Construct, outcome: Outcome) -> None:
        """An attempt that was out of time failed, unless a handler helped."""
        entries = [self.tables.regions[handler.region].entry for handler in construct.handlers]
        helped = any(Key(entry, key.tag) in self.view.outcomes for entry in entries)
        if outcome.kind not in DEAD and not helped:
            raise Violation(f"{_FOLLOWS}: {shown(key)} is {outcome.kind}, though it was out of time")

    def race(self, key: Key, construct: Construct, outcome: Outcome) -> None:
        ends = [self.tables.regions[body].exit for body in construct.bodies]
        winners = outcome.winners
        if len(set(winners)) != construct.winners or sorted(winners) != list(winners):
            raise Violation(f"I3 exactly n winners: {shown(key)} has {winners}, needs {construct.winners}")
        values = []
        for winner in winners:
            exit = self.view.outcomes.get(Key(ends[winner], key.tag)) if winner < len(ends) else None
            if exit is None or exit.kind != "completed":
                raise Violation(f"I3 winners completed: branch {winner} of {shown(key)} is {exit and exit.kind}")
            values.append(exit.value)
        if outcome.value != (values[0] if construct.winners == 1 else values):
            raise Violation(f"I3 winners' values: {shown(key)} is {outcome.value}, its winners gave {values}")

    def stopped(self, key: Key, outcome: Outcome) -> bool:
        """Whether a stop made it cancelled."""
        return outcome.kind == "cancelled" and bool(self.view.covering(key))

    def same(self, key: Key, outcome: Outcome, expected: Outcome) -> None:
        found, due = bare(outcome), bare(expected)
        if found == due:
            return
        # Where a stop fell, the causes of what did not start any more are a matter of time.
        if found.kind == due.kind and found.kind in DEAD and self.view.covering(key):
            return
        raise Violation(f"{_FOLLOWS}: {shown(key)} is {outcome}, should be {expected}")
