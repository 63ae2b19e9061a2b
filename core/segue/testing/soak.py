"""Searches for failures at random, as long as asked: `python -m segue.testing.soak --seconds 300`.

Every seed is a case and a weather; both modes are run and compared. A seed that fails is printed, with the command that
runs it again, and kept in a file that the property tests replay.
"""

from __future__ import annotations

import argparse
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segue.testing.agreement import agree
from segue.testing.cases import KINDS
from segue.testing.sim.faults import WEATHER
from segue.testing.sim.simulate import Trace

HANGS = 10.0
"""Real seconds after which a case, which takes milliseconds, is given up."""


class Tally:
    """What was done so far."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.runs = self.events = 0
        self.virtual = 0.0
        self.faults: Counter[str] = Counter()
        self.failed: list[str] = []

    def add(self, trace: Trace) -> None:
        """One more run."""
        self.runs += 1
        self.events += trace.events
        self.virtual += trace.seconds
        self.faults.update(trace.faults)

    def __str__(self) -> str:
        seconds = max(time.monotonic() - self.begun, 1e-3)
        faults = ", ".join(f"{count:,} {name}" for name, count in sorted(self.faults.items()))
        return (
            f"{self.runs:,} runs ({60 * self.runs / seconds:,.0f} a minute), {self.events:,} events "
            f"({self.events / seconds:,.0f} a second), {self.virtual / 3600:,.0f} virtual hours; "
            f"faults: {faults or 'none'}; {len(self.failed)} failed"
        )


def place(seed: int) -> tuple[str, str]:
    """The kind and the weather of a seed, if none is asked for."""
    kinds, weathers = list(KINDS), list(WEATHER)
    return kinds[seed % len(kinds)], weathers[seed // len(kinds) % len(weathers)]


def run(seed: int, kind: str, weather: str, tally: Tally) -> str:
    """Run a seed in both modes; how it failed, if it did."""
    try:
        with watched():
            for trace in agree(KINDS[kind](seed), seed, WEATHER[weather]).values():
                tally.add(trace)
    except Exception as error:
        command = f"python -m segue.testing.soak --seed {seed} --kind {kind} --weather {weather}"
        return f"{command}\n  {type(error).__name__}: {str(error)[:600]}"
    return ""


@contextmanager
def watched(seconds: float = HANGS) -> Iterator[None]:
    """Interrupt what runs for so many real seconds: virtual time cannot help against what never waits.

    Raises:
        TimeoutError: It was interrupted.
    """

    def interrupt(*_: object) -> None:
        raise TimeoutError(f"something ran for {seconds:g} s without ever waiting")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main() -> int:
    """Search; 1 if something failed."""
    parser = argparse.ArgumentParser(prog="python -m segue.testing.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long")
    parser.add_argument("--seed", type=int, help="the only seed to run")
    parser.add_argument("--first", type=int, default=time.time_ns() // 1_000_000, help="the first seed")
    parser.add_argument("--kind", choices=list(KINDS), help="only this kind of cases")
    parser.add_argument("--weather", choices=list(WEATHER), help="only this weather")
    parser.add_argument("--keep", type=Path, help="file for the seeds that failed")
    parser.add_argument("--most", type=int, default=20, help="failures after which to stop")
    given = parser.parse_args()
    tally = Tally()
    said, seed = tally.begun, given.first if given.seed is None else given.seed
    print(f"first seed {seed}")
    while len(tally.failed) < given.most:
        kind, weather = place(seed)
        failure = run(seed, given.kind or kind, given.weather or weather, tally)
        if failure:
            print(failure, flush=True)
            tally.failed.append(failure)
            if given.keep is not None:
                with given.keep.open("a") as kept:
                    kept.write(f"{seed} {given.kind or kind} {given.weather or weather}\n")
        now = time.monotonic()
        if given.seed is not None or now - tally.begun > given.seconds:
            break
        if now - said > 10:
            said = now
            print(f"seed {seed}: {tally}", flush=True)
        seed += 1
    print(f"seed {seed}: {tally}")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
