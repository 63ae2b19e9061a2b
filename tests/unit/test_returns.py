"""`return` in a `with` block: what would silently be another flow than it looks like is refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import pytest

import segue
from segue import DeclarationError, Service, after, attempt, each, either, flow, otherwise, raise_, repeat, when
from segue.testing.everywhere import everywhere

shop = Service("shop")


class Found(msgspec.Struct):
    n: int
    large: bool


@shop.step
async def large(n: int) -> str:
    return "large"


@shop.step
async def small(n: int) -> str:
    return "small"


def both(n: int) -> str:
    with when(n > 5):
        return large(n)
    with otherwise():  # lost
        return small(n)


def constant_first(n: int) -> str:
    with segue.when(n > 5):
        large(n)
        return "large"
    return "small"  # lost


def nested(n: int) -> str:
    first = small(n)
    with after(first):
        with when(n > 5):
            return large(n)
    small(n)  # lost
    return first


def in_a_block(n: int) -> str:
    first = small(n)
    with when(n > 5):
        with after(first):
            return large(n)
        small(n)  # lost


def in_a_loop(n: int) -> int:
    def turn(at: int) -> int:
        with when(at > 5):
            return at
        with after(large(at)):  # lost
            return at + 1

    return repeat(turn, n, until=lambda at: at > 7, cap=9)


def in_a_handler(n: int) -> str:
    def handle() -> str:
        with when(n > 5), after(small(n)):
            return small(n)
        return small(n)  # lost

    return attempt(lambda: large(n), {ValueError: handle})


def constant(n: int) -> str | None:
    large(n)
    with when(n > 5):
        return "large"  # kept


def field(n: int) -> int:
    large(n)
    with when(n > 5), after(small(n)):
        return n  # kept


def struct_in_a_map(n: int) -> list[Found]:
    def body(m: int) -> Found:
        large(m)
        with when(m > 5):
            return Found(m, True)  # kept

    return each([n], body)


def in_otherwise(n: int) -> str:
    with when(n > 5):
        raise_("Large")
    with otherwise():
        small(n)
        return "small"  # kept


@pytest.mark.parametrize(
    "body",
    [both, constant_first, nested, in_a_block, in_a_loop, in_a_handler, constant, field, struct_in_a_map, in_otherwise],
)
def test_what_is_not_what_it_looks_like_is_refused(body: Callable[[int], Any]) -> None:
    lines = Path(__file__).read_text().splitlines()
    begin = body.__code__.co_firstlineno
    line = next(i for i, text in enumerate(lines[begin:], begin + 1) if text.endswith(("# lost", "# kept")))
    what = "this is never declared" if lines[line - 1].endswith("lost") else "this is returned whether"
    with pytest.raises(DeclarationError) as caught:
        _ = flow(body).plan
    assert caught.value.message.startswith(f"{__file__}:{line}: {what}")


def last_block(n: int) -> str | None:
    with when(n > 5):
        return large(n)


def constant_in_order(n: int) -> str:
    with after(large(n)):
        return "done"


def constant_in_order_of_a_block(n: int) -> str:
    with when(n > 5):
        found = large(n)
    with after(found):
        return "done"


def other_context(n: int) -> str:
    with nullcontext():
        found = small(n)
    with nullcontext(), when(n > 5):
        other = large(n)
    return either(other, found)


LARGE = True


def chosen_in_python(n: int) -> str:
    with after(large(n)):
        if LARGE:
            return small(n)
    return large(n)


def inner_function(n: int) -> str:
    with when(n > 5):

        def inner() -> str:
            return "not mine"

        large(n)
    return inner() and small(n)


def raised(n: int) -> str:
    with when(n > 500):
        raise_("Large")
    return small(n)


@pytest.mark.parametrize(
    ("body", "values"),
    [
        (last_block, (None, "large")),
        (constant_in_order, ("done", "done")),
        (constant_in_order_of_a_block, ("done", "done")),
        (other_context, ("small", "large")),
        (chosen_in_python, ("small", "small")),
        (inner_function, ("small", "small")),
        (raised, ("small", "small")),
    ],
)
def test_what_is_what_it_looks_like_is_not(body: Callable[[int], Any], values: tuple[Any, Any]) -> None:
    declared = flow(body)
    app = segue.App("returns", flows=[declared], services=[shop])
    found = tuple(everywhere(app, declared, n, seeds=[None]).value for n in (1, 9))
    assert found == values


def test_a_body_without_source_is_not_looked_at() -> None:
    space: dict[str, Any] = {"when": when, "large": large, "small": small}
    exec("def body(n: int) -> str:\n    with when(n > 5):\n        return large(n)\n    return small(n)\n", space)
    assert [node.id for node in flow(space["body"]).plan.nodes if node.kind == "step"] == ["large"]
