"""Run ids and business keys."""

from __future__ import annotations

import time
import uuid

import pytest

from segue.errors import InvalidInput
from segue.runtime import ids
from segue.runtime.ids import LONGEST_KEY, check_key, check_run_id, new_run_id


def test_a_run_id_is_a_uuid_of_version_7() -> None:
    before = time.time_ns() // 1_000_000
    run = new_run_id()
    parsed = uuid.UUID(hex=run)
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert before - 1 <= int(run[:12], 16) <= time.time_ns() // 1_000_000 + 1
    assert run == parsed.hex


def test_run_ids_grow_even_if_the_clock_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()
    monkeypatch.setattr(ids.time, "time_ns", lambda: now)
    found = [new_run_id() for _ in range(10_000)]
    monkeypatch.setattr(ids.time, "time_ns", lambda: now - 10**9)
    found += [new_run_id() for _ in range(10)]
    assert found == sorted(found)
    assert len(set(found)) == len(found)


def test_run_ids_are_taken_as_people_write_them() -> None:
    run = new_run_id()
    assert check_run_id(run) == check_run_id(str(uuid.UUID(hex=run))) == check_run_id(run.upper()) == run


@pytest.mark.parametrize(
    "text", ["", "4711", "z" * 32, "9f86d081884c4d638feaa0c55ad015a3", "0" * 33, "٣" * 32, "é" * 32]
)
def test_other_texts_are_no_run_ids(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not a run id"):
        check_run_id(text)


@pytest.mark.parametrize("key", ["", "4711", "a b/c.d*>", "żółw", "k" * LONGEST_KEY])
def test_keys_are_any_printable_text(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize("key", ["a\x00", "line\n", "\ud800", "k" * (LONGEST_KEY + 1)])
def test_keys_that_not_everybody_can_store(key: str) -> None:
    with pytest.raises(InvalidInput, match="key"):
        check_key(key)
