"""Regions: what all constructs have in common. A construct is opened, its bodies are traced, and it is closed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from segue.errors import DeclarationError
from segue.model import types
from segue.model.drafts import Draft, Scope
from segue.model.infer import type_of
from segue.model.returns import check_guarded, check_reached
from segue.model.signature import Misfit
from segue.model.site import here
from segue.model.tracing import Trace, check_node_name, inside
from segue.model.values import lower_result
from segue.plan import graph
from segue.plan.names import entering, leaving, opening, settling, watching


class Body(NamedTuple):
    """A body that has been traced.

    Attributes:
        region: Its region.
        type: Type of its result.
        skippable: Whether it may have none.
        raises: Whether it never gives one, since it raises.
    """

    region: str
    type: types.Type
    skippable: bool
    raises: bool


class Opened:
    """A construct whose bodies are being traced.

    Args:
        what: What users call it, as `each`.
        name: Its name; empty for `what`, `what_2` and so on.
        args: What its `open` takes.

    Raises:
        DeclarationError: It stands outside of a flow body, or the name is bad or taken.
    """

    def __init__(self, what: str, name: str, args: tuple[graph.Arg, ...] = ()) -> None:
        self.trace: Trace = inside(f"{what}()")
        self.what = what
        trace = self.trace
        if name:
            check_node_name(name, "node", here())
        draft = Draft(name, "open", "", args=args)
        self.id = trace.add(draft, what)
        self.open = draft
        draft.construct = self.id
        draft.id = opening(self.id)
        if trace.places.pop(self.id, None) is not None:
            trace.places[draft.id] = trace.scope
        self.skippable = self.id in trace.skippable
        trace.skippable.discard(self.id)
        trace.constructs[self.id] = None
        self._captures: dict[str, graph.Get] = {}

    def timer(self, timeout: float) -> None:
        """Watch the time of the body that is traced next."""
        self._gate(Draft(watching(self.id), "timer", self.trace.scope.id, after=(self.open.id,), timeout=timeout))

    def body(
        self, suffix: str, fn: Callable[..., Any], *, takes: Sequence[types.Type] = (), fewer: bool = False
    ) -> Body:
        """Trace a body in a region of its own.

        Args:
            suffix: Tells the region from the others of the construct.
            fn: The body.
            takes: Type of what it is called with, if anything.
            fewer: Whether it may also be a function without parameters.

        Raises:
            DeclarationError: It is not such a function, or does what cannot be compiled.
        """
        names = check_body(fn, f"{self.what}()", len(takes), fewer)
        check_reached(fn)
        region = f"{self.id}:{suffix}"
        outer = self.trace.scope
        scope = self._scope(region)
        self.trace.regions.append(graph.Region(region, scope.entry, scope.exit, outer.id, self.id))
        self.trace.scope = scope
        try:
            self._gate(Draft(scope.entry, "entry", region))
            given = [self.trace.ref(scope.entry, tp, name, "value") for tp, name in zip(takes, names, strict=False)]
            return self._leave(scope, fn, fn(*given))
        finally:
            self.trace.scope = outer

    def after_round(self, body: Body, fn: Callable[..., Any]) -> object:
        """What a function says of the value of a body's exit; no node may be made in it."""
        (name,) = check_body(fn, "the `until` of repeat()", 1, False) or ("value",)
        outer, scope = self.trace.scope, self.trace.places[leaving(body.region)]
        self.trace.scope, self.trace.frozen = scope, f"the `until` of {self.what} {self.id!r}"
        try:
            return fn(self.trace.ref(scope.exit, body.type, name))
        finally:
            self.trace.scope, self.trace.frozen = outer, ""

    def close(self, construct: graph.Construct, result: types.Type, *, skippable: bool = False) -> Any:
        """Close the construct.

        Args:
            construct: Its final form.
            result: Type of its outcome.
            skippable: Whether it may be skipped although it was opened.
        """
        trace = self.trace
        captured = tuple(graph.Arg(f"with.{name}", get) for name, get in self._captures.items())
        self.open.args = (*self.open.args, *captured)
        trace.constructs[self.id] = construct
        self._gate(Draft(self.id, "close", trace.scope.id))
        if construct.kind == "race":
            self._gate(Draft(settling(self.id), "settle", trace.scope.id))
        if self.skippable or skippable:
            trace.skippable.add(self.id)
        return trace.ref(self.id, result)

    def _scope(self, region: str) -> Scope:
        return Scope(
            region, entering(region), leaving(region), self.trace.scope, self.open, self.what, captures=self._captures
        )

    def _gate(self, draft: Draft) -> None:
        draft.construct = self.id
        if self.trace.scope.outer is not None:
            self.trace.places[draft.id] = self.trace.scope
        self.trace.drafts.append(draft)

    def _leave(self, scope: Scope, fn: Callable[..., Any], returned: object) -> Body:
        trace, tp = self.trace, type_of(returned)
        args: tuple[graph.Arg, ...] = ()
        skippable = False
        if returned is not None:
            try:
                value = lower_result(trace, returned, Any, f"the result of a body of {self.what}()")
            except Misfit as error:
                raise DeclarationError(f"{here()}: {error.message}", error.hint) from None
            check_guarded(trace, fn, value)
            skippable = isinstance(value, graph.Get) and trace.may_skip(value)
            args = (graph.Arg("result", value),)
        self._gate(Draft(scope.exit, "exit", scope.id, args=args))
        return Body(scope.id, tp, skippable, bool(scope.over) and returned is None)


def check_body(fn: object, what: str, takes: int, fewer: bool) -> tuple[str, ...]:
    """The names of a body's parameters.

    Raises:
        DeclarationError: It is no plain function, or takes another number of arguments.
    """
    if not callable(fn):
        raise DeclarationError(
            f"{here()}: {what} needs a function as its body, got {fn!r}", "give a function or a lambda"
        )
    if inspect.iscoroutinefunction(fn) or inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise DeclarationError(
            f"{here()}: a body of {what} must be a plain function",
            "it is traced, not run: write `def`, and call the steps without `await` or `yield`",
        )
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return ("value",) * takes
    plain = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = sum(p.default is p.empty for p in plain) + sum(
        p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters
    )
    many = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    most = takes if many else len(plain)
    if fewer and not plain and not many:
        return ()
    if needed > takes or most < takes:
        wanted = {0: "no arguments", 1: "one argument"}[takes]
        raise DeclarationError(f"{here()}: a body of {what} is called with {wanted}, but takes {needed or 'none'}")
    return tuple(p.name for p in plain[:takes]) or ("value",) * takes
