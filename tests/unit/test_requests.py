"""Requests and replies between clients and participants."""

from __future__ import annotations

import msgspec
import pytest

from segue.errors import InvalidInput
from segue.wire.envelope import Parent
from segue.wire.requests import (
    Accepted,
    Answer,
    Ask,
    Cancel,
    Done,
    Find,
    Found,
    Hold,
    Install,
    Move,
    Nap,
    Page,
    Placing,
    Purge,
    Purged,
    Refused,
    Reply,
    Request,
    Retry,
    Send,
    Start,
    Yield,
    Yielded,
    decode_replies,
    decode_requests,
    encode,
)

RUN = "0195517aa8b07c4d9e6f1a2b3c4d5e6f"
PARENT = Parent(RUN, "buy", "order", "p1", "choreographed", "3.0", 2, "c-9", 4)

PLACING = Placing(RUN, "p1", "pay", "4711", 2, "choreographed")
PAGE = Page(
    (msgspec.Raw(b'{"id":"x"}'), msgspec.Raw(b"{}")),
    (("charge", "3.0", 1),),
    (Nap("review", "", 1, "order 47/11", None), Nap("rest", "1", 2, "", 1.5)),
)

REQUESTS: list[Request] = [
    Start("pay", RUN, msgspec.Raw(b'{"n":1}')),
    Start("pay", RUN, msgspec.Raw(b"{}"), "4711", "p1", "choreographed", "00-1-2-01", PARENT),
    Find("pay", "4711"),
    Ask(RUN),
    Send(RUN, "approval"),
    Send(RUN, "approval", msgspec.Raw(b'{"by":"Zo\xc3\xab"}'), "order 47/11", "s-1"),
    Cancel(RUN),
    Cancel(RUN, "deadline"),
    Retry(RUN),
    Retry(RUN, ("charge", "ship")),
    Hold(RUN, True),
    Hold(RUN, False),
    Move(RUN, "choreographed"),
    Move(RUN, "orchestrated", 2),
    Yield(PLACING),
    Yield(PLACING, 3),
    Install(PLACING, Page()),
    Install(PLACING, PAGE, True),
    Start("pay", RUN, dataref="sha256:" + "0" * 64),
    Send(RUN, "approval", dataref="sha256:" + "0" * 64),
    Purge(86400.0),
    Purge(0.5, "pay", True, RUN),
]
REPLIES: list[Reply] = [
    Accepted(RUN, "orchestrated"),
    Accepted(RUN, "choreographed", True),
    Found(""),
    Answer(False),
    Answer(True, msgspec.Raw(b'{"id":"x"}')),
    Answer(True, epoch=3, moving="orchestrated", waits=("payments",)),
    Done(True),
    Yielded(PAGE),
    Yielded(Page(), True),
    Done(False, "it is held already"),
    Refused("no such run"),
    Refused("busy", "try again", True),
    Purged(0),
    Purged(3, 40, 2, 1, RUN),
]


def test_all_requests_come_back_as_they_went() -> None:
    assert decode_requests(encode(REQUESTS)) == REQUESTS
    assert {type(request) for request in REQUESTS} == set(Request.__args__)


def test_all_replies_come_back_as_they_went() -> None:
    assert decode_replies(encode(REPLIES)) == REPLIES
    assert {type(reply) for reply in REPLIES} == set(Reply.__args__)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"7",
        b"[7]",
        b"[{}]",
        b'[{"type":"explode","run":"x"}]',
        b'[{"type":"ask","run":"\xff"}]',
        b'[{"type":"hold","run":"x"}]',
        b'[{"type":"cancel","run":"x","reason":"boredom"}]',
        b"[" * 100_000 + b"]" * 100_000,
    ],
)
def test_what_is_no_list_of_messages_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput, match="not a list of requests"):
        decode_requests(body)
    with pytest.raises(InvalidInput, match="not a list of replies"):
        decode_replies(body)
