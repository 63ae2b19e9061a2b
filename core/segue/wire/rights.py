"""Who may say what: the rights of every participant, from the plans alone.

A broker's permissions speak of subjects, so they hold only if a message says what its subject promises: `check_place`
compares the two. Transports turn `Rights` into permissions of their broker.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from segue.errors import InvalidInput, PlanError
from segue.plan.graph import ENTRY, Node, Plan
from segue.plan.names import RUN, TIMER
from segue.plan.projection import COORDINATOR, MODES, Mode
from segue.wire import records, schedules
from segue.wire.envelope import NOTICES, Event
from segue.wire.said import public_node
from segue.wire.subjects import OBSERVER, Subjects

SCHEDULER, CLIENT, DEPLOYER = "scheduler", "client", "deployer"
ROLES = (COORDINATOR, OBSERVER, SCHEDULER, CLIENT, DEPLOYER)
"""Participants that are no services; a scheduler of its own is needed only where no coordinator runs."""

_NOTICES = frozenset(NOTICES)

Kind = Literal["service", "coordinator", "observer", "scheduler", "client", "deployer"]


class Rights(msgspec.Struct, frozen=True, kw_only=True):
    """What one participant needs, and nothing else. Everybody may read the registry.

    Attributes:
        participant: Its name.
        kind: What it is.
        publish: Subjects of events and commands that it says, as patterns.
        consume: Groups that it is a member of, as (channel, group).
        inspect: Groups of others whose backlog it may look at, as (channel, group).
        listen: Patterns of events that it hears live.
        ask: Subjects to which it sends requests.
        answer: Subjects on which it answers requests.
        registry: Keys of the registry that it writes, as patterns.
        carries: Whether it puts large values away and fetches them.
        forgets: Whether it deletes the large values of old runs.
        administer: Whether it makes streams and groups.
    """

    participant: str
    kind: Kind
    publish: tuple[str, ...] = ()
    consume: tuple[tuple[str, str], ...] = ()
    inspect: tuple[tuple[str, str], ...] = ()
    listen: tuple[str, ...] = ()
    ask: tuple[str, ...] = ()
    answer: tuple[str, ...] = ()
    registry: tuple[str, ...] = ()
    carries: bool = False
    forgets: bool = False
    administer: bool = False


def decider(plan: Plan, mode: Mode, node: str) -> str:
    """Who decides a node."""
    return plan.index.nodes[node].owner if mode == "choreographed" else COORDINATOR


def check_place(subjects: Subjects, plan: Plan | None, event: Event, subject: str) -> None:
    """Check that an event is one that may be said on the subject on which it came.

    Args:
        subjects: The namespace's subjects.
        plan: The plan that the event names; None if it is not known: who may say a notice cannot be told then.
        event: The event.
        subject: Where it was published.

    Raises:
        InvalidInput: It belongs elsewhere, or its author may not say it.
    """
    mode, kind = subjects.mode(subject), event.kind
    notice = kind in _NOTICES
    author = subject.rpartition(".")[2] if notice else ""
    place = subjects.notices(mode, event.flow, author) if notice else subjects.event(mode, event.flow, event.node, kind)
    if subject != place or (plan is not None and event.flow != plan.flow):
        raise InvalidInput(f"event {event.id} may not be said on {subject}")
    if notice and (plan is None or not _may_notify(plan, mode, author, event)):
        raise InvalidInput(f"event {event.id} may not be said by {author}")


def _may_notify(plan: Plan, mode: Mode, author: str, event: Event) -> bool:
    nodes, regions, kind = plan.index.nodes, plan.index.regions, event.kind
    if kind in ("compensated", "compensation.failed"):
        # The home of a subflow says that it is undone; which service that is, its parent's plan does not tell. The
        # coordinator passes on what it hears of a run that was moved away.
        if event.node not in nodes:
            return False
        passed_on = mode == "choreographed" and author == COORDINATOR
        return passed_on or nodes[event.node].kind == "flow" or author == nodes[event.node].owner
    if kind == "moved":  # by who moved it there
        return author == decider(plan, "choreographed" if mode == "orchestrated" else "orchestrated", ENTRY)
    if kind == "undone":
        return event.node in nodes and author == decider(plan, mode, event.node)
    if kind == "stopped" and event.node != RUN:
        return event.node in regions and author == decider(plan, mode, regions[event.node].construct)
    deadline = kind == "stopped" and TIMER in nodes and author == decider(plan, mode, TIMER)
    return deadline or author == decider(plan, mode, ENTRY)


def rights(plans: Iterable[Plan], subjects: Subjects, services: Iterable[str] = ()) -> tuple[Rights, ...]:
    """The rights of all participants of some plans.

    Args:
        plans: The plans; where several versions of a flow have open runs, all of them.
        subjects: The namespace's subjects.
        services: Services that exist besides those of the plans.

    Raises:
        PlanError: A service has the name of a role.
    """
    plans = list(plans)
    names = sorted({*services, *(name for plan in plans for name in plan.index.services)})
    for name in names:
        if name in ROLES:
            raise PlanError(
                f"service {name!r} has the name of a role, so its rights cannot be told from those of the role",
                f"rename the service; roles are {', '.join(ROLES)}",
            )
    told = [f"{schedules.PROGRESS}.*"]
    homes = tuple(sorted({subjects.requests(home) for home in (COORDINATOR, *(plan.home for plan in plans))}))
    ends = (subjects.ended("*"),)
    groups = tuple((channel, name) for name in names for channel in ("events", "commands"))
    questions = tuple(sorted(subjects.questions(name) for name in (COORDINATOR, *names)))
    everyone = (("events", COORDINATOR), ("events", OBSERVER), *groups)
    return (
        *(_service(plans, subjects, name, questions) for name in names),
        Rights(
            participant=COORDINATOR,
            kind="coordinator",
            publish=_distinct(
                [*(place for plan in plans for place in _coordinates(plan, subjects))]
                + [pattern for name in names for pattern in subjects.commands_of(name)]
            ),
            consume=(("events", COORDINATOR),),
            listen=ends,
            ask=(
                *homes,
                *(question for question in questions if question != subjects.questions(COORDINATOR)),
                *(subjects.handovers(name) for name in (COORDINATOR, *names)),
            ),
            answer=_answers(subjects, COORDINATOR),
            registry=(*told, f"{records.STORE}.{COORDINATOR}"),
            carries=True,
            forgets=True,
        ),
        Rights(participant=OBSERVER, kind="observer", consume=(("events", OBSERVER),)),
        Rights(participant=SCHEDULER, kind="scheduler", listen=ends, ask=homes, registry=tuple(told), carries=True),
        Rights(participant=CLIENT, kind="client", listen=ends, ask=homes, inspect=everyone, carries=True),
        Rights(participant=DEPLOYER, kind="deployer", registry=(">",), inspect=everyone, administer=True),
    )


def _service(plans: Sequence[Plan], subjects: Subjects, name: str, questions: Sequence[str]) -> Rights:
    publish: list[str] = []
    # For a while after a change of mode, keys are looked for at the other placement too; and only the home of a run
    # knows whether it is over, so that what is kept of it elsewhere may be forgotten.
    ask = {question for question in questions if question != subjects.questions(name)}
    for plan in plans:
        own = [node for node in plan.nodes if node.owner == name]
        if own:
            publish += [subjects.notices(mode, plan.flow, name) for mode in MODES]
        for node in own:
            publish.append(_voice(subjects, "choreographed", plan, node))
            if node.kind in ("step", "flow"):
                publish.append(_voice(subjects, "orchestrated", plan, node))
            if node.kind == "flow":
                children = [child.home for child in plans if child.flow == node.step]
                ask.update(subjects.requests(home) for home in (COORDINATOR, *children))
        if plan.home == name:
            publish += [place for parent in plans for place in _for_parents(parent, subjects, name, plan.flow)]
            ask.update(subjects.handovers(other) for other in (COORDINATOR, *plan.index.services))
    return Rights(
        participant=name,
        kind="service",
        publish=_distinct(publish),
        consume=(("events", name), ("commands", name)),
        ask=tuple(sorted(ask)),
        answer=_answers(subjects, name),
        registry=(f"{records.SERVICE}.{name}", f"{records.STORE}.{name}"),
        carries=True,
        forgets=any(plan.home == name for plan in plans),
    )


def _coordinates(plan: Plan, subjects: Subjects) -> list[str]:
    """What the coordinator says in runs of a plan: of a step only that it is not needed any more.

    Of a run that was moved away it passes on what it hears of steps and subflows.
    """
    found = [subjects.notices(mode, plan.flow, COORDINATOR) for mode in MODES]
    for node in plan.nodes:
        if node.kind in ("step", "flow"):
            found.append(_voice(subjects, "choreographed", plan, node))
        if node.kind == "step":
            found.append(subjects.event("orchestrated", plan.flow, node.id, "cancelled"))
        else:
            found.append(_voice(subjects, "orchestrated", plan, node))
    return [*found, *_for_parents(plan, subjects, COORDINATOR)]


def _answers(subjects: Subjects, name: str) -> tuple[str, ...]:
    return subjects.requests(name), subjects.questions(name), subjects.handovers(name)


def _for_parents(plan: Plan, subjects: Subjects, author: str, child: str = "") -> list[str]:
    """What the home of a subflow says of the node that it stands for, in whichever mode the parent runs."""
    nodes = [node for node in plan.nodes if node.kind == "flow" and child in ("", node.step)]
    notices = [subjects.notices(mode, plan.flow, author) for mode in MODES] if nodes else []
    return [*notices, *(_voice(subjects, mode, plan, node) for node in nodes for mode in MODES)]


def _voice(subjects: Subjects, mode: Mode, plan: Plan, node: Node) -> str:
    """All outcomes of a node; of a step its failed attempts too, whose subjects have one token more."""
    return subjects.event(mode, plan.flow, public_node(node.id), ">" if node.kind == "step" else "*")


def _distinct(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))
