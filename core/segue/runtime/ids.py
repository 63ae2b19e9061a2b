"""Run ids: UUIDv7 (RFC 9562), 32 hex digits. Ordered by time, so that rows of a time lie together; valid trace ids."""

from __future__ import annotations

import hashlib
import os
import time

from segue.errors import InvalidInput

LONGEST_KEY = 512

_last = 0


def new_run_id() -> str:
    """A new run id, greater than all made before by this process."""
    global _last
    # 48 bits of milliseconds and 12 of their fraction; bumped when the clock stands still or goes back.
    stamp = max(time.time_ns() * 4096 // 1_000_000, _last + 1)
    _last = stamp
    tail = int.from_bytes(os.urandom(8), "big") & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000
    return f"{stamp >> 12:012x}7{stamp & 0xFFF:03x}{tail:016x}"


def check_key(text: str) -> str:
    """A business key, or "" for none.

    Raises:
        InvalidInput: It is too long, or has characters that not everybody can store or print.
    """
    if len(text) > LONGEST_KEY:
        raise InvalidInput(f"a key has {len(text):,} characters", f"keys have up to {LONGEST_KEY}")
    if text and not text.isprintable():
        raise InvalidInput(f"the key {text!r} has characters that cannot be printed", "take another field as key")
    return text


def check_run_id(text: str) -> str:
    """A run id in canonical form; dashes and capitals are accepted.

    Raises:
        InvalidInput: Not 32 hex digits of a UUIDv7.
    """
    run = text.replace("-", "").lower()
    if len(run) != 32 or run[12] != "7" or any(letter not in "0123456789abcdef" for letter in run):
        raise InvalidInput(f"{text!r} is not a run id", "run ids are UUIDv7, 32 hex digits")
    return run


def earliest_run_id(at: float) -> str:
    """What is not greater than any id that was made at a time (seconds since the epoch) or later."""
    return f"{max(int(at * 1000), 0):012x}".ljust(32, "0")


_CHILD = "5e60e"


def child_run_id(parent: str, node: str, tag: str, revision: int) -> str:
    """The run id of a subflow: always the same for one call, ordered by the time of its parent."""
    place = hashlib.blake2b(f"{parent}/{node}/{tag}/{revision}".encode(), digest_size=8).hexdigest()
    return f"{parent[:16]}{'89ab'[int(place[0], 16) % 4]}{place[1:11]}{_CHILD}"


def is_child(run: str) -> bool:
    """Whether a run may be a subflow. Some others look like one, so its start tells for certain."""
    return run.endswith(_CHILD)
