"""Where a run is, from the entries of its journal alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import msgspec

from segue.machine.facts import Cause, Fact, Failure, Key, Outcome
from segue.machine.history import fold
from segue.plan.graph import ENTRY, EXIT, RUN, Arg, Compare, Const, Get, Node, Plan, Region
from segue.ports.journal import JournalEntry
from segue.runtime.where import NodeView, view
from segue.wire import envelope
from segue.wire.envelope import Ended, Event, Retrying

T0 = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ID = "01936f2e7b7c7000800000000000000a"


def node(name: str, *reads: str, guard: Any = None) -> Node:
    args = tuple(Arg(f"a{i}", Get(up)) for i, up in enumerate(reads))
    return Node(name, "step", f"svc-{name}", RUN, name, args, guard, () if reads or guard else (ENTRY,))


PLAN = Plan(
    flow="f",
    home="home",
    nodes=(
        Node(ENTRY, "entry", "home"),
        node("a"),
        node("b", "a"),
        node("rare", guard=Compare(">", Get("a"), Const(100))),
        Node("pick", "either", "home", RUN, "", (Arg("1", Get("rare", (), True)), Arg("2", Get("b", (), True)))),
        node("c", "pick"),
        Node(EXIT, "exit", "home", args=(Arg("result", Get("c")),)),
    ),
    regions=(Region(RUN, ENTRY, EXIT),),
    inputs=(),
    output={},
    contracts=(),
    types={},
)


def entry(where: str, kind: str, data: object = None, at: float = 0, attempt: int = 1, took: float = 1) -> JournalEntry:
    distinct = f"{kind}/{attempt}" if kind == "attempt.failed" else kind
    step = where != RUN
    event = Event(
        id=envelope.event_id(ID, where, "", 1, distinct),
        source="/segue/x",
        type=envelope.TYPE + kind,
        subject=f"f/{where}",
        time=T0 + timedelta(seconds=at),
        run=ID,
        plan=PLAN.hash,
        flow="f",
        node=where,
        specversion="1.0",
        data=msgspec.Raw(msgspec.json.encode(data)),
        attempt=attempt if step else 0,
        began=T0 + timedelta(seconds=at - took) if step else None,
    )
    return JournalEntry(event.id, ID, where, kind, event.time, envelope.encode(event))


def states(*entries: JournalEntry) -> dict[str, str]:
    return {item.node: item.state for item in view(PLAN, entries)}


def of(name: str, *entries: JournalEntry) -> NodeView:
    [found] = [item for item in view(PLAN, entries) if item.node == name]
    return found


STARTED = entry(RUN, "started", {})
A, B, C = entry("a", "completed", 5, at=2), entry("b", "completed", 6, at=4), entry("c", "completed", 7, at=9)
ENDED = entry(RUN, "ended", Ended("completed", msgspec.Raw(b"7")), at=9)


def test_nothing_is_known_yet() -> None:
    assert states() == {"a": "waiting", "b": "waiting", "rare": "waiting", "pick": "waiting", "c": "waiting"}


def test_skips_and_gateways_that_nobody_published_are_derived() -> None:
    found = view(PLAN, [STARTED, A, B])
    assert {item.node: item.state for item in found} == {
        "a": "completed",
        "b": "completed",
        "rare": "skipped",
        "pick": "completed",
        "c": "open",
    }
    assert [item.node for item in found] == ["a", "b", "rare", "pick", "c"]
    assert [item.service for item in found][:2] == ["svc-a", "svc-b"]


def test_the_order_of_the_entries_does_not_matter() -> None:
    entries = [STARTED, A, B, C, ENDED]
    expected = view(PLAN, entries)
    assert all(item.outcome is not None for item in expected)
    assert all(view(PLAN, other) == expected for other in permutations(entries))
    assert view(PLAN, [*entries, *entries]) == expected


def test_what_a_node_waits_for() -> None:
    assert of("b", STARTED).waits_for == ("a",)
    assert of("pick", STARTED, A).waits_for == ("b",)
    assert of("a", STARTED).state == "open"


def test_times_of_an_attempt() -> None:
    found = of("b", STARTED, A, entry("b", "completed", 6, at=4, attempt=3, took=1.5))
    assert (found.attempts, found.seconds) == (3, 1.5)
    assert found.ended == T0 + timedelta(seconds=4)
    assert found.began == T0 + timedelta(seconds=2.5)


def test_since_when_a_node_is_open() -> None:
    assert of("b", STARTED, A).since == T0 + timedelta(seconds=2)


def test_failed_attempts_show_the_last_one_and_the_next() -> None:
    def failed(attempt: int, at: float) -> JournalEntry:
        error = Failure("Busy", f"try {attempt}")
        following = T0 + timedelta(seconds=at + 5)
        return entry("b", "attempt.failed", Retrying(error, following, 4), at=at, attempt=attempt)

    found = of("b", STARTED, A, failed(2, 8), failed(1, 3))
    assert found.error == Failure("Busy", "try 2")
    assert (found.state, found.attempts, found.of) == ("open", 2, 4)
    assert found.next == T0 + timedelta(seconds=13)
    over = of("b", STARTED, A, failed(1, 3), failed(2, 8), entry("b", "completed", 1, at=20, attempt=3))
    assert (over.state, over.attempts, over.error, over.next) == ("completed", 3, None, None)


def test_a_failure_and_what_it_held_up() -> None:
    error = Failure("Broken", "it broke", "Traceback ...")
    entries = [STARTED, entry("a", "failed", error, at=3)]
    assert states(*entries) == {
        "a": "failed",
        "b": "aborted",
        "rare": "aborted",
        "pick": "aborted",
        "c": "aborted",
    }
    assert of("a", *entries).error == Failure("Broken", "it broke")
    assert [cause.node for cause in of("c", *entries).causes] == ["a"]


def test_fold_marks_what_was_derived() -> None:
    facts = [
        Fact(Key(ENTRY), Outcome("completed", {})),
        Fact(Key("a"), Outcome("failed", causes=(Cause("a", error=Failure("X", "y")),))),
    ]
    found = fold(PLAN, facts)
    assert [name for name, status in found.items() if status.derived] == ["b", "rare", "pick", "c", EXIT]
    assert found[EXIT].outcome is not None
    assert found[EXIT].outcome.causes == facts[1].outcome.causes
    assert fold(PLAN, reversed(facts)) == found
    assert list(found) == [item.id for item in PLAN.nodes]
