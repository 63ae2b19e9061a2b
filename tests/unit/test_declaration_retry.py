"""When a failed attempt is tried again."""

from __future__ import annotations

from typing import Any

import pytest

from segue import DeclarationError, InvalidInput, Retry
from segue.errors import TransportUnavailable


def test_delays_grow_up_to_a_limit_and_spread() -> None:
    retry = Retry(max_attempts=9, initial=2, factor=3, max_delay=30, jitter=0.5)
    assert [retry.delay(n, 0.5) for n in (1, 2, 3, 4, 5000)] == [2.0, 6.0, 18.0, 30.0, 30.0]
    assert (retry.delay(1, 0.0), retry.delay(1, 0.75), retry.delay(4, 0.999)) == (1.0, 2.5, 30.0)
    assert Retry(jitter=0).delay(2, 0.9) == 2.0


def test_what_is_retried() -> None:
    retry = Retry(max_attempts=3, non_retryable=(KeyError,))
    assert [retry.retries(ValueError(), n) for n in (1, 2, 3)] == [True, True, False]
    assert not retry.retries(KeyError(), 1)
    assert not retry.retries(InvalidInput("bad"), 1)
    assert retry.retries(TransportUnavailable("away"), 1)
    assert not retry.retries(KeyboardInterrupt(), 1)


@pytest.mark.parametrize(
    "bad",
    [
        {"max_attempts": 0},
        {"max_attempts": 1.5},
        {"initial": -1},
        {"factor": 0.5},
        {"max_delay": float("nan")},
        {"jitter": 2},
        {"jitter": True},
        {"non_retryable": KeyError},
        {"non_retryable": ("KeyError",)},
    ],
)
def test_a_bad_retry_is_refused(bad: dict[str, Any]) -> None:
    (name,) = bad
    with pytest.raises(DeclarationError, match=rf"test_declaration_retry\.py:\d+: Retry\({name}=\.\.\.\) must be"):
        Retry(**bad)


def test_a_retry_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Retry().max_attempts = 4  # type: ignore[misc]
