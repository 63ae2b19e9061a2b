"""Expressions while a flow is traced: values of the plan with their types, and what may be applied to what.

Operators are checked here, at build, as far as the types tell; what is `Any` is looked at when the flow runs.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, get_args

import msgspec

from segue.errors import DeclarationError
from segue.model import types
from segue.model.site import here
from segue.plan import graph
from segue.plan.expression import Operator
from segue.plan.words import describe_value, shorten

if TYPE_CHECKING:
    from segue.model.tracing import Trace

Comparison = Literal["==", "!=", "<", "<=", ">", ">="]
Sort = Literal["any", "int", "float", "bool", "str", "none", "list", "mapping", "other"]
"""What an operator distinguishes."""

DEPTH_LIMIT = 100
"""Levels of an expression; below that of plans, since guards are put together of several."""
SIZE_LIMIT = 10_000
"""Values and operators in an expression."""
_LABEL = 60

STEP = "compute it in a step or a @compute function, and use its result here"
NO_NONE = "say what stands for None: expr.default({}, ...)"
_NUMBERS: frozenset[Sort] = frozenset({"int", "float"})


class Operand(NamedTuple):
    """A value in an expression.

    Attributes:
        trace: The flow that it is of; None of a constant.
        value: What it is in the plan.
        type: Its type.
        name: What it is called in messages; empty to show the value.
        size: How many values and operators it is made of.
        depth: How many levels it has.
    """

    trace: Trace | None
    value: graph.Value
    type: types.Type
    name: str = ""
    size: int = 1
    depth: int = 1

    @property
    def label(self) -> str:
        """What it is called in messages."""
        return self.name or shorten(describe_value(self.value), _LABEL)


def sorts(tp: types.Type) -> frozenset[Sort]:
    """What the values of a type are to an operator."""
    return frozenset(sort for member in types.members(tp) for sort in _sorts(member))


_SORTS: dict[Any, Sort] = {Any: "any", bool: "bool", int: "int", float: "float", str: "str", types.NONE: "none"}


def _sorts(member: types.Type) -> Iterable[Sort]:
    if member in _SORTS:
        return (_SORTS[member],)
    outer = types.origin(member)
    if outer is Literal:
        return frozenset(sort for value in get_args(member) for sort in sorts(type(value)))
    if isinstance(outer, type) and issubclass(outer, enum.Enum):
        return ("int",) if issubclass(outer, int) else ("str",) if issubclass(outer, str) else ("other",)
    if types.array_item(member) is not None:
        return ("list",)
    return ("other",) if types.mapping_types(member) is None else ("mapping",)


def apply(name: Operator, *operands: Operand, shown: str = "") -> Operand:
    """An operator applied to operands, with the type of its result.

    Args:
        name: The operator.
        operands: What it is applied to.
        shown: What users call it; the operator in backquotes by default.

    Raises:
        DeclarationError: Their types do not fit it, they are of different flows, or the expression is too large.
    """
    shown = shown or f"`{name}`"
    tp = _RULES[name](shown, operands)
    args = tuple(operand.value for operand in operands)
    first = args[0]
    if name in ("+", "*") and isinstance(first, graph.Op) and first.name == name:
        # a + b + c is one sum, so that a long one is not a deep one.
        flat = operands[0]._replace(depth=operands[0].depth - 1)
        return gather(shown, graph.Op(name, (*first.args, *args[1:])), tp, (flat, *operands[1:]))
    return gather(shown, graph.Op(name, args), tp, operands)


def gather(shown: str, value: graph.Value, tp: types.Type, parts: Iterable[Operand]) -> Operand:
    """An operand made of others.

    Raises:
        DeclarationError: They are of different flows, or it is too large.
    """
    parts = tuple(parts)
    size = 1 + sum(part.size for part in parts)
    depth = 1 + max((part.depth for part in parts), default=0)
    if size > SIZE_LIMIT or depth > DEPTH_LIMIT:
        raise DeclarationError(
            f"{here()}: this expression is too large: {size:,} parts (at most {SIZE_LIMIT:,}) in {depth} levels "
            f"(at most {DEPTH_LIMIT})",
            STEP,
        )
    return Operand(one_trace(shown, parts), value, tp, "", size, depth)


def one_trace(shown: str, parts: Iterable[Operand]) -> Trace | None:
    """The flow that the parts are of.

    Raises:
        DeclarationError: There are two.
    """
    traces = {id(part.trace): part.trace for part in parts if part.trace is not None}
    if len(traces) > 1:
        raise DeclarationError(
            f"{here()}: {shown} takes placeholders of two different flows",
            "placeholders live in the flow body that made them; pass the value as a parameter of the flow",
        )
    return next(iter(traces.values()), None)


def refuse(shown: str, operands: Iterable[Operand], hint: str = "") -> NoReturn:
    """Say that the types of operands do not fit, and what to do.

    Raises:
        DeclarationError: Always.
    """
    operands = tuple(operands)
    named = " and ".join(f"{operand.label}, which is {types.show(operand.type)}" for operand in operands)
    raise DeclarationError(f"{here()}: {shown} cannot be applied to {named}", hint or _hint(operands))


def _hint(operands: Iterable[Operand]) -> str:
    for operand in operands:
        found = sorts(operand.type)
        if "none" in found and len(found) > 1:
            return NO_NONE.format(operand.label)
        if found == {"other"} and msgspec.json.schema(operand.type).get("type") == "string":
            return f"{types.show(operand.type)} travels as a text, so it cannot be computed with here; {STEP}"
        if found == {"bool"}:
            return "True and False are no numbers: expr.choose(condition, value, other) makes one of them"
    if any("str" in sorts(operand.type) for operand in operands):
        return 'a text is made with expr.text("... {} ...", value)'
    return STEP


def _all(operands: Iterable[Operand], allowed: frozenset[Sort]) -> bool:
    return all(sorts(operand.type) <= allowed | {"any"} for operand in operands)


def _number(found: Iterable[types.Type]) -> types.Type:
    """The type of what is computed of numbers."""
    known = frozenset(sort for tp in found for sort in sorts(tp))
    return Any if "any" in known else int if known <= {"int"} else float


Rule = Callable[[str, tuple[Operand, ...]], types.Type]


def _numbers(shown: str, operands: tuple[Operand, ...]) -> types.Type:
    if not _all(operands, _NUMBERS):
        refuse(shown, operands)
    return _number(operand.type for operand in operands)


def _quotient(shown: str, operands: tuple[Operand, ...]) -> types.Type:
    _numbers(shown, operands)
    return float


def _rounded(shown: str, operands: tuple[Operand, ...]) -> types.Type:
    tp = _numbers(shown, operands[:1])
    if not _all(operands[1:], frozenset({"int"})):
        refuse(shown, operands)
    return tp if len(operands) > 1 else int


def _plus(shown: str, operands: tuple[Operand, ...]) -> types.Type:
    if any(operand.type is Any for operand in operands) and all(
        len(sorts(operand.type) & {"none", "bool", "mapping", "other"}) == 0 for operand in operands
    ):
        return Any
    if _all(operands, _NUMBERS):
        return _number(operand.type for operand in operands)
    if _all(operands, frozenset({"str"})):
        return str
    if not _all(operands, frozenset({"list"})):
        refuse(shown, operands)
    parts = [item_of(shown, operand) for operand in operands]
    return list[types.union(parts)]  # type: ignore[misc]


def item_of(shown: str, operand: Operand) -> types.Type:
    """Type of the items of a list.

    Raises:
        DeclarationError: It is no list, or may be None, or its items have no order.
    """
    if operand.type is Any:
        return Any
    found = [types.array_item(member) for member in types.members(operand.type)]
    if None in found:
        refuse(shown, (operand,))
    return types.union(found)


def _summed(shown: str, operands: tuple[Operand, ...]) -> types.Type:
    item = item_of(shown, operands[0])
    if not sorts(item) <= _NUMBERS | {"any"}:
        refuse(shown, operands)
    return _number((item,))


def _extreme(shown: str, operands: tuple[Operand, ...]) -> types.Type:
    item = item_of(shown, operands[0])
    found = sorts(item)
    if found <= _NUMBERS | {"any"}:
        return _number((item,))
    if not found <= {"str", "any"}:
        refuse(shown, operands)
    return Any if "any" in found else str


def _takes(result: types.Type, *allowed: set[Sort]) -> Rule:
    """A rule for operators that take fixed sorts, and give one type."""

    def rule(shown: str, operands: tuple[Operand, ...]) -> types.Type:
        wanted = (*allowed, *(allowed[-1:] * (len(operands) - len(allowed))))
        if not all(_all((one,), frozenset(sort)) for one, sort in zip(operands, wanted, strict=True)):
            refuse(shown, operands)
        return result

    return rule


def _contained(shown: str, operands: tuple[Operand, ...]) -> types.Type:
    container, item = operands
    found = sorts(container.type)
    if not found <= {"list", "mapping", "str", "any"}:
        refuse(shown, (container,))
    if "str" in found or "mapping" in found:
        if not _all((item,), frozenset({"str"})):
            refuse(shown, operands)
    elif "any" not in found:
        of_items = item._replace(type=item_of(shown, container), name=f"an item of {container.label}")
        check_comparable(item, "==", of_items)
    return bool


def _joined(shown: str, operands: tuple[Operand, ...]) -> types.Type:
    if not sorts(item_of(shown, operands[0])) <= {"str", "any"} or not _all(operands[1:], frozenset({"str"})):
        refuse(shown, operands)
    return str


def _chosen(shown: str, operands: tuple[Operand, ...]) -> types.Type:
    if not _all(operands[:1], frozenset({"bool"})):
        refuse(shown, operands[:1], "the first is the condition: compare something")
    return types.union([operand.type for operand in operands[1:]])


def _defaulted(shown: str, operands: tuple[Operand, ...]) -> types.Type:
    known = [member for member in types.members(operands[0].type) if member is not types.NONE]
    return types.union([*known, operands[1].type])


_WORDS = _takes(str, {"str"})
_RULES: dict[Operator, Rule] = {
    "+": _plus,
    "-": _numbers,
    "*": _numbers,
    "/": _quotient,
    "//": _numbers,
    "%": _numbers,
    "neg": _numbers,
    "abs": _numbers,
    "round": _rounded,
    "sum": _summed,
    "min": _extreme,
    "max": _extreme,
    "length": _takes(int, {"str", "list", "mapping"}),
    "contains": _contained,
    "text": _takes(str, {"str", "int", "float", "bool"}),
    "join": _joined,
    "split": _takes(list[str], {"str"}),
    "lower": _WORDS,
    "upper": _WORDS,
    "strip": _WORDS,
    "starts_with": _takes(bool, {"str"}),
    "ends_with": _takes(bool, {"str"}),
    "if": _chosen,
    "default": _defaulted,
}


def compare(op: Comparison, left: Operand, right: Operand) -> graph.Compare:
    """A comparison.

    Raises:
        DeclarationError: It would never be known, or means something else in JSON, or the two are of different flows.
    """
    if isinstance(right.value, graph.Const) and left.type is not Any and op in ("==", "!="):
        try:
            msgspec.convert(right.value.value, left.type, str_keys=True)
        except (TypeError, ValueError):
            raise DeclarationError(
                f"{here()}: {left.label} is {types.show(left.type)}; `{op} {right.label}` compares it with what it "
                f"never is"
            ) from None
    one_trace(f"`{op}`", (left, right))
    check_comparable(left, op, right)
    return graph.Compare(op, left.value, right.value)


def check_comparable(left: Operand, op: Comparison, right: Operand) -> None:
    """Refuse comparisons that would always be unknown, or that mean something else in JSON.

    Raises:
        DeclarationError: It is such a comparison.
    """
    if left.type is Any or right.type is Any:
        return
    equality = op in ("==", "!=")
    if equality and right.type is types.NONE and types.admits_none(left.type):
        return
    known = types.kinds if equality else types.ordered
    ours, theirs = known(left.type), known(right.type)
    for found, side in ((ours, left), (theirs, right)):
        if found is None:
            raise DeclarationError(
                f"{here()}: `{op}` cannot compare {side.label}, which is {types.show(side.type)}",
                "numbers, strings, booleans, enums, UUIDs, dates and None can be compared; compare a field, or "
                "decide in a step that returns a bool",
            )
    if not _fits(op, ours or frozenset(), theirs or frozenset()):
        raise DeclarationError(
            f"{here()}: `{op}` cannot compare {left.label}, which is {types.show(left.type)}, "
            f"with {right.label}, which is {types.show(right.type)}"
        )


def _fits(op: Comparison, ours: frozenset[types.Kind], theirs: frozenset[types.Kind]) -> bool:
    if op in ("==", "!="):
        return bool(ours & theirs)
    values = ours - {"null"}
    return values == theirs - {"null"} and values in ({"number"}, {"string"})
