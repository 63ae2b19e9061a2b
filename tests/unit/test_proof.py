"""The proof that a plan can be run in both modes: sound plans have it, and whatever is missing is named."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from segue.errors import PlanError
from segue.machine.facts import OUTCOMES
from segue.plan import cost
from segue.plan.check import problems
from segue.plan.draw import draw
from segue.plan.graph import ENTRY, EXIT, Plan, load
from segue.plan.mermaid import mermaid
from segue.plan.projection import Emission, Projection, project
from segue.plan.proof import prove
from segue.plan.svg import svg
from segue.ports.transport import matches
from segue.testing.graphs import workflow_like
from segue.testing.plans import DETERMINISTIC, EVERYTHING, random_plan
from segue.wire.said import public_node
from segue.wire.subjects import Subjects

Edit = Callable[[Any], Any]
Change = Callable[[Projection], Projection]


def generated(seed: int) -> Plan:
    return random_plan(random.Random(seed), 60, EVERYTHING if seed % 2 else DETERMINISTIC)


def planted(service: str, change: Change) -> Callable[[Plan, str], Projection]:
    """Projections with an error in one of them."""

    def projector(plan: Plan, who: str) -> Projection:
        found = project(plan, who)
        return change(found) if who == service else found

    return projector


def without_hearing(name: str) -> Change:
    return lambda part: msgspec.structs.replace(part, hears=tuple(heard for heard in part.hears if heard != name))


def without_saying(name: str) -> Change:
    return lambda part: msgspec.structs.replace(part, emits=tuple(said for said in part.emits if said.node != name))


def without_deciding(name: str) -> Change:
    return lambda part: msgspec.structs.replace(part, nodes=tuple(node for node in part.nodes if node != name))


def parts(plan: Plan) -> Iterator[Projection]:
    for service in plan.index.services:
        yield project(plan, service)


@pytest.mark.parametrize("block", range(5))
def test_sound_plans_can_be_projected(block: int) -> None:
    for seed in range(block * 60, block * 60 + 60):
        plan = generated(seed)
        assert prove(plan) == [], seed
        assert load(plan.json) == plan


def test_a_plan_with_everything_in_it_has_no_problems(checkout: Plan) -> None:
    assert problems(checkout) == []
    assert prove(workflow_like(random.Random(2), 1700)) == []


def test_no_subscription_can_be_spared(checkout: Plan) -> None:
    plans = [checkout, *(generated(seed) for seed in range(40))]
    tried = 0
    for plan in plans:
        for part in parts(plan):
            for name in part.hears:
                found = prove(plan, planted(part.participant, without_hearing(name)))
                assert found, (part.participant, name)
                assert all(part.participant in line and repr(name) in line for line in found)
                tried += 1
    assert tried > 300


def test_no_publication_can_be_spared(checkout: Plan) -> None:
    plans = [checkout, *(generated(seed) for seed in range(40))]
    tried = 0
    for plan in plans:
        for part in parts(plan):
            for emission in part.emits:
                found = prove(plan, planted(part.participant, without_saying(emission.node)))
                assert any(f"{part.participant} does not publish it" in line for line in found), emission
                tried += 1
    assert tried > 400


def test_each_node_has_one_decider(checkout: Plan) -> None:
    for part in parts(checkout):
        for name in part.nodes:
            (line, *_) = prove(checkout, planted(part.participant, without_deciding(name)))
            assert repr(name) in line
            assert "decided by nobody" in line
    twice = planted("people", lambda part: msgspec.structs.replace(part, nodes=(*part.nodes, "charge")))
    assert prove(checkout, twice)[0] == (
        "step 'charge' in 'pay:body' is decided by more than one service: payments, people"
    )


def test_a_construct_is_closed_by_who_opens_its_bodies(checkout: Plan) -> None:
    """A handler that is not run has no outcome: nobody else could tell it from one that takes long."""
    moved = ("pay:catch1:entry", "pay:catch1:exit")

    def projector(plan: Plan, who: str) -> Projection:
        found = project(plan, who)
        if who == "payments":
            heard, said = (
                (*found.hears, *moved),
                (*found.emits, Emission("pay:open", ()), Emission("pay:body:exit", ())),
            )
            nodes = tuple(node for node in found.nodes if node not in moved)
            return Projection(who, nodes, heard, said)
        if who == "people":
            told = tuple(Emission(node, ("payments",)) for node in moved)
            return Projection(who, (*found.nodes, *moved), (*found.hears, "pay:body:exit"), (*found.emits, *told))
        return found

    assert (
        "attempt 'pay': payments decides 'pay' and cannot know whether 'pay:catch1' is opened: people does that"
    ) in prove(checkout, projector)


def test_the_reason_names_what_waits(checkout: Plan) -> None:
    def first(service: str, node: str) -> str:
        return prove(checkout, planted(service, without_hearing(node)))[0]

    ending = "never learns how that ends: {} does not listen to it"
    assert first("shop", "track") == ("either 'either' joins the branch 'track', and shop " + ending.format("shop"))
    assert first("carriers", ENTRY) == (
        "each 'lines' (open) waits for 'run.entry', and carriers " + ending.format("carriers")
    )
    assert first("payments", "invoice") == (
        "attempt 'pay' (exit) waits for 'invoice', and payments " + ending.format("payments")
    )
    assert first("people", "survey") == "flow 'survey' ends elsewhere, and people does not listen to it"
    assert first("inventory", "lines:item:entry") == (
        "step 'pick' in 'lines:item' waits for 'lines:item:entry', and inventory " + ending.format("inventory")
    )


@pytest.mark.parametrize("seed", range(20))
def test_a_subscription_takes_every_outcome(seed: int) -> None:
    """What the proof takes for granted: what is published reaches those that subscribed, whatever the outcome is."""
    plan, subjects = generated(seed), Subjects("acme")
    for part in parts(plan):
        patterns = subjects.heard(plan, part.participant)
        for name in part.hears:
            for kind in OUTCOMES if name != ENTRY else ("started",):
                subject = subjects.event("choreographed", plan.flow, public_node(name), kind)
                assert any(matches(pattern, subject) for pattern in patterns)


def edited(plan: Plan, edit: Edit) -> list[str]:
    document = json.loads(plan.json)
    document["node"] = {node["id"]: node for node in document["nodes"]}
    document["construct"] = {construct["id"]: construct for construct in document["constructs"]}
    edit(document)
    return prove(msgspec.convert(document, Plan))


def get(node: str, *path: str) -> dict[str, Any]:
    return {"type": "get", "node": node, "path": list(path)}


def set_(part: str, name: str, **changes: Any) -> Edit:
    return lambda document: document[part][name].update(changes)


def drop(name: str) -> Edit:
    return lambda document: document["nodes"].remove(document["node"][name])


def both(*edits: Edit) -> Edit:
    return lambda document: [edit(document) for edit in edits]


BROKEN: dict[str, tuple[Edit, str]] = {
    "a body that reads outside": (
        set_("node", "weigh", args=[{"name": "box", "value": get("charge")}]),
        "node 'weigh' in 'lines:item' refers to 'charge' in 'pay:body': no reference may cross",
    ),
    "an outer node that reads inside": (
        set_("node", "placed", after=["pick"]),
        "node 'placed' in 'run' refers to 'pick' in 'lines:item'",
    ),
    "a guard that reads outside": (
        set_("node", "poll", guard={"type": "truth", "value": get("approval")}),
        "node 'poll' in 'track:round' refers to 'approval' in 'run'",
    ),
    "what was not captured": (
        set_("node", "log", args=[{"name": "order", "value": get("pay:finally:entry", "with", "refuse")}]),
        "node 'log' reads 'refuse' from outside, which the open of 'pay' does not capture",
    ),
    "an item where there is none": (
        set_("node", "charge", args=[{"name": "order", "value": get("pay:body:entry", "value")}]),
        "node 'charge' reads a value from 'pay:body:entry', and attempt 'pay' hands none in",
    ),
    "an unknown field of an entry": (
        set_("node", "pick", args=[{"name": "line", "value": get("lines:item:entry", "item")}]),
        "node 'pick' reads 'item' from 'lines:item:entry', which only has 'value' and 'with'",
    ),
    "a captured value that must be there": (
        set_("node", "quote:open", args=[{"name": "with.x", "value": get(ENTRY)}]),
        "race 'quote': its open captures 'with.x' otherwise than by an optional value",
    ),
    "a map without items": (set_("node", "lines:open", args=[]), "each 'lines': its open does not give 'items'"),
    "a loop without a first value": (
        set_("node", "track:open", args=[]),
        "repeat 'track': its open does not give 'initial'",
    ),
    "two holders of a construct": (
        set_("node", "quote:2:exit", owner="post"),
        "race 'quote' has more than one holder: carriers, post",
    ),
    "another home": (lambda document: document.update(home="people"), "not by the home 'people'"),
    "two holders of a signal": (
        lambda document: document["nodes"].insert(
            -1, {"id": "again", "kind": "wait", "owner": "people", "step": "approval", "after": ["pay"]}
        ),
        "signal 'approval' has more than one holder: 'approval' at shop, 'again' at people",
    ),
    "an undeclared signal": (
        lambda document: document.update(signals=[]),
        "wait 'approval' is for a signal 'approval' that the plan does not declare",
    ),
    "a loop without rounds": (set_("construct", "track", cap=0), "repeat 'track': its cap is 0"),
    "an until that reads too far": (
        set_("construct", "track", until={"type": "truth", "value": get("poll")}),
        "repeat 'track': its until reads 'poll'",
    ),
    "an until that reads what was not captured": (
        set_("construct", "track", until={"type": "truth", "value": get("track:round:entry", "with", "pay")}),
        "repeat 'track': its until reads 'pay' from outside",
    ),
    "more winners than branches": (set_("construct", "quote", winners=3), "race 'quote': 3 of 2 branches cannot win"),
    "no winner": (set_("construct", "quote", winners=0), "race 'quote': 0 of 2 branches cannot win"),
    "a handler for nothing": (
        set_("construct", "pay", handlers=[{"errors": [], "region": "pay:catch1"}]),
        "attempt 'pay': handler 'pay:catch1' takes no error",
    ),
    "a handler in another construct": (
        set_("construct", "pay", handlers=[{"errors": ["*"], "region": "quote:1"}]),
        "region 'quote:1' is a body of attempt 'pay' and belongs to 'quote'",
    ),
    "a body that is no body": (
        set_("construct", "pay", handlers=[]),
        "region 'pay:catch1' is no body of its construct 'pay'",
    ),
    "two bodies of one region": (
        set_("construct", "quote", bodies=["quote:1", "quote:1"]),
        "two bodies share a region",
    ),
    "two bodies of a map": (
        set_("construct", "quote", kind="each"),
        "each 'quote': it has 2 bodies instead of one",
    ),
    "a race that nobody settles": (
        both(drop("quote:settle"), set_("node", EXIT, after=["notify", "quote", "survey", "placed"])),
        "race 'quote' has no settle 'quote:settle'",
    ),
    "a timeout without a timer": (drop("pay:timer"), "attempt 'pay' has no timer 'pay:timer'"),
    "a timer without a timeout": (
        both(set_("construct", "pay", timeout=0.0), set_("node", "pay:timer", timeout=0.0)),
        "attempt 'pay' has a needless timer 'pay:timer'",
    ),
    "a timer set to another time": (
        set_("node", "pay:timer", timeout=31.0),
        "timer 'pay:timer' is set to 31 seconds instead of 30",
    ),
    "a timer that begins late": (set_("node", "pay:timer", after=["lines"]), "begins otherwise than with 'pay:open'"),
    "waiting for a timer": (set_("node", "survey", after=["pay:timer"]), "refers to the timer 'pay:timer'"),
    "a deadline without a timer": (
        lambda document: document.update(deadline=9.0),
        "a run's deadline and 'run:timer' go",
    ),
    "a map with an until": (
        set_("construct", "lines", until={"type": "truth", "value": get("lines:item:exit")}),
        "each 'lines': only a repeat has an until",
    ),
    "a negative limit": (set_("construct", "lines", limit=-1), "each 'lines': a limit or a time is negative"),
    "a node that nothing starts": (
        set_("node", "poll", args=[{"name": "parcel", "value": {"type": "const", "value": 1}}]),
        "node 'poll' cannot be reached from the start of 'track:round'",
    ),
    "a node that leads nowhere": (
        set_("node", "lines:item:exit", args=[], after=["pick"]),
        "node 'weigh' leads nowhere: the exit of 'lines:item' does not join it",
    ),
    "a construct that leads nowhere": (
        set_("node", EXIT, after=["notify", "survey", "placed"]),
        "node 'quote:settle' leads nowhere: the exit does not join it",
    ),
    "a region in the wrong place": (
        lambda document: document["regions"][-1].update(parent="quote:1"),
        "region 'track:round' lies in 'quote:1', its construct 'track' in 'run'",
    ),
    "a region of no construct": (
        lambda document: document["regions"][-1].update(construct="ghost"),
        "region 'track:round' of flow 'checkout' belongs to no construct",
    ),
    "a construct without a body": (
        set_("construct", "lines", bodies=[]),
        "construct 'lines' of flow 'checkout' has no body",
    ),
    "an unknown body": (set_("construct", "lines", bodies=["ghost"]), "names an unknown region 'ghost'"),
    "a gateway of no construct": (
        set_("node", "pay", construct=""),
        "close 'pay' of flow 'checkout' belongs to an unknown",
    ),
    "a gateway of another construct": (
        set_("node", "quote:1:entry", construct="pay"),
        "entry 'quote:1:entry' is not of the construct 'quote'",
    ),
    "an unknown upstream": (set_("node", "pay:open", after=["ghost"]), "names an unknown node 'ghost'"),
    "a cycle through a construct": (
        set_("node", "lines:open", after=["notify"]),
        "node 'lines:open' needs 'notify', which comes after it: a cycle, or out of order",
    ),
    "a sleep without a length": (set_("node", "pause", args=[]), "node 'pause' does not say how long it sleeps"),
    "an event without a value": (set_("node", "placed", args=[], after=["pay"]), "node 'placed' has no single value"),
    "two results": (
        set_("node", EXIT, args=[{"name": "result", "value": get("pay")}, {"name": "more", "value": get("pay")}]),
        "exit 'run.exit' has more than a result",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_named(what: str, checkout: Plan) -> None:
    edit, message = BROKEN[what]
    found = edited(checkout, edit)
    assert any(message in line for line in found), found


def places(part: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a document, with what holds it."""
    for key in list(part) if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ():
        yield part, key
        yield from places(part[key])


def spoil(document: Any, rng: random.Random) -> None:
    """One change that a bad compiler, an old tool or a hand could make."""
    names = [
        part["id"] for key in ("nodes", "regions", "constructs") for part in document.get(key) or () if "id" in part
    ]
    holder, key = rng.choice(list(places(document)))
    value = holder[key]
    if rng.random() < 0.3:
        del holder[key]
    elif isinstance(value, str):
        holder[key] = rng.choice([*names, "ghost", "", "each", "race", "open", "close", "step", "timer"])
    elif isinstance(value, int | float):
        holder[key] = rng.choice([-1, 0, 5])
    elif isinstance(value, list) and value:
        value.append(rng.choice(value))
    else:
        holder[key] = None


@pytest.mark.parametrize("block", range(4))
def test_a_spoilt_plan_is_refused_or_sound(block: int) -> None:
    refused = 0
    for seed in range(block * 150, block * 150 + 150):
        rng = random.Random(seed)
        document = json.loads(generated(seed % 100).json)
        spoil(document, rng)
        try:
            plan = load(json.dumps(document))
        except PlanError:
            refused += 1
            continue
        assert prove(plan) == []
        problems(plan)
        for view in (draw, mermaid, svg, cost.text):
            assert isinstance(view(plan), str)
    assert 30 < refused < 150
