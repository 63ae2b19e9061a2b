"""What a retry decides anew, and what an undo must wait for: everything that can be reached from some places.

Tags are compared level by level. A place stands for a range of indices at each level: the same index where two places
share a level, any index where one lies deeper, and all later rounds once the end of a round leads to the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from segue.machine.facts import Key
from segue.plan.graph import Plan
from segue.testing.tables import Tables, tables

Range = tuple[int, int | None]
"""From an index to another one, or without end."""

_ANY: Range = (0, None)


class Reach:
    """All places that can be reached from some places of a plan, themselves included.

    Args:
        plan: The plan.
        starts: Where to begin.
        anew: Whether it is decided anew: a race whose `close` is reached runs as a whole then, and an attempt whose
            body begins again has all its time again.
    """

    def __init__(self, plan: Plan, starts: Iterable[Key], *, anew: bool) -> None:
        self.found: dict[str, list[tuple[Range, ...]]] = {}
        graph = tables(plan)
        todo = [(key.node, _exactly(key.tag)) for key in starts if key.node in graph.nodes]
        while todo:
            name, ranges = todo.pop()
            known = self.found.setdefault(name, [])
            if any(_covers(other, ranges) for other in known):
                continue
            known.append(ranges)
            todo += [(down, _seen_from(graph, name, ranges, down)) for down in graph.edges[name]]
            if anew:
                todo += [(again, ranges) for again in _again(graph, name)]

    def __contains__(self, key: Key) -> bool:
        patterns = self.found.get(key.node)
        if not patterns:
            return False
        ranges = _exactly(key.tag)
        return any(_covers(pattern, ranges) for pattern in patterns)


def revision_of(plan: Plan, key: Key, resets: Sequence[tuple[Key, ...]]) -> int:
    """The last revision that decided a place anew; 1 if none did.

    Args:
        plan: The plan.
        key: The place.
        resets: Seeds of revision 2, 3 and so on.
    """
    for revision in range(len(resets) + 1, 1, -1):
        if key in _reset(plan, tuple(resets[revision - 2])):
            return revision
    return 1


def _reset(plan: Plan, seeds: tuple[Key, ...]) -> Reach:
    memo = plan.index.memo
    found = memo.get((Reach, seeds))
    if not isinstance(found, Reach):
        found = memo[Reach, seeds] = Reach(plan, seeds, anew=True)
    return found


def _again(graph: Tables, name: str) -> list[str]:
    """What begins again with a node, though no edge leads to it."""
    node, construct = graph.nodes[name], graph.constructs.get(graph.nodes[name].construct)
    if construct is None:
        return []
    if node.kind == "close" and construct.kind == "race":
        return [graph.regions[body].entry for body in construct.bodies]
    if node.kind == "entry" and construct.timeout and node.region == construct.bodies[0]:
        return [f"{construct.id}:timer"]
    return []


def _seen_from(graph: Tables, name: str, ranges: tuple[Range, ...], down: str) -> tuple[Range, ...]:
    node, other = graph.nodes[name], graph.nodes[down]
    if node.kind == "exit" and other.kind == "entry" and node.region == other.region:
        return (*ranges[:-1], (ranges[-1][0] + 1, None))
    depth = graph.depth[down]
    return (*ranges[:depth], *(_ANY,) * (depth - len(ranges)))


def _covers(outer: tuple[Range, ...], inner: tuple[Range, ...]) -> bool:
    return all(
        low >= first and (last is None or (high is not None and high <= last))
        for (first, last), (low, high) in zip(outer, inner, strict=True)
    )


def _exactly(tag: str) -> tuple[Range, ...]:
    return tuple((int(index), int(index)) for index in tag.split(".")) if tag else ()
