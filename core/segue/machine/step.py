"""The machine: one pure function decides what happens next from the outcomes known so far.

    step(plan, state, fact, mine) -> (state', effects)

`mine` is the set of nodes that this participant decides: all of them at the coordinator, its own at a service. That is
the only difference between the modes.

Rules (numbers as in the design) and where they are:

R1  A (node, tag, revision) has one outcome, decided by its holder. The first copy stays.                      here
R2  A node is decided only when all its upstreams (data, guard, order) are final. Nothing shortcuts it.        here
R3, R4  Dead inputs, guards, skips; skips, aborts and cancels travel along the edges like values.              decide
R5, R6, R7, R9, R12  Map, loop, race, attempt, end: the gateways of constructs and of the run.                 gates
R8  Waits and sleeps.                                                                                         decide
R10 Compensation, by tokens over the reversed graph.                                                            undo
R11, R14  Stopped scopes; revisions.                                                                          scopes
R13 Placement: facts are the same in both modes, so moving a run means handing its facts over.                 whole

One call looks one edge far: what it decides is recorded first (another replica may have been faster) and comes back as
a fact of its own. The state is partial: the caller loads `wanted()`, and what is not there is treated as not yet final.
As soon as a run has notices (stops, tokens, resets, pauses) at a participant, `machine.whole` looks at all of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

import msgspec

from segue.errors import OutcomeConflict
from segue.machine.decide import DECISIONS, Place, unite
from segue.machine.facts import Await, Choose, Effect, Fact, Key, Outcome, Repeat, State, Stop
from segue.machine.gates import GATES, INNER
from segue.machine.routes import LOADED_JOIN, Mine, inputs, joins, limited, size, slots, touched, wanted
from segue.machine.scopes import revision
from segue.plan.graph import EXIT, RUN, Plan


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
    outcomes = dict(state.outcomes)
    facts = tuple(facts)
    for fact in facts:
        known = outcomes.setdefault(fact.key, fact.outcome)
        if known is not fact.outcome and known != fact.outcome:
            _conflict(plan, fact, known)
    state = msgspec.structs.replace(state, outcomes=outcomes)
    places: dict[Key, None] = {}
    effects: list[Effect] = []
    for fact in facts:
        places.update(dict.fromkeys(touched(plan, state, fact, mine)))
        if plan.on_failure == "stop" and fact.outcome.kind == "failed":
            effects += first_failure(plan, state, fact.key, mine)
    return state, [*(decide(plan, state, key) for key in places), *effects]


def decide(plan: Plan, state: State, key: Key, due: bool = False) -> Effect:
    """What is to be done about one node, given what is known.

    Args:
        plan: The run's plan.
        state: What is known.
        key: The place.
        due: The time that the node asked for (by `Sleep` or `Listen`) has come.

    Returns:
        `Repeat` if it is decided already, `Await` if an input is missing, else what follows.
    """
    number = revision(plan, state.resets, key) if state.resets else 1
    outcomes = state.outcomes
    if key in outcomes:
        return Repeat(key, number)
    index = plan.index
    node = index.nodes[key.node]
    place = Place(plan, index, state, node, key, number, due)
    if node.kind in GATES:
        return GATES[node.kind](place) if node.construct or node.kind == "exit" else Await(key, number)
    found: dict[str, Outcome] = {}
    for up in index.ups[key.node]:
        outcome = outcomes.get(Key(up, key.tag))
        if outcome is None:
            return Await(key, number)
        found[up] = outcome
    rule = DECISIONS.get(node.kind)
    return rule(place, found) if rule is not None else INNER[node.kind](place, found)


def first_failure(plan: Plan, state: State, key: Key, mine: Mine) -> list[Effect]:
    """R9, fail-fast: the first failure that nothing contains stops the run."""
    if EXIT not in mine or key.node not in plan.index.uncaught or state.known(EXIT, "") is not None:
        return []
    number = state.revision
    return [] if (RUN, "", number) in state.stops else [Choose((Stop(RUN, "", number, "failed"),))]


def _conflict(plan: Plan, fact: Fact, known: Outcome) -> NoReturn:
    raise OutcomeConflict(
        f"two outcomes of {plan.flow}/{fact.key.node}{fact.key.tag and '/' + fact.key.tag}: "
        f"{known.kind} is recorded, {fact.outcome.kind} was heard"
    )


__all__ = [
    "LOADED_JOIN",
    "Mine",
    "decide",
    "first_failure",
    "hear",
    "inputs",
    "joins",
    "limited",
    "size",
    "slots",
    "step",
    "touched",
    "unite",
    "wanted",
]
