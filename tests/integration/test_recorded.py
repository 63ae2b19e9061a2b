"""Runs that were recorded on other engines: their definitions, declared as flows, come to the same in both modes."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from recorded import conductor, cwl, stepfunctions
from recorded.script import SCENE, Ran, Recording, load, named

from segue import UnknownRun
from segue.plan.graph import Node
from segue.runtime.client import RunHandle
from segue.runtime.where import RunView
from segue.testing import Orders, World
from segue.testing.everywhere import everywhere, timeless
from segue.wire.envelope import Ended

APPS = {"stepfunctions": stepfunctions.app, "conductor": conductor.app, "cwl": cwl.app}
RUNS = [(engine, recording) for engine in APPS for recording in load(engine).runs]
SIMULATED = [(engine, recording) for engine, recording in RUNS if not recording.cancels]
"""All but those of which a subflow's run is cancelled: people act on the first run only, in simulations."""

MODES = ["orchestrated", "choreographed"]


class Came(msgspec.Struct, frozen=True):
    """What a run came to, here or there; what the recording does not say is None."""

    status: str
    output: Any
    error: tuple[str, str | None] | None
    ran: dict[str, Ran]
    given: dict[str, list[str]]


def recorded(recording: Recording) -> Came:
    ran = {named(task): _attempted(ran) for task, ran in (recording.ran | recording.differs).items()}
    error = recording.error
    return Came(
        recording.status,
        None if recording.output is msgspec.UNSET else recording.output,
        None if error is None else (error.type, error.message),
        ran,
        {named(task): _in_any_order(values) for task, values in recording.given.items()},
    )


def came(recording: Recording, ended: Ended, tasks: dict[str, Counter[str]]) -> Came:
    """What is to be compared with the recording: outcomes from the journal, attempts as the steps counted them."""
    failure = ended.causes[0].error if ended.causes else None
    error = None if failure is None else (failure.type, failure.message)
    if error is not None and recording.error is not None and recording.error.message is None:
        error = error[0], None
    return Came(
        ended.status,
        None if recording.output is msgspec.UNSET else msgspec.json.decode(ended.value),
        error,
        {
            name: Ran(many["completed"], many["failed"], SCENE.attempts.get(name, many.total()))
            for name, many in tasks.items()
        },
        {task: _in_any_order(SCENE.given.get(task, [])) for task in map(named, recording.given)},
    )


def _attempted(ran: Ran) -> Ran:
    return ran if ran.attempts else Ran(ran.completed, ran.failed, ran.completed + ran.failed)


def _in_any_order(values: list[Any]) -> list[str]:
    return sorted(msgspec.json.encode(value, order="deterministic").decode() for value in values)


async def tasks_of(world: World, view: RunView) -> dict[str, Counter[str]]:
    """What the tasks of a run and of its subflows came to, as the journal tells; only those that were executed."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    plan = world.app.flows[view.run.flow].plan
    for place in view.nodes:
        node = plan.index.nodes[place.node]
        if place.child:
            for name, many in (await tasks_of(world, await world.where(place.child))).items():
                found[name] += many
        if place.state in ("completed", "failed") and (name := _task(node)):
            found[name][place.state] += 1
    return found


def _task(node: Node) -> str:
    """The task that a node stands for: a step, or a Fail state, which has the name of its node."""
    if node.kind == "raise" and not node.id.startswith("raise"):
        return node.id
    return node.step if node.kind == "step" and (node.owner, node.step) not in COMPUTED else ""


COMPUTED = {(step.service, step.name) for app in APPS.values() for flow in app.flows.values() for step in flow.computed}
"""Pure functions that a flow is declared with: the other engine has an expression there."""


async def child_of(world: World, run: str) -> RunHandle[Any]:
    """The run of a subflow, once it is known."""
    while True:
        with suppress(UnknownRun):
            view = await world.where(run, timeout=0.02)
            for child in filter(None, (node.child for node in view.nodes)):
                return await world.client.find(child, conductor.sub_workflow)
        await anyio.sleep(0.01)


async def play(world: World, recording: Recording) -> Came:
    SCENE.begin(recording)
    run = await world.start(world.app.flows[recording.flow], **recording.input)
    for signal, values in recording.signals.items():
        for match, value in values.items():
            await world.client.signal(run.id, signal, value, match=match or None)
    if recording.pauses:
        await run.pause()
        await run.resume()
    if recording.cancels:
        await (await child_of(world, run.id)).cancel()
    ended = await run.outcome(20)
    for _ in range(recording.retries):
        await run.retry()
        ended = await run.outcome(20)
    return came(recording, ended, await tasks_of(world, await world.where(run.id)))


def test_the_document_counts_what_is_compared() -> None:
    text = (Path(__file__).parents[2] / "docs" / "recorded.md").read_text()
    rows = re.findall(r"^\| [^|]+ \| `(\w+)\.json` \| (\d+) \| (\d+) \| (\d+) \|", text, re.M)
    counted = {
        engine: (str(len(flows)), str(len(runs)), str(sum(bool(run.differs) for run in runs)))
        for engine in APPS
        for runs in [load(engine).runs]
        for flows in [{run.flow for run in runs}]
    }
    assert {engine: tuple(numbers) for engine, *numbers in rows} == counted
    for engine, app in APPS.items():
        assert {run.flow for run in load(engine).runs} | {"sub_workflow"} == app.flows.keys() | {"sub_workflow"}
    assert all(run.differs.keys().isdisjoint(run.ran) and run.why for _, run in RUNS if run.differs)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("engine", list(APPS))
async def test_recorded_runs_come_to_the_same(engine: str, mode: Any) -> None:
    different = {}
    async with World(APPS[engine], mode=mode) as world:
        for recording in load(engine).runs:
            found = await play(world, recording)
            if found != recorded(recording):
                different[recording.name] = {"here": found, "there": recorded(recording)}
    assert different == {}


@pytest.mark.parametrize(("engine", "recording"), SIMULATED, ids=lambda given: getattr(given, "name", given))
def test_recorded_runs_come_to_the_same_in_any_weather(engine: str, recording: Recording) -> None:
    """Reordered, repeated, lost, with crashes: the same value or failure, and the same tasks."""
    flow, wanted = APPS[engine].flows[recording.flow], recorded(recording)
    # In bad weather a signal may be late, and its wait over; and a deadline may pass later.
    bad_weather = timeless(flow.plan) or not (recording.signals or flow.plan.deadline)
    SCENE.begin(recording)
    found = everywhere(
        APPS[engine],
        flow,
        *recording.input.values(),
        seeds=(None, 1, 2) if bad_weather else (None,),
        signals={name: values.get for name, values in recording.signals.items()},
        orders=Orders(retries=recording.retries, hold=(0.0, 60.0) if recording.pauses else None),
        same=True,
    )
    tasks: dict[str, Counter[str]] = defaultdict(Counter)
    for place, state in found.states.items():
        if (name := _task(flow.plan.index.nodes[place.partition("/")[0]])) and state in ("completed", "failed"):
            tasks[name][state] += 1
    here = came(recording, found.ended, {})
    assert (here.status, here.output, here.error) == (wanted.status, wanted.output, wanted.error)
    assert tasks == {
        name: +Counter(completed=ran.completed, failed=ran.failed)
        for name, ran in wanted.ran.items()
        if name in map(_task, flow.plan.nodes)
    }
