"""The proof that a plan can be projected: every service that waits for a branch learns which way it went.

Choreographed, a service knows the outcomes of its own nodes and those that it hears. The proof runs the plan on that
knowledge alone. It derives, from the projections and nothing else, facts of one kind:

    knows(service, node)   in every instance of the node's region that is opened, the service gets to know how the node
                           ended, whatever the outcome: completed, skipped, failed, aborted or cancelled

with these rules, on the assumption that services come back, steps answer, and waits end by a signal or a timeout:

1. The holder of a node knows it once it knows all its upstreams: deciding is a total function of their outcomes. A
   child's run is decided elsewhere, so the holder of a `flow` node must hear it as others do.
2. Another service knows a node that its holder knows and publishes, if the service has subscribed to it: an outcome is
   published whatever its kind, and a subscription takes every kind.
3. A body that is not opened has no outcomes. So what looks into a body from outside (the entries of handlers and the
   construct's `close` and `settle`) must be decided by the one service that opens the construct's bodies.

If every node is known to its holder, then every node of an opened region becomes final: every join terminates, no
service waits for a branch that was not taken, and the run ends. Loops end by their cap and maps by their items, which
`structure` has checked before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from segue.errors import PlanError
from segue.plan.expression import gets_of, reads_of
from segue.plan.graph import ENTRY, EXIT, RUN, Node, Plan
from segue.plan.projection import PUBLIC, Projection, project
from segue.plan.structure import structure

Projector = Callable[[Plan, str], Projection]


def prove(plan: Plan, projector: Projector = project) -> list[str]:
    """Why a plan cannot be run in both modes, one line each; empty if it can.

    Args:
        plan: The plan to prove.
        projector: What gives each service its part.
    """
    try:
        return structure(plan) or _Proof(plan, projector).problems()
    except PlanError as error:
        return [error.message]


class _Proof:
    """What each service decides, says and hears, and the facts that follow."""

    def __init__(self, plan: Plan, projector: Projector) -> None:
        self.plan, self.index = plan, plan.index
        parts = [projector(plan, service) for service in self.index.services]
        self.deciders: dict[str, list[str]] = {}
        for part in parts:
            for name in part.nodes:
                self.deciders.setdefault(name, []).append(part.participant)
        self.said = {(part.participant, emission.node) for part in parts for emission in part.emits}
        self.heard = {(part.participant, name) for part in parts for name in part.hears}
        self.hearers: dict[str, list[str]] = {}
        for part in parts:
            for name in part.hears:
                self.hearers.setdefault(name, []).append(part.participant)
        self.known: set[tuple[str, str]] = set()

    def problems(self) -> list[str]:
        return [*self._holders(), *self._openings(), *self._public(), *self._stopping()] or list(self._knowledge())

    def _holders(self) -> Iterator[str]:
        for node in self.plan.nodes:
            deciders = self.deciders.get(node.id, [])
            if not deciders:
                yield f"{_what(node)} is decided by nobody"
            elif len(deciders) > 1:
                yield f"{_what(node)} is decided by more than one service: {', '.join(deciders)}"

    def _openings(self) -> Iterator[str]:
        """Rule 3: who looks into bodies is who opens them."""
        for node in self.plan.nodes:
            if not node.construct or node.kind in ("open", "exit", "timer"):
                continue
            construct = self.index.construct(node)
            for region in construct.regions:
                entry = self.index.regions[region].entry
                if self.deciders.get(entry) != self.deciders.get(node.id):
                    yield (
                        f"{construct.kind} {construct.id!r}: {_who(self.deciders.get(node.id))} decides {node.id!r} "
                        f"and cannot know whether {region!r} is opened: {_who(self.deciders.get(entry))} does that"
                    )

    def _public(self) -> Iterator[str]:
        """What outsiders, clients and the observer rely on."""
        for node in self.plan.nodes:
            if node.kind in PUBLIC or node.id in (ENTRY, EXIT):
                for decider in self.deciders.get(node.id, []):
                    if (decider, node.id) not in self.said:
                        yield f"{_what(node)} is public, and {decider} does not publish it"

    def _stopping(self) -> Iterator[str]:
        """Where the first failure stops the run, who stops it hears of every node that can fail."""
        home = self.deciders[EXIT][0] if EXIT in self.deciders else ""
        for node in self.plan.nodes:
            if node.id not in self.index.stopping:
                continue
            for decider in self.deciders.get(node.id, []):
                reason = "" if (decider, node.id) in self.said else f"{decider} does not publish it"
                reason = reason or ("" if (home, node.id) in self.heard else f"{home} does not listen to it")
                if decider != home and reason:
                    yield f"{_what(node)} may fail, which stops the run, and {home} never learns of it: {reason}"

    def _knowledge(self) -> Iterator[str]:
        """Derive all facts. Upstreams come first in plan order, so that one pass reaches the fixpoint."""
        for node in self.plan.nodes:
            holder = self.deciders[node.id][0]
            lacking = [up for up in self.index.ups[node.id] if (holder, up) not in self.known]
            if not lacking:
                self._decided(node, holder)
            for up in lacking:
                reason = self._reason(up, holder)
                if reason:
                    yield f"{self._waiting(node, up)}, and {holder} never learns how that ends: {reason}"
            if not lacking and node.kind == "flow" and (holder, node.id) not in self.known:
                yield f"{_what(node)} ends elsewhere, and {holder} does not listen to it"

    def _decided(self, node: Node, holder: str) -> None:
        """Rules 1 and 2."""
        if node.kind != "flow":
            self.known.add((holder, node.id))
        if (holder, node.id) in self.said:
            self.known.update((hearer, node.id) for hearer in self.hearers.get(node.id, ()))

    def _reason(self, up: str, holder: str) -> str:
        """Why a node that its own holder knows is not known to another; empty if it is undecided itself."""
        source = self.deciders[up][0]
        if (source, up) not in self.known:
            return ""
        if (source, up) not in self.said:
            return f"{source} does not publish it"
        return f"{holder} does not listen to it" if (holder, up) not in self.heard else ""

    def _waiting(self, node: Node, up: str) -> str:
        """What waits for what, in the words of the flow."""
        if node.construct:
            return f"{self.index.construct(node).kind} {node.construct!r} ({node.kind}) waits for {up!r}"
        if node.guard is not None and any(get.node == up for get in reads_of(node.guard)):
            return f"{_what(node)} is guarded by a choice that reads {up!r}"
        if node.kind == "either" and any(get.node == up for arg in node.args for get in gets_of(arg.value)):
            return f"{_what(node)} joins the branch {up!r}"
        return f"{_what(node)} waits for {up!r}"


def _what(node: Node) -> str:
    where = "" if node.region == RUN else f" in {node.region!r}"
    return f"{node.kind} {node.id!r}{where}"


def _who(deciders: list[str] | None) -> str:
    return " and ".join(deciders or ["nobody"])
