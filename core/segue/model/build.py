"""The compiler: a flow body is traced, and its drafts become a plan.

What only the whole graph tells is decided here: the run's gateways, the owners, the home, and what the exits join.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from msgspec.structs import replace

from segue.errors import DeclarationError
from segue.model import types
from segue.model.compute import hosted
from segue.model.drafts import Draft, Scope
from segue.model.infer import type_of
from segue.model.owners import Owners
from segue.model.refs import Ref
from segue.model.returns import check_guarded, check_reached
from segue.model.schemas import contracts
from segue.model.signature import UNANNOTATED, Misfit, Parameter, Signature, site_of
from segue.model.step import Step
from segue.model.tracing import Trace, tracing
from segue.model.values import lower_result
from segue.plan.graph import ENTRY, EXIT, RUN, Arg, Const, Contract, Get, Node, Param, Plan, Region, Value
from segue.plan.names import TIMER, entering
from segue.plan.proof import prove

_NO_SINKS = frozenset({"entry", "exit", "open", "timer"})


class Settings(NamedTuple):
    """What `@flow` says of a flow: its key, home, policy and deadline, and where it is declared."""

    key: Callable[..., object] | None
    home: str
    on_failure: str
    deadline: float
    site: str


class Built(NamedTuple):
    """A plan, and the pure functions that it calls, as steps of the services that run them."""

    plan: Plan
    computed: tuple[Step[..., Any], ...]


def build(fn: Callable[..., Any], signature: Signature, settings: Settings) -> Built:
    """Trace a flow body and compile it.

    Args:
        fn: The flow body.
        signature: Its parameters and result.
        settings: What the flow says of itself.

    Raises:
        DeclarationError: The body does what cannot be compiled. What the body itself raises passes through.
    """
    trace, site = Trace(signature.step, signature.returns), settings.site
    inputs = [trace.parameter(parameter) for parameter in signature.parameters]
    check_reached(fn)
    with tracing(trace):
        returned = fn(*inputs)
        result, returns = _result(trace, fn, returned, signature.returns, site)
        trace.frozen = f"the key of flow {trace.flow!r}"
        picked = None if settings.key is None else _key(trace, settings.key, inputs)
    for name, construct in trace.constructs.items():
        if construct is None:
            raise DeclarationError(
                f"{trace.sites[name]}: flow {trace.flow!r} goes on although {name!r} raised an error"
            )
    consumers = _sort_out(trace.drafts)
    owners = Owners(trace, consumers, result)
    home = settings.home or owners.find_home()
    if not home:
        raise DeclarationError(
            f"{site}: flow {trace.flow!r} calls no step, so it has no home", "call a step, or say @flow(home=...)"
        )
    held = owners.resolve(home)
    computed = hosted(trace, held)
    nodes = _nodes(trace, consumers, held, home, result)
    if settings.deadline:
        watch = Node(TIMER, "timer", home, after=(ENTRY,), timeout=settings.deadline)
        nodes = (nodes[0], watch, *nodes[1:])
    described = _described(trace, computed, Signature("", trace.flow, signature.parameters, returns), site)
    plan = Plan(
        flow=trace.flow,
        home=home,
        nodes=nodes,
        regions=(Region(RUN, ENTRY, EXIT), *trace.regions),
        inputs=described.own.inputs,
        output=described.own.output,
        contracts=described.steps,
        types=described.types,
        key=picked,
        on_failure="stop" if settings.on_failure == "stop" else "drain",
        constructs=tuple(construct for construct in trace.constructs.values() if construct is not None),
        signals=described.signals,
        deadline=settings.deadline,
    )
    problems = prove(plan)
    if problems:
        raise DeclarationError(f"{site}: flow {trace.flow!r} cannot be run in both modes: {problems[0]}")
    return Built(plan, computed)


class _Described(NamedTuple):
    own: Contract
    signals: tuple[Param, ...]
    steps: tuple[Contract, ...]
    types: dict[str, Any]


def _described(trace: Trace, computed: Sequence[Step[..., Any]], own: Signature, site: str) -> _Described:
    """The schemas of what the flow takes, gives, waits for and calls."""
    used = {place: signature for place, signature in trace.used.items() if place[0]}
    used.update({(step.service, step.name): step.signature for step in computed})
    waits = Signature("", own.step, (Parameter(name, one.type) for name, one in trace.signals.items()), types.NONE)
    try:
        (shown, heard, *steps), schemas = contracts(
            [own, waits, *(found for _, found in sorted(used.items(), key=itemgetter(0)))]
        )
    except DeclarationError as error:
        raise DeclarationError(f"{site}: flow {own.step!r}: {error.message}", error.hint) from None
    undoable = (replace(one, undo=(one.service, one.step) in trace.undoable) for one in steps)
    return _Described(shown, heard.inputs, tuple(undoable), schemas)


def _result(
    trace: Trace, fn: Callable[..., Any], returned: object, declared: types.Type, site: str
) -> tuple[Value | None, types.Type]:
    """The value of the run and its type: the first of the early results and the normal one."""
    parts = [tp for _, tp in trace.finishes]
    if returned is not None or not trace.scope.over:
        parts.append(type_of(returned) if type(returned) is Ref or returned is None else Any)
    known = types.union(parts or [types.NONE]) if declared is UNANNOTATED else declared
    value = None
    if returned is not None or not (types.admits_none(known) or trace.scope.over):
        try:
            value = lower_result(trace, returned, known, f"the result of flow {trace.flow}")
        except Misfit as error:
            raise DeclarationError(f"{site}: {error.message}", error.hint) from None
    if value is not None and returned is not None:
        check_guarded(trace, fn, value)
    if not trace.finishes:
        return value, known
    choices: list[Value] = [Get(node, (), True) for node, _ in trace.finishes]
    if value is not None:
        choices.append(value if isinstance(value, Get | Const) else _expression(trace, value))
    return _first(trace, choices), known


def _expression(trace: Trace, value: Value) -> Get:
    return Get(trace.add(Draft("", "value", "", args=(Arg("value", value),)), "result"), (), True)


def _first(trace: Trace, choices: Sequence[Value]) -> Value:
    if len(choices) == 1:
        return choices[0]
    trace.scope = Scope()  # this is reached in any case
    args = tuple(Arg(str(i), choice) for i, choice in enumerate(choices, 1))
    return Get(trace.add(Draft("", "either", "", args=args), "result"), (), True)


def _key(trace: Trace, key: Callable[..., object], inputs: Sequence[Any]) -> Value:
    where = site_of(key)
    count = len(inspect.signature(key).parameters)
    if count > len(inputs):
        raise DeclarationError(
            f"{where}: the key of flow {trace.flow!r} takes {count} arguments, the flow has {len(inputs)}",
            "the key gets the inputs of the flow in order, and may take fewer",
        )
    found = key(*inputs[:count])
    if type(found) is not Ref:
        raise DeclarationError(
            f"{where}: the key of flow {trace.flow!r} is {found!r}, not a field of an input",
            "give a field, as in key=lambda order: order.id",
        )
    trace.own(found)
    source = found._segue
    textual = types.kinds(source.type) == frozenset({"string"})
    if source.node != ENTRY or not (textual or types.bare(source.type) is int):
        raise DeclarationError(
            f"{where}: the key of flow {trace.flow!r} must be a str or int of an input, "
            f"but {source.label} is {types.show(source.type)}"
        )
    return Get(source.node, source.path)


def _sort_out(drafts: Sequence[Draft]) -> dict[str, list[Draft]]:
    """Leave no order that data or guards make already, lead every node back to its entry, and find the consumers."""
    consumers: dict[str, list[Draft]] = {draft.id: [] for draft in drafts}
    for draft in drafts:
        reads = dict.fromkeys(get.node for get in draft.reads)
        if not draft.construct or draft.kind == "open":
            entry = ENTRY if draft.region == RUN else entering(draft.region)
            draft.after = tuple(up for up in dict.fromkeys(draft.after) if up not in reads)
            if not reads and not draft.after:
                draft.after = (entry,)
        if draft.kind == "exit":
            continue
        ups = [*reads, *draft.after, *([draft.construct] if draft.kind == "settle" else [])]
        for up in dict.fromkeys(ups):
            if up in consumers:
                consumers[up].append(draft)
    return consumers


def _nodes(
    trace: Trace, consumers: Mapping[str, Sequence[Draft]], held: Mapping[str, str], home: str, result: Value | None
) -> tuple[Node, ...]:
    sinks: dict[str, list[str]] = {RUN: [], **{region.id: [] for region in trace.regions}}
    for draft in trace.drafts:
        if draft.kind not in _NO_SINKS and not consumers[draft.id]:
            sinks[draft.region].append(draft.id)
    inner = (
        Node(
            id=draft.id,
            kind=draft.kind,
            owner=held[draft.id],
            region=draft.region,
            step=draft.step,
            args=draft.args,
            guard=draft.guard,
            after=tuple(sinks[draft.region]) if draft.kind == "exit" else draft.after,
            construct=draft.construct,
            undo=draft.undo,
            timeout=draft.timeout,
        )
        for draft in trace.drafts
    )
    outcome = () if result is None else (Arg("result", result),)
    last = Node(EXIT, "exit", home, args=outcome, after=tuple(sinks[RUN]) or (ENTRY,))
    return Node(ENTRY, "entry", home), *inner, last
