"""Where a run is: the machine folded over what was published, so that both modes look the same.

Skips and gateways that nobody listens to are never published; here they are derived again, by the same rules. What
rests on a choice is not: it counts when it is heard. Every place that was reached has a state, and so have those that
wait; what is inside a construct has none before its region begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from segue.machine import tags
from segue.machine.facts import (
    ROOT,
    AnyFact,
    Await,
    Choose,
    Effect,
    Fact,
    Failure,
    Invoke,
    Key,
    Listen,
    Outcome,
    Record,
    Sleep,
    State,
    Undo,
    Withdraw,
)
from segue.machine.routes import items, slots, touched
from segue.machine.scopes import revision, scopes, stopped
from segue.machine.step import decide
from segue.machine.undo import compensate
from segue.machine.whole import gather, with_tokens
from segue.plan.graph import RUN, Node, Plan
from segue.plan.names import opening

NodeState = Literal[
    "completed", "skipped", "failed", "aborted", "cancelled",
    "open", "running", "sleeping", "waiting_signal", "waiting", "paused", "stopping",
    "compensating", "undo_failed", "undone",
]  # fmt: skip
"""Outcomes, or: `open` (inputs complete, its service has not answered), `running` (a construct that has begun),
`sleeping`, `waiting_signal`, `waiting` (an input is missing), `paused` (it would start if the run were not held),
`stopping` (its scope is stopped, and it is not known whether it had begun). A completed node may be `compensating` (its
undo is called), `undo_failed` or `undone`."""


class NodeStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """A place in a run.

    Attributes:
        node: Its node.
        state: What it is doing, or what came of it.
        tag: Which item or round it belongs to.
        outcome: Its outcome, if it is final.
        waits_for: What is missing: nodes, and constructs for their gateways.
        derived: The outcome was not published, but follows from what was.
        revision: The revision in which it is decided.
        seconds: How long it sleeps, or after how long its wait is over; 0 for never.
        until: Until when it sleeps.
        signal: What it waits for, and its slot.
        error: Why its undo failed.
    """

    node: str
    state: NodeState
    tag: str = ROOT
    outcome: Outcome | None = None
    waits_for: tuple[str, ...] = ()
    derived: bool = False
    revision: int = 1
    seconds: float = 0.0
    until: float | None = None
    signal: tuple[str, str] | None = None
    error: Failure | None = None


class History(msgspec.Struct, frozen=True):
    """What follows from the published facts of a run.

    Attributes:
        state: All that is known.
        nodes: Each place with its status, in plan order, then by tag.
        derived: Places whose outcome was not published, each after those that it follows from.
    """

    state: State
    nodes: dict[Key, NodeStatus]
    derived: tuple[Key, ...]


def fold(plan: Plan, facts: Iterable[AnyFact], begun: Iterable[tuple[Key, int]] = ()) -> History:
    """Where a run is, given published facts in any order.

    Args:
        plan: The run's plan.
        facts: What was published; repeats are harmless.
        begun: Calls that are known to have begun, with their revision.
    """
    fold_ = _Fold(plan, gather(plan, facts, begun))
    fold_.run()
    found = {key: fold_.status(key) for key in fold_.places()}
    return History(fold_.state, found, tuple(fold_.derived))


class _Fold:
    """Derives outcomes until nothing more follows."""

    def __init__(self, plan: Plan, state: State) -> None:
        self.plan = plan
        self.outcomes = dict(state.outcomes)
        self.counts = dict(state.counts)
        self.state = msgspec.structs.replace(state, outcomes=self.outcomes, counts=self.counts)
        self.mine = frozenset(plan.index.nodes)
        self.derived: dict[Key, None] = {}
        self.early: set[Key] = set()
        self.effects: dict[Key, Effect] = {}
        self.undos: set[Key] = set()
        self.over: dict[Key, int] = {}
        self.opened: set[Key] = set()
        self.latest: dict[Key, int] = {}
        for key in self.outcomes:
            self._trace(key)
            if (close := self._map_of(key)) is not None:
                self.over[close] = self.over.get(close, 0) + 1

    def _trace(self, key: Key) -> None:
        """What a published outcome says of the constructs around it: they were opened, and how many rounds began."""
        index = self.plan.index
        node = index.nodes[key.node]
        if node.kind == "close":
            self.opened.add(key)
        for scope in index.scopes[node.region]:
            if scope == RUN:
                continue
            construct = index.constructs[index.regions[scope].construct]
            tag = tags.prefix(key.tag, index.depths[scope])
            if construct.numbered:
                rounds = Key(scope, tags.parent(tag))
                self.latest[rounds] = max(self.latest.get(rounds, 0), tags.last(tag))
                tag = rounds.tag
            self.opened.add(Key(construct.id, tag))

    def run(self) -> None:
        """Derive outcomes and tokens until nothing more follows."""
        fresh = [Fact(key, outcome) for key, outcome in self.outcomes.items()]
        while True:
            while fresh:
                # What looks further than its own inputs (timers, races) is looked at again at the end.
                fresh = self._round(fresh) or self._decided(list(self.effects))
            tokens, undos = compensate(self.plan, self.state, self.mine)
            self.undos = {effect.key for effect in undos if isinstance(effect, Undo)}
            if not tokens:
                return
            self.state = with_tokens(self.state, tokens)
            fresh = self._decided(list(self.effects))

    def _round(self, facts: list[Fact]) -> list[Fact]:
        """What follows from facts, one edge far; each place that they touch is decided once."""
        places: dict[Key, None] = {}
        for fact in facts:
            if self._is_early(fact.key):
                self.early.add(fact.key)
            else:
                places.update(dict.fromkeys(touched(self.plan, self.state, fact, self.mine)))
        return self._decided(places)

    def _is_early(self, key: Key) -> bool:
        """Whether the end of a round was heard before its beginning, which says where it leads."""
        node = self.plan.index.nodes[key.node]
        if node.kind != "exit" or not node.construct:
            return False
        return Key(self.plan.index.regions[node.region].entry, key.tag) not in self.outcomes

    def _decided(self, places: Iterable[Key]) -> list[Fact]:
        found = []
        for key in places:
            if key in self.early:
                self.early.discard(key)
                found.append(Fact(key, self.outcomes[key]))
            if key in self.outcomes:
                continue
            if self._lacks_items(key):
                continue
            effect = self.effects[key] = self._effect(key)
            if isinstance(effect, Record) and isinstance(effect.fact, Fact):
                found.append(effect.fact)
        again = []
        for fact in found:
            if fact.key in self.outcomes:
                continue
            self.outcomes[fact.key] = fact.outcome
            self.effects.pop(fact.key)
            self.derived[fact.key] = None
            again += self._counted(fact.key)
        return found + (self._decided(again) if again else [])

    def _effect(self, key: Key) -> Effect:
        """What follows for a place.

        What is cancelled because its scope is stopped is published. So what is not was decided before, or may have
        begun: only its service may declare a call cancelled.
        """
        effect = self._decide(self.state, key)
        if not isinstance(effect, Record | Choose) or not stopped(self.plan, self.state, key):
            return effect
        around = set(scopes(self.plan, self.state, key))
        stops = {scope: reason for scope, reason in self.state.stops.items() if scope not in around}
        before = self._decide(msgspec.structs.replace(self.state, stops=stops), key)
        if before == effect or isinstance(before, Record):
            return before
        return Withdraw(key, 0) if _cancels(effect) else effect

    def _decide(self, state: State, key: Key) -> Effect:
        """What the machine says, but for what it only held or let sleep, and what went on since."""
        effect = decide(self.plan, state, key)
        if not isinstance(effect, Sleep | Await):
            return effect
        on = msgspec.structs.replace(state, paused=False)
        if self._has_begun(key):
            return decide(self.plan, on, key, due=True)
        if state.paused and self.plan.index.nodes[key.node].kind in ("step", "flow", "wait", "sleep"):
            before = decide(self.plan, on, key)
            return before if isinstance(before, Record) else effect
        return effect

    def _has_begun(self, key: Key) -> bool:
        """Whether something was heard that only follows once a construct was opened, or once a round of it began."""
        node = self.plan.index.nodes[key.node]
        if node.kind == "open":
            return Key(node.construct, key.tag) in self.opened
        if node.kind != "entry" or not self.plan.index.construct(node).numbered:
            return False
        up = tags.parent(key.tag)
        return Key(node.construct, up) in self.outcomes or self.latest.get(Key(node.region, up), -1) >= tags.last(
            key.tag
        )

    def _counted(self, key: Key) -> list[Key]:
        """Entries of a limited `each` that may open because an item is over."""
        close = self._map_of(key)
        if close is None:
            return []
        before = self.over.get(close, 0)
        self.over[close] = before + 1
        if not self.plan.index.constructs[close.node].limit:
            return []
        self.counts[close] = before + 1
        return slots(self.plan, self.state, close, before, before + 1)

    def _map_of(self, key: Key) -> Key | None:
        """The close of the `each` that an exit belongs to."""
        node = self.plan.index.nodes[key.node]
        if node.kind != "exit" or not node.construct or self.plan.index.construct(node).kind != "each":
            return None
        return Key(node.construct, tags.parent(key.tag))

    def _lacks_items(self, key: Key) -> bool:
        """Whether an `each` has items that are not over; to look at all of them after each one would take too long."""
        node = self.plan.index.nodes[key.node]
        if node.kind != "close" or self.plan.index.construct(node).kind != "each":
            return False
        opened = self.outcomes.get(Key(opening(node.construct), key.tag))
        return opened is not None and opened.kind == "completed" and self.over.get(key, 0) < len(items(opened))

    def places(self) -> Iterator[Key]:
        """All places of regions that have begun, in plan order, then by tag."""
        entries = {region.entry: region.id for region in self.plan.regions}
        found: dict[str, list[str]] = {RUN: [ROOT]}
        for key in self.outcomes:
            if key.node in entries and entries[key.node] != RUN:
                found.setdefault(entries[key.node], []).append(key.tag)
        for region_tags in found.values():
            region_tags.sort(key=tags.path)
        for node in self.plan.nodes:
            for tag in found.get(node.region, ()):
                yield Key(node.id, tag)

    def status(self, key: Key) -> NodeStatus:
        """The status of a place."""
        number = revision(self.plan, self.state.resets, key) if self.state.resets else 1
        status = NodeStatus(key.node, "waiting", key.tag, revision=number)
        replace = msgspec.structs.replace
        outcome = self.outcomes.get(key)
        if outcome is not None:
            error, state = self._undo(key, number)
            status = replace(status, state=state or outcome.kind, outcome=outcome, error=error)
            return replace(status, derived=True) if key in self.derived else status
        node = self.plan.index.nodes[key.node]
        if node.kind == "close":
            opened = Key(opening(node.construct), key.tag)
            begun = self.outcomes.get(opened)
            if begun is None:
                return replace(self.status(opened), node=key.node)
            return replace(status, state="running")
        match self.effects.get(key):
            case Invoke():
                return replace(status, state="open")
            case Withdraw():
                return replace(status, state="stopping")
            case Choose():
                return replace(status, state="open")
            case Sleep(_, _, seconds, until):
                return replace(status, state="sleeping", seconds=seconds, until=until)
            case Listen(_, _, name, slot, timeout):
                return replace(status, state="waiting_signal", signal=(name, slot), seconds=timeout)
        missing = self._missing(key)
        if not missing and self.state.paused:
            return replace(status, state="paused")
        return replace(status, waits_for=missing)

    def _undo(self, key: Key, number: int) -> tuple[Failure | None, NodeState | None]:
        if (key, number) in self.state.undone:
            error = self.state.undone[key, number]
            return error, "undone" if error is None else "undo_failed"
        return None, "compensating" if key in self.undos else None

    def _missing(self, key: Key) -> tuple[str, ...]:
        """What a place waits for, by the names that people know."""
        index = self.plan.index
        if index.nodes[key.node].construct and index.nodes[key.node].kind != "open":
            return ()
        ups = [index.nodes[up] for up in index.ups[key.node] if Key(up, key.tag) not in self.outcomes]
        return tuple(dict.fromkeys(_known_as(up) for up in ups))


def _cancels(effect: Record | Choose) -> bool:
    facts = effect.facts if isinstance(effect, Choose) else (effect.fact,)
    return any(isinstance(fact, Fact) and fact.outcome.kind == "cancelled" for fact in facts)


def _known_as(node: Node) -> str:
    return node.construct or node.id
