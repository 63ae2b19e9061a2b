"""What must hold in every run, whatever its timing: races, timeouts, stops and retries included.

I1 one outcome per place and revision. I2 every node of an opened region is final. I3 races have exactly n winners, each
completed. I4 what must be undone is undone once, and nothing else. I5 the order of undoing. I6 no effect without its
outcome. I7 nothing happens after the end. I8 steps run on their inputs, and not on dead ones. I9 a retry tries what
failed. I10 one end per revision. I11 every outcome follows from its inputs, from a call or from a stop.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from segue.machine.facts import DEAD, Key, Outcome
from segue.plan.graph import EXIT, RUN, Plan
from segue.testing.compensation import check_undos
from segue.testing.consistency import Consistency
from segue.testing.reach import revision_of
from segue.testing.reference import Expected, bare
from segue.testing.story import End, Place, Story, View, Violation, shown
from segue.testing.verdicts import entered, inside

__all__ = ["End", "Story", "Violation", "check", "compare"]


def check(plan: Plan, story: Story) -> None:
    """Check a finished run.

    Raises:
        Violation: An invariant does not hold; the message begins with its number.
    """
    _check_ends(story)
    _check_single(plan, story)
    views = [View(plan, story, revision) for revision in range(1, len(story.resets) + 2)]
    for view in views:
        _check_final(view)
        Consistency(view, {key: args for key, revision, args in story.calls if revision == view.revision}).check()
        _check_end(plan, story, view)
    _check_services(story)
    check_undos(plan, story, views)
    _check_quiet(story)
    _check_retries(story)


def _check_ends(story: Story) -> None:
    if story.open:
        raise Violation(f"I10 every run ends: still open are {', '.join(story.open)}")
    revisions = sorted(end.revision for end in story.ends)
    if revisions != list(range(1, len(story.resets) + 2)):
        raise Violation(f"I10 one end per revision: {revisions} for {len(story.resets) + 1} revisions")


def _ends(story: Story) -> list[End]:
    """By revision: an end may be heard of late."""
    return sorted(story.ends, key=lambda end: end.revision)


def _check_single(plan: Plan, story: Story) -> None:
    known: dict[tuple[Key, int], Outcome] = dict(story.outcomes)
    for key, revision, outcome in story.copies:
        if (found := known.setdefault((key, revision), outcome)) != outcome:
            raise Violation(f"I1 one outcome: {shown(key)} r{revision} is {found} and {outcome}")
    for key, revision in story.outcomes:
        resets = story.resets[: revision - 1]
        if revision > len(story.resets) + 1 or (resets and revision_of(plan, key, resets) != revision):
            raise Violation(f"I1 one outcome: {shown(key)} was decided in r{revision}, which did not reset it")


def _check_services(story: Story) -> None:
    for (key, revision), result in story.completed_at_service.items():
        outcome = story.outcomes.get((key, revision))
        if outcome is None or outcome.kind != result.kind or outcome.value != result.value:
            raise Violation(f"I6 no orphan effect: {shown(key)} r{revision} was {result} at its service, is {outcome}")
    called = {(key, revision) for key, revision, _ in story.calls}
    if called != set(story.executions):
        raise Violation(f"I6 no orphan effect: executed {set(story.executions)}, called {called}")


def _check_final(view: View) -> None:
    graph = view.tables
    for node in graph.members[RUN]:
        if node.kind != "timer" and Key(node.id) not in view.outcomes:
            raise Violation(f"I2 every node final: {node.id} is not, in r{view.revision}")
    for key, outcome in view.outcomes.items():
        node = graph.nodes[key.node]
        if node.kind == "entry":
            must = graph.members[node.region] if outcome.kind == "completed" else graph.members[node.region][-1:]
            for member in must:
                if member.kind != "timer" and Key(member.id, key.tag) not in view.outcomes:
                    raise Violation(
                        f"I2 every node final: {shown(Key(member.id, key.tag))} is not, in r{view.revision}"
                    )
        elif node.kind == "open" and outcome.kind == "completed":
            _check_opened(view, key, outcome)


def _check_opened(view: View, key: Key, outcome: Outcome) -> None:
    """Every region that a construct opens has its entry."""
    graph = view.tables
    construct = graph.constructs[graph.nodes[key.node].construct]
    tags = [key.tag]
    if construct.kind == "each":
        tags = [inside(key.tag, i) for i in range(len(outcome.value["items"]))]
    elif construct.kind == "repeat":
        tags = [inside(key.tag, i) for i in range(construct.cap)]
    for region in construct.regions:
        entry = graph.regions[region].entry
        for tag in tags:
            place = Key(entry, tag)
            if place in view.outcomes or entered(graph, region, tag, view.outcomes.get) is None:
                continue
            ended = view.timed_out(construct.id, tag) or bool(view.covering(place))
            if region in construct.bodies or not ended:
                raise Violation(f"I2 every node final: {shown(place)} was not opened, in r{view.revision}")


def _check_end(plan: Plan, story: Story, view: View) -> None:
    end, exit = _ends(story)[view.revision - 1], view.outcomes[Key(EXIT)]
    reason = story.stops.get((RUN, "", view.revision))
    if (end.status == "completed") != (exit.kind == "completed" and reason is None):
        raise Violation(f"I10 the end is the exit's: r{end.revision} {end.status}, exit {exit.kind}, stop {reason}")
    if end.status == "cancelled" and reason != "cancelled" and exit.kind != "cancelled":
        raise Violation(f"I9 cancelled in its revision: r{end.revision} ended so, but nobody cancelled it")
    if exit.kind in DEAD and reason in (None, "failed") and plan.on_failure == "drain":
        causes = {(cause.node, cause.tag) for cause in end.causes}
        if causes != {(cause.node, cause.tag) for cause in exit.causes}:
            raise Violation(f"I10 the end is the exit's: r{end.revision} names {causes}, exit has {exit.causes}")


def _check_quiet(story: Story) -> None:
    """After an end, only what a later revision decided anew is run or undone; an old call may be executed once more."""
    for end in story.ends:
        calls = [(key, revision) for key, revision, _ in story.calls]
        before = set() if end.calls is None else set(calls[: end.calls])
        fresh = [] if end.calls is None else [call for call in calls[end.calls :] if call not in before]
        final = end.status != "completed" or end.revision == len(story.resets) + 1
        undos = story.undos[end.undos :] if final and end.undos is not None else []
        late = [key for key, revision in (*fresh, *undos) if revision <= end.revision]
        if late:
            raise Violation(f"I7 after the end nothing runs: {shown(late[0])}, after the end of r{end.revision}")


def _check_retries(story: Story) -> None:
    """What a failed revision failed of is not what the next one fails of, unless it was tried again."""
    ends = _ends(story)
    for before, end in pairwise(ends):
        old = {Key(cause.node, cause.tag) for cause in before.causes}
        for cause in end.causes:
            key = Key(cause.node, cause.tag)
            if key in old and (key, end.revision) not in story.outcomes:
                raise Violation(f"I9 a retry tries what failed: {shown(key)} was not tried again in r{end.revision}")


def compare(plan: Plan, story: Story, expected: Expected) -> None:
    """Compare a finished run with what it must have come to, through all its revisions.

    Raises:
        Violation: It came to something else.
    """
    found = {place: bare(outcome) for place, outcome in story.outcomes.items() if not _timer(plan, place[0])}
    _same("outcome", found, {place: bare(outcome) for place, outcome in expected.every_outcome.items()})
    _same("call", {(key, revision): args for key, revision, args in story.calls}, expected.every_call)
    _same("undo", dict.fromkeys(story.undos, "undone"), dict.fromkeys(expected.undone, "undone"))
    due: Expected | None = expected
    for end in reversed(_ends(story)):
        if due is None:
            raise Violation(f"the end of r{end.revision} is one too many")
        causes = [{Key(cause.node, cause.tag) for cause in one} for one in (end.causes, due.causes)]
        if end.status != due.status or causes[0] != causes[1]:
            raise Violation(f"r{end.revision} ended {end.status}: {causes[0]}, should have {due.status}: {causes[1]}")
        due = due.earlier
        if due is not None and (kept := due.seeds - set(story.resets[end.revision - 2])):
            raise Violation(f"r{end.revision} does not try again {kept}")


def _timer(plan: Plan, key: Key) -> bool:
    return plan.index.nodes[key.node].kind == "timer"


def _same(what: str, found: dict[Place, Any], due: dict[Place, Any]) -> None:
    for place in dict.fromkeys((*found, *due)):
        one, other = found.get(place), due.get(place)
        if one != other:
            raise Violation(f"{what} of {shown(place[0])} r{place[1]}: is {one}, should be {other}")
