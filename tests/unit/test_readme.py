"""The README says what is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = sorted(set(re.findall(r"\bsegue ([a-z]+)\b", " ".join(body for kind, body in BLOCKS if kind == "sh"))))


def test_the_first_flow_is_the_quickstart() -> None:
    kind, body = BLOCKS[0]
    assert kind == "python"
    assert (ROOT / "examples/quickstart/flow.py").read_text().endswith(body)


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_exist(command: str) -> None:
    done = subprocess.run([sys.executable, "-m", "segue.cli", command, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert command in done.stdout


def test_its_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"`make ([a-z]+)`|^make ([a-z]+)", README, re.MULTILINE))
    assert targets
    for pair in targets:
        target = "".join(pair)
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_its_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
