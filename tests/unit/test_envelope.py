"""The envelope: every kind as a vector, the promises of CloudEvents, and what broken messages do."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from segue.errors import InvalidInput
from segue.machine.facts import OUTCOMES, Cause, Fact, Failure, Key, Outcome
from segue.plan.graph import ENTRY, EXIT
from segue.wire import envelope
from segue.wire.envelope import Call, Event, batch, data_of, decode, decode_call, encode, fact_of, kind_of, split

VECTORS = {path.stem: json.loads(path.read_text()) for path in (Path(__file__).parents[1] / "vectors").glob("*.json")}
EVENTS = sorted(name for name, vector in VECTORS.items() if "event" in vector)
CALLS = sorted(name for name, vector in VECTORS.items() if "call" in vector)
BROKE = Cause("charge", error=Failure("CardRefused", "refused"))


def text(name: str, part: str = "event") -> bytes:
    return json.dumps(VECTORS[name][part]).encode()


def event_of(fact: Fact) -> Event:
    kind = kind_of(fact.key.node, fact.outcome)
    node = envelope.public_node(fact.key.node)
    return Event(
        id=envelope.event_id("r1", node, fact.key.tag, fact.revision, kind),
        source="segue/payments",
        type=envelope.TYPE + kind,
        subject=f"place_order/{node}",
        time=datetime(2026, 3, 1, tzinfo=UTC),
        run="r1",
        plan="p1",
        flow="place_order",
        node=node,
        specversion=envelope.SPEC,
        data=msgspec.Raw(data_of(fact.key.node, fact.outcome)),
        tag=fact.key.tag,
        revision=fact.revision,
    )


def test_there_is_a_vector_of_every_kind() -> None:
    kinds = {VECTORS[name]["event"]["type"].removeprefix("segue.") for name in EVENTS}
    assert kinds == {"started", "ended", "attempt.failed", *OUTCOMES}
    assert CALLS == ["call"]


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_is_read_as_the_vector_says(name: str) -> None:
    fact = fact_of(decode(text(name)))
    expected = VECTORS[name]["fact"]
    if expected is None:
        assert fact is None
    else:
        outcome = msgspec.convert(expected["outcome"], Outcome)
        assert fact == Fact(Key(expected["node"], expected["tag"]), outcome, expected["revision"])


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_is_written_as_the_vector_says(name: str) -> None:
    assert json.loads(encode(decode(text(name)))) == VECTORS[name]["event"]


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_read_and_written_as_the_vector_says(name: str) -> None:
    call = decode_call(text(name, "call"))
    assert msgspec.json.decode(call.data) == VECTORS[name]["args"]
    assert json.loads(encode(call)) == VECTORS[name]["call"]


@pytest.mark.parametrize(
    "fact",
    [
        Fact(Key(ENTRY), Outcome("completed", {"order": {"id": "żółw", "total": 1.5}})),
        Fact(Key("charge"), Outcome("completed", None)),
        Fact(Key("charge"), Outcome("completed", [1, "2", None, {"deep": [True]}])),
        Fact(Key("charge", "4.1"), Outcome("completed", 2**60), 3),
        Fact(Key("charge"), Outcome("skipped")),
        Fact(Key("charge"), Outcome("failed", causes=(BROKE,))),
        Fact(Key("charge", "7"), Outcome("failed", causes=(Cause("charge", "7"),))),
        Fact(Key("notify"), Outcome("aborted", causes=(BROKE, Cause("reserve", "2")))),
        Fact(Key("notify"), Outcome("cancelled", causes=(Cause("reserve"),))),
        Fact(Key(EXIT), Outcome("completed", {"ok": True})),
        Fact(Key(EXIT), Outcome("completed", None)),
        Fact(Key(EXIT), Outcome("aborted", causes=(BROKE, Cause("reserve")))),
        Fact(Key(EXIT), Outcome("cancelled", causes=(Cause("reserve"),)), 2),
    ],
    ids=lambda fact: f"{fact.key.node} {fact.outcome.kind}",
)
def test_a_fact_comes_back_as_it_went(fact: Fact) -> None:
    assert fact_of(decode(encode(event_of(fact)))) == fact


def test_where_an_error_was_raised_is_told_but_not_a_part_of_the_fact() -> None:
    told = Outcome("failed", causes=(Cause("charge", error=Failure("CardRefused", "refused", "pay.py:3")),))
    event = event_of(Fact(Key("charge"), told))
    assert b"pay.py:3" in bytes(event.data)
    assert fact_of(event) == Fact(Key("charge"), Outcome("failed", causes=(BROKE,)))


def sent() -> list[dict[str, Any]]:
    """Events and calls as they are made, with all attributes at their defaults."""
    call = msgspec.structs.replace(decode_call(text("call", "call")), key="", inputs=())
    made = [event_of(Fact(Key("a"), Outcome("skipped"))), event_of(Fact(Key(EXIT), Outcome("completed"))), call]
    return [json.loads(encode(message)) for message in made]


@pytest.mark.parametrize(
    "message", [*sent(), *(VECTORS[name].get("event", VECTORS[name].get("call")) for name in VECTORS)]
)
def test_messages_are_cloudevents_1_0(message: dict[str, Any]) -> None:
    for attribute in ("id", "source", "type"):
        assert isinstance(message[attribute], str)
        assert message[attribute]
    assert message["specversion"] == "1.0"
    assert datetime.fromisoformat(message["time"]).tzinfo is not None
    assert message.get("subject") != ""


@pytest.mark.parametrize("kind", [Event, Call])
def test_attribute_names_are_lower_case_letters_and_digits(kind: type) -> None:
    names = [field.encode_name for field in msgspec.structs.fields(kind)]
    assert all(re.fullmatch(r"[a-z0-9]{1,20}", name) for name in names), names


def test_equal_events_have_equal_ids_and_different_ones_do_not() -> None:
    ids = [
        envelope.event_id(run, node, tag, revision, kind)
        for run in ("r1", "r2")
        for node in ("a", "b")
        for tag in ("", "1")
        for revision in (1, 2)
        for kind in ("completed", "failed")
    ]
    assert len(set(ids)) == len(ids)


def test_a_batch_is_split_into_the_bytes_it_was_made_of() -> None:
    parts = [text("completed"), text("completed-unicode"), text("failed")]
    assert [bytes(part) for part in split(batch(parts))] == parts
    assert [bytes(part) for part in split(parts[0])] == parts[:1]
    assert split(b"[]") == []


GOOD = VECTORS["completed"]["event"]
UNREADABLE = {
    "no JSON": b"\xff\x00",
    "cut short": text("completed")[:-3],
    "no object": b"7",
    "no attributes": b"{}",
    "no specversion": json.dumps({k: v for k, v in GOOD.items() if k != "specversion"}).encode(),
    "wrong type": json.dumps({**GOOD, "revision": "one"}).encode(),
    "no time": json.dumps({**GOOD, "time": "yesterday"}).encode(),
    "bad UTF-8": text("completed").replace(b"4711", b"\xff\xfe"),
    "nested too deep": text("completed")[:-1] + b',"extra":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_what_is_no_event_is_refused(what: str) -> None:
    with pytest.raises(InvalidInput, match="not an event"):
        decode(UNREADABLE[what])
    with pytest.raises(InvalidInput, match="not a call"):
        decode_call(UNREADABLE[what])


@pytest.mark.parametrize("body", [b"", b"nonsense", b'[{"id":', b'"text"', b"[" * 100_000])
def test_what_is_no_batch_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput, match="not a CloudEvents batch"):
        split(body)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("completed", b'"\xff"'),
        ("started", b'{"a":"\xff"}'),
        ("failed", b'"CardRefused"'),
        ("failed", b'{"message":"no type"}'),
        ("aborted", b'{"node":"a"}'),
        ("aborted", b"null"),
        ("cancelled", b"[7]"),
        ("ended", b"{}"),
        ("ended", b'{"status":"lost"}'),
        ("ended", b'{"status":"failed","causes":[{}]}'),
    ],
)
def test_data_that_does_not_fit_the_kind_is_refused(kind: str, data: bytes) -> None:
    event = msgspec.structs.replace(decode(text("completed")), type=f"segue.{kind}", data=msgspec.Raw(data))
    with pytest.raises(InvalidInput, match="broken data"):
        fact_of(event)


def test_what_another_source_says_is_no_fact() -> None:
    event = msgspec.structs.replace(decode(text("completed")), type="com.example.completed")
    assert fact_of(event) is None
