"""The subject grammar. Subjects carry no run id: brokers pay per subject.

    <ns>.<o|c>.<flow>.<node>.<kind>     events, by the run's mode; failed attempts are <node>.attempt.failed
    <ns>.<o|c>.<flow>.run:notice.<who>  what all participants of a run must hear: stops, retries, signals ...
    <ns>.do.<service>.<step>            commands
    <ns>.to.<participant>               requests (start, cancel, find ...)
    <ns>.ask.<participant>              of these the ones that change nothing: more may be allowed to send them
    <ns>.move.<participant>             requests of those who move a run, to hand it over
    <ns>.dead.<group>                   messages that nobody could read

So an outside listener takes `shop.*.place_order.charge.completed`, in both modes.
"""

from __future__ import annotations

from segue.plan.graph import ENTRY, EXIT, RUN, Plan
from segue.plan.names import NOTICE
from segue.plan.projection import COORDINATOR, Mode, project

OBSERVER = "observer"
_LETTER: dict[Mode, str] = {"orchestrated": "o", "choreographed": "c"}


class Subjects:
    """Subjects of one namespace.

    Args:
        namespace: First token of every subject, and part of stream and group names; `[a-z0-9_-]`.
    """

    def __init__(self, namespace: str = "segue") -> None:
        self.namespace = namespace

    def event(self, mode: Mode, flow: str, node: str, kind: str) -> str:
        """Where an event is published."""
        return f"{self.namespace}.{_LETTER[mode]}.{flow}.{node}.{kind}"

    def notices(self, mode: Mode, flow: str, author: str = "*") -> str:
        """Where the notices and signals of a flow's runs are published, by one participant or by all."""
        return self.event(mode, flow, NOTICE, author)

    def mode(self, subject: str) -> Mode:
        """The mode of the run that an event on this subject belongs to."""
        letter = subject[len(self.namespace) + 1 : len(self.namespace) + 3]
        return "choreographed" if letter == "c." else "orchestrated"

    def command(self, service: str, step: str) -> str:
        """Where a call of a step is sent."""
        return f"{self.namespace}.do.{service}.{step}"

    def requests(self, participant: str) -> str:
        """Where a participant answers."""
        return f"{self.namespace}.to.{participant}"

    def questions(self, participant: str) -> str:
        """Where a participant answers what changes nothing."""
        return f"{self.namespace}.ask.{participant}"

    def handovers(self, participant: str) -> str:
        """Where a participant gives runs away, and takes them over."""
        return f"{self.namespace}.move.{participant}"

    def ended(self, flow: str) -> str:
        """Where the ends of a flow's runs are heard, in both modes."""
        return f"{self.namespace}.*.{flow}.{RUN}.ended"

    def events_of(self, participant: str) -> tuple[str, ...]:
        """What the coordinator and the observer listen to.

        The coordinator hears its own events too and passes over them: one pattern over many subjects costs a broker
        far less than several.
        """
        if participant == OBSERVER:
            return (f"{self.namespace}.o.>", f"{self.namespace}.c.>")
        return (f"{self.namespace}.o.*.*.*",)

    def commands_of(self, service: str) -> tuple[str, ...]:
        """All commands of a service."""
        return (f"{self.namespace}.do.{service}.*",)

    def heard(self, plan: Plan, service: str) -> tuple[str, ...]:
        """What a service listens to on behalf of a plan when it is choreographed; nothing if it owns no node of it.

        `<node>.*` takes every outcome and nothing else: failed attempts have one token more.
        """
        if service not in plan.index.services:
            return ()
        found = [self.notices("choreographed", plan.flow)]
        for node in project(plan, service).hears:
            if node in (ENTRY, EXIT):
                found.append(self.event("choreographed", plan.flow, RUN, "started"))
            else:
                found.append(self.event("choreographed", plan.flow, node, "*"))
        return tuple(found)


__all__ = ["COORDINATOR", "OBSERVER", "Subjects"]
