"""The simulated store does what the reference store does, whatever is asked of both."""

from __future__ import annotations

import random
from typing import Any

from segue.ports.store import Cell, CellKey, CellKind, Due, DueKey, Join, StateStore
from segue.testing.sim.ops import Op
from segue.testing.sim.store import Rows, SimStore
from segue_memory.store import MemoryStore, Part

RUNS = [f"{n:032x}" for n in range(3)]


def at_once(coroutine: Any) -> Any:
    """What a coroutine of operations gives if each of them succeeds at once."""
    value = None
    while True:
        try:
            op = coroutine.send(value)
        except StopIteration as end:
            return end.value
        assert isinstance(op, Op)
        value = op.effect()


class Asker:
    """Random questions and orders; the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def key(self) -> CellKey:
        rng = self.rng
        return CellKey(rng.choice(RUNS), rng.choice("abc"), rng.choice(("", "0")), 1, rng.choice(list(CellKind)[:3]))

    def cell(self) -> Cell:
        joins = tuple({Join(self.rng.choice(RUNS), name, "", 1) for name in self.rng.sample("xyz", 2)})
        return Cell(self.key(), self.rng.randbytes(2), joins)

    def row(self) -> DueKey:
        return DueKey(self.rng.choice(RUNS), self.rng.choice("abc"), "")

    def question(self, store: StateStore) -> Any:
        rng = self.rng
        what = rng.choice(("load", "scan", "commit", "commit", "tally", "bind", "find", "claim"))
        if what == "commit":
            cells = list({cell.key: cell for cell in [self.cell() for _ in range(3)]}.values())
            due = [Due(self.row(), float(rng.randrange(20)), rng.randrange(3), b"x") for _ in range(rng.randrange(2))]
            return store.commit(cells, due=due, done=[self.row() for _ in range(rng.randrange(2))])
        return {
            "load": lambda: store.load([self.key() for _ in range(4)]),
            "scan": lambda: store.scan(rng.sample(RUNS, 2)),
            "tally": lambda: store.tally([Join(rng.choice(RUNS), name, "", 1) for name in "xyz"]),
            "bind": lambda: store.bind("f", [(rng.choice("kl"), rng.choice(RUNS))]),
            "find": lambda: store.find("f", ["k", "l"]),
            "claim": lambda: store.claim(float(rng.randrange(25)), 5.0, 2, "me"),
        }[what]()


async def test_both_stores_answer_alike() -> None:
    for seed in range(60):
        written: list[CellKey] = []
        sim = SimStore(Rows(lambda key, _, written=written: written.append(key)))
        memory = MemoryStore(Part())
        one, other = Asker(seed), Asker(seed)
        for number in range(120):
            found, expected = at_once(one.question(sim)), await other.question(memory)
            assert found == expected, (seed, number)
        assert len(written) == len(set(written)), "a cell was written twice"
