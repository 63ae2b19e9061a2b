"""Plans for tests: random ones over all constructs, and ones shaped like real workflows; and what their steps do."""

from __future__ import annotations

import itertools
import random

from segue.plan.graph import Get, Items, Plan
from segue.testing.behaviours import GIVEN, Behaviour, Scripted
from segue.testing.draft import Draft
from segue.testing.plans import DETERMINISTIC, EVERYTHING, Mix, random_plan

__all__ = [
    "DETERMINISTIC", "EVERYTHING", "GIVEN", "Behaviour", "Mix", "Scripted", "random_plan", "workflow_like",
]  # fmt: skip


def workflow_like(rng: random.Random, nodes: int) -> Plan:
    """A plan shaped like traces of scientific workflows.

    Levels, wide fan-out and fan-in, several sources and sinks, and parts that have nothing to do with each other.

    Args:
        rng: Source of all choices.
        nodes: Number of steps; traces have 10 to 1,738.
    """
    draft = Draft(rng, rng.randint(2, 6))
    while (left := nodes - len(draft.nodes) + 1) > 0:
        part = left if left < 20 or rng.random() < 0.5 else rng.randint(10, left)
        rng.choice((_scatter, _mosaic, _pipelines, _levels))(draft, part)
    draft.leave(draft.run, Get(draft.nodes[-1].id))
    return draft.plan()


def _call(draft: Draft, *names: str) -> str:
    """A step that reads some nodes: many as one list, few as arguments."""
    gets = [Get(name) for name in names]
    args = {"a0": Items(tuple(gets))} if len(gets) > 3 else {f"a{i}": get for i, get in enumerate(gets)}
    name = draft.name("s")
    return draft.add(draft.run, name, "step", dict(args), step=name)


def _scatter(draft: Draft, size: int) -> None:
    """Split, work in parallel on up to 500 pieces, merge; again until the size is reached."""
    while size > 0:
        width = max(1, min(500, size - 2))
        head = _call(draft)
        if size > 1:
            work = [_call(draft, head) for _ in range(width)] if size > 2 else [head]
            _call(draft, *work)
        size -= width + 2


def _mosaic(draft: Draft, size: int) -> None:
    """Sources, overlaps of neighbours, one model of all, a correction of each source with it, one picture."""
    width = min((size - 2) // 3, 400)
    if width < 2:
        return _scatter(draft, size)
    sources = [_call(draft) for _ in range(width)]
    overlaps = [_call(draft, *pair) for pair in itertools.pairwise(sources)]
    model = _call(draft, *overlaps)
    _call(draft, *[_call(draft, source, model) for source in sources])
    rest = size - (3 * width + 1)
    return _scatter(draft, rest) if rest > 0 else None


def _pipelines(draft: Draft, size: int) -> None:
    """Chains side by side, merged at the end."""
    width = max(1, min(100, (size - 1) // draft.rng.randint(3, 8)))
    ends = [_call(draft) for _ in range(min(width, size))]
    left = size - len(ends) - 1
    for i in range(max(0, left)):
        ends[i % len(ends)] = _call(draft, ends[i % len(ends)])
    if left >= 0:
        _call(draft, *ends)


def _levels(draft: Draft, size: int) -> None:
    """Levels of random width; each node reads a few of the level above; nodes that nobody reads stay sinks."""
    above: list[str] = []
    while size > 0:
        width = min(size, draft.rng.choice((1, 3, 10, 40)))
        reads = [draft.rng.sample(above, min(len(above), draft.rng.choice((1, 1, 2, 3, 8)))) for _ in range(width)]
        above = [_call(draft, *names) for names in reads]
        size -= width
