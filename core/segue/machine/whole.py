"""Looking at a run as a whole: what a participant does once a run has notices.

A notice concerns all that is open: what may not start any more, what has to be undone, what is decided anew. So all
facts that the participant has of the run are gathered, and everything that follows from them is found, whichever of
them was new. The same look folds what an observer heard, and it lets a participant go on with a run that was handed
over to it (R13): facts are the same in both placements, and a look needs nothing else.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

import msgspec

from segue.machine import tags
from segue.machine.facts import (
    AnyFact,
    Effect,
    Fact,
    Failure,
    Key,
    Outcome,
    Pause,
    Reason,
    Record,
    Repeat,
    Reset,
    Signal,
    State,
    Stop,
    Token,
    Undone,
    Withdraw,
)
from segue.machine.routes import Mine, size, slots, touched
from segue.machine.scopes import covers, reach, revision, stopped
from segue.machine.step import decide, first_failure
from segue.machine.undo import compensate
from segue.plan.graph import ENTRY, RUN, Plan


def gather(plan: Plan, facts: Iterable[AnyFact], started: Iterable[tuple[Key, int]] = ()) -> State:
    """All that is known of a run, from its facts in any order.

    Facts of a revision whose reset has not been heard yet are kept out.

    Args:
        plan: The run's plan.
        facts: What was recorded or published; repeats are harmless.
        started: Calls that may have begun, with their revision.
    """
    outcomes: list[Fact] = []
    stops: dict[tuple[str, str, int], Reason] = {}
    tokens: dict[tuple[Key, str, int], tuple[Key, ...]] = {}
    undone: dict[tuple[Key, int], Failure | None] = {}
    signals: dict[tuple[str, str], object] = {}
    seeds: dict[int, tuple[Key, ...]] = {}
    held = 0
    for fact in facts:
        match fact:
            case Fact():
                if fact.key.node in plan.index.nodes:
                    outcomes.append(fact)
            case Stop(scope, tag, number, reason):
                stops.setdefault((scope, tag, number), reason)
            case Token(key, scope, number, because):
                tokens.setdefault((key, scope, number), because)
            case Undone(key, number, error):
                if error is None or (key, number) not in undone:
                    undone[key, number] = error
            case Reset(number, found):
                seeds.setdefault(number, found)
            case Pause(number):
                held = max(held, number)
            case Signal(name, slot, value, _):
                signals.setdefault((name, slot), value)
    resets: list[tuple[Key, ...]] = []
    while len(resets) + 2 in seeds:
        resets.append(seeds[len(resets) + 2])
    state = State(
        _effective(plan, tuple(resets), outcomes),
        revision=1 + len(resets),
        whole=True,
        stops=stops,
        tokens=tokens,
        undone=undone,
        resets=tuple(resets),
        paused=held % 2 == 1,
        started=frozenset(started),
        signals=signals,
    )
    return msgspec.structs.replace(state, counts=_counts(plan, state))


def _effective(plan: Plan, resets: tuple[tuple[Key, ...], ...], facts: list[Fact]) -> dict[Key, Outcome]:
    """The outcomes that count, by place."""
    found: dict[Key, Outcome] = {}
    for fact in facts:
        if fact.revision == (revision(plan, resets, fact.key) if resets else 1):
            found.setdefault(fact.key, fact.outcome)
    return found


def _counts(plan: Plan, state: State) -> dict[Key, int]:
    """How many items of each `each` are over."""
    exits = _item_exits(plan)
    found: dict[Key, int] = {}
    if exits:
        for key in state.outcomes:
            if key.node in exits:
                place = Key(exits[key.node], tags.parent(key.tag))
                found[place] = found.get(place, 0) + 1
    return found


def _item_exits(plan: Plan) -> dict[str, str]:
    """The maps of a plan by the exits of their items."""
    return {plan.index.exits(construct)[0]: construct.id for construct in plan.constructs if construct.kind == "each"}


def look(plan: Plan, state: State, mine: Mine) -> list[Effect]:
    """Everything that follows from a whole state, one edge far.

    Args:
        plan: The run's plan.
        state: What `gather` found.
        mine: The nodes that are decided here.

    Returns:
        For each open node of mine that something is known of one effect, and what is to be undone.
    """
    tokens, effects = compensate(plan, state, mine)
    if tokens:
        state = with_tokens(state, tokens)
    places: dict[Key, None] = {}
    failed: list[Effect] = []
    for key, outcome in state.outcomes.items():
        fact = Fact(key, outcome)
        for place in touched(plan, state, fact, mine):
            if place not in state.outcomes:
                places[place] = None
        if plan.on_failure == "stop" and outcome.kind == "failed" and not failed:
            failed = first_failure(plan, state, key, mine)
    found = [decide(plan, state, place) for place in places]
    found += _withdrawn(plan, state, mine, places)
    heard = [Record(token) for token in tokens if _heard_elsewhere(plan, state, token, mine)]
    return [*heard, *failed, *effects, *found]


def _withdrawn(plan: Plan, state: State, mine: Mine, places: Container[Key]) -> list[Effect]:
    """Calls in stopped scopes that may have begun; what they rest on need not be known here any more."""
    if not state.stops:
        return []
    return [
        Withdraw(key, number)
        for key, number in sorted(state.started)
        if key.node in mine
        and key not in state.outcomes
        and key not in places
        and number == revision(plan, state.resets, key)
        and stopped(plan, state, key)
    ]


def follow(plan: Plan, state: State, facts: Iterable[Fact], mine: Mine) -> tuple[State, list[Effect]]:
    """What follows from further outcomes alone, where `look` has found what follows from the rest.

    Args:
        plan: The run's plan.
        state: All that was known before.
        facts: Outcomes that are recorded.
        mine: The nodes that are decided here.

    Returns:
        The state with the facts in it, and for each open node of mine that they touch one effect. What is to be undone,
        and the stop after a first failure, only a look finds.
    """
    outcomes, counts, exits = dict(state.outcomes), dict(state.counts), _item_exits(plan)
    facts = [fact for fact in facts if outcomes.setdefault(fact.key, fact.outcome) is fact.outcome]
    over: dict[Key, int] = {}
    for key, _, _ in facts:
        if key.node in exits:
            place = Key(exits[key.node], tags.parent(key.tag))
            over.setdefault(place, counts.get(place, 0))
            counts[place] = counts.get(place, 0) + 1
    state = msgspec.structs.replace(state, outcomes=outcomes, counts=counts)
    places: dict[Key, None] = {}
    for fact in facts:
        places.update(dict.fromkeys(touched(plan, state, fact, mine)))
    for place, before in over.items():
        places.update(dict.fromkeys(slots(plan, state, place, before, counts[place])))
        if counts[place] < size(plan, state, place):
            places.pop(place, None)  # to look at all items whenever one is over would take too long
    return state, [decide(plan, state, place) for place in places if place not in outcomes]


def with_tokens(state: State, tokens: Iterable[Token]) -> State:
    """A state and tokens that follow from it."""
    known = {(token.key, token.scope, token.revision): token.undone for token in tokens}
    return msgspec.structs.replace(state, tokens={**state.tokens, **known})


def _heard_elsewhere(plan: Plan, state: State, token: Token, mine: Mine) -> bool:
    """Whether somebody else waits for a token: the holder of an upstream, or a parent run for that of the whole run.

    The others are derived again when needed.
    """
    if token.key.node == ENTRY:
        return state.stops.get((RUN, "", token.revision)) == "undone"
    return any(up not in mine for up in plan.index.ups[token.key.node])


def renewed(plan: Plan, state: State, mine: Mine) -> list[Effect]:
    """What a participant says again when it hears of a reset.

    Outcomes of mine that were not reset and that reset nodes of others wait for: they may not have kept them.
    """
    if not state.resets:
        return []
    again = reach(plan, state.resets[-1])
    found: list[Effect] = []
    for key in state.outcomes:
        if key.node not in mine or covers(again, key):
            continue
        if any(down in again and down not in mine for down in plan.index.downs[key.node]):
            found.append(Repeat(key, revision(plan, state.resets, key)))
    return found
