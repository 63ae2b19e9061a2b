"""What is asked of runs that have ended: to undo them with their parents, and to retry them or some places of them."""

from __future__ import annotations

import pytest

from segue.machine import orders
from segue.machine.facts import (
    AnyFact,
    Cause,
    Fact,
    Failure,
    Key,
    Outcome,
    Reason,
    Record,
    Reset,
    State,
    Stop,
    Token,
    Undo,
    Undone,
    Withdraw,
)
from segue.machine.scopes import since
from segue.machine.whole import gather, look
from segue.plan.graph import ENTRY, EXIT, RUN, Arg, Get, Node, Plan, Region

NODES = (
    Node(ENTRY, "entry", "shop"),
    Node("charge", "step", "shop", step="charge", args=(Arg("order", Get(ENTRY, ("order",))),), undo=True),
    Node("child", "flow", "shop", step="other", args=(Arg("paid", Get("charge")),)),
    Node(EXIT, "exit", "shop", args=(Arg("result", Get("child")),)),
)
PLAN = Plan("sale", "shop", NODES, (Region(RUN, ENTRY, EXIT),), (), {}, (), {})
MINE = frozenset(PLAN.index.nodes)
END = Node(EXIT, "exit", "shop", after=(ENTRY,))
HARMLESS = Plan("look", "shop", (NODES[0], END), (Region(RUN, ENTRY, EXIT),), (), {}, (), {})

DONE: tuple[AnyFact, ...] = (
    Fact(Key(ENTRY), Outcome("completed", {"order": 1})),
    Fact(Key("charge"), Outcome("completed", 100)),
    Fact(Key("child"), Outcome("completed", "ok")),
    Fact(Key(EXIT), Outcome("completed", "ok")),
)
STOP = Stop(RUN, "", 1, "undone")
GONE = (Undone(Key("child"), 1), Undone(Key("charge"), 1))
OVER = Token(Key(ENTRY), RUN, 1, (Key("charge"),))  # what follows from it is reset with it


def known(*facts: AnyFact) -> State:
    return gather(PLAN, facts)


def test_a_completed_run_is_undone_from_its_end_with_its_own_subflow() -> None:
    assert orders.undo(PLAN, known(*DONE)) == STOP
    assert look(PLAN, known(*DONE), MINE) == []
    [child] = [effect for effect in look(PLAN, known(*DONE, STOP), MINE) if isinstance(effect, Undo)]
    assert (child.key, child.result) == (Key("child"), "ok")
    [charge] = look(PLAN, known(*DONE, STOP, GONE[0]), MINE)
    assert charge == Undo(Key("charge"), 1, {"order": 1}, 100)
    assert look(PLAN, known(*DONE, STOP, *GONE), MINE) == [Record(OVER)], "the parent waits for this one"
    assert orders.undo(PLAN, known(*DONE, STOP, *GONE)) == STOP
    assert orders.undo(PLAN, known(*DONE, STOP, *GONE, OVER)) is None


@pytest.mark.parametrize("reason", ["failed", "cancelled", "deadline"])
def test_no_parent_waits_for_the_entry_of_a_run_that_ends_by_itself(reason: Reason) -> None:
    stop = Stop(RUN, "", 1, reason)
    assert not any(isinstance(effect, Record) for effect in look(PLAN, known(*DONE, stop, *GONE), MINE))


def test_of_a_run_that_is_undone_already_or_did_nothing_nothing_is_left() -> None:
    failed = Outcome("aborted", causes=(Cause("child", "", Failure("Broken", "")),))
    assert orders.undo(PLAN, known(*DONE[:2], Fact(Key(EXIT), failed))) is None
    assert orders.undo(HARMLESS, gather(HARMLESS, (DONE[0], DONE[-1]))) is None
    assert orders.undo(PLAN, known(*DONE[:3])) == "the run has not ended"


def test_a_run_is_not_retried_while_it_is_undone() -> None:
    assert orders.retry(PLAN, known(*DONE, STOP, GONE[0]), ("charge",), MINE) == "the run is being undone"
    assert orders.cancel(PLAN, known(*DONE, STOP)) == "the run has ended"
    reset = orders.retry(PLAN, known(*DONE, STOP, *GONE, OVER), ("child",), MINE)
    assert reset == Reset(2, (Key("charge"), Key("child"), Key(EXIT))), "what was undone is done again"


def test_to_the_outside_a_call_is_another_one_only_after_it_was_undone() -> None:
    state = known(*GONE[1:], Undone(Key("charge"), 3), Undone(Key("child"), 2, Failure("Broken", "not undone")))
    assert [since(state, Key("charge"), number) for number in (1, 2, 3, 4, 5)] == [1, 2, 2, 4, 4]
    assert since(state, Key("child"), 3) == 1


def test_a_call_that_may_have_begun_is_withdrawn_though_its_inputs_are_not_known() -> None:
    stop, begun = Stop(RUN, "", 1, "cancelled"), {(Key("charge"), 1)}
    assert look(PLAN, gather(PLAN, [stop], begun), MINE) == [Withdraw(Key("charge"), 1)]
    assert look(PLAN, gather(PLAN, [stop], begun), frozenset({"child"})) == []
    assert look(PLAN, gather(PLAN, [stop, DONE[1]], begun), MINE & {"charge"}) == []
