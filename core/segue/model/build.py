"""The compiler: a flow body is traced, and its drafts become a plan.

What only the whole graph tells is decided here: the run's gateways, the owner of each `either` (its first consumer),
the home, and the sinks that the run's exit joins.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from segue.errors import DeclarationError
from segue.model import types
from segue.model.refs import Ref
from segue.model.schemas import contracts
from segue.model.signature import UNANNOTATED, Misfit, Signature, site_of
from segue.model.tracing import Draft, Trace, tracing
from segue.model.values import lower_result
from segue.plan.graph import ENTRY, EXIT, RUN, Arg, Get, Node, Plan, Region, Value, gets_of, reads_of


def build(
    fn: Callable[..., Any], signature: Signature, key: Callable[..., object] | None, home: str, site: str
) -> Plan:
    """Trace a flow body and compile it.

    Args:
        fn: The flow body.
        signature: Its parameters and result.
        key: The function that picks the run's key from the inputs, if any.
        home: Name of the home, empty to derive it.
        site: File and line of the flow, for messages.

    Raises:
        DeclarationError: The body does what cannot be compiled. What the body itself raises passes through.
    """
    trace = Trace(signature.step)
    inputs = [trace.parameter(parameter) for parameter in signature.parameters]
    with tracing(trace):
        returned = fn(*inputs)
        result, returns = _result(trace, returned, signature.returns, site)
        trace.frozen = f"the key of flow {trace.flow!r}"
        picked = None if key is None else _key(trace, key, inputs)
    home = home or _home(trace.drafts, result)
    if not home:
        raise DeclarationError(
            f"{site}: flow {trace.flow!r} calls no step, so it has no home", "call a step, or say @flow(home=...)"
        )
    shown = Signature("", trace.flow, signature.parameters, returns)
    steps = [used for _, used in sorted(trace.used.items())]
    try:
        (own, *others), schemas = contracts([shown, *steps])
    except DeclarationError as error:
        raise DeclarationError(f"{site}: flow {trace.flow!r}: {error.message}", error.hint) from None
    return Plan(
        flow=trace.flow,
        home=home,
        nodes=_nodes(trace.drafts, home, result),
        regions=(Region(RUN, ENTRY, EXIT),),
        inputs=own.inputs,
        output=own.output,
        contracts=tuple(others),
        types=schemas,
        key=picked,
    )


def _result(trace: Trace, returned: object, declared: types.Type, site: str) -> tuple[Value | None, types.Type]:
    """The value of the run and its type."""
    if declared is UNANNOTATED:
        known = returned._segue.type if type(returned) is Ref else types.NONE if returned is None else Any
    else:
        known = declared
    if returned is None and types.admits_none(known):
        return None, known
    try:
        return lower_result(trace, returned, known), known
    except Misfit as error:
        raise DeclarationError(f"{site}: {error.message}", error.hint) from None


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


def _ups(draft: Draft) -> list[str]:
    names = [get.node for arg in draft.args for get in gets_of(arg.value)]
    if draft.guard is not None:
        names += [get.node for get in reads_of(draft.guard)]
    return [*names, *draft.after]


def _home(drafts: Iterable[Draft], result: Value | None) -> str:
    """Owner of the first step that the result comes from, looking through `either`; else owner of the last step."""
    by_id = {draft.id: draft for draft in drafts}
    waiting = [get.node for get in gets_of(result)] if result is not None else []
    while waiting:
        draft = by_id.get(waiting.pop(0))
        if draft is not None and draft.kind == "step":
            return draft.owner
        if draft is not None:
            waiting = [get.node for arg in draft.args for get in gets_of(arg.value)] + waiting
    return next((draft.owner for draft in reversed(by_id.values()) if draft.kind == "step"), "")


def _nodes(drafts: Sequence[Draft], home: str, result: Value | None) -> tuple[Node, ...]:
    consumers: dict[str, list[Draft]] = {draft.id: [] for draft in drafts}
    for draft in drafts:
        for up in dict.fromkeys(_ups(draft)):
            if up in consumers:
                consumers[up].append(draft)
    owners: dict[str, str] = {}
    for draft in reversed(drafts):
        heirs = consumers[draft.id]
        owners[draft.id] = draft.owner or (owners[heirs[0].id] if heirs else home)
    sinks = tuple(draft.id for draft in drafts if not consumers[draft.id]) or (ENTRY,)
    inner = (
        Node(
            id=draft.id,
            kind=draft.kind,
            owner=owners[draft.id],
            step=draft.step,
            args=draft.args,
            guard=draft.guard,
            after=draft.after,
        )
        for draft in drafts
    )
    outcome = () if result is None else (Arg("result", result),)
    return Node(ENTRY, "entry", home), *inner, Node(EXIT, "exit", home, args=outcome, after=sinks)
