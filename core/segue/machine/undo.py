"""Compensation (R10): tokens over the reversed graph, without clocks or barriers.

In a stopped scope, the holder of a node sends its token when the node is final and all that follows from it within that
scope has sent theirs; before that it undoes the node, if it completed, can be undone, and was not undone before. So
what depends on something is undone first, a step that still runs is waited for, and the token of the scope's entry
says that nothing of it is left. A token belongs to one scope: that of a caught body does not stand for the run's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from segue.machine import tags
from segue.machine.decide import arguments
from segue.machine.facts import Effect, Failure, Key, Outcome, State, Token, Undo
from segue.machine.gates import failure, fitting
from segue.machine.routes import Mine, items, over
from segue.machine.scopes import revision, scopes, undoing
from segue.plan.graph import EXIT, RUN, Plan
from segue.plan.names import opening, settling

_NEVER = Failure("NotUndone", "")
Tokens = dict[tuple[Key, str, int], tuple[Key, ...]]


def compensate(plan: Plan, state: State, mine: Mine) -> tuple[list[Token], list[Effect]]:
    """What is to be undone now, and the tokens that can be sent.

    Args:
        plan: The run's plan.
        state: All that is known of the run here.
        mine: The nodes that are decided here.
    """
    if not any(undoing(plan, scope, reason) for (scope, _, _), reason in state.stops.items()):
        return [], []
    tokens: Tokens = dict(state.tokens)
    open_ = [
        (key, scope)
        for key in _finals(plan, state)
        if key.node in mine
        for scope in _stopping(plan, state, key)
        if (key, scope[0], scope[2]) not in tokens
    ]
    open_.sort(key=lambda item: _position(plan, item[0]), reverse=True)
    found: list[Token] = []
    undos: dict[Key, Effect] = {}
    before = -1
    while open_ and before != len(found):
        before, rest = len(found), []
        for key, scope in open_:
            token = _token(plan, state, tokens, key, scope)
            if isinstance(token, Token):
                tokens[key, token.scope, token.revision] = token.undone
                found.append(token)
                continue
            if token is not None:
                undos[key] = token
            rest.append((key, scope))
        open_ = rest
    return found, list(undos.values())


def _position(plan: Plan, key: Key) -> tuple[int, ...]:
    """Where a place stands in the order in which one thread would get there, rounds and items one after the other."""
    index = plan.index
    indices, found = tags.path(key.tag), [index.order[key.node]]
    for scope in index.scopes[index.nodes[key.node].region]:
        construct = index.constructs.get(index.regions[scope].construct)
        if construct is not None and construct.numbered:
            found = [index.order[opening(construct.id)], indices[index.depths[scope] - 1], *found]
    return tuple(found)


def _stopping(plan: Plan, state: State, key: Key) -> Iterator[tuple[str, str, int]]:
    """The stopped scopes of a place in which it takes part in compensation."""
    for scope in scopes(plan, state, key):
        reason = state.stops.get(scope)
        if reason is not None and scope[0] in plan.index.undoable and undoing(plan, scope[0], reason):
            yield scope


def _finals(plan: Plan, state: State) -> Iterator[Key]:
    """Places that are final; the run's exit counts as soon as all that it joins is."""
    yield from (key for key in state.outcomes if plan.index.nodes[key.node].kind != "timer")
    if Key(EXIT) not in state.outcomes and all(Key(up) in state.outcomes for up in plan.index.ups[EXIT]):
        yield Key(EXIT)


def _token(plan: Plan, state: State, tokens: Tokens, key: Key, scope: tuple[str, str, int]) -> Token | Effect | None:
    name, _, number = scope
    sent: list[tuple[Key, tuple[Key, ...]]] = []
    for follower in followers(plan, state, key):
        if name not in plan.index.scopes[plan.index.nodes[follower.node].region]:
            continue
        token = tokens.get((follower, name, number))
        if token is None:
            return None
        sent.append((follower, token))
    outcome, node = state.outcomes.get(key), plan.index.nodes[key.node]
    if outcome is not None and outcome.kind == "completed" and node.undoable:
        own = revision(plan, state.resets, key)
        if state.undone.get((key, own), _NEVER) is not None:
            return _undo(plan, state, key, own, outcome)
        if name == RUN:
            return Token(key, name, number, (key,))
    return Token(key, name, number, _first_undone(plan, state, tokens, key, scope, sent))


def _first_undone(
    plan: Plan,
    state: State,
    tokens: Tokens,
    key: Key,
    scope: tuple[str, str, int],
    sent: list[tuple[Key, tuple[Key, ...]]],
) -> tuple[Key, ...]:
    """What a token says was undone, without what a retry resets anyway because it follows from the rest.

    So the exit of a region says nothing, and its entry says what comes after the region if nothing in it was undone:
    else each of 10,000 items would name all that was undone after the map.
    """
    index, (name, _, number) = plan.index, scope
    if index.nodes[key.node].kind == "exit":
        return ()
    found = _united(token for _, token in sent)
    region = index.nodes[key.node].region
    if found or index.nodes[key.node].kind != "entry" or region in (RUN, name):
        return found
    after = followers(plan, state, Key(index.regions[region].exit, key.tag))
    return _united(tokens.get((follower, name, number), ()) for follower in after)


def _united(sets: Iterable[tuple[Key, ...]]) -> tuple[Key, ...]:
    """The union; most are the same tuple."""
    found = list({id(one): one for one in sets if one}.values())
    return tuple(sorted({key for one in found for key in one})) if len(found) > 1 else found[0] if found else ()


def _undo(plan: Plan, state: State, key: Key, number: int, outcome: Outcome) -> Effect | None:
    found = {}
    for up in plan.index.ups[key.node]:
        known = state.known(up, key.tag)
        if known is None:
            return None
        found[up] = known
    return Undo(key, number, arguments(plan.index.nodes[key.node], found), outcome.value)


def followers(plan: Plan, state: State, key: Key) -> list[Key]:
    """What follows from a place, as far as it was reached: its successors in the graph that compensation reverses."""
    index = plan.index
    node, tag = index.nodes[key.node], key.tag
    if key.node == EXIT:
        return []
    if node.kind == "exit":
        return _after_exit(plan, state, key)
    found = [Key(down, tag) for down in index.downs[key.node] if not _crosses(plan, key.node, down)]
    if node.kind == "entry":
        exit_ = Key(index.regions[node.region].exit, tag)
        return [exit_, *(key for key in found if key != exit_)]
    if node.kind == "open":
        found += _after_open(plan, state, key)
    return found


def _crosses(plan: Plan, node: str, down: str) -> bool:
    """Whether an edge leads into or out of a construct's region, or only watches it."""
    upper, lower = plan.index.nodes[node], plan.index.nodes[down]
    if lower.kind == "timer":
        return True
    return upper.region != lower.region


def _after_open(plan: Plan, state: State, key: Key) -> list[Key]:
    index, tag = plan.index, key.tag
    construct = index.construct(index.nodes[key.node])
    outcome = state.outcomes[key]
    if outcome.kind != "completed":
        return []
    first = index.regions[construct.bodies[0]].entry
    if construct.kind == "each":
        return [Key(first, tags.child(tag, i)) for i in range(len(items(outcome)))]
    if construct.kind == "repeat":
        return [Key(first, tags.child(tag, 0))]
    return [Key(index.regions[body].entry, tag) for body in construct.bodies]


def _after_exit(plan: Plan, state: State, key: Key) -> list[Key]:
    index = plan.index
    construct = index.construct(index.nodes[key.node])
    tag = tags.parent(key.tag) if construct.numbered else key.tag
    close = Key(construct.id, tag)
    if construct.kind == "race":
        return [close, Key(settling(construct.id), tag)]
    if construct.kind == "repeat" and not over(index, construct, state, key, state.outcomes[key]):
        following = tags.child(tag, tags.last(key.tag) + 1)
        return [close, Key(index.regions[construct.bodies[0]].entry, following)]
    found = [close]
    if construct.kind == "attempt":
        cause = failure(plan, state, construct, tag)
        handler = None if cause is None else fitting(construct, cause)
        region = index.nodes[key.node].region
        if handler is not None and region in construct.bodies:
            found.append(Key(index.regions[handler].entry, tag))
        if construct.cleanup and region != construct.cleanup:
            found.append(Key(index.regions[construct.cleanup].entry, tag))
    return found
