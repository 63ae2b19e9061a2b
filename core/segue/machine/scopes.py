"""Stopped scopes (R11), and the revision that a node's outcome has (R14).

A retry names seeds; everything that the plan can reach from them is reset: the same tag on the levels that two nodes
share, later rounds, any deeper index. So the revision of a node is the last one that reset *it*, not the run's: what is
not reset keeps its outcome, and an old fact is refused only where it was reset.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from segue.machine import tags
from segue.machine.facts import Key, Reason, State
from segue.plan.graph import RUN, Plan
from segue.plan.names import watching


class _Any(NamedTuple):
    """Any index from `least` on."""

    least: int = 0


Pattern = tuple[int | _Any, ...]
Reach = Mapping[str, frozenset[Pattern]]


def reach(plan: Plan, seeds: tuple[Key, ...]) -> Reach:
    """What a reset of these seeds resets: tag patterns by node."""
    memo = plan.index.memo
    kept: dict[tuple[Key, ...], Reach] = memo.setdefault("reach", {})
    if seeds not in kept:
        kept[seeds] = _reach(plan, seeds)
    return kept[seeds]


def _reach(plan: Plan, seeds: tuple[Key, ...]) -> Reach:
    found: dict[str, set[Pattern]] = {}
    todo: list[tuple[str, Pattern]] = [(key.node, tags.path(key.tag)) for key in seeds if key.node in plan.index.nodes]
    while todo:
        node, pattern = todo.pop()
        patterns = found.setdefault(node, set())
        if pattern not in patterns:
            patterns.add(pattern)
            todo += _next(plan, node, pattern)
    return {node: frozenset(patterns) for node, patterns in found.items()}


def _next(plan: Plan, name: str, pattern: Pattern) -> Iterator[tuple[str, Pattern]]:
    index = plan.index
    node, depth = index.nodes[name], len(pattern)
    for down in index.downs[name]:
        other = index.depth(down)
        yield down, pattern[:other] if other <= depth else pattern + (_Any(),) * (other - depth)
    if not node.construct:
        return
    construct = index.construct(node)
    if construct.kind == "repeat" and node.kind == "exit":
        last = pattern[-1]
        later = last if isinstance(last, _Any) else _Any(last + 1)
        yield index.regions[node.region].entry, (*pattern[:-1], later)
    if construct.kind == "race" and node.kind == "close":
        yield from ((index.regions[body].entry, pattern) for body in construct.bodies)
    if construct.timeout and node.kind == "entry" and node.region == construct.bodies[0]:
        yield watching(construct.id), pattern


def covers(found: Reach, key: Key) -> bool:
    """Whether a reset includes a place."""
    path = tags.path(key.tag)
    return any(
        all(
            part == index or (isinstance(part, _Any) and index >= part.least)
            for part, index in zip(pattern, path, strict=True)
        )
        for pattern in found.get(key.node, ())
    )


def revision(plan: Plan, resets: tuple[tuple[Key, ...], ...], key: Key) -> int:
    """The revision in which a place is decided: the last one that reset it."""
    for number in range(len(resets), 0, -1):
        if covers(reach(plan, resets[number - 1]), key):
            return number + 1
    return 1


def since(state: State, key: Key, number: int) -> int:
    """The revision since which a place was never undone: to the world outside, all its calls since then are one.

    Args:
        state: All that is known of the run.
        key: The place.
        number: The revision in which it is decided.
    """
    for before in range(number - 1, 0, -1):
        if (key, before) in state.undone and state.undone[key, before] is None:
            return before + 1
    return 1


def scopes(plan: Plan, state: State, key: Key) -> Iterator[tuple[str, str, int]]:
    """The scopes that a place lies in, innermost first, each as the key that a stop of it has now."""
    index = plan.index
    for scope in index.scopes[index.nodes[key.node].region]:
        yield scoped(plan, state, scope, tags.prefix(key.tag, index.depths[scope]))


def scoped(plan: Plan, state: State, scope: str, tag: str) -> tuple[str, str, int]:
    """The key that a stop of a scope has now: it counts until something in the scope, and so its exit, is reset."""
    if scope == RUN:
        return scope, "", state.revision
    return scope, tag, revision(plan, state.resets, Key(plan.index.regions[scope].exit, tag))


def stopped(plan: Plan, state: State, key: Key) -> bool:
    """Whether a scope that a place lies in is stopped."""
    return bool(state.stops) and any(scope in state.stops for scope in scopes(plan, state, key))


def undoing(plan: Plan, scope: str, reason: Reason) -> bool:
    """Whether what a stopped scope completed is undone; an attempt whose time is over may leave it as it is."""
    if reason != "timeout":
        return True
    return plan.index.constructs[plan.index.regions[scope].construct].undo


def undone(plan: Plan, state: State, scope: str, tag: str) -> bool:
    """Whether all of a stopped scope is undone: its entry's token is there, or there never was anything to undo."""
    if scope not in plan.index.undoable:
        return True
    _, _, number = scoped(plan, state, scope, tag)
    return (Key(plan.index.regions[scope].entry, tag), scope, number) in state.tokens
