"""A small world around the machine alone: participants that keep facts and look at them as a whole.

Messages are delivered in any order, by the compiled subscriptions; signals come, time passes at once, undo calls fail
now and then, people cancel and retry. No stores, turns or faults: those are the simulator's.
"""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from typing import Any, NamedTuple

import msgspec

from segue.machine import orders
from segue.machine.facts import (
    AnyFact,
    Choose,
    Effect,
    Fact,
    Invoke,
    Key,
    Listen,
    Outcome,
    Record,
    Repeat,
    Reset,
    Signal,
    Sleep,
    State,
    Stop,
    Token,
    Undo,
    Undone,
)
from segue.machine.step import decide
from segue.machine.tags import parent
from segue.machine.whole import gather, look, renewed
from segue.plan.graph import ENTRY, EXIT, Plan
from segue.plan.projection import Mode, project
from segue.testing.behaviours import GIVEN, Scripted


class Told(NamedTuple):
    """What came of a run: outcomes by place, what was undone, in that order, and the seeds of its retries."""

    outcomes: dict[Key, Outcome]
    undone: list[tuple[Key, int]]
    resets: tuple[tuple[Key, ...], ...]
    calls: dict[tuple[Key, int], dict[str, Any]]


class Part:
    """A participant: what it decides, what it hears, and the facts that it has."""

    def __init__(self, mine: frozenset[str], hears: frozenset[str]) -> None:
        self.mine, self.hears = mine, hears
        self.facts: dict[object, AnyFact] = {}
        self.started: set[tuple[Key, int]] = set()
        self.begun: set[tuple[str, Key, int]] = set()

    def state(self, plan: Plan) -> State:
        return gather(plan, self.facts.values(), self.started)


class World:
    """Runs a plan once."""

    def __init__(self, plan: Plan, behaviour: Scripted, mode: Mode, seed: int) -> None:
        self.plan, self.behaviour, self.rng = plan, behaviour, random.Random(seed)
        if mode == "orchestrated":
            self.parts = [Part(frozenset(plan.index.nodes), frozenset())]
            self.home = self.parts[0]
        else:
            found = {name: project(plan, name) for name in plan.index.services}
            parts = {name: Part(frozenset(p.nodes), frozenset(p.hears)) for name, p in found.items()}
            self.parts, self.home = list(parts.values()), parts[plan.home]
        self.queue: list[tuple[Part, AnyFact | Effect]] = []
        self.undone: list[tuple[Key, int]] = []
        self.tries: Counter[tuple[Key, int]] = Counter()
        self.calls: dict[tuple[Key, int], dict[str, Any]] = {}

    def run(self, cancel: float = 0.0, retries: int = 0, choose: bool = False) -> Told:
        self.add(self.home, Fact(Key(ENTRY), Outcome("completed", GIVEN)))
        self.act(self.home)
        for _ in range(3_000):
            if cancel and self.rng.random() < cancel:
                cancel = 0.0
                self.grant(orders.cancel(self.plan, self.home.state(self.plan)))
            if self.queue:
                i = self.rng.randrange(len(self.queue))
                self.queue[i], self.queue[-1] = self.queue[-1], self.queue[i]
                self.deliver(*self.queue.pop())
                continue
            state = self.home.state(self.plan)
            end = state.outcomes.get(Key(EXIT))
            assert end is not None, "the run does not end"
            chosen = self.chosen() if retries and choose else ()
            if not retries or (end.kind == "completed" and not chosen):
                return self.told(state)
            retries -= 1
            reset = orders.retry(self.plan, state, chosen, self.home.mine)
            assert isinstance(reset, Reset)
            assert {*chosen} <= {f"{node}/{tag}" if tag else node for node, tag in reset.seeds}
            self.grant(reset)
        raise AssertionError("the run never ends")

    def told(self, state: State) -> Told:
        outcomes = {}
        for part in self.parts:
            known = part.state(self.plan).outcomes
            outcomes.update({key: outcome for key, outcome in known.items() if key.node in part.mine})
        return Told(outcomes, self.undone, state.resets, self.calls)

    def chosen(self) -> tuple[str, ...]:
        """Something that ran, to be run again: one item or round of it, if it lies in a map or a loop."""
        there = self.told(self.home.state(self.plan)).outcomes
        places = sorted(key for key, _ in self.calls if key in there)
        if not places or self.rng.random() < 0.3:
            return ()
        node, tag = self.rng.choice(places)
        return (f"{node}/{tag}" if tag else node,)

    def grant(self, order: AnyFact | str) -> None:
        if not isinstance(order, str):
            self.add(self.home, order)
            self.act(self.home)

    def add(self, part: Part, fact: AnyFact, own: bool = True) -> bool:
        known = part.facts.setdefault(_identity(fact), fact)
        if known is not fact:
            assert own or not isinstance(fact, Fact) or known == fact, f"two outcomes: {known}, {fact}"
            return False
        if own:
            self.publish(part, fact)
            self.within_limits(part, fact)
        return True

    def within_limits(self, part: Part, fact: AnyFact) -> None:
        """Of a limited map, no more items are under way than it says."""
        index = self.plan.index
        if not isinstance(fact, Fact) or index.nodes[fact.key.node].kind != "entry" or not fact.key.tag:
            return
        region = index.regions[index.nodes[fact.key.node].region]
        limit = index.constructs[region.construct].limit
        known = part.state(self.plan).outcomes if limit else {}
        items = [key for key in known if key.node == region.entry and parent(key.tag) == parent(fact.key.tag)]
        under_way = [key for key in items if Key(region.exit, key.tag) not in known]
        assert not limit or len(under_way) <= limit, f"{len(under_way)} items of {region.id} are under way"

    def publish(self, part: Part, fact: AnyFact) -> None:
        for other in self.parts:
            heard = fact.key.node in other.hears if isinstance(fact, Fact) else not isinstance(fact, Undone | Signal)
            if other is not part and heard:
                self.queue.append((other, fact))

    def deliver(self, part: Part, item: AnyFact | Effect) -> None:
        if isinstance(item, Undo):
            place = (item.key, item.revision)
            self.tries[place] += 1
            if self.behaviour.undo(*place, self.tries[place] - 1) is None:
                self.undone.append(place)
                self.add(part, Undone(*place))
            else:
                part.begun.discard(("undo", *place))
        elif isinstance(item, Sleep | Listen):
            self.decided(part, decide(self.plan, part.state(self.plan), item.key, due=True))
        else:
            assert isinstance(item, Fact | Stop | Token | Reset | Signal | Undone) or hasattr(item, "number")
            self.add(part, item, isinstance(item, Fact) and item.key.node in part.mine)  # type: ignore[arg-type]
            if isinstance(item, Reset):
                self.renew(part)
        self.act(part)

    def renew(self, part: Part) -> None:
        state = part.state(self.plan)
        for effect in renewed(self.plan, state, part.mine):
            if isinstance(effect, Repeat):
                self.publish(part, Fact(effect.key, state.outcomes[effect.key], effect.revision))

    def decided(self, part: Part, effect: Effect) -> bool:
        if isinstance(effect, Record):
            return self.add(part, effect.fact)
        return isinstance(effect, Choose) and any(list(map(partial(self.add, part), effect.facts)))

    def act(self, part: Part) -> None:
        """Look until nothing new is decided, then make the calls that are asked for, each once."""
        while True:
            effects = look(self.plan, part.state(self.plan), part.mine)
            if not any(list(map(partial(self.decided, part), effects))):
                break
        for effect in effects:
            if isinstance(effect, Invoke) and (effect.key, effect.revision) not in part.started:
                place = (effect.key, effect.revision)
                part.started.add(place)
                self.calls[place] = effect.args
                outcome = self.came_to(effect)
                self.queue.append((part, Fact(effect.key, outcome, effect.revision)))
            elif isinstance(effect, Undo | Sleep | Listen):
                self.begin(part, effect)

    def came_to(self, call: Invoke) -> Outcome:
        """What a call comes to; a run of another flow says of its failures whose they are."""
        node = self.plan.index.nodes[call.key.node]
        outcome = self.behaviour(call.key, call.args, call.revision)
        if node.kind != "flow" or outcome.kind != "failed":
            return outcome
        [cause] = outcome.causes
        assert cause.error is not None
        error = msgspec.structs.replace(
            cause.error, message=f"{node.step}: {cause.error.message}", bases=(*cause.error.bases, "RunFailed")
        )
        return Outcome("failed", causes=(msgspec.structs.replace(cause, error=error),))

    def begin(self, part: Part, effect: Undo | Sleep | Listen) -> None:
        place = ("undo" if isinstance(effect, Undo) else "nap", effect.key, effect.revision)
        if place in part.begun:
            return
        part.begun.add(place)
        if isinstance(effect, Listen):
            sent = self.behaviour.signal(effect.name, effect.slot)
            if sent is not None:
                self.queue.append((part, Signal(effect.name, effect.slot, sent.value, "1")))
            if not effect.timeout:
                return
        self.queue.append((part, effect))


def _identity(fact: AnyFact) -> object:
    """What makes it the same fact; the first copy stays."""
    if isinstance(fact, Fact):
        return "outcome", fact.key, fact.revision
    if isinstance(fact, Stop):
        return "stop", fact.scope, fact.tag, fact.revision
    if isinstance(fact, Token):
        return "token", fact.key, fact.scope, fact.revision
    if isinstance(fact, Signal):
        return "signal", fact.name, fact.slot
    return fact
