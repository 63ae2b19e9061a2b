"""What people and parent runs ask of a run: cancel, pause, resume, retry, move. Its home grants it, as facts."""

from __future__ import annotations

from segue.machine import tags
from segue.machine.facts import DEAD, Key, Pause, Placed, Reset, State, Stop
from segue.machine.routes import Mine
from segue.machine.scopes import undone
from segue.machine.undo import compensate
from segue.machine.whole import with_tokens
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
        chosen: Places to run again too: names of nodes, or `name/tag` for an item of a map or a round of a loop. A tag
            with fewer indices than the node has, or none, means all items and rounds below.
        mine: The nodes that are decided here, the run's gateways among them.
    """
    end = state.known(EXIT, "")
    if end is None:
        return "the run has not ended"
    if (RUN, "", state.revision) in state.stops and end.kind == "completed" and not undone(plan, state, RUN, ""):
        return "the run is being undone"
    places = [_place(plan, state, text, mine) for text in chosen]
    wrong = [place for place in places if isinstance(place, str)]
    if wrong:
        return wrong[0]
    if end.kind not in DEAD and not chosen:
        return "the run has completed; choose the nodes to run again"
    seeds = {Key(cause.node, cause.tag) for cause in end.causes if cause.node in plan.index.nodes}
    tokens = with_tokens(state, compensate(plan, state, mine)[0]).tokens
    seeds.update(tokens.get((Key(ENTRY), RUN, state.revision), ()))
    seeds.update(place for place in places if isinstance(place, Key))
    seeds.discard(Key(ENTRY))
    seeds.add(Key(EXIT))
    ordered = sorted(seeds, key=lambda key: (plan.index.order[key.node], tags.path(key.tag)))
    return Reset(state.revision + 1, tuple(ordered))


def _place(plan: Plan, state: State, text: str, mine: Mine) -> Key | str:
    """What is reset for a chosen place, or why it cannot be.

    A home does not know the items and rounds of maps and loops that others hold. So one that does not exist may be
    reset, which decides anew what comes after the map or loop.
    """
    index = plan.index
    name, _, tag = text.partition("/")
    if name not in index.nodes or index.nodes[name].kind in _GATES:
        return f"flow {plan.flow!r} has no node {name!r} that can be run again"
    try:
        path = tags.path(tag)
    except ValueError:
        return f"{tag!r} is no tag: tags are indices of items and rounds, as in {name}/3 or {name}/3.0"
    outer = [scope for scope in reversed(index.scopes[index.nodes[name].region]) if scope != RUN]
    numbered = [region for scope in outer if index.constructs[(region := index.regions[scope]).construct].numbered]
    if len(path) > len(numbered):
        return f"node {name!r} lies in {len(numbered)} maps and loops: {tag!r} has too many indices"
    for depth, region in enumerate(numbered[: len(path)], 1):
        entry = Key(region.entry, tags.prefix(tag, depth))
        if entry.node in mine and entry not in state.outcomes:
            return f"{region.construct!r} has no item or round {entry.tag}"
    if len(path) < len(numbered):
        return Key(opening(numbered[len(path)].construct), tag)
    return Key(name, tag)
