"""A flow that is started by schedules, and what it did in this process."""

from __future__ import annotations

from collections import Counter

import anyio

from segue import App, Schedule, Service, flow

DONE: Counter[str] = Counter()
"""How often the step was executed, by due time."""

worker = Service("worker")


class Gate:
    """What runs wait at: those that are there, in order, and whether they may pass."""

    def __init__(self) -> None:
        self.waiting: list[str] = []
        self.most = 0
        self.inside = 0
        self.open = anyio.Event()


GATE = Gate()


@worker.step
async def note(due: str, place: str) -> str:
    """Write it down."""
    DONE[due] += 1
    return f"{place} {due}"


@worker.step
async def wait(due: str) -> str:
    """Wait at the gate."""
    gate = GATE
    gate.waiting.append(due)
    gate.inside += 1
    gate.most = max(gate.most, gate.inside)
    await gate.open.wait()
    gate.inside -= 1
    return due


@flow
def tick(due: str, place: str = "here") -> str:
    """One step."""
    return note(due, place)


@flow
def stay(due: str) -> str:
    """Not over before the gate opens."""
    return wait(due)


app = App(
    "ticking",
    flows=[tick, stay],
    services=[worker],
    schedules=[
        Schedule(tick, every=1, due_as="due", overlap="allow"),
        Schedule(tick, cron="0 9 * * mon-fri", timezone="Europe/Berlin", due_as="due", name="mornings"),
    ],
)
