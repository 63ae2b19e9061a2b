"""Who may say what, from the plans alone. That it suffices, every simulation checks."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from segue.errors import InvalidInput, PlanError
from segue.machine.facts import AnyFact, Fact, Key, Outcome, Pause, Placed, Reset, Signal, Stop, Token, Undone
from segue.plan.graph import ENTRY, EXIT, RUN, Arg, Get, Node, Plan, Region
from segue.plan.projection import COORDINATOR, MODES, Mode
from segue.ports.transport import matches
from segue.runtime.saying import make_event
from segue.runtime.work import RunRef
from segue.wire.rights import CLIENT, DEPLOYER, ROLES, SCHEDULER, Rights, check_place, rights
from segue.wire.said import subject_kind
from segue.wire.subjects import OBSERVER, Subjects

SUBJECTS = Subjects("acme")


def parent_plan(home: str = "shop") -> Plan:
    """A flow of one step and one subflow, which another service begins."""
    nodes = (
        Node(ENTRY, "entry", home),
        Node("charge", "step", "payments", step="charge", args=(Arg("order", Get(ENTRY, ("order",))),)),
        Node("survey", "flow", home, step="ask", after=("charge",)),
        Node(EXIT, "exit", home, args=(Arg("result", Get("charge")),), after=("survey",)),
    )
    return Plan("sell", home, nodes, (Region(RUN, ENTRY, EXIT),), (), {}, (), {})


def child_plan() -> Plan:
    nodes = (
        Node(ENTRY, "entry", "people"),
        Node("call", "step", "people", step="call", after=(ENTRY,)),
        Node(EXIT, "exit", "people", args=(Arg("result", Get("call")),)),
    )
    return Plan("ask", "people", nodes, (Region(RUN, ENTRY, EXIT),), (), {}, (), {})


@pytest.fixture
def known() -> dict[str, Rights]:
    found = rights([parent_plan(), child_plan()], SUBJECTS, ["idle"])
    return {one.participant: one for one in found}


def may_say(one: Rights, subject: str) -> bool:
    return any(matches(pattern, subject) for pattern in one.publish)


@pytest.mark.parametrize(
    ("subject", "who"),
    [
        # The coordinator passes on what it hears of a run that was moved away, and who begins a subflow its end.
        ("acme.c.sell.charge.completed", {"payments", COORDINATOR}),
        ("acme.o.sell.charge.completed", {"payments"}),
        ("acme.o.sell.charge.attempt.failed", {"payments"}),
        ("acme.o.sell.charge.cancelled", {"payments", COORDINATOR}),
        ("acme.c.sell.charge.cancelled", {"payments", COORDINATOR}),
        ("acme.c.sell.run.started", {"shop"}),
        ("acme.c.sell.run.ended", {"shop"}),
        ("acme.o.sell.run.ended", {COORDINATOR}),
        # Its own home, whoever begins it, and the home of the flow that it stands for.
        ("acme.c.sell.survey.completed", {"shop", "people", COORDINATOR}),
        ("acme.o.sell.survey.completed", {"shop", "people", COORDINATOR}),
        ("acme.c.sell.run:notice.shop", {"shop"}),
        ("acme.o.sell.run:notice.payments", {"payments"}),
        # The home of the flow that it stands for says that it was undone.
        ("acme.c.sell.run:notice.people", {"people"}),
        ("acme.c.ask.run:notice.shop", set()),
        ("acme.o.sell.run:notice.coordinator", {COORDINATOR}),
        ("acme.c.sell.run:notice.coordinator", {COORDINATOR}),
        ("acme.do.payments.charge", {COORDINATOR}),
        ("acme.c.other.charge.completed", set()),
        ("other.c.sell.charge.completed", set()),
        ("acme.reg.flow.sell", set()),
    ],
)
def test_who_may_say_it(known: dict[str, Rights], subject: str, who: set[str]) -> None:
    assert {name for name, one in known.items() if may_say(one, subject)} == who


def test_who_does_what(known: dict[str, Rights]) -> None:
    assert set(known) == {"shop", "payments", "people", "idle", *ROLES}
    assert known["payments"].consume == (("events", "payments"), ("commands", "payments"))
    assert {name: one.registry for name, one in known.items()} == {
        **{name: (f"service.{name}", f"store.{name}") for name in ("shop", "payments", "people", "idle")},
        COORDINATOR: ("progress.*", "store.coordinator"),
        SCHEDULER: ("progress.*",),
        OBSERVER: (),
        CLIENT: (),
        DEPLOYER: (">",),
    }
    assert {name for name, one in known.items() if one.administer} == {DEPLOYER}
    assert {name for name, one in known.items() if one.inspect} == {DEPLOYER, CLIENT}
    assert not known[OBSERVER].publish
    assert not known["idle"].publish


def _questions(asker: str) -> tuple[str, ...]:
    names = sorted({COORDINATOR, "shop", "payments", "people", "idle"} - {asker})
    return tuple(f"acme.ask.{name}" for name in names)


def _handovers(*names: str) -> tuple[str, ...]:
    return tuple(f"acme.move.{name}" for name in names)


def test_who_carries_large_values(known: dict[str, Rights]) -> None:
    assert {name for name, one in known.items() if not one.carries} == {OBSERVER, DEPLOYER}
    assert {name for name, one in known.items() if one.forgets} == {"shop", "people", COORDINATOR}


def test_who_asks_whom(known: dict[str, Rights]) -> None:
    homes = ("acme.to.coordinator", "acme.to.people", "acme.to.shop")
    assert {name: one.ask for name, one in known.items()} == {
        # Everybody may ask what changes nothing; who begins a subflow gives orders to its home; a home moves its runs.
        "shop": (
            *_questions("shop"),
            *_handovers("coordinator", "payments", "shop"),
            "acme.to.coordinator",
            "acme.to.people",
        ),
        "people": (*_questions("people"), *_handovers("coordinator", "people")),
        "payments": _questions("payments"),
        "idle": _questions("idle"),
        COORDINATOR: (
            *homes,
            *_questions(COORDINATOR),
            *_handovers("coordinator", "idle", "payments", "people", "shop"),
        ),
        SCHEDULER: homes,
        CLIENT: homes,
        OBSERVER: (),
        DEPLOYER: (),
    }


def test_old_plans_count_as_long_as_they_are_given() -> None:
    found = {one.participant: one for one in rights([parent_plan("shop"), parent_plan("desk")], SUBJECTS)}
    assert may_say(found["shop"], "acme.c.sell.run.ended")
    assert may_say(found["desk"], "acme.c.sell.run.ended")


@pytest.mark.parametrize("role", ROLES)
def test_a_service_must_not_pass_for_a_role(role: str) -> None:
    with pytest.raises(PlanError, match="has the name of a role"):
        rights([parent_plan(role)], SUBJECTS)


FACTS: list[tuple[AnyFact, str, str]] = [
    (Fact(Key(ENTRY), Outcome("completed", {})), "shop", COORDINATOR),
    (Fact(Key("charge"), Outcome("completed", 1)), "payments", "payments"),
    (Fact(Key(EXIT), Outcome("completed", 1)), "shop", COORDINATOR),
    (Stop(RUN, "", 1, "cancelled"), "shop", COORDINATOR),
    (Token(Key("charge"), RUN, 1), "payments", COORDINATOR),
    (Undone(Key("charge"), 1), "payments", "payments"),
    (Reset(2, (Key("charge"),)), "shop", COORDINATOR),
    (Pause(1), "shop", COORDINATOR),
    (Signal("approval", "", 1, "x"), "shop", COORDINATOR),
    (Placed(2, "orchestrated"), "shop", COORDINATOR),
    # Said under the new placement, by who moved it there.
    (Placed(2, "orchestrated", True), COORDINATOR, "shop"),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("fact", "service", "coordinator"), FACTS)
def test_an_event_counts_only_in_its_place(mode: Mode, fact: AnyFact, service: str, coordinator: str) -> None:
    plan = parent_plan()
    run = RunRef("0" * 32, plan, mode, "")
    event = make_event(run, fact, "/acme/anybody", datetime.now(UTC))
    author = service if mode == "choreographed" else coordinator

    def place(flow: str = "sell", who: str = author, node: str = event.node, kind: str = event.kind) -> str:
        return SUBJECTS.event(mode, flow, *subject_kind(node, kind, who))

    check_place(SUBJECTS, plan, event, place())
    wrong = [place("ask"), place() + ".x", place(node="survey", kind="completed"), place(kind="aborted")]
    if not isinstance(fact, Fact):
        wrong += [place(who=name) for name in ("shop", "payments", "people", COORDINATOR) if name != author]
    if isinstance(fact, Undone) and mode == "choreographed":
        wrong.remove(place(who=COORDINATOR))  # passed on, after a move
    for subject in set(wrong) - {place()}:
        with pytest.raises(InvalidInput, match="may not be said"):
            check_place(SUBJECTS, plan, event, subject)
    with pytest.raises(InvalidInput, match="may not be said"):
        check_place(SUBJECTS, plan, msgspec.structs.replace(event, flow="ask"), place())


def test_what_a_notice_names_must_exist() -> None:
    plan = parent_plan()
    run = RunRef("0" * 32, plan, "choreographed", "")
    for fact in (Undone(Key("nothing"), 1), Token(Key("nothing"), RUN, 1), Stop("nothing", "", 1, "lost")):
        event = make_event(run, fact, "/acme/payments", datetime.now(UTC))
        with pytest.raises(InvalidInput, match="may not be said by payments"):
            check_place(SUBJECTS, plan, event, SUBJECTS.notices("choreographed", "sell", "payments"))


@pytest.mark.parametrize(("fact", "service", "_"), FACTS)
def test_of_an_unknown_plan_only_outcomes_can_be_placed(fact: AnyFact, service: str, _: str) -> None:
    event = make_event(RunRef("0" * 32, parent_plan(), "choreographed", ""), fact, "/acme/x", datetime.now(UTC))
    place = SUBJECTS.event("choreographed", "sell", *subject_kind(event.node, event.kind, service))
    if isinstance(fact, Fact):
        check_place(SUBJECTS, None, event, place)
        with pytest.raises(InvalidInput, match="may not be said"):
            check_place(SUBJECTS, None, event, place.replace("sell", "ask"))
    else:
        with pytest.raises(InvalidInput, match="may not be said"):
            check_place(SUBJECTS, None, event, place)
