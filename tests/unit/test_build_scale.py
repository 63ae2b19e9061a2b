"""A flow made by a Python loop is compiled fast."""

from __future__ import annotations

from time import process_time

from msgspec import Struct

from segue import Service, after, flow
from segue.plan.check import problems


class Order(Struct):
    id: str


services = [Service(f"service-{i}") for i in range(5)]


@services[0].step
def first(order: Order) -> int: ...  # type: ignore[empty-body]


@services[1].step
def more(n: int) -> int: ...  # type: ignore[empty-body]


@services[2].step
def join(items: list[int]) -> int: ...  # type: ignore[empty-body]


def test_1700_nodes_with_joins_of_500_are_built_in_time() -> None:
    @flow(key=lambda order: order.id)
    def large(order: Order) -> int:
        one = join([first(order) for _ in range(500)])
        wide = [more(one) for _ in range(500)]
        with after(*wide):
            late = [more(one) for _ in range(500)]
        for _ in range(197):
            one = more(one)
        return join([*late[1:], one])

    began = process_time()
    plan = large.plan
    assert len(plan.hash) == 32
    assert process_time() - began < 2.0
    assert len(plan.nodes) == 1701
    assert problems(plan) == []
    assert len(plan.index.ups[plan.nodes[-2].id]) == 500
    assert max(len(plan.index.ups[node.id]) for node in plan.nodes) == 501
