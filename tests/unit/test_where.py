"""Where a run is, from the entries of its journal alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import msgspec

from segue import Service, after, each, flow, repeat, sleep, wait_for
from segue.machine.facts import AnyFact, Cause, Fact, Failure, Key, Outcome, Reset, Stop, Undone
from segue.machine.history import fold
from segue.plan.graph import ENTRY, EXIT, RUN, Arg, Compare, Const, Get, Node, Plan, Region
from segue.ports.journal import JournalEntry
from segue.runtime.where import NodeView, view
from segue.wire import envelope
from segue.wire.envelope import Ended, Event, Retrying
from segue.wire.said import Said, say

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
    assert list(found.derived) == [Key(name) for name in ("b", "rare", "pick", "c", EXIT)]
    assert [key.node for key, status in found.nodes.items() if status.derived] == ["b", "rare", "pick", "c", EXIT]
    end = found.nodes[Key(EXIT)].outcome
    assert end is not None
    assert end.causes == facts[1].outcome.causes
    assert fold(PLAN, reversed(facts)).nodes == found.nodes
    assert [key.node for key in found.nodes] == [item.id for item in PLAN.nodes]


svc, other = Service("svc"), Service("other")


@svc.step
async def pick(n: int) -> int:
    return n


@pick.undo
async def put_back(n: int, result: int) -> None: ...


@other.step
async def look(n: int) -> int:
    return n


@flow
def lines(ns: list[int]) -> list[int]:
    return each(ns, lambda n: look(pick(n)))


@flow
def poll(n: int) -> int:
    return repeat(look, n, until=lambda m: m > 5, cap=9, every=20)


@flow(home=svc)
def asked(n: int) -> int:
    with after(sleep(30)):
        m = wait_for("go", int, timeout=60)
    return look(m)


def said(plan: Plan, fact: AnyFact, at: float = 0, attempt: int = 0) -> JournalEntry:
    """The entry of a fact's event."""
    words = say(fact)
    return event_of(plan, words, at, attempt)


def event_of(plan: Plan, words: Said, at: float, attempt: int) -> JournalEntry:
    time = T0 + timedelta(seconds=at)
    event = Event(
        id=words.id(ID),
        source="/segue/x",
        type=envelope.TYPE + words.kind,
        subject=f"{plan.flow}/{words.node}",
        time=time,
        run=ID,
        plan=plan.hash,
        flow=plan.flow,
        node=words.node,
        specversion="1.0",
        data=msgspec.Raw(words.data),
        tag=words.tag,
        revision=words.revision,
        winners=words.winners,
        attempt=attempt,
        began=time - timedelta(seconds=1) if attempt else None,
    )
    return JournalEntry(event.id, ID, event.node, event.kind, event.time, envelope.encode(event))


def did(node: str, value: Any = 1, tag: str = "", revision: int = 1) -> Fact:
    return Fact(Key(node, tag), Outcome("completed", value), revision)


def place(plan: Plan, node: str, *entries: JournalEntry, tag: str = "") -> NodeView:
    [found] = [item for item in view(plan, entries) if (item.node, item.tag) == (node, tag)]
    return found


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def test_items_stand_below_their_map_which_counts_them() -> None:
    plan = lines.plan
    entries = [
        said(plan, did(ENTRY, {"ns": [7, 8]})),
        said(plan, did("pick", tag="1"), 4, 2),
        said(plan, did("look", tag="1"), 5, 1),
    ]
    found = view(plan, entries)
    assert [(item.node, item.tag, item.kind, item.state, item.inside) for item in found] == [
        ("each", "", "each", "running", ()),
        ("pick", "0", "step", "open", ("each",)),
        ("pick", "1", "step", "completed", ("each",)),
        ("look", "0", "step", "waiting", ("each",)),
        ("look", "1", "step", "completed", ("each",)),
    ]
    assert (found[0].done, found[0].total, found[0].since) == (1, 2, T0)
    assert (found[1].since, found[2].attempts, found[3].waits_for) == (T0, 2, ("pick",))


def test_the_next_round_of_a_loop_and_the_end_of_a_sleep_and_a_wait() -> None:
    start = said(poll.plan, did(ENTRY, {"n": 0}))
    loop = place(poll.plan, "repeat", start, said(poll.plan, did("look", 1, "0"), 3, 1))
    assert (loop.kind, loop.state, loop.done, loop.total, loop.next) == ("repeat", "running", 1, 9, at(23))
    again = said(poll.plan, did("look", 2, "1"), 30, 1)
    assert place(poll.plan, "repeat", start, said(poll.plan, did("look", 1, "0"), 3, 1), again).next == at(50)
    start, plan = said(asked.plan, did(ENTRY, {"n": 0}), 2), asked.plan
    nap = next(node.id for node in plan.nodes if node.kind == "sleep")
    asleep = place(plan, nap, start)
    assert (asleep.state, asleep.since, asleep.next) == ("sleeping", at(2), at(32))
    waiting = place(plan, "go", start, said(plan, did(nap, None), 33))
    assert (waiting.state, waiting.signal, waiting.slot, waiting.next) == ("waiting_signal", "go", "", at(93))


def test_a_gateway_that_failed_itself_is_shown() -> None:
    entries = [said(poll.plan, did(ENTRY, {"n": 0}))]
    entries += [said(poll.plan, did("look", 0, str(i)), i, 1) for i in range(9)]
    shown = {(item.node, item.tag): item for item in view(poll.plan, entries)}
    assert shown["repeat", ""].state == "aborted"
    [capped] = [item for item in shown.values() if item.kind == "exit"]
    assert capped.error is not None
    assert (capped.state, capped.tag, capped.error.type) == ("failed", "8", "LoopCap")


def test_an_undo_has_attempts_of_its_own() -> None:
    plan = lines.plan
    bad = Fact(Key("look", "0"), Outcome("failed", causes=(Cause("look", "0", Failure("Bad", "no")),)))
    entries = [
        said(plan, did(ENTRY, {"ns": [7]})),
        said(plan, did("pick", tag="0"), 4, 2),
        said(plan, bad, 5, 1),
        said(plan, Stop(RUN, "", 1, "failed"), 6),
    ]
    first = place(plan, "pick", *entries, tag="0")
    assert (first.state, first.attempts, first.error) == ("compensating", 0, None)
    data = Retrying(Failure("Busy", "later"), at(12), 4, True)
    words = Said("pick", "0", 1, "attempt.failed", msgspec.json.encode(data), mark="3/undo")
    again = place(plan, "pick", *entries, event_of(plan, words, 7, 3), tag="0")
    assert (again.state, again.attempts, again.of, again.next) == ("compensating", 3, 4, at(12))
    assert again.error == Failure("Busy", "later")
    stuck = said(plan, Undone(Key("pick", "0"), 1, Failure("Busy", "for good")), 13)
    found = place(plan, "pick", *entries, stuck, tag="0")
    assert (found.state, found.error, found.next) == ("undo_failed", Failure("Busy", "for good"), None)
    assert place(plan, "pick", *entries, stuck, said(plan, Undone(Key("pick", "0"), 1), 20), tag="0").state == "undone"


def test_a_retried_node_has_the_times_of_its_newest_revision() -> None:
    entries = [STARTED, A, entry("b", "failed", Failure("Bad", "no"), at=4)]
    entries += [said(PLAN, Fact(Key(EXIT), Outcome("aborted", causes=(Cause("b"),))), 5)]
    entries += [said(PLAN, Reset(2, (Key("b"), Key(EXIT))), 100)]
    again = of("b", *entries)
    assert (again.state, again.revision, again.attempts, again.error) == ("open", 2, 0, None)
    entries += [said(PLAN, did("b", 6, revision=2), 109, 3)]
    over = of("b", *entries)
    assert (over.state, over.attempts, over.ended) == ("completed", 3, at(109))
    assert (of("a", *entries).revision, of("c", *entries).state) == (1, "open")
