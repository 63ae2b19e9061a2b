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
from segue.machine.facts import (
    OUTCOMES,
    AnyFact,
    Cause,
    Fact,
    Failure,
    Key,
    Outcome,
    Pause,
    Reset,
    Signal,
    Stop,
    Token,
    Undone,
)
from segue.plan.graph import ENTRY, EXIT
from segue.wire import envelope
from segue.wire.envelope import (
    NOTICES,
    Call,
    Event,
    Parent,
    batch,
    decode,
    decode_call,
    decode_parent,
    encode,
    encode_parent,
    split,
)
from segue.wire.said import fact_of, is_notice, public_node, say, subject_kind

VECTORS = {path.stem: json.loads(path.read_text()) for path in (Path(__file__).parents[1] / "vectors").glob("*.json")}
EVENTS = sorted(name for name, vector in VECTORS.items() if "event" in vector)
CALLS = sorted(name for name, vector in VECTORS.items() if "call" in vector)
BROKE = Cause("charge", error=Failure("CardRefused", "refused"))
RAISED = Failure("LimitExceeded", "too much", bases=("OrderError", "ValueError"), value={"limit": [1, None]})


def text(name: str, part: str = "event") -> bytes:
    return json.dumps(VECTORS[name][part]).encode()


def event_of(fact: AnyFact) -> Event:
    said = say(fact)
    return Event(
        id=said.id("r1"),
        source="segue/payments",
        type=envelope.TYPE + said.kind,
        subject=f"place_order/{said.node}",
        time=datetime(2026, 3, 1, tzinfo=UTC),
        run="r1",
        plan="p1",
        flow="place_order",
        node=said.node,
        specversion=envelope.SPEC,
        data=msgspec.Raw(said.data),
        tag=said.tag,
        revision=said.revision,
        winners=said.winners,
    )


def shown(fact: AnyFact | None) -> object:
    """A fact as the vectors write it."""
    if fact is None:
        return None
    if isinstance(fact, Fact):
        node, tag = fact.key
        outcome = msgspec.to_builtins(fact.outcome)
        return {"node": node, "tag": tag, "revision": fact.revision, "outcome": outcome}
    return {type(fact).__name__.lower(): msgspec.to_builtins(fact._asdict(), builtin_types=())}


def test_there_is_a_vector_of_every_kind() -> None:
    kinds = {VECTORS[name]["event"]["type"].removeprefix("segue.") for name in EVENTS}
    assert kinds == {"started", "ended", "attempt.failed", *OUTCOMES, *NOTICES}
    assert CALLS == ["call", "call-again", "call-perhaps", "call-undo", "call-withdraw"]


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_is_read_as_the_vector_says(name: str) -> None:
    fact = fact_of(decode(text(name)))
    assert json.loads(json.dumps(shown(fact))) == VECTORS[name]["fact"]


@pytest.mark.parametrize("name", EVENTS)
def test_a_fact_is_told_as_the_vector_says(name: str) -> None:
    event = decode(text(name))
    fact = fact_of(event)
    if fact is None:
        return
    said = say(fact)
    assert said[:4] == (event.node, event.tag, event.revision, event.kind)
    assert said.id(event.run) == event.id
    assert said.winners == event.winners
    detail = {} if event.kind not in ("failed", "compensation.failed") else {"detail"}
    told = msgspec.json.decode(event.data)
    kept = {key: value for key, value in told.items() if key not in detail} if isinstance(told, dict) else told
    assert msgspec.json.decode(said.data) == kept


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
        Fact(Key(EXIT), Outcome("aborted", causes=(Cause("e", error=RAISED),))),
        Fact(Key("e", "0.1"), Outcome("failed", causes=(Cause("e", "0.1", RAISED),))),
        Fact(Key("x:item:exit", "10.2"), Outcome("completed", [])),
        Fact(Key("first"), Outcome("completed", "b", winners=(1,))),
        Fact(Key("some", "4"), Outcome("completed", [1, 2, 3], winners=(0, 2, 11))),
        Fact(Key("first"), Outcome("failed", causes=(BROKE, Cause("reserve", "2", RAISED)))),
        Fact(Key("first", "1"), Outcome("failed", causes=(Cause("first"),))),
        Fact(Key("first"), Outcome("failed")),
        Stop("run", "", 1, "cancelled"),
        Stop("run", "", 3, "deadline"),
        Stop("x:body", "3.0", 2, "caught"),
        Token(Key(ENTRY), "run", 1),
        Token(Key("pack", "3"), "run", 2, (Key("charge"), Key("pack", "3.1"))),
        Undone(Key("charge"), 1),
        Undone(Key("charge", "2"), 2, RAISED),
        Reset(2, (Key("charge"), Key("pack", "3"), Key(EXIT))),
        Reset(3, ()),
        Pause(1),
        Pause(2),
        Signal("approval", "", {"by": ["Zoë", None]}, "s-1"),
        Signal("approval", "2.1", None),
        Signal("approval", "4711 / ż%2F", True, "a/b"),
    ],
    ids=str,
)
def test_a_fact_comes_back_as_it_went(fact: AnyFact) -> None:
    assert fact_of(decode(encode(event_of(fact)))) == fact


SOME: list[AnyFact] = [
    Fact(Key("a"), Outcome("completed", 1)),
    Fact(Key("a", "1"), Outcome("completed", 1)),
    Fact(Key("a"), Outcome("skipped")),
    Fact(Key(ENTRY), Outcome("completed", {})),
    Fact(Key(EXIT), Outcome("completed")),
    Stop("run", "", 1, "failed"),
    Stop("a", "", 1, "lost"),
    Stop("a", "1", 1, "lost"),
    Stop("run", "", 2, "failed"),
    Token(Key("a"), "run", 1),
    Token(Key("a"), "b:1", 1),
    Token(Key("a", "1"), "run", 1),
    Token(Key("a"), "run", 2),
    Undone(Key("a"), 1),
    Undone(Key("a"), 2),
    Undone(Key("a"), 1, Failure("E", "")),
    Reset(2, ()),
    Reset(3, ()),
    Pause(1),
    Pause(2),
    Pause(3),
    Signal("a", "", 1, ""),
    Signal("a", "", 1, "x"),
    Signal("a", "1", 1, ""),
    Signal("a", "1/0/signalled/x", 1, ""),
    Signal("a", "1", 1, "x/0/signalled/"),
    Signal("a", "%2F", 1, ""),
    Signal("a", "/", 1, ""),
]


def test_different_facts_have_different_ids() -> None:
    ids = [say(fact).id(run) for run in ("r1", "r2") for fact in SOME]
    assert len(set(ids)) == len(ids)
    assert say(Token(Key("a"), "run", 1, (Key("b"),))).id("r1") == say(Token(Key("a"), "run", 1)).id("r1")


def test_notices_and_signals_share_their_author_s_subject_and_outcomes_do_not() -> None:
    places = {type(fact).__name__: subject_kind(say(fact).node, say(fact).kind, "shop") for fact in SOME[5:]}
    assert set(places) == {"Stop", "Token", "Undone", "Reset", "Pause", "Signal"}
    assert set(places.values()) == {("run:notice", "shop")}
    assert subject_kind("charge", "completed", "shop") == ("charge", "completed")
    assert subject_kind("charge", "attempt.failed", "shop") == ("charge", "attempt.failed")
    assert {type(fact).__name__ for fact in SOME if is_notice(fact)} == {"Stop", "Token", "Undone", "Reset", "Pause"}


def test_the_runs_gateways_speak_as_the_run() -> None:
    assert [public_node(node) for node in (ENTRY, EXIT, "charge", "x:item:exit")] == [
        "run",
        "run",
        "charge",
        "x:item:exit",
    ]


def test_a_parent_travels_with_the_start_of_its_child() -> None:
    vector = VECTORS["started-child"]
    found = decode_parent(decode(text("started-child")))
    assert found == msgspec.convert(vector["parent"], Parent)
    assert encode_parent(found) == vector["event"]["parent"]
    assert decode_parent(decode(text("started"))) is None


@pytest.mark.parametrize("parent", ["x", "{}", "[" * 100_000, '{"run":1}'])
def test_a_broken_parent_is_refused(parent: str) -> None:
    event = msgspec.structs.replace(decode(text("started-child")), parent=parent)
    with pytest.raises(InvalidInput, match="broken parent"):
        decode_parent(event)


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
        ("failed", b'["charge"]'),
        ("stopped", b"null"),
        ("stopped", b'{"reason":"boredom"}'),
        ("undone", b"{}"),
        ("undone", b'{"scope":"run","undone":["charge"]}'),
        ("compensation.failed", b"null"),
        ("reset", b'{"seeds":null}'),
        ("signalled", b"7"),
    ],
)
def test_data_that_does_not_fit_the_kind_is_refused(kind: str, data: bytes) -> None:
    event = msgspec.structs.replace(decode(text("completed")), type=f"segue.{kind}", data=msgspec.Raw(data))
    with pytest.raises(InvalidInput, match="broken data"):
        fact_of(event)


def test_winners_that_are_no_numbers_are_refused() -> None:
    event = msgspec.structs.replace(decode(text("completed-race")), winners="first")
    with pytest.raises(InvalidInput, match="broken data"):
        fact_of(event)


def test_what_another_source_says_is_no_fact() -> None:
    event = msgspec.structs.replace(decode(text("completed")), type="com.example.completed")
    assert fact_of(event) is None
