"""Trace and span ids that everybody can compute: nobody has to be asked for a parent, and a repeat is the same span."""

from __future__ import annotations

from hashlib import blake2b

from segue.ports.tracing import Place


def trace_id(run: str) -> int:
    """The trace of a run: its id, read as a number; of anything but 32 hex digits, a hash."""
    try:
        found = int(run, 16) if len(run) == 32 else 0
    except ValueError:
        found = 0
    return found or _hash("trace", run, size=16)


def root_id(run: str, revision: int = 1) -> int:
    """The span of the run itself; each revision has one."""
    return _hash("run", run, *_again(revision))


def span_id(run: str, place: Place, revision: int = 1) -> int:
    """The span of one attempt."""
    return _hash("attempt", run, place.node, place.tag, str(place.attempt), *_again(revision))


def _again(revision: int) -> tuple[str, ...]:
    return (str(revision),) if revision > 1 else ()


def share(trace: int) -> float:
    """Where a trace lies between 0 and 1. Hashed, because the bits of a UUIDv7 are not evenly spread."""
    return int.from_bytes(blake2b(trace.to_bytes(16, "big"), digest_size=8).digest(), "big") / 2**64


def _hash(*parts: str, size: int = 8) -> int:
    # Names have no zero byte, so different parts give different texts. Zero is no valid id.
    digest = blake2b("\0".join(parts).encode(errors="replace"), digest_size=size).digest()
    return int.from_bytes(digest, "big") or 1
