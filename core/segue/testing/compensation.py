"""What must hold of the undo calls of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from segue.machine.facts import DEAD, Key
from segue.plan.graph import RUN, Plan
from segue.testing.reach import Reach
from segue.testing.story import Place, Scope, Story, View, Violation, shown

Grounds = dict[Place, set[Scope]]
"""The stopped scopes for which each place must be undone."""


def check_undos(plan: Plan, story: Story, views: Sequence[View]) -> None:
    """Undone is exactly what must be, once, in an order that the graph allows.

    Raises:
        Violation: Not so.
    """
    grounds: Grounds = {}
    for view in views:
        _check_stops(plan, view)
        if not view.stopped:
            continue
        for key, outcome in view.outcomes.items():
            if outcome.kind == "completed" and view.tables.nodes[key.node].undoable and (scopes := view.undoing(key)):
                grounds.setdefault((key, view.decided(key)), set()).update(scopes)
    _check_exactly(plan, story, grounds)
    _check_order(plan, story, grounds)


def _check_exactly(plan: Plan, story: Story, grounds: Grounds) -> None:
    nodes = plan.index.nodes
    for (key, revision), count in Counter(story.undos).items():
        outcome = story.outcomes.get((key, revision))
        if outcome is None or outcome.kind != "completed" or not nodes[key.node].undoable:
            kind = "open" if outcome is None else outcome.kind
            raise Violation(f"I5 only completed nodes are undone: {shown(key)} r{revision} is {kind}")
        if (key, revision) not in grounds:
            raise Violation(f"I4 undone exactly once: {shown(key)} r{revision} was undone, but nothing asked for it")
        if count > 1:
            raise Violation(f"I4 undone exactly once: {shown(key)} r{revision} was undone {count} times")
    undone = set(story.undos)
    for (key, revision), scopes in grounds.items():
        if (key, revision) not in undone:
            raise Violation(
                f"I4 undone exactly once: {shown(key)} r{revision} was not, though {_first(scopes)} ended so"
            )


def _first(scopes: set[Scope]) -> str:
    scope, tag, revision = min(scopes)
    return f"{shown(Key(scope, tag))} r{revision}"


def _check_order(plan: Plan, story: Story, grounds: Grounds) -> None:
    """Of two nodes undone in one scope, the one that depends on the other comes first.

    A node may come early where a smaller scope around it, without the other one, was stopped before.
    """
    for position, (early, _) in enumerate(undos := story.undos):
        reach: Reach | None = None
        mine = grounds[undos[position]]
        for late in undos[position + 1 :]:
            theirs = grounds[late]
            if not mine & theirs or mine - theirs or late[0] == early:
                continue
            reach = reach or Reach(plan, [early], anew=False)
            if late[0] in reach:
                raise Violation(
                    f"I5 undo order: {shown(early)} was undone before {shown(late[0])}, which depends on it"
                )


def _uncaught(view: View, key: Key) -> bool:
    """Whether a place failed and nothing around it bears that."""
    graph = view.tables
    if view.outcomes[key].kind != "failed":
        return False
    for scope in graph.scopes[graph.nodes[key.node].region]:
        construct = graph.construct_of(scope)
        if construct is None:
            return True
        if construct.kind == "race" or (construct.kind == "attempt" and scope in construct.bodies):
            return False
        if construct.tolerate:
            return False
    return True


def _check_stops(plan: Plan, view: View) -> None:
    """Every stop of this revision has its reason."""
    for (scope, tag, revision), reason in view.story.stops.items():
        if scope == RUN and revision != view.revision:
            continue
        if scope != RUN and view.decided(Key(view.tables.regions[scope].construct, tag)) != revision:
            continue
        if not _grounded(plan, view, scope, tag, reason):
            raise Violation(f"I4 stops have a reason: {shown(Key(scope, tag))} r{revision} was stopped as {reason!r}")


def _grounded(plan: Plan, view: View, scope: str, tag: str, reason: str) -> bool:
    exit = view.outcomes.get(Key(view.tables.regions[scope].exit, tag))
    construct = view.tables.construct_of(scope)
    if construct is None:
        dead = exit is not None and exit.kind in DEAD
        failed = dead or (plan.on_failure == "stop" and any(_uncaught(view, key) for key in view.outcomes))
        return {"cancelled": True, "deadline": plan.deadline > 0, "failed": failed}.get(reason, False)
    close = view.outcomes.get(Key(construct.id, tag))
    if reason == "lost":
        won = close is not None and close.kind == "completed"
        return won and close is not None and construct.bodies.index(scope) not in close.winners
    if reason == "caught":
        return construct.undo and scope in construct.bodies and exit is not None and exit.kind in ("failed", "aborted")
    return reason == "timeout" and construct.timeout > 0 and scope in construct.bodies
