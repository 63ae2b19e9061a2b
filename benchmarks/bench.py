"""Measures both modes beside services written by hand and the bare broker, all in one run.

    python benchmarks/bench.py [--quick] [--seconds S] [--rounds N] [--in-flight N,...] [--only NAME,...]
        [--out FOLDER]

Writes bench.json, bench.txt (the table and the ratios, printed too) and bench.svg. Brokers and databases are kept in a
temporary folder, so TMPDIR says which disk is measured.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import children
import plot
import report
from load import Round, System, measure
from systems import NAMES, SHAPES, VARIANTS, system

LEVELS = {"order": (1, 10, 100, 1000), "chain": (1, 100, 1000), "map": (1, 10), "saga": (1, 100, 1000)}
QUICK_LEVELS = {"order": (1, 100), "chain": (100,), "map": (1,), "saga": (100,)}
QUICK_ONLY = (
    "order-choreographed*,order-orchestrated,*-plain,order-broker,chain-choreographed,chain-orchestrated,map-*,saga-*"
)
RESULTS = Path(__file__).resolve().parent / "results"


class Settings(NamedTuple):
    """How to measure.

    Attributes:
        names: The systems.
        levels: Flows in flight, by shape.
        rounds: Rounds of each system and level.
        warm_up: Seconds before each window.
        seconds: Length of each window.
    """

    names: list[str]
    levels: dict[str, tuple[int, ...]]
    rounds: int
    warm_up: float
    seconds: float


async def run(settings: Settings, found: dict[tuple[str, int], list[Round]]) -> None:
    """Measure; every round is added to `found` as it ends."""
    with tempfile.TemporaryDirectory(prefix="segue-bench-") as folder:
        for shape in SHAPES:
            async with AsyncExitStack() as stack:
                up: list[System] = []
                for variant in VARIANTS:
                    if f"{shape}-{variant}" in settings.names:
                        progress(f"starting {shape}-{variant}")
                        up.append(await stack.enter_async_context(system(shape, variant, Path(folder))))
                for level in settings.levels[shape]:
                    for number in range(settings.rounds):
                        for one in up:
                            progress(f"{one.name}: {level} in flight, round {number + 1} of {settings.rounds}")
                            result = await measure(one, level, settings.warm_up, settings.seconds)
                            found.setdefault((one.name, level), []).append(result)


def progress(text: str) -> None:
    """One line that the next one replaces on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


def parse(arguments: list[str]) -> tuple[Settings, Path]:
    """Settings and the folder for results."""
    parser = argparse.ArgumentParser(description="Measure both modes beside hand-written services and the bare broker.")
    parser.add_argument("--quick", action="store_true", help="see that it works; the figures mean little")
    parser.add_argument("--seconds", type=float, help="length of each window (default: 1.5)")
    parser.add_argument("--rounds", type=int, help="rounds of each system (default: 3)")
    parser.add_argument("--in-flight", metavar="N,...", help="flows at the same time (default: 1,10,100,1000)")
    parser.add_argument("--only", metavar="NAME,...", help="systems, as patterns: 'order-*,chain-plain'")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER", help="where the results go")
    given = parser.parse_args(arguments)
    only = given.only or (QUICK_ONLY if given.quick else "*")
    wanted = [name for name in NAMES if any(fnmatch.fnmatch(name, part) for part in only.split(","))]
    if not wanted:
        parser.error(f"--only fits none of {', '.join(NAMES)}")
    seconds = given.seconds or (0.3 if given.quick else 1.5)
    rounds = given.rounds or (1 if given.quick else 3)
    levels = QUICK_LEVELS if given.quick else LEVELS
    if given.in_flight:
        levels = dict.fromkeys(SHAPES, tuple(map(int, given.in_flight.split(","))))
    return Settings(wanted, levels, rounds, 0.1 if given.quick else 0.5, seconds), given.out


def main() -> int:
    """The command."""
    settings, out = parse(sys.argv[1:])
    found: dict[tuple[str, int], list[Round]] = {}
    since = time.monotonic()
    try:
        children.run("driver", run, settings, found)
    except KeyboardInterrupt:
        progress("interrupted; what was measured until now:\n")
        status = 130
    else:
        progress(f"measured in {time.monotonic() - since:.0f} s\n")
        status = 0
    if found:
        results = report.results(found, settings.seconds)
        text = report.text(results)
        print(text)
        out.mkdir(parents=True, exist_ok=True)
        (out / "bench.json").write_text(report.encode(results))
        (out / "bench.txt").write_text(text + "\n")
        (out / "bench.svg").write_text(plot.svg(results))
        print(f"\nwritten: {', '.join(os.path.relpath(out / f'bench.{kind}') for kind in ('json', 'txt', 'svg'))}")
    return status


if __name__ == "__main__":
    sys.exit(main())
