"""The workflow patterns of docs/patterns.md: each example runs, and comes to the same in both modes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import anyio
import pytest

from segue.testing.world import World

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "examples" / "patterns"))

import flows  # noqa: E402

MODES = ["orchestrated", "choreographed"]

VALUES = {
    "p01_sequence": (1, "a"),
    "p02_parallel_split": (1, "aa"),
    "p03_synchronization": (1, "ab"),
    "p04_exclusive_choice": (9, "large"),
    "p05_simple_merge": (1, "b"),
    "p06_multi_choice": (2, "a-"),
    "p07_structured_synchronizing_merge": (5, "a-"),
    "p08_multi_merge": (1, "ab"),
    "p09_structured_discriminator": (1, "a"),
    "p10_arbitrary_cycles": (1, 7),
    "p11_implicit_termination": (1, None),
    "p12_instances_without_synchronization": (1, "a"),
    "p13_instances_known_at_design_time": (1, "xyz"),
    "p14_instances_known_at_run_time": (["q", "p"], "pq"),
    "p17_interleaved_parallel_routing": (1, "ab"),
    "p21_structured_loop": (1, 4),
    "p22_recursion": (1, 3),
    "p28_blocking_discriminator": (1, 3),
    "p29_cancelling_discriminator": (1, "a"),
    "p30_structured_partial_join": (1, "ab"),
    "p31_blocking_partial_join": (0, 2),
    "p32_cancelling_partial_join": (1, "ab"),
    "p33_generalized_join": (1, ["xx", "yy"]),
    "p34_static_partial_join": (1, "ab"),
    "p35_cancelling_partial_join": (1, "a"),
    "p37_local_synchronizing_merge": (2, "-b"),
    "p38_general_synchronizing_merge": (1, "-b"),
    "p39_critical_section": (1, "b"),
    "p40_interleaved_routing": (1, "c"),
    "p41_thread_merge": (1, "xy"),
    "p42_thread_split": (["x", "y"], ["x", "y"]),
    "p43_explicit_termination": (9, "early"),
    "p43_by_failure": (1, "over"),
}
SIGNALLED = {
    "p15_instances_not_known_before": ("more", True, "more", "onea"),
    "p16_deferred_choice": ("letter", "dear", None, "dear"),
    "p18_milestone": ("change", "new", None, "new"),
    "p19_cancel_activity": ("stop", "stopped", None, "stopped"),
    "p24_persistent_trigger": ("trigger", "now", None, "now"),
    "p25_cancel_region": ("stop", "stopped", None, "stopped"),
    "p26_cancel_instances": ("stop", "stopped", None, "stopped"),
}


@pytest.mark.parametrize("mode", MODES)
async def test_patterns_come_to_what_they_mean(mode):
    async with World(flows.app, mode=mode) as world:
        for name, (given, value) in VALUES.items():
            run = await world.start(flows.app.flows[name], given)
            assert await run.result(timeout=20) == value, name


@pytest.mark.parametrize("mode", MODES)
async def test_patterns_with_signals(mode):
    async with World(flows.app, mode=mode) as world:
        for i, (name, (signal, sent, match, value)) in enumerate(SIGNALLED.items()):
            run = await world.start(flows.app.flows[name], i)
            await world.client.signal(run.id, signal, sent, match=match)
            assert await run.result(timeout=20) == value, name


@pytest.mark.parametrize("mode", MODES)
async def test_a_case_is_cancelled(mode):
    async with World(flows.app, mode=mode) as world:
        run = await world.start(flows.p20_cancel_case, 1)
        await anyio.sleep(0.1)
        await world.client.cancel(run.id)
        assert (await run.outcome(20)).status == "cancelled"


def test_the_document_names_every_pattern_and_every_example():
    text = (ROOT / "docs" / "patterns.md").read_text()
    rows = re.findall(r"^\| (\d+) \| [^|]+ \| (direct|idiom|not possible) \|", text, re.M)
    assert [int(number) for number, _ in rows] == list(range(1, 44))
    assert sum(verdict != "not possible" for _, verdict in rows) >= 38
    named = set(re.findall(r"`(p\d\d_\w+)`", text))
    tested = VALUES.keys() | SIGNALLED.keys() | {"p20_cancel_case"}
    assert named == set(flows.app.flows) == tested
