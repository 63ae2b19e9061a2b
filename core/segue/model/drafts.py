"""What a trace writes down: nodes without what only the whole graph tells, and the regions that they stand in."""

from __future__ import annotations

import msgspec

from segue.plan import graph
from segue.plan.index import CAPTURED
from segue.plan.names import ENTRY, EXIT, RUN


class Draft(msgspec.Struct, eq=False):
    """A node as it was declared. `owner` is empty for what has no owner of its own; `after` has not been sorted out."""

    id: str
    kind: graph.Kind
    region: str
    owner: str = ""
    step: str = ""
    args: tuple[graph.Arg, ...] = ()
    guard: graph.Condition | None = None
    after: tuple[str, ...] = ()
    construct: str = ""
    undo: bool = False
    timeout: float = 0.0

    @property
    def reads(self) -> list[graph.Get]:
        """What its arguments and its guard read."""
        found = [get for arg in self.args for get in graph.gets_of(arg.value)]
        return found if self.guard is None else [*found, *graph.reads_of(self.guard)]


class Level(msgspec.Struct, eq=False):
    """A `with` block: what it adds, and the condition of the `when` that has just ended in it, for `otherwise`.

    `over`: what ended everything that is declared in it, as `finish()` does.
    """

    guard: graph.Condition | None
    after: tuple[str, ...]
    ended: graph.Condition | None = None
    over: str = ""


class Scope(msgspec.Struct, eq=False):
    """A region while its body is traced.

    Attributes:
        id: The region.
        entry: Its entry.
        exit: Its exit.
        outer: The scope that its construct stands in; None for the run.
        opening: The `open` of its construct; None for the run.
        kind: What kind of construct it is of.
        captures: What the construct reads outside, by name; all bodies of a construct share them.
        levels: The `with` blocks around what is declared next.
        bars: Conditions under which what is declared next is not reached, negated.
    """

    id: str = RUN
    entry: str = ENTRY
    exit: str = EXIT
    outer: Scope | None = None
    opening: Draft | None = None
    kind: str = ""
    captures: dict[str, graph.Get] = {}
    levels: list[Level] = msgspec.field(default_factory=lambda: [Level(None, ())])
    bars: list[graph.Condition] = []

    @property
    def over(self) -> str:
        """What ended it in any case, if anything did."""
        return self.levels[0].over

    def capture(self, name: str, get: graph.Get) -> graph.Get:
        """Read an outer value inside: the construct reads it, and the entry hands it in."""
        self.captures.setdefault(name, graph.Get(get.node, get.path, True))
        return graph.Get(self.entry, (CAPTURED, name), get.optional)


def origin(scope: Scope, get: graph.Get) -> tuple[Scope, graph.Get]:
    """Where a value comes from that is read in a scope: from that one, or through captures from one around it."""
    while scope.outer is not None and get.node == scope.entry and get.path[:1] == (CAPTURED,):
        scope, get = scope.outer, scope.captures[str(get.path[1])]
    return scope, get


def capture_name(get: graph.Get) -> str:
    """A name that no other value of the flow has."""
    parts = [f".{part}" if isinstance(part, str) and part.isidentifier() else f"[{part!r}]" for part in get.path]
    return get.node + "".join(parts)
