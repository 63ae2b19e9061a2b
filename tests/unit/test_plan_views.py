"""What people and machines see of a plan: text, Mermaid, SVG, the report of who hears whom, the schema."""

from __future__ import annotations

import random
import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import msgspec
import pytest

import segue.plan
from segue.plan import schema
from segue.plan.check import problems
from segue.plan.draw import draw
from segue.plan.graph import (
    ENTRY,
    EXIT,
    RUN,
    And,
    Arg,
    Compare,
    Condition,
    Const,
    Contract,
    Fields,
    Get,
    Items,
    Node,
    Not,
    Or,
    Param,
    Plan,
    Region,
    Truth,
    Value,
    load,
)
from segue.plan.layout import Size, layout
from segue.plan.mermaid import mermaid
from segue.plan.outline import edges, stages
from segue.plan.projection import project
from segue.plan.svg import svg
from segue.plan.words import describe_condition, describe_value
from segue.wire.describe import describe, text
from segue.wire.subjects import Subjects

SVG = "{http://www.w3.org/2000/svg}"
TEXT: dict[str, Any] = {"type": "string"}
HOSTILE = '"]--> x["<script>&amp;</script>\n\x00`#quot;'


def order(*names: str) -> Get:
    return Get(ENTRY, ("order", *names))


def arguments(**values: Value) -> tuple[Arg, ...]:
    return tuple(Arg(name, value) for name, value in values.items())


def build(flow: str, home: str, nodes: list[Node], exit_: Node, inputs: str = "order") -> Plan:
    every = (Node(ENTRY, "entry", home), *nodes, exit_)
    contracts = {
        (node.owner, node.step): Contract(node.owner, node.step, tuple(Param(a.name, TEXT) for a in node.args), TEXT)
        for node in nodes
        if node.kind == "step"
    }
    root = (Region(RUN, ENTRY, EXIT),)
    return Plan(flow, home, every, root, (Param(inputs, TEXT),), TEXT, tuple(contracts.values()), {}, key=order("id"))


def order_plan() -> Plan:
    large = Compare(">", order("total"), Const(1000))
    gold = Compare("==", Get("charge", ("kind",)), Const(HOSTILE))
    nodes = [
        Node("charge", "step", "payments", step="charge", args=arguments(order=order())),
        Node("reserve", "step", "inventory", step="reserve", args=arguments(order=order())),
        Node("review", "step", "people", step="review_order", args=arguments(order=order()), guard=large),
        Node("fast", "step", "inventory", step="pick", args=arguments(what=Get("reserve")), guard=gold),
        Node("slow", "step", "inventory", step="pick", args=arguments(what=Get("reserve")), guard=Not(gold)),
        Node("picked", "either", "email", args=(Arg("0", Get("fast")), Arg("1", Get("slow")))),
        Node(
            "notify",
            "step",
            "email",
            step="notify",
            args=arguments(order=order(), receipt=Get("charge"), picked=Get("picked")),
            after=("review",),
        ),
    ]
    return build(
        "place_order",
        "email",
        nodes,
        Node(EXIT, "exit", "email", args=arguments(result=Get("notify")), after=("notify",)),
    )


def random_plan(size: int, seed: int, fan: int = 0) -> Plan:
    """Any graph of steps, one node of `fan` inputs, every sink joined by the exit."""
    rng = random.Random(seed)
    nodes: list[Node] = []
    sinks: dict[str, None] = {}
    for i in range(size - 2):
        near = [node.id for node in nodes[-40:]]
        ups = rng.sample(near, min(len(near), rng.choice((0, 1, 1, 2, 3))))
        if fan and i == size - 3:
            ups = [node.id for node in nodes[-fan:]]
        guard = Compare(">", Get(ups[0], ("total",)), Const(10)) if ups and rng.random() < 0.2 else None
        after = tuple(ups[:1]) if rng.random() < 0.2 and not fan else ()
        args = arguments(**{f"a{k}": Get(up) for k, up in enumerate(ups[len(after) :])}) or arguments(x=order())
        owner = f"service-{rng.randrange(9)}"
        nodes.append(
            Node(f"n{i}", "step", owner, step=f"work_{len(args)}{args[0].name[0]}", args=args, guard=guard, after=after)
        )
        for up in ups:
            sinks.pop(up, None)
        sinks[f"n{i}"] = None
    return build("random", "service-0", nodes, Node(EXIT, "exit", "service-0", after=tuple(sinks)))


def fan_plan(width: int) -> Plan:
    nodes = [Node(f"w{i}", "step", "workers", step="work", args=arguments(x=order())) for i in range(width)]
    every = Items(tuple(Get(node.id) for node in nodes))
    nodes.append(Node("sum", "step", "sums", step="sum", args=arguments(xs=every)))
    return build("fan", "sums", nodes, Node(EXIT, "exit", "sums", after=("sum",)))


@pytest.fixture(scope="module")
def big() -> Plan:
    return random_plan(1738, seed=7, fan=500)


PLANS = [order_plan(), fan_plan(12), *(random_plan(size, seed) for seed, size in enumerate((3, 4, 12, 30, 90, 200)))]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (order("total"), "order.total"),
        (Get(ENTRY), "input"),
        (Get("charge", ("lines", 0, "unit price")), "charge.lines[0]['unit price']"),
        (Get("review", ("by",), optional=True), "review?.by"),
        (Const("gold"), "'gold'"),
        (Items((Get("a"), Const(1))), "[a, 1]"),
        (Fields({"id": Get("a", ("id",)), "urgent": Const(True)}), "{id: a.id, urgent: True}"),
        (Items(tuple(Const(i) for i in range(500))), "[0, 1, 2, 3, 4, 5, 6, 7, … 492 more]"),
    ],
)
def test_values_read_as_in_the_flow(value: Value, words: str) -> None:
    assert describe_value(value) == words


A, B, C = (Truth(Get(name)) for name in "abc")


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (Compare(">", order("total"), Const(1000)), "order.total > 1000"),
        (Compare("==", Const(None), Get("charge", ("error",))), "None == charge.error"),
        (Not(A), "not a"),
        (Not(Compare("<", Get("a"), Get("b"))), "not (a < b)"),
        (And((A, Or((B, C)), Not(Or((A, B))))), "a and (b or c) and not (a or b)"),
        (Or((A, And((B, C)))), "a or b and c"),
    ],
)
def test_conditions_read_as_in_the_flow(condition: Condition, words: str) -> None:
    assert describe_condition(condition) == words


def test_text_names_each_node_with_what_it_needs() -> None:
    lines = draw(order_plan()).splitlines()
    assert lines[0].startswith("place_order  plan ")
    assert lines[1] == "6 steps, 4 services, 5 stages"
    assert lines[2] == "key order.id"
    cells = {row[0]: row[1:] for row in (re.split(r" {2,}", line.strip()) for line in lines[4:])}
    assert cells["(start)"] == ["email"]
    assert cells["review"] == ["people.review_order", "order; when order.total > 1000"]
    assert cells["picked"] == ["email, either", "fast, slow"]
    assert cells["notify"] == ["email.notify", "order, receipt=charge, picked; after review"]
    assert cells["(end)"] == ["email", "notify"]
    assert len(cells) == len(order_plan().nodes)


def test_text_folds_like_nodes_and_counts_the_rest(big: Plan) -> None:
    folded = draw(fan_plan(500))
    assert re.search(r"^  w0 … w499 +workers\.work +500 nodes, the first: x=order$", folded, re.M)
    assert "joins sum" in folded
    lines = draw(big, limit=20).splitlines()
    shown = [line for line in lines[4:] if "more nodes" not in line]
    assert len(shown) <= 20
    assert shown[0].split() == ["(start)", "service-0"]
    assert shown[-1].startswith("  (end)")
    (more,) = (line for line in lines if line.endswith("more nodes"))
    folded_nodes = sum(int(found[1].replace(",", "")) for found in re.finditer(r"([\d,]+) nodes,", "\n".join(shown)))
    single = sum("nodes, the first" not in line for line in shown)
    assert int(re.sub(r"\D", "", more)) == len(big.nodes) - single - folded_nodes
    assert max(map(len, lines)) < 700
    assert len(draw(big, limit=0).splitlines()) == len(big.nodes) + 4


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.flow}-{len(plan.nodes)}")
def test_mermaid_has_every_node_and_edge(plan: Plan) -> None:
    lines = mermaid(plan).splitlines()
    assert lines[0] == "flowchart LR"
    order_of = plan.index.order
    nodes = [
        line for line in lines if re.match(r'  n\d+(\(\["[a-z]+"\]\)|\("[^"<>]*(<[^"]*)?"\)|\{\{"[^"]*"\}\})$', line)
    ]
    assert len(nodes) == len(plan.nodes)
    arrows = {"data": "-->", "guard": "-.->", "order": "-.->"}
    drawn = {f"  n{order_of[e.up]} {arrows[e.carries]} n{order_of[e.down]}" for e in edges(plan)}
    assert drawn == {line for line in lines if ">" in line and re.match(r"  n\d+ -", line)}
    coloured = [name for line in lines if line.startswith("  class n") for name in line.split()[1].split(",")]
    assert sorted(coloured) == sorted(f"n{i}" for i in range(len(plan.nodes)))


def test_mermaid_labels_cannot_break_out() -> None:
    (fast,) = (line for line in mermaid(order_plan()).splitlines() if "<b>fast</b>" in line)
    label = fast.split('"')[1]
    assert set(re.findall(r"<[^>]*>", label)) == {"<b>", "</b>", "<br/>", "<i>", "</i>"}
    assert fast.count('"') == 2
    assert not {"`", "["} & set(label)


def boxes(root: ElementTree.Element) -> dict[str, tuple[float, float, float, float]]:
    found = {}
    for group in root.iter(f"{SVG}g"):
        rect = group.find(f"{SVG}rect")
        if rect is not None:
            x, y, width, height = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
            found[group.attrib["data-node"]] = (x, y, x + width, y + height)
    return found


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.flow}-{len(plan.nodes)}")
def test_svg_places_boxes_apart_and_edges_forward(plan: Plan) -> None:
    root = ElementTree.fromstring(svg(plan))
    found = boxes(root)
    assert set(found) == {node.id for node in plan.nodes}
    width, height = (float(root.attrib[side]) for side in ("width", "height"))
    for x, y, right, bottom in found.values():
        assert 0 <= x < right <= width
        assert -0.1 <= y < bottom <= height
    ordered = sorted(found.values())
    for i, (_, y, right, bottom) in enumerate(ordered):
        for x2, y2, _, bottom2 in ordered[i + 1 :]:
            assert x2 >= right or y2 >= bottom or bottom2 <= y
    paths = [path for path in root.iter(f"{SVG}path") if "data-from" in path.attrib]
    ends = [(path.attrib["data-from"], path.attrib["data-to"]) for path in paths]
    assert ends == [(edge.up, edge.down) for edge in edges(plan)]
    for path, (up, down) in zip(paths, ends, strict=True):
        start = re.match(r"M(\S+) (\S+?)C", path.attrib["d"])
        assert start is not None
        assert float(start[1]) == pytest.approx(found[up][2], abs=0.2)
        last = re.findall(r"-?\d+\.\d", path.attrib["d"])[-2:]
        assert float(last[0]) == pytest.approx(found[down][0], abs=0.2)
        assert float(last[1]) == pytest.approx((found[down][1] + found[down][3]) / 2, abs=0.2)


def test_svg_escapes_text_and_marks_services_and_edges() -> None:
    plan = order_plan()
    drawn = svg(plan)
    assert "<script" not in drawn
    root = ElementTree.fromstring(drawn)
    classes = {group.get("data-node"): group.attrib["class"] for group in root.iter(f"{SVG}g") if group.get("class")}
    assert classes[ENTRY] == classes[EXIT] == "node gate"
    assert classes["reserve"] == classes["fast"] != classes["charge"]
    carried = {(p.get("data-from"), p.get("data-to")): p.attrib["class"] for p in root.iter(f"{SVG}path")}
    assert carried["charge", "fast"] == "edge guard"
    assert carried["review", "notify"] == "edge order"
    assert carried["charge", "notify"] == "edge data"
    assert (ENTRY, "notify") not in carried
    (fast,) = (group for group in root.iter(f"{SVG}g") if group.get("data-node") == "fast")
    title = fast.find(f"{SVG}title")
    assert title is not None
    assert (title.text or "").splitlines()[:3] == ["fast", "inventory.pick", "what=reserve"]
    assert "prefers-color-scheme:dark" in drawn
    for state in ("running", "completed", "skipped", "failed", "aborted", "cancelled"):
        assert f".segue-plan .{state} .box" in drawn


def test_a_big_plan_is_drawn_quickly_and_always_the_same(big: Plan) -> None:
    assert max(len(ups) for ups in big.index.ups.values()) >= 499
    started = time.process_time()
    drawn = svg(big)
    assert time.process_time() - started < 3.0
    assert drawn == svg(load(big.json))
    assert len(boxes(ElementTree.fromstring(drawn))) == 1738
    assert mermaid(big) == mermaid(load(big.json))


def test_layout_untangles_and_straightens() -> None:
    pairs = [(f"a{i}", f"b{(i * 3) % 7}") for i in range(7)]
    names = [f"{side}{i}" for side in "ab" for i in range(7)]
    found = layout({name: Size(50, 30) for name in names}, {name: int(name[0] == "b") for name in names}, pairs)
    assert all(found.centres[up].y == pytest.approx(found.centres[down].y) for up, down in pairs)
    chain = [f"c{i}" for i in range(5)]
    sizes = {name: Size(40, 20 + 10 * i) for i, name in enumerate(chain)}
    links = [*pairwise(chain), ("c0", "c4")]
    found = layout(sizes, {name: i for i, name in enumerate(chain)}, links)
    bends = found.routes[-1][1:-1]
    assert len(bends) == 6
    # The long edge passes beside the boxes of the layers between, not through them.
    for i, name in enumerate(chain[1:4]):
        assert abs(bends[2 * i].y - found.centres[name].y) > sizes[name].height / 2
    assert layout({}, {}, []).size == Size(0.0, 0.0)


def test_report_agrees_with_the_projection() -> None:
    plan, subjects = order_plan(), Subjects("shop")
    report = describe(plan, subjects)
    assert [part.service for part in report.choreographed] == ["email", "inventory", "payments", "people"]
    assert [part.service for part in report.choreographed if part.accepts] == ["email"]
    inventory = report.choreographed[1]
    assert [(heard.subject, heard.source) for heard in inventory.hears] == [
        ("shop.c.place_order.run.started", "email"),
        ("shop.c.place_order.charge.*", "payments"),
    ]
    assert [(said.node, said.heard_by) for said in inventory.says] == [
        ("reserve", ()),
        ("fast", ("email",)),
        ("slow", ("email",)),
    ]
    assert [(told.subject, told.nodes) for told in report.orchestrated.tells] == [
        ("shop.do.email.notify", ("notify",)),
        ("shop.do.inventory.pick", ("fast", "slow")),
        ("shop.do.inventory.reserve", ("reserve",)),
        ("shop.do.payments.charge", ("charge",)),
        ("shop.do.people.review_order", ("review",)),
    ]
    assert report.orchestrated.hears == subjects.events_of("coordinator")
    assert msgspec.json.decode(msgspec.json.encode(report), type=type(report)) == report


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.flow}-{len(plan.nodes)}")
def test_what_is_said_to_a_service_is_what_it_hears(plan: Plan) -> None:
    report = describe(plan, Subjects())
    hears = {(heard.node, part.service) for part in report.choreographed for heard in part.hears}
    says = {(said.node, name) for part in report.choreographed for said in part.says for name in said.heard_by}
    assert hears == says
    emitted = sum(len(project(plan, service).emits) for service in plan.index.services)
    steps = sum(node.kind == "step" for node in plan.nodes)
    assert msgspec.structs.astuple(report.choreographed_traffic) == (0, emitted, len(says))
    assert msgspec.structs.astuple(report.orchestrated_traffic) == (steps, steps + 2, 2 * steps)


def test_report_in_text(big: Plan) -> None:
    shown = text(describe(order_plan(), Subjects("shop")))
    assert shown.startswith("place_order choreographed: 8 events, ")
    assert "  email, accepts starts: decides run.started, picked, notify, run.ended\n" in shown
    assert "place_order orchestrated: 6 commands, 8 events, 12 deliveries in a run" in shown
    assert re.search(r"says +shop\.c\.place_order\.charge\.\* +to email, inventory|to inventory, email", shown)
    long = text(describe(big, Subjects()), limit=5).splitlines()
    assert len(long) < 9 * 13 + 20
    assert any(re.search(r"hears +… [\d,]+ more$", line) for line in long)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.flow}-{len(plan.nodes)}")
def test_generated_plans_are_sound_and_fit_the_schema(plan: Plan) -> None:
    assert problems(plan) == []
    jsonschema.Draft202012Validator(schema.schema()).validate(msgspec.json.decode(plan.json))
    assert max(stages(plan).values()) == stages(plan)[EXIT]


def test_schema_is_sound_and_refuses_what_is_no_plan() -> None:
    validator = jsonschema.Draft202012Validator
    validator.check_schema(schema.schema())
    good = msgspec.json.decode(order_plan().json)
    for broken in (
        {**good, "format": 2},
        {**good, "nodes": [{"id": "a", "kind": "loop", "owner": "b"}]},
        {key: value for key, value in good.items() if key != "home"},
        {**good, "key": {"type": "got", "node": "a"}},
        {**good, "on_failure": "panic"},
    ):
        assert not validator(schema.schema()).is_valid(broken)


def test_published_schema_is_current() -> None:
    published = Path(segue.plan.__file__).with_name("plan.schema.json").read_text(encoding="utf-8")
    assert published == schema.text(), "write what `segue.plan.schema.text()` gives into plan.schema.json"
