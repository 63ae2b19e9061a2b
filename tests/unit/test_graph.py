"""Serialised plans: what is loaded is what was saved, and what cannot run is refused with a reason."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from segue.errors import PlanError
from segue.plan.graph import ENTRY, EXIT, Node, Plan, load
from segue.testing.graphs import random_plan, workflow_like

PLAN = random_plan(random.Random(11))
Edit = Callable[[dict[str, Any]], Any]


def edited(edit: Edit) -> bytes:
    document = json.loads(PLAN.json)
    edit(document)
    return json.dumps(document).encode()


def node(document: dict[str, Any], name: str) -> Any:
    return next(node for node in document["nodes"] if node["id"] == name)


@pytest.mark.parametrize("plan", [PLAN, workflow_like(random.Random(1), 300)], ids=["random", "workflow"])
def test_a_loaded_plan_is_the_same_plan(plan: Plan) -> None:
    again = load(plan.json)
    assert again == plan
    assert again.json == plan.json
    assert again.hash == plan.hash
    assert load(plan.json.decode()) == plan


def test_the_hash_does_not_depend_on_how_the_json_is_written() -> None:
    document = json.loads(PLAN.json)
    loose = json.dumps(dict(reversed(document.items())), indent=3)
    assert load(loose).hash == PLAN.hash


def test_the_hash_is_the_same_in_another_process() -> None:
    code = "import random; from segue.testing.graphs import random_plan; print(random_plan(random.Random(11)).hash)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == PLAN.hash
    assert re.fullmatch(r"[0-9a-f]{32}", PLAN.hash)


def test_another_plan_has_another_hash() -> None:
    hashes = {random_plan(random.Random(seed)).hash for seed in range(50)}
    assert len(hashes) == 50
    assert load(edited(lambda document: document.update(on_failure="stop"))).hash != PLAN.hash


def test_a_plan_is_json_without_white_space_and_sorted() -> None:
    again = json.dumps(json.loads(PLAN.json), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert PLAN.json.decode() == again


BROKEN: dict[str, tuple[Edit, str]] = {
    "an unknown format": (lambda plan: plan.update(format=2), "plan format 2 is not known"),
    "an unknown upstream": (lambda plan: node(plan, EXIT)["after"].append("ghost"), "unknown node 'ghost'"),
    "an unknown kind": (lambda plan: node(plan, ENTRY).update(kind="gate"), "not a plan: Invalid enum value 'gate'"),
    "a node twice": (lambda plan: plan["nodes"].insert(0, plan["nodes"][0]), "two nodes have the same name"),
    "no exit": (lambda plan: plan["nodes"].pop(), "has no exit 'run.exit'"),
    "no entry": (lambda plan: plan.update(nodes=[{"id": EXIT, "kind": "exit", "owner": "s"}]), "no entry 'run.entry'"),
    "a cycle": (lambda plan: plan["nodes"][1].setdefault("after", []).append(EXIT), "a cycle, or out of order"),
    "itself as upstream": (lambda plan: node(plan, EXIT)["after"].append(EXIT), "a cycle, or out of order"),
    "another order": (lambda plan: plan["nodes"].reverse(), "a cycle, or out of order"),
    "a node that nothing starts": (
        lambda plan: plan["nodes"].insert(1, {"id": "x", "kind": "step", "owner": "s", "step": "x"}),
        "'x' cannot be reached",
    ),
    "no home": (lambda plan: plan.pop("home"), "missing required field `home`"),
    "a text for nodes": (lambda plan: plan.update(nodes="none"), "not a plan: Expected `array`"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_plan_that_cannot_run_is_refused(what: str) -> None:
    edit, message = BROKEN[what]
    with pytest.raises(PlanError, match=re.escape(message)):
        load(edited(edit))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b'{"flow": "\xff"}', b"[" * 100_000, "nonsense"])
def test_what_is_no_plan_is_refused(data: bytes | str) -> None:
    with pytest.raises(PlanError, match="not a plan"):
        load(data)


@pytest.mark.parametrize("depth", [100, 190, 250, 900, 960, 990, 5000])
def test_deep_nesting_is_borne_or_refused(depth: int) -> None:
    step = {"id": "deep", "kind": "step", "owner": "s", "step": "x", "after": [ENTRY], "guard": "deep guard"}
    document = json.loads(PLAN.json)
    document["nodes"].insert(1, step)
    document["nodes"][-1].setdefault("after", []).append("deep")
    inner = '{"type":"truth","value":{"type":"const","value":true}}'
    guard = '{"type":"not","condition":' * depth + inner + "}" * depth
    data, refusal = json.dumps(document).replace('"deep guard"', guard), ""
    try:
        assert load(data).index.nodes["deep"].step == "x"
    except PlanError as error:
        refusal = error.message
    assert not refusal or any(text in refusal for text in ("recursion", "nested too deeply", "more than 200 levels"))
    assert bool(refusal) is (depth > 200)


def test_an_unknown_upstream_is_found_when_the_index_is_built() -> None:
    plan = Plan("shop", "s", (Node(ENTRY, "entry", "s"), Node(EXIT, "exit", "s", after=("a",))), (), (), {}, (), {})
    with pytest.raises(PlanError, match="names an unknown node 'a'"):
        _ = plan.index


def test_the_index_knows_the_neighbours() -> None:
    for name, ups in PLAN.index.ups.items():
        assert len(set(ups)) == len(ups)
        assert PLAN.index.required[name] <= set(ups)
        for up in ups:
            assert name in PLAN.index.downs[up]
            assert PLAN.index.order[up] < PLAN.index.order[name]
    assert sum(map(len, PLAN.index.downs.values())) == sum(map(len, PLAN.index.ups.values()))
