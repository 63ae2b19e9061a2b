"""What a turn publishes, packed into messages."""

from __future__ import annotations

import pytest

from segue.runtime.outbox import BATCH_EVENTS, Outbox
from segue.wire import envelope
from segue.wire.subjects import Subjects


def outbox(max_bytes: int = 1000) -> Outbox:
    return Outbox(Subjects("ns"), max_bytes, "s")


def test_what_goes_to_one_subject_travels_together_in_order() -> None:
    box = outbox()
    for i in range(3):
        box.event("orchestrated", "f", "a", "completed", b'{"n":%d}' % i)
        box.event("choreographed", "f", "b", "skipped", b"{}")
        box.call("s", "step", b'{"c":%d}' % i)
    found = {message.subject: message.body for message in box.messages()}
    assert found == {
        "ns.o.f.a.completed": b'[{"n":0},{"n":1},{"n":2}]',
        "ns.c.f.b.skipped": b"[{},{},{}]",
        "ns.do.s.step": b'[{"c":0},{"c":1},{"c":2}]',
    }


def test_no_message_is_larger_than_allowed() -> None:
    box = outbox(100)
    items = [b'"' + b"x" * size + b'"' for size in (10, 80, 95, 30, 30, 30, 1)]
    for item in items:
        box.event("orchestrated", "f", "a", "completed", item)
    bodies = [message.body for message in box.messages()]
    assert [bytes(part) for body in bodies for part in envelope.split(body)] == items
    assert max(map(len, bodies)) <= 100
    assert len(bodies) == 4


def test_an_item_that_just_fits_goes_alone() -> None:
    box = outbox(100)
    for _ in range(2):
        box.event("orchestrated", "f", "a", "completed", b'"' + b"x" * 96 + b'"')
    assert [len(message.body) for message in box.messages()] == [100, 100]


def test_a_message_holds_so_many_events() -> None:
    box = outbox(1_000_000)
    for i in range(BATCH_EVENTS * 2 + 1):
        box.call("s", "step", b"%d" % i)
    assert [len(envelope.split(message.body)) for message in box.messages()] == [BATCH_EVENTS, BATCH_EVENTS, 1]


def test_equal_messages_have_equal_ids_and_others_have_not() -> None:
    def ids(*items: bytes) -> list[str]:
        box = outbox()
        for item in items:
            box.event("orchestrated", "f", "a", "completed", item)
        return [message.id for message in box.messages()]

    assert ids(b"1", b"2") == ids(b"1", b"2")
    assert len({*ids(b"1", b"2"), *ids(b"2", b"1"), *ids(b"1"), *ids(b"12")}) == 4


def test_nobody_else_can_foretell_an_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids count for a whole stream: a message whose id somebody used before is dropped."""

    def id_of() -> str:
        box = outbox()
        box.event("orchestrated", "f", "a", "completed", b"1")
        return box.messages()[0].id

    here = id_of()
    assert id_of() == here
    monkeypatch.setattr("segue.runtime.outbox._SECRET", b"of another process")
    assert id_of() != here


def test_nothing_to_say() -> None:
    assert outbox().messages() == []
