"""Projection and subjects: who hears what, in each mode."""

from __future__ import annotations

import random

import pytest

from segue.plan.cost import costs, text
from segue.plan.graph import ENTRY, EXIT, RUN, Arg, Compare, Const, Get, Node, Plan, Region
from segue.plan.projection import COORDINATOR, Emission, Projection, holder, participants, project
from segue.ports.transport import matches
from segue.testing.graphs import workflow_like
from segue.wire.subjects import OBSERVER, Subjects


def order_flow() -> Plan:
    """charge and reserve in parallel; review if dear, by the office; notify after all of it."""
    dear = Compare(">", Get("charge", ("amount",)), Const(1000))
    nodes = (
        Node(ENTRY, "entry", "shop"),
        Node("charge", "step", "payments", step="charge", args=(Arg("order", Get(ENTRY, ("order",))),)),
        Node("reserve", "step", "inventory", step="reserve", args=(Arg("order", Get(ENTRY, ("order",))),)),
        Node("review", "step", "office", step="review", guard=dear, after=(ENTRY,)),
        Node("pick", "either", "office", args=(Arg("a", Get("review")), Arg("b", Get("charge")))),
        Node("notify", "step", "shop", step="notify", args=(Arg("receipt", Get("pick")),), after=("reserve",)),
        Node(EXIT, "exit", "shop", args=(Arg("result", Get("notify")),), after=("notify",)),
    )
    return Plan("place_order", "shop", nodes, (Region(RUN, ENTRY, EXIT),), (), {}, (), {})


PROJECTIONS = {
    "payments": Projection("payments", ("charge",), (ENTRY,), (Emission("charge", ("office",)),)),
    "inventory": Projection("inventory", ("reserve",), (ENTRY,), (Emission("reserve", ("shop",)),)),
    # The guard's read is a subscription; review is heard at home, and published since it is a step.
    "office": Projection(
        "office", ("review", "pick"), (ENTRY, "charge"), (Emission("review", ()), Emission("pick", ("shop",)))
    ),
    "shop": Projection(
        "shop",
        (ENTRY, "notify", EXIT),
        ("reserve", "pick"),
        (Emission(ENTRY, ("payments", "inventory", "office")), Emission("notify", ()), Emission(EXIT, ())),
    ),
    "email": Projection("email", (), (), ()),
}


@pytest.mark.parametrize("service", PROJECTIONS)
def test_a_service_gets_exactly_its_part(service: str) -> None:
    assert project(order_flow(), service) == PROJECTIONS[service]


def test_gateways_that_nobody_else_hears_keep_silent() -> None:
    flow = order_flow()
    own = tuple(Node(**{**_fields(node), "owner": "shop"}) for node in flow.nodes)
    alone = Plan("place_order", "shop", own, flow.regions, (), {}, (), {})
    assert [emission.node for emission in project(alone, "shop").emits] == [
        ENTRY,
        "charge",
        "reserve",
        "review",
        "notify",
        EXIT,
    ]


def _fields(node: Node) -> dict[str, object]:
    return {name: getattr(node, name) for name in node.__struct_fields__}


def test_every_node_has_one_decider_in_each_mode() -> None:
    flow = workflow_like(random.Random(3), 200)
    parts = [project(flow, service).nodes for service in participants(flow, "choreographed")]
    assert sorted(name for nodes in parts for name in nodes) == sorted(flow.index.nodes)
    assert participants(flow, "orchestrated") == (COORDINATOR,)


def test_starts_go_to_the_holder() -> None:
    assert holder(order_flow(), "choreographed") == "shop"
    assert holder(order_flow(), "orchestrated") == COORDINATOR


CHECKOUT = {
    "inventory": Projection("inventory", ("pick",), ("lines:item:entry",), (Emission("pick", ("carriers",)),)),
    # Its own child is heard too: it is the child's home that says how it ended.
    "people": Projection(
        "people",
        ("invoice", "survey"),
        (ENTRY, "pay:catch1:entry", "pay", "survey"),
        (Emission("invoice", ("payments",)), Emission("survey", ("people", "shop"))),
    ),
    "payments": Projection(
        "payments",
        (
            *("pay:open", "pay:timer", "pay:body:entry", "charge", "pay:body:exit", "pay:catch1:entry"),
            *("pay:catch1:exit", "pay:finally:entry", "pay:finally:exit", "pay"),
        ),
        (ENTRY, "quote", "invoice", "log"),
        (
            Emission("charge", ()),
            Emission("pay:catch1:entry", ("people",)),
            Emission("pay:finally:entry", ("shop",)),
            Emission("pay", ("carriers", "people", "shop")),
        ),
    ),
}


@pytest.mark.parametrize("service", CHECKOUT)
def test_a_service_of_a_flow_with_constructs_gets_exactly_its_part(service: str, checkout: Plan) -> None:
    assert project(checkout, service) == CHECKOUT[service]


def test_what_happened_is_public_and_bookkeeping_is_not(checkout: Plan) -> None:
    said = {emission.node for service in checkout.index.services for emission in project(checkout, service).emits}
    kinds = {"step", "flow", "emit", "wait", "sleep", "raise", "close"}
    assert said >= {node.id for node in checkout.nodes if node.kind in kinds}
    assert said - {node.id for node in checkout.nodes if node.kind in kinds} == {
        *(ENTRY, EXIT),
        *("lines:item:entry", "quote:2:entry", "quote:settle", "pay:catch1:entry", "pay:finally:entry"),
    }


def test_nobody_hears_across_the_border_of_a_region(checkout: Plan) -> None:
    index = checkout.index
    for service in index.services:
        part = project(checkout, service)
        regions = {index.nodes[name].region for name in part.nodes}
        assert {index.nodes[name].region for name in part.hears} <= regions


SUBJECTS = Subjects("acme")


@pytest.mark.parametrize(
    ("service", "heard"),
    [
        ("payments", ("run.started",)),
        ("office", ("run.started", "charge.*")),
        ("shop", ("reserve.*", "pick.*")),
    ],
)
def test_subscriptions_of_a_service(service: str, heard: tuple[str, ...]) -> None:
    notices = "acme.c.place_order.run:notice.*"
    assert SUBJECTS.heard(order_flow(), service) == (notices, *(f"acme.c.place_order.{each}" for each in heard))


def test_who_owns_nothing_hears_nothing() -> None:
    assert SUBJECTS.heard(order_flow(), "email") == ()


def test_the_grammar_of_subjects() -> None:
    assert SUBJECTS.event("orchestrated", "place_order", "charge", "completed") == "acme.o.place_order.charge.completed"
    assert SUBJECTS.event("choreographed", "place_order", RUN, "ended") == "acme.c.place_order.run.ended"
    assert SUBJECTS.command("payments", "charge") == "acme.do.payments.charge"
    assert SUBJECTS.requests("shop") == "acme.to.shop"
    assert Subjects().command("a", "b") == "segue.do.a.b"


@pytest.mark.parametrize("mode", ["orchestrated", "choreographed"])
@pytest.mark.parametrize("namespace", ["acme", "o", "c", "c-o"])
def test_the_mode_is_read_off_the_subject(mode, namespace) -> None:
    subjects = Subjects(namespace)
    assert subjects.mode(subjects.event(mode, "o", "c", "completed")) == mode
    assert subjects.mode(subjects.event(mode, "c", "o", "completed")) == mode


@pytest.mark.parametrize(
    ("mode", "kind", "coordinator", "hearer"),
    [
        ("orchestrated", "completed", True, False),
        ("orchestrated", "failed", True, False),
        ("orchestrated", "skipped", True, False),
        ("orchestrated", "attempt.failed", False, False),
        ("choreographed", "completed", False, True),
        ("choreographed", "skipped", False, True),
        ("choreographed", "aborted", False, True),
        ("choreographed", "attempt.failed", False, False),
    ],
)
def test_who_hears_an_event(mode, kind: str, coordinator: bool, hearer: bool) -> None:
    subject = SUBJECTS.event(mode, "place_order", "charge", kind)

    def hears(patterns: tuple[str, ...]) -> bool:
        return any(matches(pattern, subject) for pattern in patterns)

    assert hears(SUBJECTS.events_of(COORDINATOR)) is coordinator
    assert hears(SUBJECTS.heard(order_flow(), "office")) is hearer
    assert hears(SUBJECTS.events_of(OBSERVER))
    assert not hears(SUBJECTS.commands_of("payments"))
    assert not hears(SUBJECTS.heard(order_flow(), "shop"))


def test_ends_are_heard_in_both_modes_and_are_no_start() -> None:
    for mode in ("orchestrated", "choreographed"):
        assert matches(SUBJECTS.ended("place_order"), SUBJECTS.event(mode, "place_order", RUN, "ended"))
        assert not matches(SUBJECTS.ended("place_order"), SUBJECTS.event(mode, "place_order", RUN, "started"))
        assert not matches(SUBJECTS.ended("place_order"), SUBJECTS.event(mode, "other", RUN, "ended"))


def test_commands_reach_their_service_only() -> None:
    assert matches(SUBJECTS.commands_of("payments")[0], SUBJECTS.command("payments", "charge"))
    assert not matches(SUBJECTS.commands_of("office")[0], SUBJECTS.command("payments", "charge"))


def test_the_home_hears_what_can_fail_a_run_that_the_first_failure_stops() -> None:
    """Also `charge`, whose outcome no node of the home reads; not `pick`, which fails only because of others."""
    flow = order_flow()
    fast = Plan("place_order", "shop", flow.nodes, flow.regions, (), {}, (), {}, on_failure="stop")
    assert project(fast, "shop").hears == ("charge", "reserve", "review", "pick")
    assert project(fast, "payments").emits == (Emission("charge", ("office", "shop")),)
    assert project(fast, "office").emits == (Emission("review", ("shop",)), Emission("pick", ("shop",)))
    [stop, *_] = costs(fast)
    assert (stop.kind, stop.subscriptions, stop.run.to, stop.notices) == ("stop", 2, ("shop",), 1)
    assert "stop at the first failure  2 subscriptions; at most 1 stop to 4 services" in text(fast)
    assert not any(cost.kind == "stop" for cost in costs(flow))
