"""A plan with every kind of construct and node, for the tests of what is derived from plans."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from segue.plan.graph import (
    ENTRY,
    EXIT,
    RUN,
    Arg,
    Compare,
    Condition,
    Const,
    Construct,
    Contract,
    Get,
    Handler,
    Node,
    Param,
    Plan,
    Region,
    Truth,
    Value,
)
from segue.plan.names import entering, leaving, opening, settling, watching


class Author:
    """Writes a plan down, node by node, as the compiler does."""

    def __init__(self, home: str) -> None:
        self.home = home
        self.nodes = [Node(ENTRY, "entry", home)]
        self.regions = [Region(RUN, ENTRY, EXIT)]
        self.constructs: list[Construct] = []

    def node(
        self, name: str, kind: Any, owner: str, region: str = RUN, more: dict[str, Any] | None = None, **args: Value
    ) -> None:
        given = tuple(Arg(key, value) for key, value in args.items())
        self.nodes.append(Node(name, kind, owner, region, args=given, **(more or {})))

    def step(self, name: str, owner: str, region: str = RUN, more: dict[str, Any] | None = None, **args: Value) -> None:
        self.node(name, "step", owner, region, {"step": name, **(more or {})}, **args)

    def open(self, name: str, owner: str, *captured: Get, guard: Condition | None = None, **args: Value) -> None:
        given = [Arg(key, value) for key, value in args.items()]
        given += [Arg(f"with.{captive(get)}", msgspec.structs.replace(get, optional=True)) for get in captured]
        self.nodes.append(Node(opening(name), "open", owner, args=tuple(given), guard=guard, construct=name))

    def begin(self, construct: str, part: str, owner: str) -> str:
        region = f"{construct}:{part}"
        self.regions.append(Region(region, entering(region), leaving(region), RUN, construct))
        self.nodes.append(Node(entering(region), "entry", owner, region, construct=construct))
        return region

    def end(self, region: str, owner: str, result: Get, *sinks: str) -> None:
        name = region.partition(":")[0]
        args = (Arg("result", result),)
        self.nodes.append(Node(leaving(region), "exit", owner, region, args=args, after=sinks, construct=name))

    def close(self, construct: Construct, owner: str) -> None:
        self.constructs.append(construct)
        self.nodes.append(Node(construct.id, "close", owner, construct=construct.id))

    def plan(self, flow: str, result: Get, *sinks: str) -> Plan:
        exit_ = Node(EXIT, "exit", self.home, args=(Arg("result", result),), after=sinks)
        contracts = {
            node.step: Contract(node.owner, node.step, tuple(Param(arg.name, {}) for arg in node.args), {}, node.undo)
            for node in self.nodes
            if node.kind == "step"
        }
        return Plan(
            flow,
            self.home,
            (*self.nodes, exit_),
            tuple(self.regions),
            (Param("order", {}),),
            {},
            tuple(contracts.values()),
            {},
            constructs=tuple(self.constructs),
            signals=(Param("approval", {}),),
        )


def captive(get: Get) -> str:
    return ".".join([get.node, *map(str, get.path)])


def held(region: str, get: Get, *path: str) -> Get:
    """What a body reads of a captured value."""
    return Get(entering(region), ("with", captive(get), *path))


def _lines(author: Author, order: Get) -> None:
    author.open("lines", "carriers", order, items=Get(ENTRY, ("order", "lines")))
    region = author.begin("lines", "item", "carriers")
    author.step("pick", "inventory", region, line=Get(entering(region), ("value",)))
    author.step("weigh", "carriers", region, box=Get("pick"), fast=held(region, order, "fast"))
    author.end(region, "carriers", Get("weigh", ("grams",)), "weigh")
    author.close(Construct("lines", "each", RUN, (region,), limit=5, tolerate=1), "carriers")


def _quote(author: Author, order: Get) -> None:
    author.open("quote", "carriers", order)
    bodies = []
    for part, owner in (("1", "carriers"), ("2", "post")):
        region = author.begin("quote", part, "carriers")
        author.step(f"offer_{owner}", owner, region, more={"undo": True}, order=held(region, order))
        author.end(region, "carriers", Get(f"offer_{owner}"), f"offer_{owner}")
        bodies.append(region)
    author.close(Construct("quote", "race", RUN, tuple(bodies)), "carriers")
    author.nodes.append(Node(settling("quote"), "settle", "carriers", construct="quote"))


def _pay(author: Author, order: Get) -> None:
    price = Get("quote", ("price",))
    author.open("pay", "payments", order, price)
    more = {"construct": "pay", "timeout": 30.0, "after": (opening("pay"),)}
    author.node(watching("pay"), "timer", "payments", more=more)
    body = author.begin("pay", "body", "payments")
    author.step("charge", "payments", body, more={"undo": True}, order=held(body, order), price=held(body, price))
    author.end(body, "payments", Get("charge"), "charge")
    caught = author.begin("pay", "catch1", "payments")
    author.step("invoice", "people", caught, why=Get(entering(caught), ("value", "message")))
    author.end(caught, "payments", Get("invoice"), "invoice")
    last = author.begin("pay", "finally", "payments")
    author.step("log", "shop", last, order=held(last, order))
    author.end(last, "payments", Get("log"), "log")
    handler = Handler(("Declined", "Timeout"), caught)
    author.close(Construct("pay", "attempt", RUN, (body,), handlers=(handler,), cleanup=last, timeout=30.0), "payments")


def _track(author: Author) -> None:
    dear = Compare(">", Get(ENTRY, ("order", "total")), Const(1000))
    author.open("track", "carriers", guard=dear, initial=Get("pay", ("parcel",)))
    region = author.begin("track", "round", "carriers")
    author.step("poll", "carriers", region, parcel=Get(entering(region), ("value",)))
    author.end(region, "carriers", Get("poll"), "poll")
    until = Truth(Get(leaving(region), ("there",)))
    author.close(Construct("track", "repeat", RUN, (region,), until=until, cap=48, every=3600.0), "carriers")


@pytest.fixture(scope="session")
def checkout() -> Plan:
    """Pick the lines, let carriers race, pay or invoice, track dear orders, wait for approval, tell the world."""
    author, order = Author("shop"), Get(ENTRY, ("order",))
    _lines(author, order)
    _quote(author, order)
    _pay(author, order)
    _track(author)
    author.node("approval", "wait", "shop", more={"step": "approval", "timeout": 86400.0, "after": ("lines",)})
    author.node("pause", "sleep", "shop", more={"after": ("approval",)}, seconds=Const(90))
    author.node("survey", "flow", "people", more={"step": "ask", "after": ("pay",)}, order=order)
    author.node("refuse", "raise", "shop", more={"step": "Refused", "guard": Truth(Get("approval", ("no",)))})
    author.node("placed", "emit", "shop", more={"step": "placed", "after": ("refuse",)}, value=Get("pay"))
    author.node("either", "either", "shop", a=Get("track"), b=Get("pay"))
    author.step("notify", "shop", more={"after": ("pause",)}, parcel=Get("either"), weights=Get("lines"))
    return author.plan("checkout", Get("notify"), "notify", settling("quote"), "survey", "placed")
