"""Who holds what: the home, and the owner of each node that is no call of a service's step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from segue.model.drafts import Draft
from segue.model.tracing import Trace
from segue.plan.graph import Value, gets_of
from segue.plan.names import RUN, opening

_AT_HOME = frozenset({"wait", "sleep", "flow"})


class Owners:
    """The owners of the drafts of a flow.

    Args:
        trace: The traced flow.
        consumers: The nodes that read or come after a node, by its id.
        result: The result of the run.
    """

    def __init__(self, trace: Trace, consumers: Mapping[str, Sequence[Draft]], result: Value | None) -> None:
        self._drafts = {draft.id: draft for draft in trace.drafts}
        self._bodies = {name: one.bodies for name, one in trace.constructs.items() if one is not None}
        self._regions = {region.id: region for region in trace.regions}
        self._consumers = consumers
        self._result = [] if result is None else [get.node for get in gets_of(result)]
        self._results: dict[str, list[str]] = {}
        for draft in trace.drafts:
            if draft.kind == "exit":
                self._results[draft.region] = [get.node for get in draft.reads]
        self._known: dict[str, str] = {}
        self.home = ""

    def find_home(self) -> str:
        """Owner of the first step that the result comes from; else owner of the last step; else empty."""
        return self._first_step(self._result) or self._last_step(RUN)

    def resolve(self, home: str) -> dict[str, str]:
        """The owner of each node."""
        self.home = home
        # Consumers first, so that no chain of choices is followed twice.
        for name in reversed(self._drafts):
            self._known[name] = self._owner(self._drafts[name])
        return self._known

    def _owner(self, draft: Draft) -> str:
        if draft.owner:
            return draft.owner
        if draft.construct:
            return self._holder(draft.construct)
        if draft.kind in _AT_HOME:
            return self.home
        ups = [] if draft.kind == "either" else [*(get.node for get in draft.reads), *draft.after]
        upstream = self._first_step(ups)
        heirs = self._consumers[draft.id]
        return upstream or (self._known[heirs[0].id] if heirs else self._fallback(draft.region))

    def _fallback(self, region: str) -> str:
        return self.home if region == RUN else self._holder(self._regions[region].construct)

    def _holder(self, construct: str) -> str:
        """All gateways of a construct have one owner."""
        name = opening(construct)
        if name not in self._known:
            body = self._bodies[construct][0]
            self._known[name] = self._first_step(self._results[body]) or self._last_step(body) or self.home
        return self._known[name]

    def _first_step(self, nodes: Iterable[str]) -> str:
        """Owner of the first step that these come from, looking through choices, expressions and constructs."""
        waiting, seen = list(nodes), set()
        while waiting:
            name = waiting.pop(0)
            draft = self._drafts.get(name)
            if draft is None or name in seen:
                continue
            seen.add(name)
            if draft.kind == "step" and draft.owner:
                return draft.owner
            if draft.kind == "close":
                more = [name for body in self._bodies[draft.construct] for name in self._results[body]]
            else:
                more = [get.node for arg in draft.args for get in gets_of(arg.value)]
            waiting = more + waiting
        return ""

    def _last_step(self, region: str) -> str:
        steps = (
            draft.owner
            for draft in reversed(self._drafts.values())
            if draft.kind == "step" and draft.owner and self._lies_in(draft.region, region)
        )
        return next(steps, "")

    def _lies_in(self, region: str | None, outer: str) -> bool:
        while region is not None and region != outer:
            region = self._regions[region].parent if region in self._regions else None
        return region is not None
