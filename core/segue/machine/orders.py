"""What people and parent runs ask of a run: cancel, pause, resume, retry. The home grants them, as facts (R11, R14)."""

from __future__ import annotations

from segue.machine import tags
from segue.machine.facts import DEAD, Key, Pause, Reset, State, Stop
from segue.machine.routes import Mine
from segue.machine.scopes import undone
from segue.machine.undo import compensate
from segue.machine.whole import with_tokens
from segue.plan.graph import ENTRY, EXIT, RUN, Plan
from segue.plan.names import opening

_GATES = ("entry", "exit", "open", "settle", "timer")


def cancel(plan: Plan, state: State) -> Stop | str:
    """Stop a run; or why not."""
    if Key(EXIT) in state.outcomes:
        return "the run has ended"
    if (RUN, "", state.revision) in state.stops:
        return "the run is being stopped"
    return Stop(RUN, "", state.revision, "cancelled")


def undo(plan: Plan, state: State) -> Stop | str | None:
    """Undo a run that completed, because its parent's node is; None if nothing of it is left, or why not.

    Returns:
        The stop, which may have been set before.
    """
    end = state.known(EXIT, "")
    if end is None:
        return "the run has not ended"
    if end.kind in DEAD or undone(plan, state, RUN, ""):
        return None
    return Stop(RUN, "", state.revision, "undone")


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
    if (RUN, "", state.revision) in state.stops and end.kind == "completed" and not undone(plan, state, RUN, ""):
        return "the run is being undone"
    unknown = [name for name in chosen if name not in plan.index.nodes or plan.index.nodes[name].kind in _GATES]
    if unknown:
        return f"flow {plan.flow!r} has no node {unknown[0]!r} that can be run again"
    if end.kind not in DEAD and not chosen:
        return "the run has completed; choose the nodes to run again"
    seeds = {Key(cause.node, cause.tag) for cause in end.causes if cause.node in plan.index.nodes}
    tokens = with_tokens(state, compensate(plan, state, mine)[0]).tokens
    seeds.update(tokens.get((Key(ENTRY), RUN, state.revision), ()))
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
