"""What may go wrong in a simulation, and the dice that decide when it does: every choice comes from one seed."""

from __future__ import annotations

import random

import msgspec

BUDGET = 120
"""Faults in one simulation, kills and the like not counted; then it stays calm: every run must come to its end."""

KILL = 0.04
"""Chance of a kill or a stall at an operation, as long as there are any left."""


class Faults(msgspec.Struct, frozen=True):
    """What may go wrong; chances are per message or per operation.

    Attributes:
        replicas: Replicas of each participant.
        slow: A message takes seconds, so that others overtake it.
        lag: An operation takes seconds; if there are several, messages are delivered again before they are done.
        long: An attempt of a step takes longer than a turn may wait for it.
        duplicates: A message is delivered twice.
        losses: A message is lost at one hearer for good; also acknowledgements, requests and replies.
        errors: An operation of a store or the broker fails; in half of the cases it was carried out nevertheless.
        crashes: How often a replica is killed, between any two operations; another one starts later.
        stalls: How often a replica stands still for up to two minutes and then goes on, knowing of nothing.
        outages: How often a store or the broker is away for up to a minute.
        skew: Seconds by which the replicas' clocks may be wrong.
    """

    replicas: int = 2
    slow: float = 0.05
    lag: float = 0.0
    long: float = 0.02
    duplicates: float = 0.0
    losses: float = 0.0
    errors: float = 0.0
    crashes: int = 0
    stalls: int = 0
    outages: int = 0
    skew: float = 0.0

    @property
    def safe(self) -> bool:
        """Whether nothing can make a step run twice."""
        return not (
            self.lag
            or self.duplicates
            or self.losses
            or self.errors
            or self.crashes
            or self.stalls
            or self.outages
            or self.skew
        )


QUIET = Faults()
ROUGH = Faults(duplicates=0.15, errors=0.02, crashes=3, slow=0.1, lag=0.1, long=0.1, skew=0.5)
LOSSY = Faults(duplicates=0.1, losses=0.12, crashes=1, slow=0.05, lag=0.02)
CROWDED = Faults(replicas=4, duplicates=0.4, errors=0.01, crashes=8, slow=0.4, lag=0.2, long=0.2, skew=2.0)
STORMY = Faults(
    replicas=3,
    duplicates=0.1,
    losses=0.05,
    errors=0.05,
    crashes=3,
    stalls=2,
    outages=2,
    slow=0.1,
    lag=0.1,
    long=0.3,
    skew=5.0,
)
WEATHER = {"quiet": QUIET, "rough": ROUGH, "lossy": LOSSY, "crowded": CROWDED, "stormy": STORMY}
"""The usual ones, by name."""


class Dice:
    """Draws what happens next.

    Args:
        seed: Source of all draws.
        faults: What may happen.

    Attributes:
        count: How many faults there were, by kind.
        calm: Whether no messages get lost and no operations fail any more.
    """

    def __init__(self, seed: int | str, faults: Faults) -> None:
        self.rng = random.Random(seed)
        self.faults = faults
        self.count: dict[str, int] = {}
        self.calm = faults.safe
        self._left = BUDGET
        self._crashes, self._stalls, self._outages = faults.crashes, faults.stalls, faults.outages

    def happens(self, what: str, chance: float) -> bool:
        """Whether a fault happens."""
        if chance <= 0 or self.calm or self.rng.random() >= chance:
            return False
        self._left -= 1
        self.calm = self._left == 0
        self.noted(what)
        return True

    def noted(self, what: str) -> None:
        """Count something that happens."""
        self.count[what] = self.count.get(what, 0) + 1

    def crash(self) -> bool:
        """Whether the replica that has just done something is killed."""
        if not self._crashes or self.rng.random() >= KILL:
            return False
        self._crashes -= 1
        self.noted("crashes")
        return True

    def stall(self) -> float:
        """Seconds for which the replica that has just done something stands still, mostly 0."""
        if not self._stalls or self.rng.random() >= KILL:
            return 0.0
        self._stalls -= 1
        self.noted("stalls")
        return self.rng.choice((2.0, 20.0, 120.0)) * self.rng.random()

    def outage(self) -> bool:
        """Whether the store or broker that is about to do something is away now, for a while."""
        if not self._outages or self.rng.random() >= KILL:
            return False
        self._outages -= 1
        self.noted("outages")
        return True

    def delay(self) -> float:
        """Seconds that an operation takes."""
        return self._seconds(self.faults.lag)

    def travel(self) -> float:
        """Seconds that a message takes."""
        return self._seconds(self.faults.slow)

    def duration(self) -> float:
        """Seconds that an attempt takes."""
        rng = self.rng
        if rng.random() < self.faults.long:
            return rng.choice((3.0, 40.0)) * rng.random()
        return 0.03 * rng.random()

    def _seconds(self, slow: float) -> float:
        rng = self.rng
        if slow and rng.random() < slow:
            return 3.0 * rng.random() ** 2
        return 0.004 * rng.random()
