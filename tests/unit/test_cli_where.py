"""The one screen about a run, from fixed views: what it says of every state, in both modes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from segue.cli.runs import run_lines
from segue.cli.runview import view_lines
from segue.machine.facts import Cause, Failure, Outcome
from segue.machine.history import NodeState
from segue.ports.journal import RunRecord
from segue.runtime.where import NodeView, RunView

NOW = datetime(2026, 3, 4, 12, 0, 10, tzinfo=UTC)
RUN = "0195600000007000800000000000000a"
URL = "nats://127.0.0.1:4222"


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def record(**changes: object) -> RunRecord:
    base = RunRecord(RUN, "place_order", "1a2b3c4d5e6f7a8b9c0d", "orchestrated", "4711", at(-42))
    return msgspec.structs.replace(base, **changes)


def shown(view: RunView, broker: str = "not asked", **options: object) -> str:
    lines = view_lines(view, NOW, broker, URL, **options)  # type: ignore[arg-type]
    return "\n".join(str(line) for line in lines) + "\n"


TIMEOUT = Failure("TimeoutError", "stripe.com", "Traceback ...\n  File shop.py, line 3\n")
OPEN = RunView(
    record(),
    (
        NodeView("validate", "orders", "step", "completed", attempts=1, seconds=0.012),
        NodeView("reserve", "inventory", "step", "completed", attempts=3, seconds=1.25),
        NodeView("charge", "payments", "step", "open", attempts=2, began=at(-7), error=TIMEOUT, next=at(3), of=5),
        NodeView("notify", "email", "step", "open", since=at(-12), backlog=57),
        NodeView("review", "back-office", "step", "skipped"),
        NodeView("ship", "shipping", "step", "waiting", waits_for=("charge", "reserve")),
    ),
)


def test_a_run_under_way() -> None:
    assert (
        shown(OPEN, "reachable")
        == """\
place_order/4711  running for 42 s   orchestrated   plan 1a2b3c4d5e6f   run 0195600000007000800000000000000a
  ✔  validate  orders       12 ms
  ✔  reserve   inventory    1.2 s, attempt 3
  ↻  charge    payments     attempt 2 of 5 at 12:00:03 failed: TimeoutError: stripe.com; next 12:00:13
  …  notify    email        email has not answered for 12 s; 57 messages wait for it
  -  review    back-office  skipped
  ·  ship      shipping     waits for charge, reserve
"""
    )


def test_the_mode_is_the_only_difference() -> None:
    other = RunView(record(mode="choreographed"), OPEN.nodes)
    assert shown(other).replace("choreographed", "orchestrated") == shown(OPEN)


def test_a_failed_run() -> None:
    causes = (Cause("charge", error=TIMEOUT), Cause("reserve"))
    nodes = (
        NodeView("charge", "payments", "step", "failed", attempts=5, ended=at(-6), error=TIMEOUT),
        NodeView("reserve", "inventory", "step", "failed", attempts=1, ended=at(-6), error=Failure("Empty", "")),
        NodeView("ship", "shipping", "step", "aborted", causes=causes),
        NodeView("notify", "email", "step", "cancelled", causes=(Cause("ship"),)),
        NodeView("first", "email", "either", "completed"),
    )
    assert (
        shown(RunView(record(status="failed", ended=at(-5), key="", started=at(-86400)), nodes))
        == """\
place_order  failed after 23 h 59 min, at 12:00:05   orchestrated   plan 1a2b3c4d5e6f   run 0195600000007000800000000000000a
  ✖  charge   payments   failed in attempt 5 at 12:00:04: TimeoutError: stripe.com
  ✖  reserve  inventory  failed at 12:00:04: Empty
  ⊘  ship     shipping   aborted because charge, reserve failed
  ⊘  notify   email      cancelled because ship was cancelled
  ✔  first    email      done
"""  # noqa: E501
    )


def test_tracebacks_on_demand() -> None:
    assert "shop.py" not in shown(OPEN)
    assert shown(OPEN, traceback=True).endswith("\ncharge: TimeoutError\n  Traceback ...\n    File shop.py, line 3\n")


def test_without_the_broker_the_backlog_is_unknown() -> None:
    screen = shown(OPEN, "unreachable")
    assert "email has not answered for 12 s\n" in screen
    assert screen.endswith(f"\nbroker unreachable at {URL}: backlog unknown\n")


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (NodeView("a", "s", "step", "open"), "s has not answered"),
        (NodeView("a", "s", "step", "open", backlog=1), "s has not answered; 1 message waits for it"),
        (NodeView("a", "s", "step", "open", backlog=0), "s has not answered; 0 messages wait for it"),
        (NodeView("a", "s", "step", "waiting"), "waits"),
        (NodeView("a", "s", "step", "waiting", waits_for=("run.entry",)), "waits for the start"),
        (
            NodeView("a", "s", "step", "waiting", waits_for=tuple(f"n{i}" for i in range(9))),
            "waits for n0, n1, n2, n3, n4, n5 and 3 more",
        ),
        (
            NodeView("a", "s", "step", "open", attempts=1, began=at(-90), error=Failure("E", "x"), next=at(-80)),
            "attempt 1 at 11:58:40 failed: E: x; next 11:58:50, due 1 min 20 s ago",
        ),
        (NodeView("a", "s", "step", "aborted"), "aborted"),
        (NodeView("a", "s", "sleep", "sleeping", next=at(50)), "sleeps until 12:01:00"),
        (
            NodeView("a", "s", "wait", "waiting_signal", signal="go", since=at(-60), next=at(60)),
            "waits for signal 'go' since 11:59:10, until 12:01:10",
        ),
        (NodeView("a", "s", "wait", "waiting_signal", signal="go", slot="x"), "waits for signal 'go' for 'x'"),
        (NodeView("a", "s", "step", "paused"), "is held, unless it had begun: the run is paused"),
        (NodeView("a", "s", "step", "stopping"), "is stopped; s has not said whether it had begun"),
        (NodeView("a", "s", "step", "compensating"), "is being undone"),
        (
            NodeView("a", "s", "step", "compensating", attempts=2, of=5, error=Failure("E", "x"), next=at(5)),
            "undo: attempt 2 of 5 failed: E: x; next 12:00:15",
        ),
        (NodeView("a", "s", "step", "undo_failed", error=Failure("E", "x")), "cannot be undone: E: x"),
        (NodeView("a", "s", "step", "undone"), "undone"),
        (NodeView("a", "s", "flow", "open", child="c1", since=at(-3)), "run c1 has not ended for 3.0 s"),
        (NodeView("a", "s", "each", "running", done=3, total=10), "3 of 10 items over"),
        (NodeView("a", "s", "each", "completed", done=10, total=10), "10 items"),
        (NodeView("a", "s", "each", "completed"), "done"),
        (NodeView("a", "s", "repeat", "running", done=3, total=20), "round 4 of 20 at most"),
        (
            NodeView("a", "s", "repeat", "running", done=3, total=20, next=at(5)),
            "round 4 of 20 at most; next at 12:00:15",
        ),
        (NodeView("a", "s", "repeat", "completed", done=1, total=20), "1 round"),
        (NodeView("a", "s", "race", "running", done=1, total=3, since=at(-2)), "1 of 3 branches over for 2.0 s"),
        (
            NodeView("a", "s", "race", "completed", done=3, total=3, outcome=Outcome("completed", 1, winners=(0, 2))),
            "won by branch 1, 3",
        ),
        (NodeView("a", "s", "attempt", "running", since=at(-2), next=at(8)), "under way for 2.0 s, until 12:00:18"),
        (NodeView("a", "s", "step", "cancelled", causes=(Cause("a"),)), "cancelled"),
    ],
)
def test_words(node: NodeView, words: str) -> None:
    assert shown(RunView(record(), (node,)), "reachable").splitlines()[1].endswith(f"  s  {words}")


def item(node: str, tag: str, state: NodeState, **more: Any) -> NodeView:
    return NodeView(node, "inventory", "step", state, tag, ("lines",), **more)


LINES = NodeView("lines", "inventory", "each", "running", done=3, total=10)
PICKED = (
    *(item("pick", str(i), "completed", attempts=1) for i in range(4)),
    item("pick", "4", "failed", attempts=1, error=Failure("Empty", "no bolts")),
    item("pick", "5", "open", since=at(-3)),
)
PACKED = (*(item("pack", str(i), "completed") for i in range(3)), item("pack", "3", "open"))


def test_items_are_counted_and_those_under_way_or_failed_are_shown() -> None:
    assert (
        shown(RunView(record(), (LINES, *PICKED, *PACKED)))
        == """\
place_order/4711  running for 42 s   orchestrated   plan 1a2b3c4d5e6f   run 0195600000007000800000000000000a
  …  lines     inventory  3 of 10 items over
  ✖    pick    inventory  4/10 done, 1 failed, 1 open
  ✖    pick/4  inventory  failed: Empty: no bolts
  …    pick/5  inventory  inventory has not answered for 3.0 s
  …    pack    inventory  3/10 done, 1 open
  …    pack/3  inventory  inventory has not answered
"""
    )


def test_all_shows_every_item() -> None:
    lines = shown(RunView(record(), (LINES, *PICKED)), limit=None).splitlines()
    assert [line.split()[1] for line in lines[2:]] == ["pick", *(f"pick/{i}" for i in range(6))]


def test_of_many_items_a_few_are_shown() -> None:
    many = tuple(item("pick", str(i), "open") for i in range(1000))
    lines = shown(RunView(record(), (msgspec.structs.replace(LINES, total=1000), *many))).splitlines()
    assert len(lines) == 9
    assert lines[2].split(maxsplit=3) == ["…", "pick", "inventory", "0/1,000 done, 1,000 open"]
    assert lines[-1].strip() == "… 995 more"


def test_one_round_needs_no_counting() -> None:
    loop = NodeView("poll", "bank", "repeat", "running", total=5)
    look = NodeView("look", "bank", "step", "waiting", "0", ("poll",))
    lines = shown(RunView(record(), (loop, look))).splitlines()
    assert lines[2].split() == ["·", "look/0", "bank", "waits"]


@pytest.mark.parametrize(
    ("run", "stop", "head"),
    [
        (record(status="compensating"), "failed", "compensating for 42 s   orchestrated"),
        (record(status="compensating"), "deadline", "compensating for 42 s, because its time was over   orch"),
        (record(status="paused", pauses=1), "", "paused for 42 s   orchestrated"),
        (record(revision=2), "", "running for 42 s   retried, revision 2   orchestrated"),
        (record(status="cancelled", ended=at(0)), "cancelled", "cancelled after 42 s, at 12:00:10   orchestrated"),
    ],
)
def test_the_head_says_what_happens_to_the_run(run: RunRecord, stop: str, head: str) -> None:
    assert shown(RunView(run, (), stop)).startswith(f"place_order/4711  {head}")


def test_a_large_plan_shows_what_matters() -> None:
    done = tuple(NodeView(f"n{i}", "s", "step", "completed", attempts=1) for i in range(1000))
    waiting = (NodeView("end", "s", "step", "waiting", waits_for=("stuck",)),)
    view = RunView(record(), (*done, NodeView("stuck", "s", "step", "open"), *waiting))
    assert shown(view).splitlines()[1:] == [
        "  …  stuck  s  s has not answered",
        "  1,000 completed, 1 waiting; --all shows them",
    ]
    assert len(shown(view, limit=None).splitlines()) == 1003


def test_nothing_from_outside_reaches_the_terminal() -> None:
    evil = "\x1b[2J[red]\n\u202e"
    node = NodeView("n", evil, "step", "failed", attempts=1, error=Failure(evil, evil, evil), causes=(Cause(evil),))
    screen = shown(RunView(record(key=evil, flow=evil, mode=evil, status=evil), (node,)), traceback=True)
    assert "\x1b" not in screen
    assert "\u202e" not in screen
    assert "[red]" in screen
    assert len(screen.splitlines()) == 6


def test_a_long_error_is_cut() -> None:
    node = NodeView("n", "s", "step", "failed", attempts=1, error=Failure("E", "x" * 5000))
    assert len(shown(RunView(record(), (node,))).splitlines()[1]) < 400


def test_the_list_of_runs() -> None:
    found = [record(), record(run="b" * 32, key="", status="failed", ended=at(-40), error="charge: no\x1b")]
    assert [str(line) for line in run_lines(found, 2, NOW)] == [
        "KEY   FLOW         STATUS   MODE          STARTED   TOOK   RUN                               ERROR",
        f"4711  place_order  running  orchestrated  11:59:28  42 s   {RUN}",
        f"-     place_order  failed   orchestrated  11:59:28  2.0 s  {'b' * 32}  charge: no\\x1b",
        "the newest 2; --limit shows more",
    ]
    assert run_lines([], 50, NOW) == []
    assert len(run_lines(found, 50, NOW)) == 3
