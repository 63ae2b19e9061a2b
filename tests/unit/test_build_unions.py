"""Fields of values that may be of several types, or that are arrays in JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Struct, field

from segue import DeclarationError, Service, either, flow
from segue.plan.graph import Get

shop = Service("shop")


class Row(Struct, array_like=True, tag="row"):
    a: int
    b: str


class Parent(Struct):
    x: int


class Cat(Struct, tag=True):
    name: str
    lives: int


class Dog(Struct, tag=True):
    name: int
    bark: str = field(name="lives")


@shop.step
def adopt() -> Cat | Dog | None: ...


@shop.step
def scan() -> Row: ...  # type: ignore[empty-body]


@shop.step
def show_it(name: str | int | None, b: str) -> None: ...


def test_a_field_of_a_union_is_there_in_all_its_members() -> None:
    @flow
    def place() -> None:
        show_it(adopt().name, scan().b)  # type: ignore[union-attr]

    name, b = place.plan.nodes[3].args
    assert (name.value, b.value) == (Get("adopt", ("name",)), Get("scan", (2,)))


@pytest.mark.parametrize(
    ("read_it", "message"),
    [
        (lambda: adopt().lives, "Dog has no field 'lives'"),  # type: ignore[union-attr]
        (lambda: adopt().bark, "Cat has no field 'bark'"),  # type: ignore[union-attr]
        (lambda: scan()[1], "scan(...) is Row, which has no item 1"),  # type: ignore[index]
    ],
)
def test_a_field_that_one_member_lacks_is_refused(read_it: Callable[[], Any], message: str) -> None:
    @flow
    def place() -> None:
        read_it()

    with pytest.raises(DeclarationError) as caught:
        _ = place.plan
    assert caught.value.message == f"{__file__}:{read_it.__code__.co_firstlineno}: {message}"


class Other(Struct, rename={"x": "y"}):
    x: int


def test_a_field_at_different_places_is_refused() -> None:
    other = Service("other").contract("other", {}, Other)
    parent = Service("other").contract("parent", {}, Parent)

    @flow
    def place() -> None:
        either(other(), parent()).x  # noqa: B018

    with pytest.raises(
        DeclarationError, match=r"either\(\.\.\.\)\.x is not at the same place in all of Other \| Parent"
    ):
        _ = place.plan
