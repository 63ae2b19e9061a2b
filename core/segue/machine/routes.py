"""Where a fact leads: the places that it touches, what must be known to decide them, and the joins that it counts for.

Within a region, edges keep the tag. Gateways change it: `open` leads to one entry for each item, an exit of a numbered
body leads one level up, or (`repeat`) to the entry of the next round.

Most joins are complete when all their inputs have arrived, and exactly one commit learns that. The gateways that look
before everything is there (`close` and `settle` of races and attempts, the entry of a cleanup) are looked at after
each arrival. Two replicas may then both decide one; it comes out the same, but a step that follows may be called twice.
"""

from __future__ import annotations

from segue.machine import tags
from segue.machine.facts import DEAD, Fact, Key, Outcome, State
from segue.machine.values import holds
from segue.plan.graph import EXIT, Construct, Index, Node, Plan
from segue.plan.names import opening

LOADED_JOIN = 64
"""Joins with more inputs ask the tally whether they are complete, and load their inputs only then."""

Mine = frozenset[str]

GATES = frozenset({"entry", "exit", "close", "settle", "timer"})


def touched(plan: Plan, state: State, fact: Fact, mine: Mine) -> list[Key]:
    """The places of mine that a fact may decide.

    Args:
        plan: The run's plan.
        state: What is known; of the round of a `repeat` its entry, of a limited `each` its count.
        fact: The outcome of a node.
        mine: The nodes that are decided here.
    """
    index, (name, tag), outcome = plan.index, fact.key, fact.outcome
    downs = index.fed(mine)[name]
    node = index.nodes[name]
    if not node.construct:
        return [Key(down, tag) for down in downs]
    if node.kind == "open":
        return _opened(index, state, node, tag, outcome, downs)
    if node.kind == "exit":
        return _left(index, state, node, fact, mine, downs)
    return [Key(down, tag) for down in downs]


def _opened(index: Index, state: State, node: Node, tag: str, outcome: Outcome, downs: tuple[str, ...]) -> list[Key]:
    construct = index.construct(node)
    found: list[Key] = []
    for down in downs:
        kind = index.nodes[down].kind
        if kind == "entry" and index.nodes[down].construct == construct.id:
            if outcome.kind != "completed":
                continue
            if construct.kind == "each":
                count = ready(construct, outcome, state.counts.get(Key(construct.id, tag), 0))
                found += [Key(down, tags.child(tag, i)) for i in range(count)]
            elif construct.kind == "repeat":
                found.append(Key(down, tags.child(tag, 0)))
            else:
                found.append(Key(down, tag))
        elif kind == "close" and index.nodes[down].construct == construct.id:
            if outcome.kind != "completed" or (construct.kind == "each" and not items(outcome)):
                found.append(Key(down, tag))
        else:
            found.append(Key(down, tag))
    return found


def _left(index: Index, state: State, node: Node, fact: Fact, mine: Mine, downs: tuple[str, ...]) -> list[Key]:
    construct, tag = index.construct(node), fact.key.tag
    if not construct.numbered:
        return [Key(down, tag) for down in downs]
    if construct.kind == "repeat" and not over(index, construct, state, fact.key, fact.outcome):
        entry = index.regions[node.region].entry
        return [Key(entry, tags.child(tags.parent(tag), tags.last(tag) + 1))] if entry in mine else []
    return [Key(down, tags.parent(tag)) for down in downs]


def items(opened: Outcome) -> list[object]:
    """The items of an `each` that has been opened."""
    found = opened.value.get("items") if isinstance(opened.value, dict) else None
    return found if isinstance(found, list) else []


def ready(construct: Construct, opened: Outcome, finished: int) -> int:
    """How many items of an `each` may be under way or over, given how many are over."""
    size = len(items(opened))
    return min(size, construct.limit + finished) if construct.limit else size


def over(index: Index, construct: Construct, state: State, key: Key, outcome: Outcome) -> bool:
    """Whether a round of a `repeat` was the last one, given the outcome of its exit."""
    if outcome.kind in DEAD or tags.last(key.tag) + 1 >= construct.cap:
        return True
    return reached(index, construct, state, key, outcome)


def reached(index: Index, construct: Construct, state: State, key: Key, outcome: Outcome) -> bool:
    """Whether the `until` of a `repeat` holds of the outcome of an exit; unknown counts as false."""
    if construct.until is None:
        return False

    def look(name: str) -> Outcome:
        return outcome if name == key.node else state.outcomes[Key(name, key.tag)]

    try:
        return holds(construct.until, look) is True
    except KeyError:
        return False  # a partial state that knows of an earlier round's exit only: a later one is heard of


# What must be known.


def wanted(plan: Plan, key: Key, mine: Mine) -> list[Key]:
    """What must be loaded before a fact of `key` may be heard.

    The outcomes of all that it touches (of entries of a body only if a timer may stand before them), and of small joins
    the other inputs. What follows from what is known may be decided again: it comes out the same.
    """
    index, keys = plan.index, []
    for name in index.fed(mine)[key.node]:
        node = index.nodes[name]
        if node.construct and node.kind in GATES:
            keys += _gate(index, node, key)
            continue
        keys.append(Key(name, key.tag))
        ups = index.ups[name]
        if 1 < len(ups) <= LOADED_JOIN:
            keys += [Key(up, key.tag) for up in ups if up != key.node]
    return keys


def _gate(index: Index, node: Node, key: Key) -> list[Key]:
    """What deciding a construct's gateway needs besides the fact that touches it."""
    construct, tag = index.construct(node), key.tag
    source = index.nodes[key.node].kind
    opened = opening(construct.id)
    if node.kind == "exit":
        ups = index.ups[node.id]
        rest = [Key(up, tag) for up in ups if up != key.node] if len(ups) <= LOADED_JOIN else []
        return [Key(node.id, tag), *rest]
    if node.kind == "timer":
        return [Key(node.id, tag)]
    if source == "open":
        return [Key(node.id, tag)] if node.kind == "close" else []
    if construct.kind == "each":
        return [Key(node.id, tags.parent(tag))]
    if construct.kind == "repeat":
        up = tags.parent(tag)
        region = index.regions[construct.bodies[0]]
        following = Key(region.entry, tags.child(up, tags.last(tag) + 1))
        return [Key(node.id, up), following, Key(region.entry, tag), Key(opened, up)]
    inputs = (node.id, opened, construct.id, *index.exits(construct))
    return [Key(name, tag) for name in dict.fromkeys(inputs) if name != key.node]


def inputs(plan: Plan, state: State, key: Key) -> list[Key]:
    """What deciding a node needs, as far as the state tells: ask again when `open` of an `each` has been loaded."""
    index = plan.index
    node = index.nodes[key.node]
    if not node.construct or node.kind == "open":
        watched = [Key(EXIT)] if node.kind == "timer" else []
        return [*watched, *(Key(up, key.tag) for up in index.ups[key.node])]
    construct = index.construct(node)
    exits = index.exits(construct)
    opened = Key(opening(construct.id), key.tag)
    if node.kind == "entry" and construct.numbered:
        tag = tags.parent(key.tag)
        found = [Key(opened.node, tag)]
        if construct.kind == "repeat" and tags.last(key.tag):
            before = tags.child(tag, tags.last(key.tag) - 1)
            found += [Key(exits[0], before), Key(node.id, before)]
        return found
    if node.kind == "close" and construct.kind == "each":
        known = state.outcomes.get(opened)
        if known is None or known.kind != "completed":
            return [opened]
        return [opened, *(Key(exits[0], tags.child(key.tag, i)) for i in range(len(items(known))))]
    if node.kind == "close" and construct.kind == "repeat":
        return [opened]
    if node.kind == "exit":
        return [Key(up, key.tag) for up in index.ups[key.node]]
    return [opened, Key(construct.id, key.tag), *(Key(name, key.tag) for name in exits)]


# Joins.


def joins(plan: Plan, key: Key, mine: Mine) -> list[Key]:
    """The joins of this participant that a fact of `key` counts for."""
    index, found = plan.index, []
    numbered = ""
    node = index.nodes[key.node]
    if node.kind == "exit" and node.construct and index.construct(node).numbered:
        if index.construct(node).kind == "repeat":
            return []
        numbered = node.construct
    for name in index.fed(mine)[key.node]:
        if len(index.ups[name]) < 2:
            continue
        if numbered:
            found.append(Key(name, tags.parent(key.tag)))
        elif not (node.kind == "open" and index.nodes[name].construct == node.construct):
            found.append(Key(name, key.tag))
    return found


def size(plan: Plan, state: State, key: Key) -> int:
    """How many inputs must have arrived before it is worth looking at a join; 0 if that is not known yet."""
    index = plan.index
    node = index.nodes[key.node]
    if not node.construct or node.kind in ("exit", "open"):
        return len(index.ups[key.node])
    construct = index.construct(node)
    if node.kind == "close" and construct.kind == "each":
        opened = state.outcomes.get(Key(opening(construct.id), key.tag))
        return len(items(opened)) if opened is not None else 0
    return 1


def slots(plan: Plan, state: State, key: Key, before: int, after: int) -> list[Key]:
    """Entries of a limited `each` that may open because its `close` has counted more exits."""
    index = plan.index
    node = index.nodes[key.node]
    construct = index.constructs.get(node.construct)
    opened = state.outcomes.get(Key(opening(node.construct), key.tag))
    if node.kind != "close" or construct is None or not construct.limit or opened is None:
        return []
    entry = index.regions[construct.bodies[0]].entry
    first, last = ready(construct, opened, before), ready(construct, opened, after)
    return [Key(entry, tags.child(key.tag, i)) for i in range(first, last)]


def limited(plan: Plan, key: Key) -> Key | None:
    """The join whose count tells how many entries of a limited `each` may open; None for any other fact."""
    node = plan.index.nodes[key.node]
    if node.kind == "open" and plan.index.construct(node).limit:
        return Key(node.construct, key.tag)
    return None
