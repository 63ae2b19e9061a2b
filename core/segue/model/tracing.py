"""Tracing: a flow body runs once, and what it calls is written down as drafts of nodes.

The guards and orders of the `with` blocks around a call apply to the node that it makes. The bodies of constructs are
traced where they stand, each in a scope of its own. A placeholder of an outer scope is captured: every construct in
between reads it and hands it in, so that no edge crosses the border of a region.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import msgspec

from segue.errors import DeclarationError
from segue.model import types
from segue.model.drafts import Draft, Level, Scope, capture_name
from segue.model.refs import Ref, Source, is_placeholder, joined, label, trace_of
from segue.model.rewrite import rewrite, rewrite_condition
from segue.model.signature import UNANNOTATED, Misfit, Parameter, Signature
from segue.model.site import here
from segue.model.values import lower
from segue.names import RESERVED_NODES, check_name
from segue.plan import graph
from segue.plan.index import CAPTURED

if TYPE_CHECKING:
    from segue.model.step import Step


class Awaited(msgspec.Struct):
    """A signal that the flow waits for: its value, where that was said, and what tells waits for it apart.

    `matches`: where each match was given, by the value that it stands for; none if the only wait has no match.
    """

    type: types.Type
    site: str
    matches: dict[bytes, str] = {}


class Trace(msgspec.Struct, eq=False):
    """The tracing of one flow body.

    Attributes:
        flow: Its name.
        returns: Its declared result.
        drafts: In the order of declaration.
        used: Signatures of the steps that it calls, by service and name.
        undoable: Those of them that can be undone.
        computed: Pure functions that it calls, by name.
        sites: Where each node was declared.
        skippable: Nodes that may be skipped.
        finishes: Early ends, in declared order, with the types of their values.
        signals: What it waits for.
        regions: Those of its constructs.
        constructs: Its constructs; None while the bodies of one are traced.
        frozen: What is being computed, if no node may be made in it.
    """

    flow: str
    returns: types.Type = UNANNOTATED
    drafts: list[Draft] = []
    used: dict[tuple[str, str], Signature] = {}
    undoable: set[tuple[str, str]] = set()
    computed: dict[str, Step[..., Any]] = {}
    sites: dict[str, str] = {}
    counters: dict[str, int] = {}
    skippable: set[str] = set()
    finishes: list[tuple[str, types.Type]] = []
    signals: dict[str, Awaited] = {}
    regions: list[graph.Region] = []
    constructs: dict[str, graph.Construct | None] = {}
    scope: Scope = msgspec.field(default_factory=Scope)
    places: dict[str, Scope] = {}
    frozen: str = ""

    @property
    def level(self) -> Level:
        """The innermost `with` block of the scope."""
        return self.scope.levels[-1]

    def parameter(self, parameter: Parameter) -> Any:
        """The placeholder of a parameter of the flow."""
        return self.ref(graph.ENTRY, parameter.type, parameter.name, parameter.name)

    def ref(self, node: str, tp: types.Type, label: str = "", *path: str | int) -> Ref:
        """A placeholder for the value of a node, or for a field of it."""
        return Ref(Source(self, node, path, tp, label or f"{node}(...)"))

    def own(self, placeholder: object) -> None:
        """Check that a placeholder is of this flow.

        Raises:
            DeclarationError: It leaked out of another one.
        """
        trace = trace_of(placeholder)
        if trace is not None and trace is not self:
            what = label(placeholder)
            raise DeclarationError(
                f"{here()}: {what} belongs to flow {trace.flow!r}, and flow {self.flow!r} uses it",
                "placeholders live in the flow body that made them; pass the value as a parameter of the flow",
            )

    def reach(self, get: graph.Get) -> graph.Get:
        """A read as it looks from the current scope: what is outside is captured, level by level.

        Raises:
            DeclarationError: It reads into a body that it does not stand in.
        """
        inner: list[Scope] = []
        while not self._stands_in(get.node, inner[-1].outer if inner else self.scope):
            scope = inner[-1].outer if inner else self.scope
            if scope is None or scope.outer is None:
                raise self._foreign(get)
            inner.append(scope)
        name = capture_name(get) if inner else ""
        for scope in reversed(inner):
            get = scope.capture(name, get)
        return get

    def reach_value(self, value: graph.Value) -> graph.Value:
        """A value as it looks from the current scope."""
        return rewrite(value, self.reach)

    def reach_condition(self, condition: graph.Condition) -> graph.Condition:
        """A condition as it looks from the current scope."""
        return rewrite_condition(condition, self.reach)

    def _stands_in(self, node: str, scope: Scope | None) -> bool:
        home = self.places.get(node)
        return scope is not None and (home is scope or (home is None and scope.outer is None))

    def _foreign(self, get: graph.Get) -> DeclarationError:
        home = self.places[get.node]
        what = f"{get.node!r}" if get.node not in (home.entry, home.exit) else "the parameter of a body"
        name = home.id.partition(":")[0]
        return DeclarationError(
            f"{here()}: {what} stands in a body of {home.kind} {name!r}, and is seen outside only through the result "
            f"of {home.kind}(...)",
            "return it from the body, and use what the construct returns",
        )

    def order_after(self, node: str) -> tuple[str, ...]:
        """What a node of the current scope must wait for, so that it comes after a node of this or an outer one."""
        scope: Scope | None = self.scope
        opening: Draft | None = None
        while not self._stands_in(node, scope):
            if scope is None or scope.outer is None:
                raise self._foreign(graph.Get(node))
            scope, opening = scope.outer, scope.opening
        if opening is None:
            return (node,)
        if node not in opening.after:
            opening.after = (*opening.after, node)
        return ()

    def may_skip(self, get: graph.Get) -> bool:
        """Whether a read may give nothing, because its node, or what was captured, may be skipped."""
        if get.node in self.skippable:
            return True
        home = self.places.get(get.node)
        if home is None or get.node != home.entry or get.path[:1] != (CAPTURED,):
            return False
        return self.may_skip(home.captures[str(get.path[1])])

    def call(
        self, signature: Signature, node: str, args: tuple[Any, ...], kwargs: dict[str, Any], undo: bool = False
    ) -> Ref:
        """Write down a step call.

        Raises:
            DeclarationError: The arguments do not fit the parameters, or the name is taken.
        """
        what, service = signature.step, signature.service
        if self.used.setdefault((service, what), signature) != signature:
            raise DeclarationError(
                f"{here()}: step {what!r} of service {service!r} is declared twice with other types, "
                f"as {self.used[service, what]} and as {signature}"
            )
        if undo:
            self.undoable.add((service, what))
        lowered = self.arguments(signature, args, kwargs)
        name = self.add(Draft(node, "step", "", service, what, lowered, undo=undo), what)
        return self.ref(name, signature.returns)

    def arguments(self, signature: Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[graph.Arg, ...]:
        """The arguments of a call as values of the plan.

        Raises:
            DeclarationError: They do not fit the parameters.
        """
        try:
            given = signature.bind(args, kwargs)
        except Misfit as error:
            raise DeclarationError(f"{here()}: {error.message}", error.hint) from None
        return tuple(
            graph.Arg(p.name, self.lower(given[p.name], p.type, f"argument {p.name!r} of {signature.step}"))
            for p in signature.parameters
            if p.name in given
        )

    def lower(self, value: object, target: types.Type, what: str) -> graph.Value:
        """A value of the plan, checked against a type.

        Raises:
            DeclarationError: It does not fit.
        """
        try:
            return lower(self, value, target, what)
        except Misfit as error:
            raise DeclarationError(f"{here()}: {error.message}", error.hint) from None

    def add(self, draft: Draft, base: str) -> str:
        """Put a node into the current scope, under its own name or one made of `base`.

        Raises:
            DeclarationError: The name is taken, or no node can stand here.
        """
        site = here()
        if self.frozen:
            raise DeclarationError(
                f"{site}: {base} is called in {self.frozen}", "only fields and comparisons of values are allowed there"
            )
        scope, level = self.scope, self.level
        over = next((one.over for one in scope.levels if one.over), "")
        if over:
            raise DeclarationError(
                f"{site}: {base} is never reached: {over}() comes before it in any case",
                "put it before, or make the end conditional: `with when(...)`",
            )
        draft.id = self._claim(draft.id, base, site)
        level.ended = None
        draft.region, draft.guard, draft.after = scope.id, _guard(scope), (*level.after, *draft.after)
        if scope.outer is not None:
            self.places[draft.id] = scope
        gets = [get for arg in draft.args for get in graph.gets_of(arg.value)]
        if draft.kind == "either":
            lost = len(gets) == len(draft.args) and all(map(self.may_skip, gets))
        else:
            lost = any(self.may_skip(get) for get in gets if not get.optional)
        # What is not reached since the scope has ended gives nothing to anybody; a condition may be unknown, though.
        unknown = any(self.may_skip(get) for bar in scope.bars for get in graph.reads_of(bar))
        if level.guard is not None or lost or unknown:
            self.skippable.add(draft.id)
        self.drafts.append(draft)
        return draft.id

    def end(self, what: str) -> None:
        """What was just declared ends the scope, if the `with` blocks around it let it run: the rest is not reached."""
        guard = self.level.guard
        if guard is not None:
            self.scope.bars.append(graph.Not(guard))
        for level in self.scope.levels:
            if level.guard is guard:
                level.over = what

    def _claim(self, name: str, base: str, site: str) -> str:
        """The node's id: the explicit one, or the step's name, `_2`, `_3` and so on."""
        if name:
            if name in self.sites:
                raise DeclarationError(
                    f"{site}: a node named {name!r} is already there, from {self.sites[name]}", "give another name"
                )
        else:
            count = self.counters.get(base, 0) + 1
            name = base if count == 1 else f"{base}_{count}"
            while name in self.sites:
                count += 1
                name = f"{base}_{count}"
            self.counters[base] = count
            check_name(name, "node", site)
        self.sites[name] = site
        return name

    @contextmanager
    def block(self, guard: graph.Condition | None, after: tuple[str, ...]) -> Iterator[Level]:
        """Everything made inside has this guard and order too."""
        levels, outer = self.scope.levels, self.level
        outer.ended = None
        parts = tuple(part for part in (outer.guard, guard) if part is not None)
        both = joined(graph.And, parts) if len(parts) == 2 else parts[0] if parts else None
        levels.append(Level(both, tuple(dict.fromkeys((*outer.after, *after)))))
        try:
            yield outer
        finally:
            levels.pop()


def _guard(scope: Scope) -> graph.Condition | None:
    """The condition of the `with` blocks, and that nothing has ended the scope before."""
    guard = scope.levels[-1].guard
    known = guard.conditions if isinstance(guard, graph.And) else () if guard is None else (guard,)
    bars = tuple(bar for bar in scope.bars if bar not in known)
    parts = bars if guard is None else (*bars, guard)
    return joined(graph.And, parts) if len(parts) > 1 else parts[0] if parts else None


_current: ContextVar[Trace | None] = ContextVar("segue_trace", default=None)


def current() -> Trace | None:
    """The trace that runs in this context."""
    return _current.get()


@contextmanager
def tracing(trace: Trace) -> Iterator[None]:
    """Make a trace the current one."""
    token = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(token)


def inside(what: str) -> Trace:
    """The current trace.

    Raises:
        DeclarationError: There is none: `what` is used outside of a flow body.
    """
    trace = current()
    if trace is None:
        raise DeclarationError(f"{here()}: {what} is used outside of a flow body")
    return trace


def check_node_name(name: str, what: str, where: str) -> str:
    """Return `name` if a node may have it.

    Raises:
        DeclarationError: It cannot stand in a subject, or is reserved.
    """
    check_name(name, what, where)
    if name in RESERVED_NODES:
        raise DeclarationError(
            f"{where}: {what} name {name!r} is reserved: the run itself speaks under it", "choose another: name=..."
        )
    return name


def refuse_leaked(values: tuple[object, ...], what: str) -> None:
    """Refuse placeholders outside of a flow body.

    Raises:
        DeclarationError: One of the values is a placeholder.
    """
    if any(is_placeholder(value) for value in values):
        raise DeclarationError(
            f"{here()}: {what} is called with a placeholder outside of a flow body",
            "a placeholder has no value; call the step in the flow body, or with real values",
        )
