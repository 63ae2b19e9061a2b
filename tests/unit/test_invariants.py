"""Each invariant accepts what may happen, and objects to what may not."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from segue.machine.facts import Cause, Failure, Key, Outcome
from segue.plan.graph import (
    ENTRY,
    EXIT,
    RUN,
    Arg,
    Construct,
    Get,
    Node,
    Param,
    Plan,
    Region,
    load,
)
from segue.testing.behaviours import GIVEN, Scripted
from segue.testing.invariants import End, Story, Violation, check, compare
from segue.testing.plans import random_plan
from segue.testing.reference import Expected, evaluate
from segue.testing.tables import tables

BROKEN = Failure("Broken", "it broke")
Change = Callable[[Story], None]


def told(plan: Plan, expected: Expected) -> Story:
    """The story of a run that came to what it must come to."""
    chain = [expected]
    while (earlier := chain[0].earlier) is not None:
        chain.insert(0, earlier)
    story = Story(dict(expected.every_outcome))
    for number, one in enumerate(chain, 1):
        story.calls += [(key, number, args) for key, args in one.calls.items() if one.revisions[key] == number]
        before = set() if one.earlier is None else one.earlier.undone
        fresh = sorted(one.undone - before, key=lambda place: backwards(plan, place[0]), reverse=True)
        story.undos += sorted(fresh, key=lambda place: place[0] in one.compensated)
        if one.status != "completed":
            story.stops[RUN, "", number] = "failed"
        story.ends.append(End(number, one.status, one.causes, len(story.calls), len(story.undos)))
        if one is not expected:
            story.resets.append(tuple(sorted(one.seeds)))
    story.executions = Counter((key, revision) for key, revision, _ in story.calls)
    story.completed_at_service = {place: story.outcomes[place] for place in story.executions}
    story.copies = [(key, revision, outcome) for (key, revision), outcome in story.outcomes.items()]
    for (key, _), outcome in story.outcomes.items():
        node = tables(plan).nodes[key.node]
        if node.kind == "wait" and outcome.kind == "completed":
            for slot in {key.tag, *(str(value) for value in (1, "a", *range(10)))}:
                story.signals.setdefault((node.step, slot), []).append(outcome.value)
    return story


def backwards(plan: Plan, key: Key) -> list[int]:
    """Sorts places in an order in which they may have run: by place in the graph, rounds before what is in them."""
    graph = tables(plan)
    node = graph.nodes[key.node]
    indices = [int(index) for index in key.tag.split(".")] if key.tag else []
    found: list[int] = []
    for scope in reversed(graph.scopes[node.region]):
        construct = graph.construct_of(scope)
        if construct is not None:
            found.append(graph.place[f"{construct.id}:open"])
            if construct.kind in ("each", "repeat"):
                found.append(indices.pop(0))
            found.append(graph.place[graph.regions[scope].entry])
    return [*found, graph.place[key.node]]


def test_what_must_come_of_random_plans_is_accepted() -> None:
    seen: Counter[str] = Counter()
    for seed in range(300):
        plan = random_plan(random.Random(seed))
        behaviour = Scripted(seed, 0.25)
        expected, resets = evaluate(plan, GIVEN, behaviour), []
        for _ in range(2):
            story = told(plan, expected)
            check(plan, story)
            compare(plan, story, expected)
            seen[f"{expected.status} r{len(resets) + 1}"] += 1
            seen["undone"] += len(story.undos)
            if expected.status == "completed":
                break
            resets.append(tuple(sorted(expected.seeds)))
            expected = evaluate(plan, GIVEN, behaviour, resets)
    assert seen["undone"] > 100
    assert min(seen[f"{status} r{r}"] for status in ("completed", "failed", "cancelled") for r in (1, 2)) > 3


# One plan, with a race in it: a(undo) and b(a, undo), then a race of x(undo) and y, then z.


def node(kind: Any, name: str, *reads: str, region: str = RUN, **more: Any) -> Node:
    args = tuple(Arg(f"a{i}", Get(read)) for i, read in enumerate(reads))
    entry = ENTRY if region == RUN else f"{region}:entry"
    return Node(name, kind, "s", region, name if kind == "step" else "", args, None, () if reads else (entry,), **more)


def gate(kind: Any, name: str, region: str = RUN, result: str = "", **more: Any) -> Node:
    args = (Arg("result", Get(result)),) if result else ()
    return Node(name, kind, "s", region, args=args, **more)


def written(nodes: list[Node], regions: list[Region], construct: Construct) -> Plan:
    return Plan(
        "shop", "s", tuple(nodes), (Region(RUN, ENTRY, EXIT), *regions), (Param("order", {}),), {}, (), {},
        constructs=(construct,),
    )  # fmt: skip


RACE = written(
    [
        gate("entry", ENTRY),
        node("step", "a", undo=True),
        node("step", "b", "a", undo=True),
        gate("open", "w:open", after=("b",), construct="w"),
        gate("entry", "w:1:entry", "w:1", construct="w"),
        node("step", "x", region="w:1", undo=True),
        gate("exit", "w:1:exit", "w:1", "x", construct="w"),
        gate("entry", "w:2:entry", "w:2", construct="w"),
        node("step", "y", region="w:2"),
        gate("exit", "w:2:exit", "w:2", "y", construct="w"),
        gate("close", "w", construct="w"),
        gate("settle", "w:settle", construct="w"),
        node("step", "z", "w"),
        gate("exit", EXIT, result="z", after=("w:settle",)),
    ],
    [Region("w:1", "w:1:entry", "w:1:exit", RUN, "w"), Region("w:2", "w:2:entry", "w:2:exit", RUN, "w")],
    Construct("w", "race", RUN, ("w:1", "w:2")),
)
DONE = Outcome("completed", 1)
WITH = Outcome("completed", {"with": {}})
CALLS: dict[str, dict[str, Any]] = {"a": {}, "b": {"a0": 1}, "x": {}, "y": {}, "z": {"a0": 2}}


def race() -> Story:
    """y wins, x is undone, all is well."""
    values = {"a": DONE, "b": DONE, "x": DONE, "y": Outcome("completed", 2), "z": DONE}
    outcomes = {
        ENTRY: Outcome("completed", {}),
        **values,
        **dict.fromkeys(("w:open", "w:1:entry", "w:2:entry"), WITH),
        "w:1:exit": DONE,
        "w:2:exit": Outcome("completed", 2),
        "w": Outcome("completed", 2, winners=(1,)),
        "w:settle": Outcome("completed"),
        EXIT: DONE,
    }
    return Story(
        {(Key(name), 1): outcome for name, outcome in outcomes.items()},
        calls=[(Key(name), 1, args) for name, args in CALLS.items()],
        executions=Counter((Key(name), 1) for name in CALLS),
        undos=[(Key("x"), 1)],
        completed_at_service={(Key(name), 1): outcome for name, outcome in values.items()},
        stops={("w:1", "", 1): "lost"},
        ends=[End(1, "completed", (), 5, 1)],
    )


def failing() -> Story:
    """z fails, so that all is undone; then it is tried again and fails again."""
    story = race()
    cause = Cause("z", "", BROKEN)
    dead = {"z": Outcome("failed", causes=(cause,)), EXIT: Outcome("aborted", causes=(cause,))}
    for name, outcome in dead.items():
        story.outcomes[Key(name), 1] = outcome
    story.completed_at_service[Key("z"), 1] = dead["z"]
    story.stops[RUN, "", 1] = "failed"
    story.undos += [(Key("b"), 1), (Key("a"), 1)]
    story.resets = [(Key("z"), Key(EXIT), Key("a"), Key("b"))]
    story.ends = [End(1, "failed", (cause,), 5, 3), End(2, "failed", (cause,), 10, 6)]
    for key, _ in list(story.outcomes):
        if key.node != ENTRY:
            story.outcomes[key, 2] = story.outcomes[key, 1]
    story.calls += [(key, 2, args) for key, _, args in story.calls]
    story.executions.update((key, 2) for key, _, _ in story.calls[5:])
    story.completed_at_service |= {(key, 2): outcome for (key, _), outcome in story.completed_at_service.items()}
    story.stops |= {(scope, tag, 2): reason for (scope, tag, _), reason in story.stops.items()}
    story.undos += [(key, 2) for key, _ in story.undos]
    return story


def put(name: str, outcome: Outcome, revision: int = 1) -> Change:
    return lambda story: story.outcomes.__setitem__((Key(name), revision), outcome)


def drop(name: str, revision: int = 1) -> Change:
    return lambda story: story.outcomes.pop((Key(name), revision))


def first(change: Callable[[list[Any]], Any], of: str) -> Change:
    return lambda story: change(getattr(story, of))


def both(*changes: Change) -> Change:
    def change(story: Story) -> None:
        for one in changes:
            one(story)

    return change


def uncalled(name: str) -> Change:
    def change(story: Story) -> None:
        story.calls = [call for call in story.calls if call[0].node != name]
        del story.executions[Key(name), 1]
        del story.completed_at_service[Key(name), 1]

    return change


def called_with(name: str, value: int) -> Change:
    def change(story: Story) -> None:
        story.calls = [(key, r, {"a0": value} if key.node == name else args) for key, r, args in story.calls]

    return change


CANCELLED = Outcome("cancelled", causes=(Cause("x"),))
FAILED = Outcome("failed", causes=(Cause("y", "", BROKEN),))


def test_a_good_race_is_accepted() -> None:
    assert load(RACE.json) == RACE
    check(RACE, race())


def test_a_good_retry_is_accepted() -> None:
    check(RACE, failing())


RACES: list[tuple[str, Change]] = [
    ("I1 one outcome", first(lambda copies: copies.append((Key("a"), 1, Outcome("completed", 7))), "copies")),
    ("I1 one outcome", put("a", DONE, 2)),
    ("I2 every node final", drop("z")),
    ("I2 every node final", drop("x")),
    ("I2 every node final", both(drop("w:1:entry"), drop("w:1:exit"), drop("x"))),
    ("I3 exactly n winners", put("w", Outcome("completed", 2, winners=(0, 1)))),
    ("I3 exactly n winners", put("w", Outcome("completed", 2))),
    ("I3 winners completed", both(put("y", FAILED), put("w:2:exit", Outcome("aborted", causes=FAILED.causes)))),
    ("I3 winners' values", both(put("w", Outcome("completed", 3, winners=(1,))), called_with("z", 3))),
    ("I4 undone exactly once", first(list.clear, "undos")),
    ("I4 undone exactly once", first(lambda undos: undos.append((Key("x"), 1)), "undos")),
    ("I4 undone exactly once", first(lambda undos: undos.append((Key("a"), 1)), "undos")),
    ("I4 stops have a reason", lambda story: story.stops.update({("w:2", "", 1): "lost"})),
    ("I4 stops have a reason", lambda story: story.stops.update({("w:1", "", 1): "caught"})),
    ("I5 only completed nodes", first(lambda undos: undos.append((Key("y"), 1)), "undos")),
    ("I6 no orphan effect", both(put("x", CANCELLED), put("w:1:exit", CANCELLED), first(list.clear, "undos"))),
    ("I6 no orphan effect", lambda story: story.executions.update([(Key("y"), 9)])),
    ("I7 after the end", lambda story: story.ends.__setitem__(0, End(1, "completed", (), 4, 1))),
    ("I7 after the end", lambda story: story.ends.__setitem__(0, End(1, "completed", (), 5, 0))),
    ("I8 steps run on their inputs", lambda story: story.calls.__setitem__(1, (Key("b"), 1, {"a0": 9}))),
    ("I10 every run ends", lambda story: story.open.append("z")),
    ("I10 one end", lambda story: story.ends.append(End(1, "completed"))),
    ("I10 one end", first(list.clear, "ends")),
    ("I10 the end is the exit's", lambda story: story.ends.__setitem__(0, End(1, "failed"))),
    ("I10 the end is the exit's", lambda story: story.stops.update({(RUN, "", 1): "cancelled"})),
    ("I11 outcomes follow", uncalled("y")),
    ("I11 outcomes follow", put(EXIT, Outcome("completed", 8))),
    ("I11 outcomes follow", put("w:settle", Outcome("skipped"))),
    ("I11 outcomes follow", put("w:1:entry", Outcome("completed", {"with": {"n": 1}}))),
]  # fmt: skip
RETRIES: list[tuple[str, Change]] = [
    ("I4 undone exactly once", first(lambda undos: undos.remove((Key("a"), 2)), "undos")),
    ("I4 undone exactly once", first(lambda undos: undos.remove((Key("x"), 1)), "undos")),
    ("I5 undo order", first(lambda undos: undos.__setitem__(slice(1, 3), [(Key("a"), 1), (Key("b"), 1)]), "undos")),
    ("I7 after the end", lambda story: story.ends.__setitem__(0, retold(story.ends[0], undos=2))),
    ("I8 no step ran on a dead input", put("a", FAILED)),
    ("I9 cancelled in its revision", lambda story: story.ends.__setitem__(1, retold(story.ends[1], "cancelled"))),
    ("I1 one outcome", lambda story: story.resets.__setitem__(0, (Key("z"), Key(EXIT)))),
    ("I10 the end is the exit's", lambda story: story.ends.__setitem__(1, End(2, "failed", (Cause("a"),)))),
]


def retold(end: End, status: str = "failed", undos: int | None = None) -> End:
    return end._replace(status=status, undos=end.undos if undos is None else undos)


@pytest.mark.parametrize(("message", "change"), RACES, ids=[f"{i} {text}" for i, (text, _) in enumerate(RACES)])
def test_a_bad_race_is_refused(message: str, change: Change) -> None:
    story = race()
    change(story)
    with pytest.raises(Violation, match=message):
        check(RACE, story)


@pytest.mark.parametrize(("message", "change"), RETRIES, ids=[f"{i} {text}" for i, (text, _) in enumerate(RETRIES)])
def test_a_bad_retry_is_refused(message: str, change: Change) -> None:
    story = failing()
    change(story)
    with pytest.raises(Violation, match=message):
        check(RACE, story)


def test_a_retry_that_does_not_try_again_is_refused() -> None:
    story = failing()
    story.resets = [(Key(EXIT),)]
    for key, _ in list(story.outcomes):
        if key != Key(EXIT):
            story.outcomes.pop((key, 2), None)
    story.calls, story.undos = story.calls[:5], story.undos[:3]
    story.executions = Counter((key, revision) for key, revision, _ in story.calls)
    story.completed_at_service = {place: story.outcomes[place] for place in story.executions}
    story.stops.pop(("w:1", "", 2))
    story.ends[1] = End(2, "failed", story.ends[0].causes, 5, 3)
    with pytest.raises(Violation, match="I9 a retry tries what failed: z was not tried again"):
        check(RACE, story)
