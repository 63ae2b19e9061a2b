"""The story of one run of a simulation, as the invariants want it told."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from segue.machine.facts import Fact, Key, Outcome, Placed, Reason, Reset, Stop
from segue.plan.names import EXIT
from segue.plan.projection import COORDINATOR
from segue.ports.store import CellKey, CellKind
from segue.runtime.placing import corrected
from segue.testing.sim.log import Log, Said
from segue.testing.story import End, Place, Story
from segue.wire import envelope

if TYPE_CHECKING:
    from segue.testing.sim.world import World


def tell(world: World, run: str) -> Story:
    """The story of a run.

    Args:
        world: The simulation, when everything has happened.
        run: The run's id.
    """
    log = world.log
    plan = world.plan_of(run)
    orchestrated = log.modes[run] == "orchestrated"
    story = Story({})
    moved, cells = _counting(log, run)
    for (part, cell), raw in cells.items():
        place, outcome = _outcome(log, raw)
        node = plan.index.nodes[place[0].node]
        if moved:
            # Where it was decided is a matter of time; that all copies are the same is checked.
            if part in (COORDINATOR, node.owner):
                story.outcomes.setdefault(place, outcome)
        elif part == (COORDINATOR if orchestrated else node.owner):
            story.outcomes[place] = outcome
        if part == node.owner and node.kind == "step" and log.attempts[cell]:
            story.completed_at_service[place] = outcome
        story.copies.append((*place, outcome))
    undone: dict[Place, int] = {}
    for number, effect in enumerate(log.effects):
        if effect.cell.run != run:
            continue
        place = Key(effect.cell.node, effect.cell.tag), effect.cell.revision
        if effect.undo:
            undone.setdefault(place, number)
        else:
            story.calls.append((*place, effect.args))
    story.executions = Counter((key, revision) for key, revision, _ in story.calls)
    story.undos = list(undone)
    story.signals = {place: list(values) for place, values in log.signals.items()}
    _said(story, [said for said in log.said if said.event.run == run], log, run, list(undone.values()))
    story.open = [text.replace(run, "run") for text in world.due() if run in text]
    return story


def _counting(log: Log, run: str) -> tuple[bool, dict[tuple[str, CellKey], bytes]]:
    """Whether a run was moved; and its outcomes, but for those that nobody ever hears of.

    A process that was overtaken by a move may still record something. It counts if its participant decides the run
    again, later, and nobody decided otherwise meanwhile.
    """
    left: set[str] = set()
    late: set[tuple[str, CellKey]] = set()
    found: dict[tuple[str, CellKey], bytes] = {}
    moved = False
    for (part, cell), raw in log.cells.items():
        if cell.run != run or cell.kind not in (CellKind.OUTCOME, CellKind.END, CellKind.PLACED):
            continue
        event, fact = log.read(raw)
        if isinstance(fact, Placed):
            moved = True
            (left.add if (part == COORDINATOR) == (fact.mode == "choreographed") else left.discard)(part)
            continue
        if not isinstance(fact, Fact):
            continue  # a stop, in the place of an exit
        found[part, cell] = raw
        if part in left and event.source.endswith(f"/{part}") and not log.attempts[cell]:
            late.add((part, cell))
    for part, cell in late:
        if part in left or (part, corrected(cell)) in log.cells:
            del found[part, cell]
    return moved, found


def _outcome(log: Log, raw: bytes) -> tuple[Place, Outcome]:
    _, fact = log.read(raw)
    assert isinstance(fact, Fact), "an outcome's cell holds an outcome"
    return (fact.key, fact.revision), fact.outcome


def _said(story: Story, said: list[Said], log: Log, run: str, undone: list[int]) -> None:
    resets: dict[int, tuple[Key, ...]] = {}
    stops: dict[tuple[str, str, int], Reason] = {}
    for item in said:
        match item.fact:
            case Fact(key, outcome, revision):
                story.copies.append((key, revision, outcome))
                if key.node == EXIT:
                    _ended(story, item, outcome, log, undone)
            case Stop(scope, tag, revision, reason):
                stops.setdefault((scope, tag, revision), reason)
            case Reset(revision, seeds):
                resets.setdefault(revision, seeds)
    story.stops = stops
    story.resets = [resets[number] for number in sorted(resets)]


def _ended(story: Story, said: Said, outcome: Outcome, log: Log, undone: list[int]) -> None:
    """An end was announced, perhaps again."""
    revision, status, causes = said.event.revision, envelope.decode_ended(said.event).status, outcome.causes
    if any((end.revision, end.status, end.causes) == (revision, status, causes) for end in story.ends):
        return
    calls = sum(effect.cell.run == said.event.run and not effect.undo for effect in log.effects[: said.effects])
    undos = sum(number < said.effects for number in undone)
    story.ends.append(End(revision, status, causes, calls, undos))
