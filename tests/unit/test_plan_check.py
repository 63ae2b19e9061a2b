"""The checks of a plan: against what services offer, and of its own structure."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from segue.plan.check import compatible, problems
from segue.plan.graph import (
    ENTRY,
    EXIT,
    RUN,
    Arg,
    Compare,
    Const,
    Contract,
    Get,
    Node,
    Param,
    Plan,
    Region,
)


class Line(msgspec.Struct):
    sku: str
    count: int


class Order(msgspec.Struct):
    id: str
    total: float
    lines: list[Line]


class OrderWithNote(msgspec.Struct):
    id: str
    total: float
    lines: list[Line]
    note: str = ""


class OrderWithDate(msgspec.Struct):
    id: str
    total: float
    lines: list[Line]
    date: str


class OrderInCents(msgspec.Struct):
    id: str
    total: int
    lines: list[Line]


class Tree(msgspec.Struct):
    name: str
    children: list[Tree] = []


class DeepTree(msgspec.Struct):
    name: str
    children: list[DeepTree] = []
    size: int | None = None


def contract(step: str, inputs: dict[str, Any], output: Any) -> tuple[Contract, dict[str, Any]]:
    names = list(inputs)
    schemas, types = msgspec.json.schema_components([*inputs.values(), output], ref_template="#/types/{name}")
    params = tuple(Param(name, schema) for name, schema in zip(names, schemas, strict=False))
    return Contract("payments", step, params, schemas[-1]), types


def flow(charge: Contract, types: dict[str, Any], *nodes: Node) -> Plan:
    every = nodes or (Node("charge", "step", "payments", step="charge", args=(Arg("order", Get(ENTRY, ("order",))),)),)
    return Plan(
        "place_order",
        "payments",
        (Node(ENTRY, "entry", "payments"), *every, Node(EXIT, "exit", "payments", after=(every[-1].id,))),
        (Region(RUN, ENTRY, EXIT),),
        (Param("order", {}),),
        {},
        (charge,),
        types,
    )


def offer(plan: Plan, offered: Contract, types: dict[str, Any]) -> list[str]:
    """What the check says if the service offers this contract, its schemas with their types as `$defs`."""

    def whole(schema: dict[str, Any]) -> dict[str, Any]:
        return {**schema, "$defs": types}

    inputs = tuple(Param(param.name, whole(param.schema), param.required) for param in offered.inputs)
    standalone = Contract(offered.service, offered.step, inputs, whole(offered.output), offered.undo)
    found = compatible(plan, {"payments": (standalone,)})
    assert found.unknown == ()
    return [str(problem) for problem in found.problems]


def test_a_service_may_offer_more_and_not_less() -> None:
    plan = flow(*contract("charge", {"order": Order}, Tree))
    assert offer(plan, *contract("charge", {"order": Order}, Tree)) == []
    assert offer(plan, *contract("charge", {"order": OrderWithNote}, DeepTree)) == []
    assert offer(plan, *contract("charge", {"order": OrderWithDate}, Tree)) == [
        "payments.charge: parameter 'order': field 'date' is required and not given"
    ]
    assert offer(plan, *contract("charge", {"order": Order}, str)) == [
        "payments.charge: result: string is given, Tree is taken"
    ]
    assert offer(plan, *contract("refund", {"order": Order}, Tree)) == [
        "payments.charge: the service has no such step (its steps: refund)"
    ]


def test_parameters_go_by_name() -> None:
    plan = flow(*contract("charge", {"order": Order}, Tree))
    renamed, types = contract("charge", {"purchase": Order}, Tree)
    assert offer(plan, renamed, types) == [
        "payments.charge: parameter 'purchase': is required, node 'charge' does not give it",
        "payments.charge: parameter 'order': is given by node 'charge', the service takes no such parameter",
    ]
    more, types = contract("charge", {"order": Order, "currency": str}, Tree)
    assert len(offer(plan, more, types)) == 1
    optional = Contract(
        "payments", "charge", (more.inputs[0], Param("currency", {"type": "string"}, False)), more.output
    )
    assert offer(plan, optional, types) == []


def test_a_problem_of_many_nodes_is_told_once_per_node_that_has_it() -> None:
    wanted, types = contract("charge", {"order": Order, "note": str}, Tree)
    order, note = Arg("order", Get(ENTRY, ("order",))), Arg("note", Const("x"))
    nodes = [
        Node("a", "step", "payments", step="charge", args=(order, note)),
        Node("b", "step", "payments", step="charge", args=(order,), after=("a",)),
    ]
    plan = flow(wanted, types, *nodes)
    assert offer(plan, *contract("charge", {"order": OrderInCents, "note": str}, Tree)) == [
        "payments.charge: parameter 'note': is required, node 'b' does not give it",
        "payments.charge: parameter 'order': field 'total': number is given, integer is taken",
    ]


def test_what_a_plan_undoes_the_service_can_undo() -> None:
    wanted, types = contract("charge", {"order": Order}, Tree)
    undoing = Contract(wanted.service, wanted.step, wanted.inputs, wanted.output, undo=True)
    plan = flow(undoing, types)
    assert offer(plan, wanted, types) == ["payments.charge: the plan relies on its undo, the service has none"]
    assert offer(plan, undoing, types) == []
    again = flow(wanted, types, replace(undo=True))
    assert problems(again) == ["node 'charge' can be undone, payments.charge cannot"]


def test_unknown_services_are_no_problem() -> None:
    plan = flow(*contract("charge", {"order": Order}, Tree))
    found = compatible(plan, {"shipping": ()})
    assert (found.problems, found.unknown) == ((), ("payments",))
    assert compatible(plan, {"payments": ()}).problems[0].text.endswith("(its steps: none)")


GOOD = flow(*contract("charge", {"order": Order}, Tree))
CHARGE = GOOD.nodes[1]


def changed(node: Node | None = None, **changes: Any) -> Plan:
    nodes = (GOOD.nodes[0], node, GOOD.nodes[2]) if node is not None else GOOD.nodes
    return msgspec.structs.replace(GOOD, **{"nodes": nodes, **changes})


def replace(**changes: Any) -> Node:
    return msgspec.structs.replace(CHARGE, **changes)


def renamed(name: str) -> Plan:
    return changed(nodes=(GOOD.nodes[0], replace(id=name), msgspec.structs.replace(GOOD.nodes[2], after=(name,))))


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (changed(flow="Place Order"), "flow name 'Place Order' is not allowed"),
        (changed(replace(owner="coordinator")), "service name 'coordinator' is reserved"),
        (renamed("a.b"), "node name 'a.b' is not allowed"),
        (renamed("run"), "node name 'run' is reserved"),
        (changed(replace(step="void")), "node 'charge' calls payments.void, which has no contract in the plan"),
        (changed(replace(args=(), after=(ENTRY,))), "node 'charge' does not give 'order' to payments.charge"),
        (
            changed(replace(args=(*CHARGE.args, Arg("tip", Const(1))))),
            "node 'charge' gives 'tip', which payments.charge does not take",
        ),
        (changed(replace(args=CHARGE.args * 2)), "node 'charge' has two arguments of the same name"),
        (changed(replace(guard=Compare("==", Get(ENTRY, ("oder",)), Const(1)))), "reads 'oder', which is no input"),
        (changed(replace(after=("ghost",))), "names an unknown node 'ghost'"),
        (changed(replace(after=(EXIT,))), "needs 'run.exit', which comes after it"),
        (changed(replace(region="loop")), "node 'charge' of flow 'place_order' lies in an unknown region 'loop'"),
        (changed(Node("charge", "either", "payments", after=(ENTRY,))), "node 'charge' has no choices"),
        (changed(Node("charge", "exit", "payments", after=(ENTRY,))), "exit 'charge' belongs to no region"),
        (changed(home="shipping"), "'run.entry' is owned by 'payments', not by the home 'shipping'"),
        (changed(regions=()), "the region 'run' with 'run.entry' and 'run.exit' is missing"),
        (changed(regions=(*GOOD.regions, Region("loop", "a", "b", RUN, "x"))), "belongs to no construct"),
        (changed(nodes=(*GOOD.nodes[:2], *GOOD.nodes[1:])), "two nodes have the same name"),
        (
            changed(nodes=(*GOOD.nodes[:2], replace(id="lost", args=()), GOOD.nodes[2]), contracts=()),
            "node 'lost' calls payments.charge, which has no contract in the plan",
        ),
    ],
)
def test_structural_problems_are_named(plan: Plan, text: str) -> None:
    found = problems(plan)
    assert any(text in line for line in found), found


def test_a_sound_plan_has_no_problems_and_lost_nodes_are_found() -> None:
    assert problems(GOOD) == []
    idle = Contract("payments", "idle", (), {})
    lost = Node("lost", "step", "payments", step="idle")
    unjoined = replace(id="again", after=("charge",))
    plan = changed(nodes=(*GOOD.nodes[:2], lost, unjoined, GOOD.nodes[2]), contracts=(*GOOD.contracts, idle))
    assert problems(plan) == [
        "node 'lost' cannot be reached from the start",
        "node 'lost' leads nowhere: the exit does not join it",
        "node 'again' leads nowhere: the exit does not join it",
    ]
