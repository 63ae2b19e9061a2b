"""`return` in a `with` block of a body: it ends the tracing, though what it stands in is only a part of the flow.

The block is entered in any case, since a body is traced, not run. So what is declared behind such a block is not
declared at all, and a value that does not come from the block is returned whether its condition holds or not. Neither
can be seen while the body is traced; its source says it. Where there is none (a prompt, `exec`), nothing is checked.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Sequence
from functools import cache
from types import CodeType
from typing import TYPE_CHECKING, Any

from segue.errors import DeclarationError
from segue.plan.graph import Value, gets_of

if TYPE_CHECKING:
    from segue.model.tracing import Trace

_GUARDS = frozenset({"when", "otherwise"})
_BLOCKS = _GUARDS | {"after"}


def check_reached(fn: Callable[..., Any]) -> None:
    """Refuse a body with statements behind a `with` block that returns.

    Raises:
        DeclarationError: It has some.
    """
    found = _returns(fn)
    if found is not None and found.lost:
        raise DeclarationError(
            f"{_file(fn)}:{found.lost}: this is never declared: the `return` in the `with` block before it ends the "
            f"body, which is traced and enters every block",
            "name the results of the blocks, and return either(a, b) behind them",
        )


def check_guarded(trace: Trace, fn: Callable[..., Any], value: Value) -> None:
    """Refuse a value that a `with when` block returns and that does not come from the block.

    Args:
        trace: The flow.
        fn: The body that returned it.
        value: The value.

    Raises:
        DeclarationError: It is such a value.
    """
    found = _returns(fn)
    if found is not None and found.guarded and not any(trace.may_skip(get) for get in gets_of(value)):
        raise DeclarationError(
            f"{_file(fn)}:{found.guarded}: this is returned whether the condition of the `with` block holds or not",
            "return expr.choose(condition, a, b), or what a step in the block gives",
        )


class _Returns:
    """Where a body returns from within its `with` blocks.

    Attributes:
        lost: Line of the first statement that such a return cuts off; 0 if there is none.
        guarded: Line of the last return, if it stands in a `with when` or `otherwise` block; else 0.
    """

    def __init__(self, body: Sequence[ast.stmt], offset: int) -> None:
        self._offset = offset
        self.lost = self._lost(body)
        self.guarded = self._guarded(body)

    def _lost(self, body: Sequence[ast.stmt]) -> int:
        for i, statement in enumerate(body):
            block = _block(statement)
            if block is None:
                continue
            if i + 1 < len(body) and _leaves(block):
                return body[i + 1].lineno + self._offset
            if line := self._lost(block.body):
                return line
        return 0

    def _guarded(self, body: Sequence[ast.stmt], guarded: bool = False) -> int:
        last = body[-1]
        if isinstance(last, ast.Return):
            return last.lineno + self._offset if guarded else 0
        block = _block(last)
        return 0 if block is None else self._guarded(block.body, guarded or bool(_called(block) & _GUARDS))


def _returns(fn: Callable[..., Any]) -> _Returns | None:
    code = getattr(inspect.unwrap(fn), "__code__", None)
    return None if code is None or code.co_name == "<lambda>" else _read(code)


@cache
def _read(code: CodeType) -> _Returns | None:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, TypeError, SyntaxError):
        return None
    found = tree.body[0]
    return _Returns(found.body, code.co_firstlineno - 1) if isinstance(found, ast.FunctionDef) else None


def _block(statement: ast.stmt) -> ast.With | None:
    """The `with` block of guards and orders that a statement is; it never keeps what follows from being reached."""
    return statement if isinstance(statement, ast.With) and _called(statement) <= _BLOCKS else None


def _called(block: ast.With) -> frozenset[str]:
    """What the contexts of a `with` block call, whatever module they are called through."""
    calls = [getattr(item.context_expr, "func", None) for item in block.items]
    return frozenset(getattr(call, "attr", "") or getattr(call, "id", "") for call in calls)


def _leaves(statement: ast.stmt) -> bool:
    """Whether a statement returns in any case."""
    block = _block(statement)
    return isinstance(statement, ast.Return) or (block is not None and _leaves(block.body[-1]))


def _file(fn: Callable[..., Any]) -> str:
    return str(inspect.unwrap(fn).__code__.co_filename)
