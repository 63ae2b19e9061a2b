"""From rounds to figures: medians, ratios, the observer's share; as JSON and as a table."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version

import msgspec
from load import Round
from systems import SHAPES

from segue_nats.server import find_binary

PACKAGES = ("nats-py", "uvloop", "msgspec", "anyio", "sqlalchemy")
SHOWN = ("choreographed", "orchestrated", "plain", "lean", "broker")
OBSERVED = "-observed"
Rounds = Mapping[tuple[str, int], Sequence[Round]]


class Spread(msgspec.Struct, frozen=True):
    """Median, smallest and largest of some rounds."""

    median: float
    least: float
    most: float


class Figures(msgspec.Struct, frozen=True):
    """What one system does with a number of flows in flight.

    Attributes:
        system: `<shape>-<variant>`.
        in_flight: Flows at the same time.
        rounds: Rounds that the figures come from.
        flows_per_s: Flows that ended per second.
        p50_ms: Median time from start to end.
        p99_ms: 99th percentile of it.
        samples: Flows that the percentiles come from.
        cpu_s: CPU seconds for 1,000 flows, over all processes.
        cpu_s_by_process: The same by process; `driver` makes the load.
        stored: Messages that the broker stores for 1,000 flows.
        received: Messages that clients send to it for 1,000 flows, acknowledgements and requests included.
        delivered: Messages that it sends to clients for 1,000 flows.
        waiting: Messages that consumers had not finished at the end of a window.
    """

    system: str
    in_flight: int
    rounds: int
    flows_per_s: Spread
    p50_ms: float
    p99_ms: float
    samples: int
    cpu_s: float
    cpu_s_by_process: dict[str, float]
    stored: float
    received: float
    delivered: float
    waiting: float


class Ratio(msgspec.Struct, frozen=True):
    """Flows per second of one system by those of another; of medians of rounds that took turns."""

    of: str
    to: str
    in_flight: int
    ratio: float


class Share(msgspec.Struct, frozen=True):
    """What an observer takes.

    Attributes:
        system: The system without it.
        in_flight: Flows at the same time.
        flows_per_s: Part of the flows per second that is missing with it.
        cpu_s: Its own CPU seconds for 1,000 flows.
        cpu: Its part of the CPU seconds of all processes.
    """

    system: str
    in_flight: int
    flows_per_s: float
    cpu_s: float
    cpu: float


class Results(msgspec.Struct, frozen=True):
    """All of a run."""

    cores: int
    versions: dict[str, str]
    window_s: float
    figures: list[Figures]
    ratios: list[Ratio]
    observer: list[Share]


def results(found: Rounds, seconds: float) -> Results:
    """The figures of the rounds that were measured, with windows of some seconds."""
    figures = [_figures(name, level, rounds) for (name, level), rounds in found.items()]
    known = {(one.system, one.in_flight): one for one in figures}
    versions = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    output = subprocess.run([find_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    versions["nats-server"] = output.split()[-1].removeprefix("v")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Results(cores, versions, seconds, figures, list(_ratios(known)), list(_shares(known)))


def encode(found: Results) -> str:
    """As JSON."""
    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n"


def text(found: Results) -> str:
    """As a table, the ratios below it."""
    rows = [["", "in flight", "flows/s", "least–most", "p50 ms", "p99 ms", "CPU s", "stored", "sent", "received"]]
    for one in sorted(found.figures, key=lambda one: _rank(one.system)):
        rate = one.flows_per_s
        rows.append(
            [
                one.system,
                f"{one.in_flight:,}",
                f"{rate.median:,.0f}",
                f"{rate.least:,.0f}–{rate.most:,.0f}",
                f"{one.p50_ms:,.2f}",
                f"{one.p99_ms:,.2f}",
                f"{one.cpu_s:.3f}",
                f"{one.stored:,.0f}",
                f"{one.delivered:,.0f}",
                f"{one.received:,.0f}",
            ]
        )
    lines = [
        *_aligned(rows),
        "",
        "CPU seconds and messages (stored, sent and received by the broker): for 1,000 flows.",
    ]
    lines += ["", "flows/s, by those of the same run:"]
    for ratio in found.ratios:
        lines.append(f"  {ratio.of} / {ratio.to} at {ratio.in_flight:,} in flight: {ratio.ratio:.2f}")
    if found.observer:
        lines += ["", "the observer's share:"]
    for share in found.observer:
        lines.append(
            f"  {share.system} at {share.in_flight:,} in flight: {share.flows_per_s:+.0%} flows/s; "
            f"{share.cpu_s:.3f} CPU s for 1,000 flows, {share.cpu:.0%} of all"
        )
    return "\n".join(lines)


def _rank(system: str) -> tuple[int, int]:
    shape, _, variant = system.partition("-")
    return [*map(str, SHAPES)].index(shape), SHOWN.index(variant.removesuffix(OBSERVED)) * 2 + variant.endswith(
        OBSERVED
    )


def _figures(name: str, level: int, rounds: Sequence[Round]) -> Figures:
    rates = [one.flows / one.seconds for one in rounds]
    latencies = sorted(latency for one in rounds for latency in one.latencies)
    cpu = {
        process: _per_thousand(rounds, [one.counted.cpu[process] for one in rounds])
        for process in rounds[0].counted.cpu
    }
    return Figures(
        name,
        level,
        len(rounds),
        Spread(*(round(rate, 1) for rate in (statistics.median(rates), min(rates), max(rates)))),
        _milliseconds(latencies, 0.5),
        _milliseconds(latencies, 0.99),
        len(latencies),
        _per_thousand(rounds, [sum(one.counted.cpu.values()) for one in rounds]),
        cpu,
        _per_thousand(rounds, [one.counted.stored for one in rounds]),
        _per_thousand(rounds, [one.counted.received for one in rounds]),
        _per_thousand(rounds, [one.counted.delivered for one in rounds]),
        statistics.median(one.waiting for one in rounds),
    )


def _per_thousand(rounds: Sequence[Round], amounts: Sequence[float]) -> float:
    """The median of an amount for 1,000 flows."""
    pairs = zip(rounds, amounts, strict=True)
    return round(statistics.median(amount / one.all_flows * 1000 for one, amount in pairs), 4)


def _milliseconds(latencies: Sequence[float], part: float) -> float:
    return round(latencies[min(len(latencies) - 1, int(len(latencies) * part))] * 1000, 3)


def _ratios(known: Mapping[tuple[str, int], Figures]) -> Iterator[Ratio]:
    pairs = [
        ("choreographed", "plain"),
        ("choreographed", "lean"),
        ("choreographed", "broker"),
        ("orchestrated", "plain"),
        ("choreographed", "orchestrated"),
    ]
    for of, to in pairs:
        for (system, level), mine in known.items():
            shape, _, variant = system.partition("-")
            other = known.get((f"{shape}-{to}", level))
            if variant == of and other is not None:
                ratio = mine.flows_per_s.median / other.flows_per_s.median
                yield Ratio(system, other.system, level, round(ratio, 3))


def _shares(known: Mapping[tuple[str, int], Figures]) -> Iterator[Share]:
    for (system, level), without in known.items():
        seen = known.get((system + OBSERVED, level))
        if seen is None:
            continue
        own = seen.cpu_s_by_process["observer"]
        change = seen.flows_per_s.median / without.flows_per_s.median - 1
        yield Share(system, level, round(change, 3), own, round(own / seen.cpu_s, 3))


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *others = row
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join([first.ljust(widths[0]), *cells]).rstrip()
