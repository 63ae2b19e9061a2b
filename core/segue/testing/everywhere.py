"""Runs a flow in both modes, in good and bad weather, and compares all that came of it.

    found = await run_everywhere(place_order, Order("4711", 4200), signals={"review": Review(ok=True)})
    assert found.value == ...

The functions of the steps are the real ones, and so is the code of the participants; the broker, the stores and time
are simulated. Sleeping takes no time, neither in a flow nor in a step. Each execution is also compared with the rules,
by an independent evaluator that takes what the steps returned as given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import anyio.to_thread
import msgspec

from segue.errors import DeclarationError
from segue.machine.facts import Key
from segue.model.app import App
from segue.model.flow import Flow
from segue.plan.graph import Plan
from segue.plan.projection import MODES
from segue.runtime.input import bind
from segue.testing.agreement import check_rules
from segue.testing.invariants import check
from segue.testing.sim.faults import CROWDED, LOSSY, QUIET, ROUGH, STORMY, Faults
from segue.testing.sim.log import Log
from segue.testing.sim.orders import Orders
from segue.testing.sim.scene import Given, Scene, play
from segue.testing.story import Violation
from segue.wire import envelope
from segue.wire.envelope import Ended

LONG = 1800.0
"""A timeout of so many seconds is not reached by bad weather alone."""

SEEDS: tuple[int | None, ...] = (None, 1, 2)

_GATES = frozenset({"entry", "exit", "open", "close", "settle", "timer"})


class Difference(Violation):
    """A run came to something else in another mode or weather, or to what no run may come to."""


class Everywhere(msgspec.Struct, frozen=True):
    """What a run came to, the same everywhere.

    Attributes:
        ended: How it ended.
        states: State of every node that was decided, by its name; those in maps and loops by `name/tag`.
        runs: How many executions were compared.
        effects: How often each call was executed in the execution that did so most, by run, node, tag
            and revision.
        undone: Nodes that were undone, by name as in `states`.
        histories: What was published in good weather, by mode.
        seconds: Virtual seconds that the run took in good weather, by mode.
    """

    ended: Ended
    states: dict[str, str]
    runs: int
    effects: dict[str, int]
    undone: tuple[str, ...]
    histories: dict[str, tuple[str, ...]]
    seconds: dict[str, float]

    @property
    def value(self) -> Any:
        """The run's value, as JSON builtins."""
        return msgspec.json.decode(self.ended.value)


class _Came(msgspec.Struct, frozen=True):
    """What one execution came to; equal executions are equal."""

    ended: Ended
    states: dict[str, str]
    values: dict[str, bytes]
    calls: dict[str, bytes]
    undone: tuple[str, ...]


async def run_everywhere(
    what: App | Flow[..., Any],
    *args: Any,
    app: App | None = None,
    seeds: Sequence[int | None] = SEEDS,
    faults: Faults | None = None,
    signals: Mapping[str, Any] | None = None,
    orders: Orders | None = None,
    same: bool | None = None,
) -> Everywhere:
    """Run a flow in both modes under faults, and compare all executions with each other.

    The flow's steps must give the same results for the same inputs.

    Args:
        what: The flow; or its app, and the flow as the first of `args`.
        *args: The flow's input.
        app: Its services, if they are not in an app of the flow's module.
        seeds: Each a source of faults and interleavings; None is good weather.
        faults: What may go wrong; by default something else for each seed.
        signals: Values of the signals that are sent, by name; a function gets the slot and may give None: never sent.
        orders: What people ask of the run.
        same: Whether all executions must come to the same; by default, unless the flow depends on time (a race, a
            short timeout) or the orders do.

    Raises:
        Difference: Two executions differ, or one did what none may do. The message has the mode and the seed.
    """
    # In a thread: steps need an event loop of virtual time, and there can be only one in each.
    run = partial(everywhere, app=app, seeds=seeds, faults=faults, signals=signals, orders=orders, same=same)
    return await anyio.to_thread.run_sync(run, what, *args)


def everywhere(
    what: App | Flow[..., Any],
    *args: Any,
    app: App | None = None,
    seeds: Sequence[int | None] = SEEDS,
    faults: Faults | None = None,
    signals: Mapping[str, Any] | None = None,
    orders: Orders | None = None,
    same: bool | None = None,
) -> Everywhere:
    """`run_everywhere`, for threads without an event loop.

    Raises:
        Difference: Two executions differ, or one did what none may do.
    """
    if isinstance(what, App):
        app, flow, values = what, args[0], args[1:]
    else:
        flow, values = what, args
        app = app or _app_of(flow)
    given = Given(app, flow, bind(flow, flow.plan, values, {}), dict(signals or {}), orders or Orders())
    alike = same if same is not None else timeless(flow.plan) and given.orders == Orders()
    return _everywhere(given, tuple(seeds), faults, alike)


def timeless(plan: Plan) -> bool:
    """Whether what a run comes to does not depend on time."""
    short = any(0 < node.timeout < LONG for node in plan.nodes) or 0 < plan.deadline < LONG
    short = short or any(0 < construct.timeout < LONG for construct in plan.constructs)
    return not short and plan.on_failure == "drain" and all(construct.kind != "race" for construct in plan.constructs)


def weather(seed: int | None, plan: Plan) -> Faults:
    """What goes wrong with a seed, unless something else is asked for."""
    if seed is None:
        return QUIET
    # Losses are healed after minutes, which a timeout may not survive.
    hard = any(node.timeout for node in plan.nodes) or plan.deadline
    return (ROUGH, CROWDED)[seed % 2] if hard else (LOSSY, ROUGH, CROWDED, STORMY)[seed % 4]


def _everywhere(given: Given, seeds: tuple[int | None, ...], faults: Faults | None, alike: bool) -> Everywhere:
    first: tuple[str, _Came] | None = None
    effects: dict[str, int] = {}
    histories: dict[str, tuple[str, ...]] = {}
    seconds: dict[str, float] = {}
    runs = 0
    for mode in MODES:
        for seed in seeds:
            place = f"{mode}, seed {seed}"
            try:
                scene = play(given, mode, seed, faults or weather(seed, given.flow.plan))
                came = _came(given, scene)
            except Violation as error:
                raise Difference(f"{given.flow.name}, {place}: {error}") from None
            runs += 1
            for key, count in _counts(scene.log).items():
                effects[key] = max(count, effects.get(key, 0))
            if seed is None or mode not in histories:
                histories[mode], seconds[mode] = _history(scene.log), scene.seconds
            if first is None:
                first = place, came
            elif alike and came != first[1]:
                raise Difference(_differences(given.flow.name, first, (place, came)))
    if first is None:
        raise ValueError("no seeds were given")
    came = first[1]
    return Everywhere(came.ended, came.states, runs, effects, came.undone, histories, seconds)


def _came(given: Given, scene: Scene) -> _Came:
    plan, story, log = given.flow.plan, scene.story, scene.log
    check(plan, story)
    if timeless(plan) and given.orders == Orders():
        with suppress(ValueError):  # the evaluator knows of more that depends on time
            check_rules(plan, given.values, story)
    last = next(said for said in reversed(log.said) if said.event.run == scene.run and said.event.kind == "ended")
    states: dict[str, str] = {}
    values: dict[str, bytes] = {}
    for (key, _), outcome in sorted(story.outcomes.items(), key=lambda item: (_order(plan, item[0][0]), item[0][1])):
        if plan.index.nodes[key.node].kind not in _GATES or key.node in plan.index.constructs:
            states[_name(key)] = outcome.kind
            values[_name(key)] = msgspec.json.encode(outcome)
    calls = {_call(effect.cell): msgspec.json.encode(effect.args) for effect in log.effects if not effect.undo}
    undone = tuple(sorted({_name(key) for key, _ in story.undos}))
    return _Came(envelope.decode_ended(last.event), states, values, dict(sorted(calls.items())), undone)


def _order(plan: Plan, key: Key) -> tuple[int, tuple[int, ...]]:
    return plan.index.order[key.node], tuple(int(part) for part in key.tag.split(".") if part)


def _name(key: Key) -> str:
    return f"{key.node}/{key.tag}" if key.tag else key.node


def _call(cell: Any) -> str:
    return f"{cell.run}/{cell.node}/{cell.tag}/{cell.revision}"


def _counts(log: Log) -> dict[str, int]:
    found: dict[str, int] = {}
    for effect in log.effects:
        key = _call(effect.cell) + ("/undo" if effect.undo else "")
        found[key] = found.get(key, 0) + 1
    return found


def _history(log: Log) -> tuple[str, ...]:
    return tuple(
        f"{said.at:.3f} {said.event.flow}/{said.event.node}{'/' + said.event.tag if said.event.tag else ''} "
        f"{said.event.kind}"
        for said in log.said
    )


def _differences(flow: str, one: tuple[str, _Came], other: tuple[str, _Came]) -> str:
    lines = [f"{flow} came to different things: {one[0]} (first), {other[0]} (second)"]
    for what in ("states", "values", "calls"):
        first, second = getattr(one[1], what), getattr(other[1], what)
        lines += [
            f"  {what[:-1]} of {name}: {_shown(first.get(name))}; {_shown(second.get(name))}"
            for name in dict.fromkeys((*first, *second))
            if first.get(name) != second.get(name)
        ]
    if one[1].ended != other[1].ended:
        lines.append(f"  ended: {one[1].ended}; {other[1].ended}")
    if one[1].undone != other[1].undone:
        lines.append(f"  undone: {one[1].undone}; {other[1].undone}")
    return "\n".join(lines[:40])


def _shown(value: bytes | str | None) -> str:
    return "none" if value is None else value.decode() if isinstance(value, bytes) else value


def _app_of(flow: Flow[..., Any]) -> App:
    """The app that lists a flow, in the flow's module."""
    for value in flow.fn.__globals__.values():
        if isinstance(value, App) and flow in value.flows.values():
            return value
    raise DeclarationError(f"no app in the module of flow {flow.name!r} lists it", "give run_everywhere(..., app=...)")
