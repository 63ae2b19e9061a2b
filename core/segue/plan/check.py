"""Checks of a plan: against what the services offer (the deploy check), and of its own structure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from segue.errors import DeclarationError
from segue.names import RESERVED_NODES, RESERVED_SERVICES, check_name
from segue.plan.graph import ENTRY, Contract, Node, Plan, gets_of, reads_of
from segue.plan.proof import prove
from segue.plan.subtype import difference

GATEWAYS = frozenset({"entry", "exit", "open", "settle", "timer"})
"""Kinds of nodes that the compiler names; `close` has the name that the flow gave its construct."""

_CALLED = ("flow", "step", "wait", "emit")


class Problem(msgspec.Struct, frozen=True):
    """Why a plan cannot be deployed: `part` is the parameter that does not fit, "result", or "" for the whole step."""

    service: str
    step: str
    part: str
    text: str

    def __str__(self) -> str:
        return f"{self.service}.{self.step}: {f'{self.part}: ' if self.part else ''}{self.text}"


class Compatibility(msgspec.Struct, frozen=True):
    """The answer of the deploy check.

    Attributes:
        problems: What does not fit, by step in plan order; empty if the plan can be deployed.
        unknown: Services whose steps the plan calls and that never said what they offer: they cannot be checked.
    """

    problems: tuple[Problem, ...]
    unknown: tuple[str, ...]


def compatible(plan: Plan, offered: Mapping[str, Sequence[Contract]]) -> Compatibility:
    """Whether the services offer what a plan calls: the steps, with these parameters and fitting types.

    A type fits if each value that one side may write is taken by the other: a service may add an optional parameter,
    take more in a parameter than the plan gives, or promise more of its result.

    Args:
        plan: The plan to deploy.
        offered: The contracts of each service that is known; their schemas bring the types that they name as `$defs`.
    """
    wanted = {(contract.service, contract.step): contract for contract in plan.contracts}
    calls: dict[tuple[str, str], list[Node]] = {}
    for node in plan.nodes:
        if node.kind == "step" and node.owner in offered:
            calls.setdefault((node.owner, node.step), []).append(node)
    found: list[Problem] = []
    for (service, step), nodes in calls.items():
        offer = next((contract for contract in offered[service] if contract.step == step), None)
        if offer is None:
            known = ", ".join(sorted(contract.step for contract in offered[service])) or "none"
            found.append(Problem(service, step, "", f"the service has no such step (its steps: {known})"))
        elif (service, step) not in wanted:
            found.append(Problem(service, step, "", "the plan calls this step without a contract"))
        elif wanted[service, step].undo and not offer.undo:
            found.append(Problem(service, step, "", "the plan relies on its undo, the service has none"))
        else:
            found += _differences(plan, wanted[service, step], offer, nodes)
    callees = {node.owner for node in plan.nodes if node.kind == "step"}
    return Compatibility(tuple(found), tuple(sorted(callees - offered.keys())))


def _differences(plan: Plan, contract: Contract, offer: Contract, nodes: Sequence[Node]) -> Iterator[Problem]:
    service, step = contract.service, contract.step
    given = {param.name: param.schema for param in contract.inputs}
    taken = {param.name: param for param in offer.inputs}
    used: dict[str, str] = {}
    for node in nodes:
        for arg in node.args:
            used.setdefault(arg.name, node.id)
        for name, param in taken.items():
            if param.required and all(arg.name != name for arg in node.args):
                yield Problem(service, step, f"parameter {name!r}", f"is required, node {node.id!r} does not give it")
    for name, where in used.items():
        part = f"parameter {name!r}"
        if name not in taken:
            yield Problem(service, step, part, f"is given by node {where!r}, the service takes no such parameter")
        elif name not in given:
            yield Problem(service, step, part, f"is given by node {where!r}, the plan's contract has no such parameter")
        else:
            text = difference(given[name], taken[name].schema, plan.types, {})
            if text:
                yield Problem(service, step, part, text)
    text = difference(offer.output, contract.output, {}, plan.types)
    if text:
        yield Problem(service, step, "result", text)


def problems(plan: Plan) -> list[str]:
    """What is wrong with a plan, one line each; empty if it can be run in both modes.

    Names can stand in subjects, steps have a contract and their required arguments, inputs are read that exist, and the
    plan can be projected (see `proof`).
    """
    found = prove(plan)
    contracts = {(contract.service, contract.step): contract for contract in plan.contracts}
    for node in plan.nodes:
        if node.kind == "step":
            found += _call(node, contracts.get((node.owner, node.step)))
        found += _inputs(plan, node)
    return [*_names(plan), *found]


def _names(plan: Plan) -> Iterator[str]:
    owners = dict.fromkeys((plan.home, *(node.owner for node in plan.nodes)))
    users = [node.id for node in plan.nodes if node.kind not in GATEWAYS]
    called = {kind: dict.fromkeys(node.step for node in plan.nodes if node.kind == kind) for kind in _CALLED}
    groups = (
        ("flow", [plan.flow, *called["flow"]]),
        ("service", owners),
        ("node", users),
        ("step", called["step"]),
        ("signal", called["wait"]),
        ("event", called["emit"]),
    )
    for what, names in groups:
        for name in names:
            try:
                check_name(name, what)
            except DeclarationError as error:
                yield error.message
    yield from (f"service name {name!r} is reserved" for name in owners if name in RESERVED_SERVICES)
    yield from (f"node name {name!r} is reserved" for name in users if name in RESERVED_NODES)


def _call(node: Node, contract: Contract | None) -> Iterator[str]:
    call = f"{node.owner}.{node.step}"
    if contract is None:
        yield f"node {node.id!r} calls {call}, which has no contract in the plan"
        return
    if node.undo and not contract.undo:
        yield f"node {node.id!r} can be undone, {call} cannot"
    given = {arg.name for arg in node.args}
    required = {param.name for param in contract.inputs if param.required}
    for name in sorted(required - given):
        yield f"node {node.id!r} does not give {name!r} to {call}"
    for name in sorted(given - {param.name for param in contract.inputs}):
        yield f"node {node.id!r} gives {name!r}, which {call} does not take"


def _inputs(plan: Plan, node: Node) -> Iterator[str]:
    inputs = {param.name for param in plan.inputs}
    reads = [get for arg in node.args for get in gets_of(arg.value)]
    if node.guard is not None:
        reads += reads_of(node.guard)
    for get in reads:
        if get.node == ENTRY and get.path and get.path[0] not in inputs:
            yield f"node {node.id!r} reads {get.path[0]!r}, which is no input of the flow"
