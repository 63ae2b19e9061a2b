"""Values that travel by reference: what is put away comes back as it was, and nothing refers to what is not stored."""

from __future__ import annotations

import string
from datetime import UTC, datetime
from typing import Any, cast

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.config import LimitsConfig
from segue.errors import InvalidInput, ObjectLost, PayloadTooLarge, StoreUnavailable
from segue.machine.facts import Cause, Fact, Failure, Key, Outcome
from segue.plan.graph import EXIT
from segue.ports.objects import digest
from segue.runtime import values as module
from segue.runtime.saying import Origin, announced
from segue.runtime.sizes import Sizes, counter
from segue.runtime.values import Values
from segue.runtime.work import RunRef
from segue.wire import envelope
from segue.wire.envelope import Event
from segue.wire.requests import Send, Start
from segue.wire.said import fact_of, say
from segue_memory.objects import MemoryObjects

RUN = "0195517aa8b07c4d9e6f1a2b3c4d5e6f"
LIMITS = LimitsConfig(inline=1024, value=100_000)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def event(fact: Fact) -> Event:
    said = say(fact)
    return announced(Origin(RUN, "plan", "flow", ""), said, "/segue/s", NOON, said.id(RUN))


def completed(value: Any) -> Event:
    return event(Fact(Key("n"), Outcome("completed", value)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(string.printable, max_size=2_000),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
)


@given(JSON)
def test_what_is_put_away_comes_back(value: Any) -> None:
    async def check() -> None:
        objects = MemoryObjects()
        here, there = Values(objects, 1_000_000, LIMITS), Values(objects, 1_000_000, LIMITS)
        full = completed(value)
        small, raw = here.encode(full)
        assert len(raw) < 2_048
        assert envelope.encode(small) == raw
        await here.flush()
        found = await there.open(envelope.decode(raw))
        assert fact_of(found) == fact_of(full)
        assert here.encode(small) == (small, raw)

    anyio.run(check)


async def test_small_values_stay_as_they_are() -> None:
    objects = MemoryObjects()
    values = Values(objects, 1_000_000, LIMITS)
    small = completed("x" * 500)
    assert values.encode(small) == (small, envelope.encode(small))
    assert (values.pending, await values.open(small)) == ({}, small)


async def test_of_a_large_end_lists_still_see_how_it_came() -> None:
    values = Values(MemoryObjects(), 1_000_000, LIMITS)
    causes = tuple(Cause(f"n{i}", error=Failure("Error", "x" * 500)) for i in range(10))
    small, _ = values.encode(event(Fact(Key(EXIT), Outcome("aborted", causes=causes))))
    assert envelope.decode_ended(small) == envelope.Ended("failed", causes=causes[:1])
    assert envelope.decode_ended(await values.open(small)).causes == causes


async def test_what_the_store_did_not_take_is_kept_for_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = MemoryObjects()
    values = Values(objects, 1_000_000, LIMITS)
    small, _ = values.encode(completed("x" * 5_000))

    async def away(self: MemoryObjects, run: str, name: str, body: bytes) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(MemoryObjects, "put", away)
        with pytest.raises(StoreUnavailable):
            await values.flush()
    assert len(values.pending) == 1
    await values.flush()
    assert values.pending == {}
    assert list(objects.objects[RUN]) == [small.dataref.removeprefix("sha256:")]


@pytest.mark.parametrize(("kept", "words"), [(None, "is not in"), (b"other", "is damaged in")])
async def test_a_value_that_is_not_there_is_named(kept: bytes | None, words: str) -> None:
    objects = MemoryObjects()
    small, _ = Values(objects, 1_000_000, LIMITS).encode(completed("x" * 5_000))
    name = small.dataref.removeprefix("sha256:")
    if kept is not None:
        await objects.put(RUN, name, kept)
    with pytest.raises(ObjectLost, match=f"value {name} of run {RUN} {words} the object store") as caught:
        await Values(objects, 1_000_000, LIMITS).open(small)
    assert caught.value.retryable
    with pytest.raises(ObjectLost, match="none is configured here"):
        await Values(None, 1_000_000, LIMITS).open(small)


@pytest.mark.parametrize("reference", ["sha256:12", "https://example.org/x", "x" * 64])
async def test_references_of_others_are_no_values(reference: str) -> None:
    with pytest.raises(InvalidInput, match="is no reference"):
        await Values(MemoryObjects(), 1_000_000).open(msgspec.structs.replace(completed(1), dataref=reference))


async def test_requests_bring_large_values_too() -> None:
    values = Values(MemoryObjects(), 1_000_000, LIMITS)
    for request, field in ((Start("f", RUN), "input"), (Send(RUN, "go"), "value")):
        small = await values.enclose(request, b'"x"', "it")
        assert (small.dataref, bytes(getattr(small, field))) == ("", b'"x"')
        body = b'"%s"' % (b"x" * 5_000)
        large = await values.enclose(request, body, "it")
        assert large.dataref == f"sha256:{digest(body)}"
        assert bytes(getattr(await values.disclose(large), field)) == body
        with pytest.raises(PayloadTooLarge, match=r"it has 100,001 bytes; limits\.value allows 100,000"):
            await values.enclose(request, b"1" * 100_001, "it")


async def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHE", 12_000)
    objects = MemoryObjects()
    values = Values(objects, 1_000_000, LIMITS)
    seals = [values.encode(completed(letter * 5_000))[0] for letter in "abc"]
    await values.flush()
    objects.objects.clear()
    with pytest.raises(ObjectLost):
        await values.open(seals[0])
    for small in seals[1:]:
        assert (await values.open(small)).data != small.data


def test_the_size_of_a_run_is_what_any_replica_recorded() -> None:
    """A process that begins in the middle of a run hears of its size with the first commit."""
    plan = cast(Any, _LOOP.plan)
    run = RunRef(RUN, plan, "orchestrated", "")
    entry = next(node.id for node in plan.nodes if node.kind == "entry" and node.construct)
    fact = Fact(Key(entry, "7"), Outcome("completed", {"with": {}, "value": 1}))
    sizes = Sizes(LimitsConfig(nodes=100))
    assert sizes.limited(run, fact) is None
    assert sizes.hear({counter(RUN): 99}) == {}
    limited = sizes.limited(run, fact)
    assert limited is not None
    assert limited.outcome.causes[0].error is not None
    assert "with round 8 of repeat the run has 102 places" in limited.outcome.causes[0].error.message


def _loop() -> Any:
    from segue import Service, flow, repeat

    worker = Service("worker")

    @worker.step
    async def work(n: int) -> int:
        return n + 1

    @flow
    def loop(n: int) -> int:
        return repeat(lambda value: work(value), n, until=lambda value: value > 3, cap=10)

    return loop


_LOOP = _loop()
