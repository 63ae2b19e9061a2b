"""What people and parent runs ask of a run: cancel, pause, resume, retry, move. Its home grants it, as facts."""

from __future__ import annotations

from segue.machine import tags
from segue.machine.facts import DEAD, Key, Pause, Placed, Reset, State, Stop
from segue.machine.routes import Mine
from segue.machine.undo import compensate
from segue.plan.graph import ENTRY, EXIT, RUN, Plan
from segue.plan.names import opening
from segue.plan.projection import Mode

_GATES = ("entry", "exit", "open", "settle", "timer")


def cancel(plan: Plan, state: State) -> Stop | str:
    """Stop a run; or why not."""
    if Key(EXIT) in state.outcomes:
        return "the run has ended"
    if (RUN, "", state.revision) in state.stops:
        return "the run is being stopped"
    return Stop(RUN, "", state.revision, "cancelled")


def hold(state: State, number: int, paused: bool) -> Pause | str:
    """Pause a run or let it go on; or why not.

    Args:
        state: All that is known of the run.
        number: The pauses and resumptions so far.
        paused: Whether it shall be held.
    """
    if Key(EXIT) in state.outcomes:
        return "the run has ended"
    if state.paused == paused:
        return "the run is paused" if paused else "the run is not paused"
    return Pause(number + 1)


def move(state: State, now: Placed | None, started: Mode, wanted: Mode, epoch: int) -> Placed | str:
    """Decide a run in the other mode from now on; or why not.

    Args:
        state: All that is known of the run.
        now: Where it was moved to last.
        started: The mode that it has if it was never moved.
        wanted: The mode that it shall have.
        epoch: The placement that the caller saw, or 0.
    """
    if Key(EXIT) in state.outcomes:
        return "the run has ended"
    current, mode = (1, started) if now is None else now[:2]
    if mode == wanted:
        return f"the run is {mode}"
    if epoch and epoch != current:
        return "the run has been moved meanwhile"
    return Placed(current + 1, wanted)


def retry(plan: Plan, state: State, chosen: tuple[str, ...], mine: Mine) -> Reset | str:
    """Decide anew what failed, was undone or was chosen, and all that follows from it; or why not.

    Args:
        plan: The run's plan.
        state: All that is known of the run.
        chosen: Names of nodes to run again too; of those in a map or loop the whole construct is.
        mine: The nodes that are decided here, the run's gateways among them.
    """
    end = state.known(EXIT, "")
    if end is None:
        return "the run has not ended"
    unknown = [name for name in chosen if name not in plan.index.nodes or plan.index.nodes[name].kind in _GATES]
    if unknown:
        return f"flow {plan.flow!r} has no node {unknown[0]!r} that can be run again"
    if end.kind not in DEAD and not chosen:
        return "the run has completed; choose the nodes to run again"
    seeds = {Key(cause.node, cause.tag) for cause in end.causes if cause.node in plan.index.nodes}
    tokens, _ = compensate(plan, state, mine)
    seeds.update(key for token in tokens if token.key.node == ENTRY and token.scope == RUN for key in token.undone)
    seeds.update(_place(plan, name) for name in chosen)
    seeds.discard(Key(ENTRY))
    seeds.add(Key(EXIT))
    ordered = sorted(seeds, key=lambda key: (plan.index.order[key.node], tags.path(key.tag)))
    return Reset(state.revision + 1, tuple(ordered))


def _place(plan: Plan, name: str) -> Key:
    """What is reset for a chosen node: a home does not know the items and rounds of maps and loops of others."""
    index = plan.index
    outer = [index.regions[scope].construct for scope in index.scopes[index.nodes[name].region] if index.depths[scope]]
    return Key(opening(outer[-1]) if outer else name)
