"""What people see of plans with constructs: bodies inside, gateways nowhere, and what branches cost in messages."""

from __future__ import annotations

import random
import re
import time
from xml.etree import ElementTree

import jsonschema
import msgspec
import pytest

from segue.plan import cost, schema
from segue.plan.draw import draw
from segue.plan.graph import ENTRY, EXIT, RUN, Arg, Compare, Const, Construct, Get, Node, Plan, Region, Value
from segue.plan.mermaid import mermaid
from segue.plan.outline import drawn, edges, longest, needs, span, stages
from segue.plan.projection import project
from segue.plan.svg import svg
from segue.testing.plans import EVERYTHING, random_plan
from segue.wire.describe import describe, text
from segue.wire.subjects import Subjects

SVG = "{http://www.w3.org/2000/svg}"
HIDDEN = {"open", "settle", "timer"}

LISTING = """\
  (start)                   shop
  lines                     carriers, each           each of order.lines, 5 at a time, 1 may fail
    pick                    inventory.pick           line=item
    weigh                   carriers.weigh           box=pick, fast=order.fast
    (result)                                         weigh.grams
  quote                     carriers, race           the first of 2
    branch 1
      offer_carriers        carriers.offer_carriers  order
      (result)                                       offer_carriers
    branch 2
      offer_post            post.offer_post          order
      (result)                                       offer_post
  pay                       payments, attempt        at most 30 s
    charge                  payments.charge          order, price=quote.price
    (result)                                         charge
    on Declined or Timeout
      invoice               people.invoice           why=error.message
      (result)                                       invoice
    finally
      log                   shop.log                 order
      (result)                                       log
  track                     carriers, repeat         from pay.parcel, until value.there, at most 48 rounds, every 1 h; when order.total > 1000
    poll                    carriers.poll            parcel=value
    (result)                                         poll
  approval                  shop, waits for approval  at most 1 d; after lines
  pause                     shop, sleeps             for 90 s; after approval
  survey                    people, runs ask         order; after pay
  refuse                    shop, raises Refused     when approval.no
  placed                    shop, emits              pay; after refuse
  either                    shop, either             track, pay
  notify                    shop.notify              parcel=either, weights=lines; after pause
  (end)                     shop                     notify; joins quote, survey, placed
"""  # noqa: E501


def generated(seed: int) -> Plan:
    return random_plan(random.Random(seed), 60, EVERYTHING)


PLANS = [generated(seed) for seed in range(40)]


def squeezed(text: str) -> list[str]:
    """Columns are as wide as they must be: what counts is the indentation and the cells."""
    return [re.match(r" *", line)[0] + "|".join(re.split(r" {2,}", line.strip())) for line in text.splitlines()]  # type: ignore[index]


def test_text_shows_bodies_indented_in_the_words_of_the_flow(checkout: Plan) -> None:
    lines = draw(checkout)
    assert lines.splitlines()[1] == "9 steps, 6 services, 8 stages"
    assert squeezed(lines.partition("\n\n")[2]) == squeezed(LISTING)


def test_text_of_long_plans_is_folded_and_counted(checkout: Plan) -> None:
    shown = draw(checkout, limit=8).splitlines()
    (more,) = (line for line in shown if line.endswith("more nodes"))
    rows = [line for line in shown[3:] if "more nodes" not in line and "(result)" not in line]
    titles = sum(bool(re.fullmatch(r" *(branch \d|on .*|finally)", line)) for line in rows)
    assert int(re.sub(r"\D", "", more)) + len(rows) - titles == len(drawn(checkout))


def test_values_of_nested_bodies_name_where_they_come_from() -> None:
    regions = (
        Region(RUN, ENTRY, EXIT),
        Region("out:item", "out:item:entry", "out:item:exit", RUN, "out"),
        Region("in:item", "in:item:entry", "in:item:exit", "out:item", "in"),
    )
    item, line = Get("out:item:entry", ("value", "lines")), Get("out:item:entry", ("value",), optional=True)
    args = (Arg("line", Get("in:item:entry", ("value",))), Arg("of", Get("in:item:entry", ("with", "x", "id"))))
    nodes = (
        Node(ENTRY, "entry", "s"),
        Node("out:open", "open", "s", args=(Arg("items", Get(ENTRY, ("orders",))),), construct="out"),
        Node("out:item:entry", "entry", "s", "out:item", construct="out"),
        Node("in:open", "open", "s", "out:item", args=(Arg("items", item), Arg("with.x", line)), construct="in"),
        Node("in:item:entry", "entry", "s", "in:item", construct="in"),
        Node("work", "step", "s", "in:item", "work", args),
        Node("in:item:exit", "exit", "s", "in:item", args=(Arg("result", Get("work")),), construct="in"),
        Node("in", "close", "s", "out:item", construct="in"),
        Node("out:item:exit", "exit", "s", "out:item", args=(Arg("result", Get("in")),), construct="out"),
        Node("out", "close", "s", construct="out"),
        Node(EXIT, "exit", "s", args=(Arg("result", Get("out")),)),
    )
    each = (Construct("out", "each", RUN, ("out:item",)), Construct("in", "each", "out:item", ("in:item",)))
    plan = Plan("nested", "s", nodes, regions, (), {}, (), {}, constructs=each)
    assert needs(plan, plan.index.nodes["work"]).values == ("line=item", "of=out.item.id")
    assert needs(plan, plan.index.nodes["in"]).values == ("each of item.lines",)
    assert longest(plan) == 2


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.25, "0.25 s"), (30, "30 s"), (60, "1 min"), (90, "90 s"), (3600, "1 h"), (5400, "90 min"), (172800, "2 d")],
)
def test_durations_have_fitting_units(seconds: float, words: str) -> None:
    assert span(seconds) == words


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{len(plan.constructs)}-{plan.hash[:6]}")
def test_gateways_are_nowhere_and_constructs_everywhere(plan: Plan) -> None:
    shown = {node.id for node in drawn(plan)}
    assert shown == {
        node.id
        for node in plan.nodes
        if node.kind not in HIDDEN and (node.region == RUN or node.kind not in ("entry", "exit"))
    }
    assert set(stages(plan)) == shown
    for edge in edges(plan):
        up, down = (plan.index.nodes[name] for name in (edge.up, edge.down))
        assert up.region == down.region
        assert stages(plan)[edge.up] < stages(plan)[edge.down]
    root = ElementTree.fromstring(svg(plan))
    assert {group.get("data-node") for group in root.iter(f"{SVG}g")} - {None} == shown


def frames(root: ElementTree.Element) -> dict[str, tuple[float, float, float, float]]:
    found = {}
    for group in root.iter(f"{SVG}g"):
        box = group.find(f"{SVG}rect")
        if box is not None and "data-node" in group.attrib:
            found[group.attrib["data-node"]] = _box(box)
    for box in root.iter(f"{SVG}rect"):
        if "data-region" in box.attrib:
            found[box.attrib["data-region"]] = _box(box)
    return found


def _box(rect: ElementTree.Element) -> tuple[float, float, float, float]:
    x, y, width, height = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{len(plan.constructs)}-{plan.hash[:6]}")
def test_svg_nests_bodies_in_their_constructs_and_keeps_the_rest_apart(plan: Plan) -> None:
    root = ElementTree.fromstring(svg(plan))
    found = frames(root)
    groups: dict[str, list[str]] = {}
    for node in drawn(plan):
        groups.setdefault(node.region, []).append(node.id)
        if node.region != RUN:
            region = plan.index.regions[node.region]
            for outer in (region.construct, region.id):
                if outer in found:
                    assert inside(found[node.id], found[outer])
    for names in groups.values():
        boxes = sorted(found[name] for name in names)
        for i, (_, top, right, bottom) in enumerate(boxes):
            assert all(x >= right or y >= bottom or end <= top for x, y, _, end in boxes[i + 1 :])
    for path in root.iter(f"{SVG}path"):
        if "data-from" in path.attrib:
            numbers = [float(number) for number in re.findall(r"-?\d+\.\d", path.attrib["d"])]
            assert numbers[0] == pytest.approx(found[path.attrib["data-from"]][2], abs=0.2)
            last = re.search(r"H(-?\d+\.\d)$", path.attrib["d"])
            tip = float(last[1]) if last else numbers[-2]
            assert tip == pytest.approx(found[path.attrib["data-to"]][0], abs=0.2)


def inside(inner: tuple[float, ...], outer: tuple[float, ...]) -> bool:
    return outer[0] < inner[0] and outer[1] < inner[1] and inner[2] < outer[2] and inner[3] < outer[3]


def test_svg_says_what_a_construct_does(checkout: Plan) -> None:
    root = ElementTree.fromstring(svg(checkout))
    groups = {group.attrib["data-node"]: group for group in root.iter(f"{SVG}g") if "data-node" in group.attrib}
    assert groups["track"].attrib["class"].startswith("node block s")
    assert "block" not in groups["poll"].attrib["class"]
    title = groups["track"].find(f"{SVG}title")
    assert title is not None
    assert (title.text or "").splitlines() == [
        *("track", "carriers, repeat", "from pay.parcel", "until value.there", "at most 48 rounds", "every 1 h"),
        *("gives poll", "when order.total > 1000"),
    ]
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"branch 1", "branch 2", "on Declined or Timeout", "finally"} <= set(texts)
    ways = {(path.get("data-from"), path.get("data-to")) for path in root.iter(f"{SVG}path")}
    assert {("pay:body", "pay:catch1"), ("pay:catch1", "pay:finally"), ("pay:body", "pay:finally")} <= ways


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{len(plan.constructs)}-{plan.hash[:6]}")
def test_mermaid_nests_subgraphs(plan: Plan) -> None:
    lines = mermaid(plan).splitlines()
    depth, where = 0, {}
    for line in lines:
        text_of = line.strip()
        if text_of.startswith("subgraph "):
            depth += 1
        elif text_of == "end":
            depth -= 1
        elif found := re.match(r"(n\d+)[(\[{]", text_of):
            where[found[1]] = depth
        assert depth >= 0
    assert depth == 0
    order = plan.index.order
    named = {*where, *(line.split()[1].partition("[")[0] for line in lines if line.strip().startswith("subgraph n"))}
    assert named == {f"n{order[node.id]}" for node in drawn(plan)}
    links = {tuple(re.split(r" -\.?-?> | -\.-> ", line.strip())) for line in lines if re.match(r" *n\d+ -", line)}
    assert links == {(f"n{order[edge.up]}", f"n{order[edge.down]}") for edge in edges(plan)}
    for node in drawn(plan):
        if node.region == RUN and f"n{order[node.id]}" in where:
            assert where[f"n{order[node.id]}"] == 0


def test_costs_are_what_a_branch_makes_travel(checkout: Plan) -> None:
    found = {(each.kind, each.name): each for each in cost.costs(checkout)}
    assert list(found) == [
        *(("each", "lines"), ("race", "quote"), ("attempt", "pay")),
        *(("when", "order.total > 1000"), ("repeat", "track"), ("when", "approval.no")),
    ]
    assert found["each", "lines"] == cost.Cost(
        "each", "lines", cost.Load(1, 1, ("shop",)), cost.Load(1, 1, ("inventory",)), subscriptions=2
    )
    assert found["race", "quote"].notices == 1
    assert found["race", "quote"].body == cost.Load(1, 1, ("post",))
    assert found["when", "order.total > 1000"].run == cost.Load(1, 1, ("shop",))
    assert found["when", "order.total > 1000"].skipped == ("track",)
    assert found["when", "approval.no"].run == cost.Load(1, 0, ())


def order_flow(*nodes: Node) -> Plan:
    every = (Node(ENTRY, "entry", "a"), *nodes, Node(EXIT, "exit", "a", after=tuple(node.id for node in nodes)))
    return Plan("f", "a", every, (Region(RUN, ENTRY, EXIT),), (), {}, (), {})


def step(name: str, owner: str, guard: Compare | None = None, **args: Value) -> Node:
    given = tuple(Arg(key, value) for key, value in args.items())
    return Node(name, "step", owner, step=name, args=given, guard=guard)


def test_a_skip_travels_as_far_as_somebody_needs_the_value() -> None:
    dear = Compare(">", Get("price", ("total",)), Const(9))
    plan = order_flow(
        step("price", "a", x=Get(ENTRY)),
        step("check", "b", dear, x=Get(ENTRY)),
        step("approve", "c", x=Get("check")),
        step("note", "d", x=Get("check", (), True), y=Get("approve", (), True)),
        step("deep", "d", dear, x=Get("approve")),
    )
    (found,) = cost.costs(plan)
    assert found.skipped == ("check", "approve", "deep")
    assert found.run == cost.Load(3, 6, ("a", "c", "d"))
    # Both b and d listen to the price for the condition alone.
    assert found.subscriptions == 2
    assert "when price.total > 9  not taken: 3 skips, heard by a, c, d (6 deliveries); 2 subscriptions" in cost.text(
        plan
    )


def test_plans_without_branches_have_no_costs() -> None:
    plan = order_flow(step("price", "a", x=Get(ENTRY)))
    assert cost.costs(plan) == ()
    assert cost.text(plan) == ""


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{len(plan.constructs)}-{plan.hash[:6]}")
def test_costs_agree_with_the_projection(plan: Plan) -> None:
    said = {emission.node: emission for service in plan.index.services for emission in project(plan, service).emits}
    for each in cost.costs(plan):
        assert each.run.deliveries + each.body.deliveries <= sum(len(emission.heard_by) for emission in said.values())
        assert set(each.run.to) <= set(plan.index.services)
        if each.kind == "stop":
            alone = [name for name in plan.index.stopping if plan.home in (said[name].heard_by if name in said else ())]
            assert 0 <= each.subscriptions == each.run.deliveries <= len(alone)
        elif each.kind != "when":
            gates = [node.id for node in plan.nodes if node.construct == each.name and node.id in said]
            assert each.run.events + each.body.events == len(gates)
    kinds = [each.kind for each in cost.costs(plan)]
    assert len([kind for kind in kinds if kind not in ("when", "stop")]) == len(plan.constructs)
    assert kinds.count("stop") == (plan.on_failure == "stop")
    assert msgspec.json.decode(msgspec.json.encode(cost.costs(plan)), type=tuple[cost.Cost, ...]) == cost.costs(plan)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{len(plan.constructs)}-{plan.hash[:6]}")
def test_what_is_said_to_a_service_is_what_it_hears(plan: Plan) -> None:
    report = describe(plan, Subjects())
    hears = {(heard.node, part.service) for part in report.choreographed for heard in part.hears}
    says = {(said.node, name) for part in report.choreographed for said in part.says for name in said.heard_by}
    assert hears == says


def test_the_report_leaves_gateways_out_of_what_a_service_decides(checkout: Plan) -> None:
    shown = text(describe(checkout, Subjects("shop")))
    assert "  payments: decides charge, pay\n" in shown
    assert "  all of them hear shop.c.checkout.run:notice.*" in shown


def test_plans_with_constructs_fit_the_schema(checkout: Plan) -> None:
    validator = jsonschema.Draft202012Validator(schema.schema())
    for plan in (checkout, *PLANS):
        validator.validate(msgspec.json.decode(plan.json))
    good = msgspec.json.decode(checkout.json)
    broken = {**good, "constructs": [{**good["constructs"][0], "kind": "while"}, *good["constructs"][1:]]}
    assert not validator.is_valid(broken)


def test_a_big_plan_with_constructs_is_drawn_quickly() -> None:
    plan = max(
        (random_plan(random.Random(seed), 400, EVERYTHING) for seed in range(30)), key=lambda plan: len(plan.nodes)
    )
    assert len(plan.constructs) > 5
    started = time.process_time()
    drawings = [draw(plan), mermaid(plan), svg(plan), cost.text(plan)]
    assert time.process_time() - started < 2.0
    assert drawings == [draw(plan), mermaid(plan), svg(plan), cost.text(plan)]
