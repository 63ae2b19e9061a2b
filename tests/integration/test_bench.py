"""The benchmark runs whole and measures what it says; what it measures is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

BENCH = Path(__file__).resolve().parents[2] / "benchmarks" / "bench.py"
SYSTEMS = {
    *("order-choreographed", "order-choreographed-observed", "order-plain", "order-broker"),
    *("chain-orchestrated", "map-choreographed", "saga-orchestrated"),
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a quick run has written its results."""
    folder = tmp_path_factory.mktemp("bench")
    command = [sys.executable, str(BENCH), "--quick", "--only", ",".join(sorted(SYSTEMS)), "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / "bench.txt").read_text() in done.stdout
    return folder


def test_every_system_is_measured(out: Path) -> None:
    figures = json.loads((out / "bench.json").read_text())["figures"]
    assert {one["system"] for one in figures} == SYSTEMS
    for one in figures:
        assert one["flows_per_s"]["median"] > 0
        assert 0 < one["p50_ms"] <= one["p99_ms"]
        assert one["cpu_s"] == pytest.approx(sum(one["cpu_s_by_process"].values()), abs=0.01)
    by_name = {(one["system"], one["in_flight"]): one for one in figures}
    # An order by hand is four messages; so it is for the bare broker.
    assert by_name["order-plain", 1]["stored"] == pytest.approx(4000)
    assert by_name["order-broker", 1]["stored"] == pytest.approx(4000)
    # One event each: the start, three steps, the end. Many at a time share messages.
    assert by_name["order-choreographed", 1]["stored"] == pytest.approx(5000, rel=0.2)
    assert by_name["order-choreographed", 100]["stored"] < 2500
    assert "observer" in by_name["order-choreographed-observed", 1]["cpu_s_by_process"]
    assert "coordinator" in by_name["chain-orchestrated", 100]["cpu_s_by_process"]


def test_ratios_and_the_observers_share_are_stated(out: Path) -> None:
    results = json.loads((out / "bench.json").read_text())
    rates = {(one["system"], one["in_flight"]): one["flows_per_s"]["median"] for one in results["figures"]}
    ratios = {(one["of"], one["to"], one["in_flight"]): one["ratio"] for one in results["ratios"]}
    for level in (1, 100):
        expected = rates["order-choreographed", level] / rates["order-plain", level]
        assert ratios["order-choreographed", "order-plain", level] == pytest.approx(expected, abs=0.001)
    assert {(one["system"], one["in_flight"]) for one in results["observer"]} == {
        ("order-choreographed", 1),
        ("order-choreographed", 100),
    }
    assert "order-choreographed / order-plain at 100 in flight" in (out / "bench.txt").read_text()


def test_the_plot_is_an_image(out: Path) -> None:
    root = ElementTree.parse(out / "bench.svg").getroot()
    assert root.tag.endswith("svg")
    texts = [element.text or "" for element in root.iter() if element.tag.endswith("text")]
    assert any("choreographed" in text for text in texts)
