"""Random cases for the simulator, each a pure function of a seed and a kind."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from segue.plan.graph import Plan
from segue.testing.agreement import Case
from segue.testing.behaviours import Scripted
from segue.testing.plans import DETERMINISTIC, EVERYTHING, random_plan
from segue.testing.sim.orders import Orders


def _behaviour(rng: random.Random, seed: int, fickle: bool = False) -> Scripted:
    return Scripted(seed, rng.choice((0.0, 0.1, 0.3)), rng.choice((0.0, 0.05)), fickle)


def pure(seed: int) -> Case:
    """What a run comes to depends on the plan and the steps only."""
    rng = random.Random(seed)
    return Case(random_plan(rng, mix=DETERMINISTIC), _behaviour(rng, seed))


def fickle(seed: int) -> Case:
    """Steps return another value each time they are executed: only recording makes their results single."""
    rng = random.Random(seed)
    return Case(random_plan(rng, mix=DETERMINISTIC), _behaviour(rng, seed, fickle=True))


def timed(seed: int) -> Case:
    """Races, timeouts and deadlines: time decides."""
    rng = random.Random(seed)
    return Case(random_plan(rng, mix=EVERYTHING), _behaviour(rng, seed), timeless=False)


def retried(seed: int) -> Case:
    """Runs that are retried when they have ended."""
    rng = random.Random(seed)
    plan = random_plan(rng, mix=DETERMINISTIC)
    return Case(plan, _behaviour(rng, seed), True, Orders(retries=rng.randint(1, 3), chosen=_chosen(rng, plan)))


def ordered(seed: int) -> Case:
    """Everything at once, and people who cancel, hold and retry."""
    rng = random.Random(seed)
    return Case(random_plan(rng, mix=EVERYTHING), _behaviour(rng, seed), False, Orders.draw(rng))


def moved(seed: int) -> Case:
    """Runs that are moved to the other mode, and back, and there again."""
    rng = random.Random(seed)
    plan, behaviour = random_plan(rng, mix=DETERMINISTIC), _behaviour(rng, seed, fickle=seed % 2 == 1)
    return Case(plan, behaviour, True, Orders(moves=_moves(rng)))


def anywhere(seed: int) -> Case:
    """Everything at once, in runs that are moved."""
    rng = random.Random(seed)
    plan, behaviour = random_plan(rng, mix=EVERYTHING), _behaviour(rng, seed)
    return Case(plan, behaviour, False, msgspec.structs.replace(Orders.draw(rng), moves=_moves(rng)))


def _moves(rng: random.Random) -> tuple[float, ...]:
    """Up to three moves, while much happens."""
    return tuple(rng.choice((0.02, 0.05, 0.3, 3.0)) * rng.random() for _ in range(rng.randint(1, 3)))


def _chosen(rng: random.Random, plan: Plan) -> tuple[str, ...]:
    steps = [node.id for node in plan.nodes if node.kind == "step"]
    if not steps or rng.random() > 0.3:
        return ()
    name = rng.choice(steps)
    first = ".".join("0" * plan.index.depth(name))
    return (f"{name}/{first}" if first and rng.random() < 0.6 else name,)


KINDS: dict[str, Callable[[int], Case]] = {
    "pure": pure,
    "fickle": fickle,
    "timed": timed,
    "retried": retried,
    "ordered": ordered,
    "moved": moved,
    "anywhere": anywhere,
}
"""The kinds of cases, by name."""
