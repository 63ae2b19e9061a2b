"""The machine folded over what was published: regions, tags, notices; checked against simulated runs."""

from __future__ import annotations

import random
from itertools import permutations
from typing import Any, NamedTuple

import pytest

from segue import Service, after, attempt, each, flow, repeat, sleep, wait_for, when
from segue.machine.facts import (
    AnyFact,
    Cause,
    Fact,
    Failure,
    Key,
    Outcome,
    Pause,
    Reset,
    Signal,
    Stop,
    Token,
    Undone,
)
from segue.machine.history import History, NodeStatus, fold
from segue.machine.scopes import revision
from segue.plan.graph import ENTRY, EXIT, RUN, Plan
from segue.plan.projection import MODES
from segue.testing.behaviours import Scripted
from segue.testing.invariants import Story
from segue.testing.plans import random_plan
from segue.testing.sim import simulate as simulating
from segue.testing.sim.story import tell
from segue.testing.sim.world import World

svc, other = Service("svc"), Service("other")


@svc.step
async def a(n: int) -> int:
    return n


@a.undo
async def undo_a(n: int, result: int) -> None: ...


@other.step
async def b(n: int) -> int:
    return n


@svc.step
async def rescue(n: int) -> int:
    return n


@flow
def saga(n: int) -> int:
    return b(a(n))


@flow
def items(ns: list[int]) -> list[int]:
    return each(ns, lambda n: b(a(n)), limit=2)


@flow(home=svc)
def poll(n: int) -> int:
    return repeat(b, n, until=lambda m: m > 2, cap=5, every=10)


@flow(home=svc)
def desk(n: int) -> int:
    with after(sleep(60)):
        m = wait_for("go", int, timeout=90)
    with when(n > 1):
        a(n)
    return b(m)


@flow
def caught(n: int) -> int:
    return attempt(lambda: b(a(n)), {"*": lambda: rescue(n)}, name="try")


def done(node: str, value: Any = 1, tag: str = "", number: int = 1) -> Fact:
    return Fact(Key(node, tag), Outcome("completed", value), number)


def failed(node: str, tag: str = "") -> Fact:
    return Fact(Key(node, tag), Outcome("failed", causes=(Cause(node, tag, Failure("Bad", "no")),)))


def seen(plan: Plan, *facts: AnyFact) -> dict[str, str]:
    """States by place; gateways only where they were published."""
    kinds = {"entry", "exit", "open", "settle", "timer"}
    return {
        f"{key.node}/{key.tag}" if key.tag else key.node: status.state
        for key, status in fold(plan, facts).nodes.items()
        if plan.index.nodes[key.node].kind not in kinds
    }


def of(plan: Plan, name: str, *facts: AnyFact, tag: str = "") -> NodeStatus:
    return fold(plan, facts).nodes[Key(name, tag)]


def test_what_is_in_a_construct_appears_when_it_begins() -> None:
    plan = items.plan
    assert seen(plan) == {"each": "waiting"}
    start = done(ENTRY, {"ns": [7, 8, 9]})
    assert seen(plan, start) == {
        "a/0": "open",
        "a/1": "open",
        "b/0": "waiting",
        "b/1": "waiting",
        "each": "running",
    }
    assert of(plan, "b", start, tag="0").waits_for == ("a",)
    third = seen(plan, start, done("a", tag="1"), done("b", tag="1"))
    assert (third["a/1"], third["b/1"], third["a/2"], third["b/2"]) == ("completed", "completed", "open", "waiting")
    assert seen(plan, done(ENTRY, {"ns": []})) == {"each": "completed"}


def test_a_failed_item() -> None:
    facts = [done(ENTRY, {"ns": [7]}), failed("a", "0")]
    assert seen(items.plan, *facts) == {"a/0": "failed", "b/0": "aborted", "each": "aborted"}
    assert of(items.plan, "each", *facts).outcome == Outcome("aborted", causes=facts[1].outcome.causes)
    # How the run ends is the home's choice: it stops it first, because something may have to be undone.
    assert of(items.plan, EXIT, *facts).outcome is None


def test_rounds_of_a_loop_and_the_pause_between_them() -> None:
    start = done(ENTRY, {"n": 0})
    first = done("b", 1, "0")
    assert seen(poll.plan, start) == {"b/0": "open", "repeat": "running"}
    assert seen(poll.plan, start, first) == {"b/0": "completed", "repeat": "running"}
    # The second round is not published when it begins, but what happened in it tells.
    assert seen(poll.plan, start, first, done("b", 2, "1"))["b/1"] == "completed"
    whole = [start, first, done("b", 2, "1"), done("b", 3, "2")]
    expected = {"b/0": "completed", "b/1": "completed", "b/2": "completed", "repeat": "completed"}
    for facts in permutations(whole):
        assert seen(poll.plan, *facts) == expected


def test_sleeping_waiting_and_what_is_missing() -> None:
    plan, start = desk.plan, done(ENTRY, {"n": 1})
    nap = next(node.id for node in plan.nodes if node.kind == "sleep")
    asleep = of(plan, nap, start)
    assert (asleep.state, asleep.seconds) == ("sleeping", 60)
    assert of(plan, "go", start).waits_for == (nap,)
    waiting = of(plan, "go", start, done(nap, None))
    assert (waiting.state, waiting.signal, waiting.seconds) == ("waiting_signal", ("go", ""), 90)
    # A signal is no outcome yet: the wait's holder says when it counts.
    assert of(plan, "go", start, done(nap, None), Signal("go", "", 5, "x")).state == "open"
    assert of(plan, "a", start).state == "skipped"


def test_a_paused_run() -> None:
    plan, start = saga.plan, done(ENTRY, {"n": 1})
    assert seen(plan, start, done("a"), Pause(1)) == {"a": "completed", "b": "paused"}
    assert seen(plan, start, Pause(1)) == {"a": "paused", "b": "waiting"}
    assert seen(plan, start, done("a"), Pause(1), Pause(2))["b"] == "open"
    began = fold(plan, [start, Pause(1)], [(Key("a"), 1)])
    assert began.nodes[Key("a")].state == "open"
    assert seen(items.plan, done(ENTRY, {"ns": [1]}), Pause(1)) == {"each": "paused"}
    assert seen(items.plan, done(ENTRY, {"ns": [1]}), Pause(1), done("a", tag="0"))["b/0"] == "paused"


def test_compensation_of_a_failed_run() -> None:
    plan = saga.plan
    facts: list[AnyFact] = [done(ENTRY, {"n": 1}), done("a"), failed("b"), Stop(RUN, "", 1, "failed")]
    assert seen(plan, *facts) == {"a": "compensating", "b": "failed"}
    error = Failure("Bad", "cannot")
    stuck = of(plan, "a", *facts, Undone(Key("a"), 1, error))
    assert (stuck.state, stuck.error) == ("undo_failed", error)
    over = fold(plan, [*facts, Undone(Key("a"), 1)])
    assert over.nodes[Key("a")].state == "undone"
    # The tokens are derived, so the run's end is too.
    assert over.nodes[Key(EXIT)].outcome == Outcome("aborted", causes=facts[2].outcome.causes)  # type: ignore[union-attr]
    assert (Key(ENTRY), RUN, 1) in over.state.tokens
    assert fold(plan, [*facts, Undone(Key("a"), 1), Token(Key("b"), RUN, 1)]).nodes == over.nodes


def test_a_stopped_run_says_what_may_have_begun() -> None:
    plan = saga.plan
    facts: list[AnyFact] = [done(ENTRY, {"n": 1}), done("a"), Stop(RUN, "", 1, "cancelled")]
    # Whether `b` was called before the stop is known to its service alone.
    assert seen(plan, *facts) == {"a": "completed", "b": "stopping"}
    told = Fact(Key("b"), Outcome("cancelled", causes=(Cause("b"),)))
    assert seen(plan, *facts, told) == {"a": "compensating", "b": "cancelled"}
    late = seen(plan, *facts, done("b"))
    assert late == {"a": "compensating", "b": "completed"}


def test_what_was_decided_before_a_stop_stays() -> None:
    facts: list[AnyFact] = [done(ENTRY, {"n": 1}), Stop(RUN, "", 1, "cancelled")]
    assert of(desk.plan, "a", *facts).state == "skipped"


def test_a_retry_counts_the_newest_revision() -> None:
    plan = saga.plan
    facts: list[AnyFact] = [done(ENTRY, {"n": 1}), done("a"), failed("b"), Stop(RUN, "", 1, "failed")]
    facts += [Undone(Key("a"), 1), Fact(Key(EXIT), Outcome("aborted", causes=(Cause("b"),)))]
    reset = Reset(2, (Key("a"), Key("b"), Key(EXIT)))
    again = fold(plan, [*facts, reset])
    assert {key.node: (status.state, status.revision) for key, status in again.nodes.items()} == {
        ENTRY: ("completed", 1),
        "a": ("open", 2),
        "b": ("waiting", 2),
        EXIT: ("waiting", 2),
    }
    facts += [done("a", 2, number=2), done("b", 3, number=2)]
    assert fold(plan, [*facts, reset]).nodes[Key(EXIT)].outcome == Outcome("completed", 3)
    # Facts of a revision whose reset was not heard yet do not count.
    assert fold(plan, facts).nodes[Key("a")].state == "undone"


def test_handlers_appear_when_they_are_needed() -> None:
    plan, start = caught.plan, done(ENTRY, {"n": 1})
    assert seen(plan, start) == {"a": "open", "b": "waiting", "try": "running"}
    found = seen(plan, start, failed("a"))
    assert found == {"a": "failed", "b": "aborted", "rescue": "open", "try": "running"}
    found = seen(plan, start, failed("a"), done("rescue"))
    assert found == {"a": "failed", "b": "aborted", "rescue": "completed", "try": "completed"}
    assert "rescue" not in seen(plan, start, done("a"), done("b"))


def test_a_large_map_is_folded_quickly() -> None:
    import time

    facts = [done(ENTRY, {"ns": list(range(3000))})]
    facts += [done(name, tag=str(i)) for i in range(3000) for name in ("a", "b") if (name, i) != ("b", 1234)]
    random.Random(1).shuffle(facts)
    began = time.perf_counter()
    found = fold(items.plan, facts)
    assert time.perf_counter() - began < 5
    assert [key for key, status in found.nodes.items() if status.state == "open"] == [Key("b", "1234")]


class Simulated(NamedTuple):
    """A run: what is folded from its published events, what its holders recorded, and what was published."""

    found: History
    recorded: dict[Key, Outcome]
    published: set[Key]


def simulated(seed: int, mode: Any, monkeypatch: pytest.MonkeyPatch) -> Simulated:
    plan = random_plan(random.Random(seed), 30)
    worlds: list[tuple[World, str]] = []

    def listen(world: World, run: str) -> Story:
        worlds.append((world, run))
        return tell(world, run)

    with monkeypatch.context() as patched:
        patched.setattr(simulating, "tell", listen)
        story = simulating.simulate(plan, Scripted(seed), mode, seed).story
    [(world, run)] = worlds
    said = [item.fact for item in world.log.said if item.event.run == run and item.fact is not None]
    random.Random(seed).shuffle(said)
    found = fold(plan, said)
    resets = found.state.resets
    recorded = {key: out for (key, number), out in story.outcomes.items() if number == revision(plan, resets, key)}
    return Simulated(found, recorded, {fact.key for fact in said if isinstance(fact, Fact)})


@pytest.mark.parametrize("part", range(4))
def test_simulated_runs_are_folded_to_what_was_recorded(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In both modes, whose events differ: what is not published is derived."""
    derived = 0
    for seed in range(part * 25, part * 25 + 25):
        shown = []
        for mode in MODES:
            run = simulated(seed, mode, monkeypatch)
            nodes = run.found.nodes
            outcomes = {key: status.outcome.kind for key, status in nodes.items() if status.outcome is not None}
            assert outcomes == {key: outcome.kind for key, outcome in run.recorded.items()}, (seed, mode)
            shown.append({key: status.state for key, status in nodes.items()})
            derived += len(outcomes.keys() - run.published)
        assert shown[0] == shown[1], seed
    assert derived > 100
