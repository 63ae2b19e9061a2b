"""Durations, and when a failed attempt of a step is tried again."""

from __future__ import annotations

import math
from datetime import timedelta

import msgspec

from segue.errors import DeclarationError, SegueError
from segue.model.site import here


def hours(n: float) -> float:
    """n hours, in seconds."""
    return n * 3600.0


def minutes(n: float) -> float:
    """n minutes, in seconds."""
    return n * 60.0


def seconds(n: float) -> float:
    """n seconds; for symmetry with `minutes` and `hours`."""
    return float(n)


def to_seconds(duration: float | timedelta, what: str) -> float:
    """A positive, finite duration in seconds.

    Raises:
        DeclarationError: It is not positive, not finite, or not a number.
    """
    number = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < math.inf:
        raise DeclarationError(
            f"{here()}: {what} must be more than zero seconds, got {duration!r}",
            "give a number of seconds, minutes(5), or a timedelta",
        )
    return float(number)


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """When and how often a failed attempt of a step is tried again: exponential backoff with jitter.

    A step without a `retry` runs once: whether a repetition does harm is known to its author only.

    Args:
        max_attempts: Attempts in all, the first one included.
        initial: Seconds to wait after the first failed attempt.
        factor: The wait grows by this factor after each further failure.
        max_delay: Longest wait, in seconds.
        jitter: Spread of the wait, as a part of it: 0.1 gives 90 % to 110 %.
        non_retryable: Exception types after which the step fails at once.

    Raises:
        DeclarationError: A value is out of its range.
    """

    max_attempts: int = 3
    initial: float = 1.0
    factor: float = 2.0
    max_delay: float = 60.0
    jitter: float = 0.1
    non_retryable: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        attempts = self.max_attempts
        if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
            raise _bad("max_attempts", "a whole number from 1", attempts)
        for name, low, high in (("initial", 0, math.inf), ("factor", 1, math.inf), ("max_delay", 0, math.inf)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value < high:
                raise _bad(name, f"a number from {low}", value)
        if isinstance(self.jitter, bool) or not isinstance(self.jitter, int | float) or not 0 <= self.jitter <= 1:
            raise _bad("jitter", "a number from 0 to 1", self.jitter)
        types = self.non_retryable
        if not isinstance(types, tuple) or not all(isinstance(t, type) and issubclass(t, BaseException) for t in types):
            raise _bad("non_retryable", "a tuple of exception types", types)

    def delay(self, attempt: int, random: float) -> float:
        """Seconds to wait after a failed attempt.

        Args:
            attempt: Number of the attempt that failed, from 1.
            random: A random number from [0, 1), drawn by the caller.
        """
        try:
            grown = self.initial * float(self.factor) ** (attempt - 1)
        except OverflowError:
            grown = self.max_delay
        base = min(grown, self.max_delay)
        return min(base * (1 + self.jitter * (2 * random - 1)), self.max_delay)

    def retries(self, error: BaseException, attempt: int) -> bool:
        """Whether to try again after this attempt (from 1) failed with this error.

        Never after one of `non_retryable`, after an error of Segue that says of itself that a retry does not help, or
        after what is no `Exception` (a cancellation, an interrupt).
        """
        if not isinstance(error, Exception) or isinstance(error, self.non_retryable):
            return False
        if isinstance(error, SegueError) and not error.retryable:
            return False
        return attempt < self.max_attempts


ONCE = Retry(max_attempts=1)
"""What a step without a `retry` has."""


def _bad(name: str, expected: str, value: object) -> DeclarationError:
    return DeclarationError(f"{here()}: Retry({name}=...) must be {expected}, got {value!r}")
