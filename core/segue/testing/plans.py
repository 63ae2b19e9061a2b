"""Random plans over everything that plans are made of.

They are built straight from the structs of `segue.plan.graph`, not through the flow API: so they reach what the API
would not write, and a bug in the compiler cannot hide one in the machine.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec

from segue.plan.graph import (
    ENTRY,
    Arg,
    Condition,
    Const,
    Construct,
    Handler,
    Node,
    Not,
    Plan,
    Value,
)
from segue.plan.names import TIMER, opening, settling, watching
from segue.testing.behaviours import COUNTING, ERRORS, LISTING, PERHAPS, UNSENT
from segue.testing.draft import Draft, Frame, Scope
from segue.testing.phrases import Phrases

RAISED = "Refused"
"""Type of the errors that generated plans raise."""

_CATCHABLE = (*ERRORS, "PaymentError", "OSError", RAISED, "LoopCap", "Timeout", "*", "*", "*")


class Mix(msgspec.Struct, frozen=True):
    """What may stand in a plan. What a run of it comes to is a pure function if the first three are not allowed.

    Attributes:
        races: Races and n-of.
        timeouts: Waits for a signal that may or may not come, attempts with a timeout, and deadlines.
        stops: Flows that the first uncaught failure stops.
        flows: Calls of other flows.
        undo: Share of steps that can be undone.
        depth: Constructs in each other.
    """

    races: bool = False
    timeouts: bool = False
    stops: bool = False
    flows: bool = True
    undo: float = 0.5
    depth: int = 3


DETERMINISTIC = Mix()
EVERYTHING = Mix(races=True, timeouts=True, stops=True)

_PLAIN = (*("step",) * 12, *("either", "choice", "wait") * 2, "value", "emit", "raise", "sleep", "flow")
_NESTED = ("each", "each", "repeat", "repeat", "attempt", "attempt", "attempt")


def random_plan(rng: random.Random, largest: int = 40, mix: Mix = DETERMINISTIC) -> Plan:
    """A plan of mostly 3 to `largest` nodes over 1 to 6 services.

    Args:
        rng: Source of all choices.
        largest: Nodes, gateways included, after which nothing is added but what is begun is ended.
        mix: What may stand in it.
    """
    draft = Draft(rng, rng.randint(1, 6))
    small = min(6, largest)
    author = _Author(draft, mix, rng.randint(min(3, largest), rng.choice((small, largest, largest))))
    more: dict[str, Any] = {}
    if mix.stops and rng.random() < 0.4:
        more["on_failure"] = "stop"
    if mix.timeouts and rng.random() < 0.2:
        more["deadline"] = float(rng.choice((1, 30, 100_000)))
        draft.nodes.append(Node(TIMER, "timer", draft.home, timeout=more["deadline"], after=(ENTRY,)))
    author.fill(draft.run, 10)
    author.leave(draft.run)
    return draft.plan(**more)


class _Author:
    """Fills regions with what a mix allows, until the budget is spent."""

    def __init__(self, draft: Draft, mix: Mix, budget: int) -> None:
        self.draft, self.mix, self.budget = draft, mix, budget
        self.rng = draft.rng
        self.phrases = Phrases(draft.rng)
        self.motifs: dict[str, Callable[[Scope], None]] = {
            "step": self.step,
            "either": self.either,
            "choice": self.choice,
            "value": self.value,
            "emit": self.emit,
            "raise": self.refusal,
            "wait": self.wait,
            "sleep": self.sleep,
            "flow": self.flow,
            "each": self.each,
            "repeat": self.repeat,
            "attempt": self.attempt,
            "race": self.race,
        }

    def fill(self, scope: Scope, most: int) -> None:
        """Add nodes to a region, at least one nearly always."""
        menu = [motif for motif in _PLAIN if motif != "flow" or self.mix.flows]
        if scope.level < self.mix.depth:
            menu += [*_NESTED, *(("race",) * 4 if self.mix.races else ())]
        for i in range(self.rng.randint(1, most)):
            if len(self.draft.nodes) > self.budget and (i > 0 or self.rng.random() < 0.1):
                return
            self.motifs[self.rng.choice(menu)](scope)

    def leave(self, scope: Scope) -> None:
        """The exit of a region with some result."""
        draw = self.rng.random()
        result: Value | None = None
        if draw < 0.8:
            result = self.phrases.get(scope, local=self.rng.random() < 0.85)
        elif draw < 0.9:
            result = Const(7)
        elif draw < 0.95 and scope.frame is None:
            result = self.phrases.value(scope)
        self.draft.leave(scope, result)

    def guard(self, scope: Scope, share: float = 0.2) -> Condition | None:
        return self.phrases.condition(scope) if self.rng.random() < share else None

    def order(self, scope: Scope) -> tuple[str, ...]:
        found = [self.rng.choice(scope.waitable) for _ in range(self.rng.choice((0, 0, 0, 1, 2)))]
        return tuple(dict.fromkeys(found))

    def _shown(self, scope: Scope, name: str) -> str:
        scope.readable.append(name)
        scope.waitable.append(name)
        return name

    # plain nodes

    def step(self, scope: Scope, guard: Condition | None = None) -> None:
        self._step(scope, guard)

    def _step(self, scope: Scope, guard: Condition | None = None, kind: str = "") -> str:
        args = {f"a{i}": self.phrases.value(scope) for i in range(self.rng.choice((0, 1, 1, 1, 2, 3)))}
        name = self.draft.name(kind or self.rng.choice(("step", "step", COUNTING, COUNTING, LISTING)))
        more: dict[str, Any] = {"undo": True} if self.rng.random() < self.mix.undo else {}
        guard = self.guard(scope) if guard is None else guard
        self.draft.add(scope, name, "step", args, step=name, guard=guard, after=self.order(scope), **more)
        return self._shown(scope, name)

    def either(self, scope: Scope, names: list[str] | None = None) -> None:
        names = names or [self._step(scope), self._step(scope)]
        choices: dict[str, Value] = {
            f"a{i}": self.phrases.of(scope, name) for i, name in enumerate(dict.fromkeys(names))
        }
        if self.rng.random() < 0.3:
            choices["more"] = self.phrases.get(scope)
        if self.rng.random() < 0.15:
            choices["last"] = Const("default")
        name = self.draft.name("either")
        self.draft.add(scope, name, "either", choices, guard=self.guard(scope, 0.1))
        self._shown(scope, name)

    def choice(self, scope: Scope) -> None:
        guard = self.phrases.condition(scope)
        arms = [self._step(scope, guard), self._step(scope, Not(guard))]
        if self.rng.random() < 0.8:
            self.either(scope, arms)

    def value(self, scope: Scope) -> None:
        name = self.draft.name("value")
        value = self.phrases.computed(scope)
        self.draft.add(scope, name, "value", {"value": value}, guard=self.guard(scope))
        self._shown(scope, name)

    def emit(self, scope: Scope) -> None:
        name = self.draft.name("event")
        value = self.phrases.value(scope)
        self.draft.add(scope, name, "emit", {"value": value}, step=name, guard=self.guard(scope))
        self._shown(scope, name)

    def refusal(self, scope: Scope) -> None:
        """A raise, mostly under a condition; what follows in its region does not run if it does."""
        condition = self.guard(scope, 0.9)
        args: dict[str, Value] = {"message": Const("no")}
        if self.rng.random() < 0.5:
            args["value"] = self.phrases.value(scope)
        name = self.draft.name("raise")
        self.draft.add(scope, name, "raise", args, step=RAISED, guard=condition, after=self.order(scope))
        if condition is not None and self.rng.random() < 0.7:
            scope.unless.append(Not(condition))
        scope.waitable.append(name)

    def wait(self, scope: Scope) -> None:
        kind = self.rng.choice((*("signal",) * 4, UNSENT, *((PERHAPS,) * 2 if self.mix.timeouts else ())))
        signal = f"{kind}{self.rng.randrange(3)}"
        self.draft.signals.add(signal)
        args: dict[str, Value] = {}
        if self.rng.random() < 0.3:
            slots: list[Value] = [Const("a"), Const(1), self.phrases.number(scope)]
            args["match"] = self.rng.choice(slots)
        more: dict[str, Any] = {} if kind == "signal" else {"timeout": float(self.rng.choice((2, 60, 3600)))}
        name = self.draft.name("wait")
        guard, after = self.guard(scope), self.order(scope)
        self.draft.add(scope, name, "wait", args, step=signal, owner=self.draft.home, guard=guard, after=after, **more)
        self._shown(scope, name)

    def sleep(self, scope: Scope) -> None:
        seconds: list[Value] = [Const(0.5), Const(30), self.phrases.number(scope)]
        args: dict[str, Value] = {"seconds": self.rng.choice(seconds)}
        if self.rng.random() < 0.2:
            args = {"until": Const(1_000)}
        name = self.draft.name("sleep")
        guard, after = self.guard(scope), self.order(scope)
        self.draft.add(scope, name, "sleep", args, owner=self.draft.home, guard=guard, after=after)
        scope.waitable.append(name)

    def flow(self, scope: Scope) -> None:
        name = self.draft.name("flow")
        args = {"a0": self.phrases.value(scope)}
        guard, after = self.guard(scope), self.order(scope)
        self.draft.add(scope, name, "flow", args, step="child", owner=self.draft.home, guard=guard, after=after)
        self._shown(scope, name)

    # constructs

    def body(self, scope: Scope, frame: Frame, part: str, most: int = 4) -> Scope:
        """A body of a construct, with its exit."""
        inner = self.draft.enter(scope, frame, part)
        self.fill(inner, most)
        self.leave(inner)
        return inner

    def end(
        self, scope: Scope, frame: Frame, construct: Construct, guard: Condition | None, given: Value | None = None
    ) -> None:
        args = () if given is None else (Arg("items" if construct.kind == "each" else "initial", given),)
        opened = self.draft.nodes[frame.position]
        opened = msgspec.structs.replace(opened, args=args, guard=guard, after=self.order(scope))
        self._shown(scope, self.draft.end(scope, frame, construct, opened))

    def each(self, scope: Scope) -> None:
        items, guard = self.phrases.items(scope), self.guard(scope)
        frame = self.draft.begin(scope, "each")
        self.body(scope, frame, "item")
        limit, tolerate = self.rng.choice((0, 0, 1, 2)), self.rng.choice((0, 0, 0, 1, 2))
        construct = Construct(frame.name, "each", scope.region, tuple(frame.regions), limit=limit, tolerate=tolerate)
        self.end(scope, frame, construct, guard, items)

    def repeat(self, scope: Scope) -> None:
        initial, guard = self.phrases.value(scope), self.guard(scope)
        frame = self.draft.begin(scope, "repeat")
        inner = self.body(scope, frame, "round")
        construct = Construct(
            frame.name,
            "repeat",
            scope.region,
            tuple(frame.regions),
            until=self.phrases.until(inner) if self.rng.random() < 0.95 else None,
            cap=self.rng.choice((1, 2, 3, 4)),
            last=self.rng.random() < 0.5,
            every=self.rng.choice((0.0, 0.0, 60.0)),
        )
        self.end(scope, frame, construct, guard, initial)

    def attempt(self, scope: Scope) -> None:
        guard = self.guard(scope)
        frame = self.draft.begin(scope, "attempt")
        timeout = float(self.rng.choice((1, 30))) if self.mix.timeouts and self.rng.random() < 0.3 else 0.0
        if timeout:
            timer = watching(frame.name)
            after = (opening(frame.name),)
            self.draft.nodes.append(
                Node(timer, "timer", frame.owner, scope.region, construct=frame.name, timeout=timeout, after=after)
            )
        self.body(scope, frame, "body")
        handlers = []
        for number in range(1, 1 + self.rng.choice((0, 1, 1, 1, 2))):
            caught = self.body(scope, frame, f"catch{number}", 2)
            errors = dict.fromkeys(self.rng.choice(_CATCHABLE) for _ in range(self.rng.choice((1, 2))))
            handlers.append(Handler(tuple(errors), caught.region))
        cleanup = self.body(scope, frame, "finally", 2).region if self.rng.random() < 0.3 else ""
        construct = Construct(
            frame.name,
            "attempt",
            scope.region,
            (f"{frame.name}:body",),
            handlers=tuple(handlers),
            cleanup=cleanup,
            undo=self.rng.random() < 0.4,
            timeout=timeout,
        )
        self.end(scope, frame, construct, guard)

    def race(self, scope: Scope) -> None:
        guard = self.guard(scope)
        frame = self.draft.begin(scope, "race")
        bodies = tuple(self.body(scope, frame, str(i + 1), 3).region for i in range(self.rng.choice((2, 2, 3))))
        winners = 1 if self.rng.random() < 0.6 else min(2, len(bodies))
        self.end(scope, frame, Construct(frame.name, "race", scope.region, bodies, winners=winners), guard)
        settle = settling(frame.name)
        self.draft.nodes.append(Node(settle, "settle", frame.owner, scope.region, construct=frame.name))
        scope.unread[settle] = None
