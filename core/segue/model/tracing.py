"""Tracing: a flow body runs once, and what it calls is written down as drafts of nodes.

The guards and orders of the `with` blocks around a call apply to the node that it makes. A draft is a node of the plan
without what is known only at the end: the owner of an `either`, and the home.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, overload

import msgspec

from segue.errors import DeclarationError
from segue.model import types
from segue.model.refs import Condition, Ref, Source, condition_of, is_ref, joined
from segue.model.signature import Misfit, Parameter, Signature
from segue.model.site import here
from segue.model.values import lower
from segue.names import RESERVED_NODES, check_name
from segue.plan import graph

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
T = TypeVar("T")


class Draft(msgspec.Struct):
    """A node as it was called: `owner` is empty for an `either`, whose owner its consumers tell."""

    id: str
    kind: graph.Kind
    owner: str
    step: str
    args: tuple[graph.Arg, ...]
    guard: graph.Condition | None
    after: tuple[str, ...]


class Level(msgspec.Struct):
    """A `with` block: what it adds, and the condition of the `when` that has just ended in it, for `otherwise`."""

    guard: graph.Condition | None
    after: tuple[str, ...]
    ended: graph.Condition | None = None


class Trace(msgspec.Struct):
    """The tracing of one flow body."""

    flow: str
    drafts: list[Draft] = []
    used: dict[tuple[str, str], Signature] = {}
    sites: dict[str, str] = {}
    counters: dict[str, int] = {}
    skippable: set[str] = set()
    levels: list[Level] = msgspec.field(default_factory=lambda: [Level(None, ())])
    frozen: str = ""

    def parameter(self, parameter: Parameter) -> Any:
        """The placeholder of a parameter of the flow."""
        return Ref(Source(self, graph.ENTRY, (parameter.name,), parameter.type, parameter.name))

    def own(self, placeholder: Ref | Condition) -> None:
        """Check that a placeholder is of this flow.

        Raises:
            DeclarationError: It leaked out of another one.
        """
        trace = placeholder._segue.trace if type(placeholder) is Ref else placeholder._trace
        if trace is not self:
            what = placeholder._segue.label if type(placeholder) is Ref else "a condition"
            raise DeclarationError(
                f"{here()}: {what} belongs to flow {trace.flow!r}, and flow {self.flow!r} uses it",
                "placeholders live in the flow body that made them; pass the value as a parameter of the flow",
            )

    def call(self, signature: Signature, node: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Ref:
        """Write down a step call.

        Raises:
            DeclarationError: The arguments do not fit the parameters, or the name is taken.
        """
        what = signature.step
        if self.used.setdefault((signature.service, what), signature) != signature:
            raise DeclarationError(
                f"{here()}: step {what!r} of service {signature.service!r} is declared twice with other types, "
                f"as {self.used[signature.service, what]} and as {signature}"
            )
        try:
            given = signature.bind(args, kwargs)
        except Misfit as error:
            raise DeclarationError(f"{here()}: {error.message}", error.hint) from None
        lowered = tuple(
            graph.Arg(p.name, self._lower(given[p.name], p.type, f"argument {p.name!r} of {what}"))
            for p in signature.parameters
            if p.name in given
        )
        name = self._add("step", node, what, lowered, signature.service)
        return Ref(Source(self, name, (), signature.returns, f"{name}(...)"))

    def either(self, choices: tuple[object, ...], node: str) -> Ref:
        """Write down an `either`.

        Raises:
            DeclarationError: Fewer than two choices, or a choice that is no placeholder and not the last.
        """
        if len(choices) < 2:
            raise DeclarationError(f"{here()}: either() needs two or more choices, got {len(choices)}")
        args, found = [], []
        for i, choice in enumerate(choices):
            if type(choice) is Ref:
                found.append(choice._segue.type)
            elif i < len(choices) - 1:
                raise DeclarationError(
                    f"{here()}: choice {i + 1} of either() is {choice!r}, so the next one is never taken",
                    "put the constant last",
                )
            else:
                found.append(type(choice))
            value = self._lower(choice, types.union([found[-1], types.NONE]), f"choice {i + 1} of either()")
            if not isinstance(value, graph.Get | graph.Const):
                raise DeclarationError(f"{here()}: choice {i + 1} of either() must be a placeholder or a constant")
            args.append(graph.Arg(str(i + 1), _optional(value)))
        name = self._add("either", node, "either", tuple(args), "")
        return Ref(Source(self, name, (), types.union(found), f"{name}(...)"))

    def _lower(self, value: object, target: types.Type, what: str) -> graph.Value:
        try:
            return lower(self, value, target, what)
        except Misfit as error:
            raise DeclarationError(f"{here()}: {error.message}", error.hint) from None

    def _add(self, kind: graph.Kind, name: str, base: str, args: tuple[graph.Arg, ...], owner: str) -> str:
        site = here()
        if self.frozen:
            raise DeclarationError(
                f"{site}: {base} is called in {self.frozen}", "only fields of inputs are allowed there"
            )
        name = self._claim(name, base, site)
        level = self.levels[-1]
        level.ended = None
        gets = [get for arg in args for get in graph.gets_of(arg.value)]
        reads = {get.node for get in (*gets, *(graph.reads_of(level.guard) if level.guard is not None else ()))}
        after = tuple(up for up in level.after if up not in reads)
        if not reads and not after:
            after = (graph.ENTRY,)
        if kind == "either":
            lost = len(gets) == len(args) and all(get.node in self.skippable for get in gets)
        else:
            lost = any(get.node in self.skippable for get in gets if not get.optional)
        if level.guard is not None or lost:
            self.skippable.add(name)
        step = base if kind == "step" else ""
        self.drafts.append(Draft(name, kind, owner, step, args, level.guard, after))
        return name

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
        outer = self.levels[-1]
        outer.ended = None
        parts = tuple(part for part in (outer.guard, guard) if part is not None)
        both = joined(graph.And, parts) if len(parts) == 2 else parts[0] if parts else None
        self.levels.append(Level(both, tuple(dict.fromkeys((*outer.after, *after)))))
        try:
            yield outer
        finally:
            self.levels.pop()


def _optional(value: graph.Value) -> graph.Value:
    return graph.Get(value.node, value.path, True) if isinstance(value, graph.Get) else value


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


def _inside(what: str) -> Trace:
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


@contextmanager
def when(condition: int) -> Iterator[None]:
    """Run what is called inside only if a condition holds; the rest is skipped, and what needs a skipped value too.

    Args:
        condition: A comparison of placeholders (`order.total > 1000`), a boolean one, or several, joined by `&` and
            `|` or negated by `~`. (Type checkers see a `bool`, and an `int` behind `~`.) It is unknown, which counts as
            false, if it reads a skipped value.

    Raises:
        DeclarationError: It is no condition, or a constant, or of another flow.
    """
    trace = _inside("when()")
    found = condition_of(condition, "when()")
    trace.own(found)
    with trace.block(found._condition, ()) as outer:
        yield
    outer.ended = found._condition


@contextmanager
def otherwise() -> Iterator[None]:
    """Run what is called inside only if the condition of the `when` block just before is false.

    An unknown condition skips both blocks.

    Raises:
        DeclarationError: It does not directly follow a `when` block of the same level.
    """
    trace = _inside("otherwise()")
    ended = trace.levels[-1].ended
    if ended is None:
        raise DeclarationError(
            f"{here()}: otherwise() does not directly follow a `when` block",
            "put it right behind the block, at the same level, with no step call in between",
        )
    with trace.block(graph.Not(ended), ()):
        yield


@contextmanager
def after(*refs: object) -> Iterator[None]:
    """Start what is called inside only when these are final: order without data.

    A skipped one does not hold it up; a failed one aborts it.

    Args:
        refs: Results of step calls, also of steps that return nothing.

    Raises:
        DeclarationError: No placeholder, or one of another flow.
    """
    trace = _inside("after()")
    if not refs:
        raise DeclarationError(f"{here()}: after() needs the result of a step call, or several")
    nodes = []
    for ref in refs:
        if type(ref) is not Ref:
            what = "a condition" if type(ref) is Condition else repr(ref)
            raise DeclarationError(
                f"{here()}: after() takes results of step calls, got {what}", "for a list: after(*refs)"
            )
        trace.own(ref)
        nodes.append(ref._segue.node)
    with trace.block(None, tuple(nodes)):
        yield


@overload
def either(first: A, second: B, /, *, name: str = "") -> A | B: ...
@overload
def either(first: A, second: B, third: C, /, *, name: str = "") -> A | B | C: ...
@overload
def either(first: A, second: B, third: C, fourth: D, /, *, name: str = "") -> A | B | C | D: ...
@overload
def either(*choices: T, name: str = "") -> T: ...
def either(*choices: Any, name: str = "") -> Any:
    """The first choice that completed, in the declared order (not in time); skipped if all are.

    A failed choice aborts it: it is a choice between branches, no error handling.

    Args:
        choices: Results of step calls or fields of them; the last may be a constant, the default.
        name: Name of the node, instead of `either`, `either_2` ...

    Raises:
        DeclarationError: Fewer than two choices, or a constant that is not the last.
    """
    trace = _inside("either()")
    if name:
        check_node_name(name, "node", here())
    return trace.either(choices, name)


def refuse_leaked(values: tuple[object, ...], what: str) -> None:
    """Refuse placeholders outside of a flow body.

    Raises:
        DeclarationError: One of the values is a placeholder.
    """
    if any(is_ref(value) for value in values):
        raise DeclarationError(
            f"{here()}: {what} is called with a placeholder outside of a flow body",
            "a placeholder has no value; call the step in the flow body, or with real values",
        )
