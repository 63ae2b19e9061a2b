"""The machine: one pure function decides what happens next from the outcomes known so far.

    step(plan, state, fact, mine) -> (state', effects)

`mine` is the set of nodes that this participant decides: all of them at the coordinator, its own at a service. That is
the only difference between the modes.

Rules (numbers as in the design):

R1  A (node, tag, revision) has one outcome, decided by its holder. The first copy stays.
R2  A node is decided only when all its upstreams (data, guard, order) are final. Nothing shortcuts it.
R3  Decision, in this order: an upstream failed or aborted -> aborted; an upstream cancelled -> cancelled; guard false
    or unknown -> skipped; a required value skipped -> skipped; else run. Joins (`either`, exits) start nothing: they
    are functions of their inputs, and a dead input makes them dead.
R4  Skips, aborts and cancels travel along the edges like values, with the set of causes.
R9  Drain: independent branches finish; the run's exit joins everything and knows every cause.
R12 The run's exit joins all sinks and the result.

One call looks one edge far: what it decides is recorded first (another replica may have been faster) and comes back as
a fact of its own. The state is partial: the caller loads `wanted()`, and what is not there is treated as not yet final.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NoReturn

from segue.errors import OutcomeConflict
from segue.machine.facts import (
    DEAD,
    SKIPPED,
    Await,
    Cause,
    Effect,
    Fact,
    Invoke,
    Key,
    Outcome,
    OutcomeKind,
    Record,
    Repeat,
    State,
)
from segue.machine.values import evaluate, holds
from segue.plan.graph import Get, Index, Node, Plan

LOADED_JOIN = 64
"""Joins with more inputs ask the tally whether they are complete, and load their inputs only then."""

Mine = frozenset[str]
Look = Callable[[str], Outcome]
Decision = Outcome | dict[str, object]
"""An outcome decided without running anything, or the arguments to run with."""


def wanted(plan: Plan, key: Key, mine: Mine) -> list[Key]:
    """What must be loaded before `step` may hear a fact of `key`.

    The outcomes of all that it touches, and of small joins the other inputs.
    """
    index, keys = plan.index, []
    for name in index.fed(mine)[key.node]:
        keys.append(Key(name, key.tag))
        ups = index.ups[name]
        if 1 < len(ups) <= LOADED_JOIN:
            keys += [Key(up, key.tag) for up in ups if up != key.node]
    return keys


def inputs(plan: Plan, key: Key) -> list[Key]:
    """All inputs of a node: what a join over `LOADED_JOIN` loads once its tally is complete."""
    return [Key(up, key.tag) for up in plan.index.ups[key.node]]


def joins(plan: Plan, key: Key, mine: Mine) -> list[Key]:
    """The joins of this participant that a fact of `key` counts for."""
    index = plan.index
    return [Key(name, key.tag) for name in index.fed(mine)[key.node] if len(index.ups[name]) > 1]


def step(plan: Plan, state: State, fact: Fact, mine: Mine) -> tuple[State, list[Effect]]:
    """Hear a fact and decide what follows from it, one edge far.

    Args:
        plan: The run's plan.
        state: What is known here; at least what `wanted` names, as far as it exists.
        fact: The outcome of a node, own or heard.
        mine: The nodes that are decided here.

    Returns:
        The state with the fact in it, and for each node of mine that it touches one effect.

    Raises:
        OutcomeConflict: Another outcome of the same node is already known.
    """
    return hear(plan, state, (fact,), mine)


def hear(plan: Plan, state: State, facts: Iterable[Fact], mine: Mine) -> tuple[State, list[Effect]]:
    """`step` for several facts of a run at once: each node that they touch is decided once, knowing all of them.

    Raises:
        OutcomeConflict: Another outcome of one of the nodes is already known.
    """
    downs = plan.index.fed(mine)
    outcomes = dict(state.outcomes)
    touched: dict[Key, None] = {}
    for fact in facts:
        known = outcomes.setdefault(fact.key, fact.outcome)
        if known is not fact.outcome and known != fact.outcome:
            _conflict(plan, fact, known)
        for name in downs[fact.key.node]:
            touched[Key(name, fact.key.tag)] = None
    state = State(outcomes, state.revision)
    return state, [decide(plan, state, key) for key in touched]


def decide(plan: Plan, state: State, key: Key) -> Effect:
    """What is to be done about one node, given what is known.

    Returns:
        `Repeat` if it is decided already, `Await` if an input is missing, else `Record` or `Invoke`.
    """
    if key in state.outcomes:
        return Repeat(key, state.revision)
    index, outcomes = plan.index, state.outcomes
    found: dict[str, Outcome] = {}
    for up in index.ups[key.node]:
        outcome = outcomes.get(Key(up, key.tag))
        if outcome is None:
            return Await(key, state.revision)
        found[up] = outcome
    node = index.nodes[key.node]
    decision = _DECISIONS[node.kind](index, node, found)
    if isinstance(decision, Outcome):
        return Record(Fact(key, decision, state.revision))
    return Invoke(key, state.revision, decision)


def failed(key: Key, outcome: Outcome) -> Outcome:
    """A failure that began at this node: it is its own cause."""
    if outcome.kind != "failed" or outcome.causes:
        return outcome
    return Outcome("failed", causes=(Cause(key.node, key.tag),))


def _dead(index: Index, found: dict[str, Outcome]) -> Outcome | None:
    """R3 and R4: aborted before cancelled, with the union of the causes in plan order."""
    bad = [outcome for outcome in found.values() if outcome.kind in DEAD]
    if not bad:
        return None
    kind: OutcomeKind = "cancelled" if all(outcome.kind == "cancelled" for outcome in bad) else "aborted"
    return Outcome(kind, causes=unite(index, (cause for outcome in bad for cause in outcome.causes)))


def unite(index: Index, causes: Iterable[Cause]) -> tuple[Cause, ...]:
    """The set of causes, in plan order and then by tag, so that equal sets are equal."""
    last = len(index.order)  # a cause that came over the wire may name anything
    return tuple(sorted(set(causes), key=lambda cause: (index.order.get(cause.node, last), cause.node, cause.tag)))


def _decide_step(index: Index, node: Node, found: dict[str, Outcome]) -> Decision:
    dead = _dead(index, found)
    if dead is not None:
        return dead
    look = found.__getitem__
    if node.guard is not None and holds(node.guard, look) is not True:
        return SKIPPED
    if any(found[up].kind == "skipped" for up in index.required[node.id]):
        return SKIPPED
    return {arg.name: evaluate(arg.value, look) for arg in node.args}


def _decide_either(index: Index, node: Node, found: dict[str, Outcome]) -> Decision:
    dead = _dead(index, found)
    if dead is not None:
        return dead
    if node.guard is not None and holds(node.guard, found.__getitem__) is not True:
        return SKIPPED
    for choice in node.args:
        if not isinstance(choice.value, Get) or found[choice.value.node].kind == "completed":
            return Outcome("completed", evaluate(choice.value, found.__getitem__))
    return SKIPPED


def _decide_exit(index: Index, node: Node, found: dict[str, Outcome]) -> Decision:
    dead = _dead(index, found)
    if dead is not None:
        return dead
    result = next((arg.value for arg in node.args), None)
    return Outcome("completed", None if result is None else evaluate(result, found.__getitem__))


def _decide_entry(index: Index, node: Node, found: dict[str, Outcome]) -> NoReturn:
    raise AssertionError("the run's entry is decided by accepting the start")


_DECISIONS: dict[str, Callable[[Index, Node, dict[str, Outcome]], Decision]] = {
    "entry": _decide_entry,
    "exit": _decide_exit,
    "step": _decide_step,
    "either": _decide_either,
}


def _conflict(plan: Plan, fact: Fact, known: Outcome) -> NoReturn:
    raise OutcomeConflict(
        f"two outcomes of {plan.flow}/{fact.key.node}{fact.key.tag and '/' + fact.key.tag}: "
        f"{known.kind} is recorded, {fact.outcome.kind} was heard"
    )
