"""A pure, seeded simulator of the participants' loop around the real machine.

Participants have stores of their own (cells by put-if-absent, tallies) and any number of replicas. Each replica handles
its messages in *turns*, cut into micro-steps: load, commit, run, publish, acknowledge. Between any two of them another
replica may go on, a message may be delivered once more, or the replica may be killed: then it forgets all it knew, and
what it had not acknowledged comes again. The network delivers in any order, late, twice, or not at all, but only what
the compiled subscriptions name. The machine sees partial state only: what `wanted()` asked for.

Who runs a join is decided in one place. A fact that *this* turn recorded counts for its joins in the same commit, so
the tally tells exactly one turn that a join is complete, and no other may run it, even if a later load shows all its
inputs. Only for facts recorded before (a repeat, a redelivery) the loaded state decides, since whoever was told may be
dead. Without faults every step is thus executed exactly once; with faults its recorded result is the only one seen.

A repeat of something decided makes its holder publish it again and walk on from there, once per replica and redrive.
Losses are healed by the run's guard: when all is quiet and the run has not ended, the home publishes the start again
under a new redrive number.

Tags and revisions travel in the keys; the loop does not look at them.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import msgspec

from segue.machine import step as machine
from segue.machine.facts import Await, Effect, Fact, Invoke, Key, Outcome, Record, Repeat, State
from segue.plan.graph import ENTRY, EXIT, Plan
from segue.plan.projection import COORDINATOR, Mode, Projection, holder, project
from segue.testing.graphs import Behaviour
from segue.testing.replicas import Item, Message, Part, Replica, Turn, Violation

START = Key(ENTRY)
_CHUNK = 8
_REDRIVES = 200


class Rules(NamedTuple):
    """The pure functions under test, exchangeable so that wrong ones can be planted."""

    hear: Callable[[Plan, State, Sequence[Fact], frozenset[str]], tuple[State, list[Effect]]] = machine.hear
    decide: Callable[[Plan, State, Key], Effect] = machine.decide
    wanted: Callable[[Plan, Key, frozenset[str]], list[Key]] = machine.wanted
    inputs: Callable[[Plan, Key], list[Key]] = machine.inputs
    joins: Callable[[Plan, Key, frozenset[str]], list[Key]] = machine.joins
    project: Callable[[Plan, str], Projection] = project


class Faults(msgspec.Struct, frozen=True):
    """What may go wrong. Chances are per message or, for redeliveries, per micro-step.

    Attributes:
        replicas: Replicas of each participant.
        batch: Most messages in one turn.
        duplicates: A message is delivered twice.
        redeliveries: A message that is being handled is delivered to another replica too.
        losses: A message is lost at one hearer for good.
        crashes: How many times a replica is killed.
        slow: A message stays behind while others overtake it.
    """

    replicas: int = 2
    batch: int = 3
    duplicates: float = 0.0
    redeliveries: float = 0.0
    losses: float = 0.0
    crashes: int = 0
    slow: float = 0.2


QUIET = Faults()
ROUGH = Faults(duplicates=0.2, redeliveries=0.02, crashes=6)
LOSSY = Faults(duplicates=0.1, redeliveries=0.01, losses=0.15, crashes=3)


class Trace(msgspec.Struct, frozen=True):
    """What happened in a simulated run.

    Attributes:
        outcomes: The recorded outcome of every node, from its holder.
        calls: Arguments of every step that was executed.
        executions: How often each step was executed.
        messages: Messages delivered, counting every copy.
        redrives: How often the guard had to start the run again.
    """

    outcomes: dict[Key, Outcome]
    calls: dict[Key, dict[str, Any]]
    executions: dict[Key, int]
    messages: int
    redrives: int

    @property
    def end(self) -> Outcome:
        """How the run ended."""
        return self.outcomes[Key(EXIT)]


def simulate(
    plan: Plan,
    behaviour: Behaviour,
    mode: Mode,
    seed: int,
    *,
    given: Any,
    faults: Faults = QUIET,
    rules: Rules | None = None,
) -> Trace:
    """Run a plan once.

    Args:
        plan: What to run.
        behaviour: What its steps do.
        mode: Who decides.
        seed: Source of every interleaving and fault.
        given: The run's input.
        faults: What may go wrong.
        rules: The functions under test, if not the real ones.

    Raises:
        Violation: An invariant does not hold, or the run does not end.
    """
    return _World(plan, behaviour, mode, random.Random(seed), given, faults, rules or Rules()).run()


def _key(effect: Effect) -> Key:
    return effect.fact.key if isinstance(effect, Record) else effect.key


class _World:
    def __init__(
        self, plan: Plan, behaviour: Behaviour, mode: Mode, rng: random.Random, given: Any, faults: Faults, rules: Rules
    ) -> None:
        self.plan, self.behaviour, self.mode, self.rng = plan, behaviour, mode, rng
        self.given, self.faults, self.rules = given, faults, rules
        self.services: dict[str, Part] = {}
        for name in plan.index.services:
            seen = rules.project(plan, name)
            emits = frozenset(emission.node for emission in seen.emits)
            mine, hears = (
                (frozenset(seen.nodes), frozenset(seen.hears))
                if mode == "choreographed"
                else (frozenset(), frozenset())
            )
            self.services[name] = Part(name, mine, hears, emits, faults.replicas)
        self.parts = dict(self.services)
        if mode == "orchestrated":
            everything = frozenset(plan.index.nodes)
            self.parts[COORDINATOR] = Part(COORDINATOR, everything, frozenset(), everything, faults.replicas)
        self.home = self.parts[holder(plan, mode)]
        self.replicas = [replica for part in self.parts.values() for replica in part.replicas]
        self.crashes, self.redrive, self.messages = faults.crashes, 0, 0
        self.final: dict[Key, Outcome] = {}
        self.calls: dict[Key, dict[str, Any]] = {}
        self.executions: Counter[Key] = Counter()

    # the scheduler

    def run(self) -> Trace:
        self.send(self.home, Message(None, 0))
        while True:
            ready = [r for r in self.replicas if r.turn is not None or r.part.queue or r.part.slow]
            if not ready:
                if Key(EXIT) in self.home.cells:
                    break
                if not self.faults.losses or self.redrive == _REDRIVES:
                    raise Violation(f"{self.mode}: the run does not end; open: {self.open()}")
                self.redrive += 1
                self.home.queue.append(Message(None, self.redrive))
                continue
            for _ in range(min(len(ready), 4)):
                self.advance(self.rng.choice(ready))
        if left := self.open():
            raise Violation(f"{self.mode}: the run ended, but {left} are not final")
        outcomes = {Key(name): self.holder_of(name).cells[Key(name)] for name in self.plan.index.nodes}
        return Trace(outcomes, self.calls, dict(self.executions), self.messages, self.redrive)

    def advance(self, replica: Replica) -> None:
        """Let one replica do one micro-step, or be killed before it."""
        part = replica.part
        if replica.turn is None:
            if not part.queue and not part.slow:
                return
            for _ in range(self.rng.randint(1, self.faults.batch)):
                late = part.slow and (not part.queue or self.rng.random() < 0.1)
                if source := part.slow if late else part.queue:
                    i = self.rng.randrange(len(source))
                    source[i], source[-1] = source[-1], source[i]
                    replica.held.append(source.pop())
            self.messages += len(replica.held)
            replica.turn = self.turn(replica, list(replica.held))
            return
        if self.crashes and self.rng.random() < 0.05:
            self.crashes -= 1
            part.queue += replica.held
            replica.turn, replica.held, replica.told = None, [], set()
            return
        if self.rng.random() < self.faults.redeliveries:
            part.queue.append(self.rng.choice(replica.held))
        if next(replica.turn, None) is None:
            replica.turn, replica.held = None, []

    def send(self, part: Part, message: Message) -> None:
        if self.rng.random() < self.faults.losses and message.content is not None:
            return
        for _ in range(1 + (self.rng.random() < self.faults.duplicates)):
            (part.slow if self.rng.random() < self.faults.slow else part.queue).append(message)

    def holder_of(self, node: str) -> Part:
        return self.home if self.mode == "orchestrated" else self.parts[self.plan.index.nodes[node].owner]

    def open(self) -> list[str]:
        return [name for name in self.plan.index.nodes if Key(name) not in self.holder_of(name).cells]

    # what a replica does in a turn; every `yield` is a place where it may be overtaken or killed

    def turn(self, replica: Replica, messages: list[Message]) -> Turn:
        part, work, done = replica.part, deque[Item](), set[tuple[Key, int]]()
        for content, redrive in messages:
            if isinstance(content, Invoke):
                yield from self.obey(part, content, redrive)
            elif content is None:
                work.append((yield from self.settle(replica, Fact(START, Outcome("completed", self.given)), redrive)))
            else:
                self.hear(part, content)
                work.append(Item(content, redrive, "heard", {}))
        while work:
            chunk = [work.popleft() for _ in range(min(len(work), _CHUNK))]
            yield "load"
            wanted = [key for item in chunk for key in self.rules.wanted(self.plan, item.fact.key, part.mine)]
            state = State({key: part.cells[key] for key in wanted if key in part.cells})
            settled = [key for item in chunk for key in self.touched(item.fact.key) if key in part.cells]
            state, effects = self.rules.hear(self.plan, state, [item.fact for item in chunk], part.mine)
            self.may_decide(part, effects, settled)
            news = yield from self.arrive(part, chunk, effects)
            redrive = max(item.redrive for item in chunk)
            for effect in effects:
                place = (_key(effect), redrive)
                found = None if place in done else (yield from self.resolve(part, news, effect))
                if found is not None:
                    done.add(place)
                    work.extend((yield from self.act(replica, found, redrive)))
        yield "acknowledge"

    def arrive(self, part: Part, chunk: list[Item], effects: list[Effect]) -> Generator[str, None, dict[Key, Item]]:
        """Record heard facts, in one commit, where they are outcomes of own nodes or a join has to wait for others."""
        waiting = {up for effect in effects if isinstance(effect, Await) for up in self.plan.index.ups[effect.key.node]}
        keep = {item.fact.key.node for item in chunk} & (waiting | part.mine)
        if any(item.state == "heard" and item.fact.key.node in keep for item in chunk):
            yield "commit"
        news = {}
        for item in chunk:
            if item.state == "heard" and item.fact.key.node in keep:
                item = self.record(part, item.fact, item.redrive)
            if item.fact.key not in news or item.state == "known":
                news[item.fact.key] = item
        return news

    def resolve(self, part: Part, news: dict[Key, Item], effect: Effect) -> Generator[str, None, Effect | None]:
        """What was heard really means for a node: for a join it depends on who was told that it is complete."""
        key = _key(effect)
        inputs = self.plan.index.ups[key.node]
        heard = [news[up] for name in inputs if (up := Key(name, key.tag)) in news]
        if len(inputs) > 1 and all(item.state == "recorded" for item in heard):
            complete = any(item.tallies.get(key) == len(inputs) for item in heard)
        elif isinstance(effect, Await):
            yield "tally"
            complete = part.tallies[key] >= len(inputs)
        else:
            return effect
        if not complete:
            return None
        yield "load inputs"
        keys = [key, *self.rules.inputs(self.plan, key)]
        found = self.rules.decide(self.plan, State({k: part.cells[k] for k in keys if k in part.cells}), key)
        if isinstance(found, Await):
            raise Violation(f"{part.name}: the tally of {key.node} is complete, its inputs are not")
        return found

    def act(self, replica: Replica, effect: Effect, redrive: int) -> Generator[str, None, list[Item]]:
        """Do what was decided; yields on, and returns the facts to go on with here."""
        part = replica.part
        if isinstance(effect, Record):
            return [(yield from self.settle(replica, effect.fact, redrive))]
        if isinstance(effect, Repeat):
            if (effect.key, redrive) in replica.told:
                return []
            fact = Fact(effect.key, part.cells[effect.key], effect.revision)
            yield from self.publish(replica, fact, redrive)
            return [Item(fact, redrive, "known", {})]
        if not isinstance(effect, Invoke):
            raise Violation(f"{part.name}: cannot act on {effect}")
        self.may_run(part, effect)
        if self.mode == "choreographed":
            yield "run"
            return [(yield from self.settle(replica, self.execute(effect), redrive))]
        if (effect.key, redrive) not in replica.told:
            yield "command"
            self.send(self.services[self.plan.index.nodes[effect.key.node].owner], Message(effect, redrive))
            replica.told.add((effect.key, redrive))
        return []

    def settle(self, replica: Replica, fact: Fact, redrive: int) -> Generator[str, None, Item]:
        """Record an own outcome, publish what is then recorded."""
        yield "commit"
        item = self.record(replica.part, fact, redrive)
        yield from self.publish(replica, item.fact, redrive)
        return item

    def publish(self, replica: Replica, fact: Fact, redrive: int) -> Turn:
        yield "publish"
        self.announce(replica.part, fact, redrive)
        replica.told.add((fact.key, redrive))

    def obey(self, part: Part, command: Invoke, redrive: int) -> Turn:
        """A service that executes: its recorded result if there is one, else a new one, recorded first."""
        yield "load"
        if command.key not in part.cells:
            yield "run"
            fact = self.execute(command)
            yield "commit"
            part.commit(fact, [])
        yield "publish"
        self.announce(part, Fact(command.key, part.cells[command.key], command.revision), redrive)

    # the atomic parts, with their invariants

    def record(self, part: Part, fact: Fact, redrive: int) -> Item:
        tallies = part.commit(fact, self.rules.joins(self.plan, fact.key, part.mine))
        recorded = Fact(fact.key, part.cells[fact.key], fact.revision)
        known = self.final.setdefault(recorded.key, recorded.outcome)
        if known != recorded.outcome:
            raise Violation(f"two outcomes of {recorded.key}: {known} and, at {part.name}, {recorded.outcome}")
        return Item(recorded, redrive, "known" if tallies is None else "recorded", tallies or {})

    def announce(self, part: Part, fact: Fact, redrive: int) -> None:
        node = self.plan.index.nodes[fact.key.node]
        if part.cells.get(fact.key) != fact.outcome:
            raise Violation(f"{part.name} publishes {fact} without having recorded it")
        if self.final.setdefault(fact.key, fact.outcome) != fact.outcome:
            raise Violation(f"{part.name} publishes {fact}, but {self.final[fact.key]} is known")
        if self.mode == "orchestrated":
            if part is not self.home:
                self.send(self.home, Message(fact, redrive))
        elif node.id in part.emits:
            for other in self.services.values():
                if node.id in other.hears:
                    self.send(other, Message(fact, redrive))

    def hear(self, part: Part, fact: Fact) -> None:
        if self.mode == "choreographed" and fact.key.node not in part.hears:
            raise Violation(f"{part.name} heard {fact.key.node}, which it did not subscribe to")
        part.heard.add(fact.key)

    def touched(self, key: Key) -> list[Key]:
        return [Key(name, key.tag) for name in self.plan.index.downs[key.node]]

    def may_decide(self, part: Part, effects: list[Effect], settled: list[Key]) -> None:
        for effect in effects:
            if (key := _key(effect)).node not in part.mine:
                raise Violation(f"{part.name} decides {key.node}, which is not its own")
            if key in settled and not isinstance(effect, Repeat):
                raise Violation(f"{part.name} decides {key.node} again, though it was recorded when it looked")

    def may_run(self, part: Part, call: Invoke) -> None:
        node = self.plan.index.nodes[call.key.node]
        if node.id not in part.mine or node.kind != "step":
            raise Violation(f"{part.name} must not run {node.id}")
        for up in self.plan.index.ups[node.id]:
            key = Key(up, call.key.tag)
            if key not in self.final or (key not in part.cells and key not in part.heard):
                raise Violation(f"{part.name} runs {node.id} before {up} is final and known there")

    def execute(self, call: Invoke) -> Fact:
        if self.calls.setdefault(call.key, call.args) != call.args:
            raise Violation(f"{call.key} was called with {call.args} and with {self.calls[call.key]}")
        outcome = self.behaviour(call.key.node, call.args, self.executions[call.key])
        self.executions[call.key] += 1
        return Fact(call.key, outcome, call.revision)
