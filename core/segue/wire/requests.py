"""Requests to a participant, on `<ns>.to.<participant>`: a JSON list of requests in, a list of replies out.

A reply to a start means that the home has committed it. Requests of one tick travel together.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from segue.errors import InvalidInput


class Start(msgspec.Struct, frozen=True, omit_defaults=True, tag="start"):
    """Start a run of the flow's newest plan; the same key (or run id) again gives the same run.

    `input` is an object of the flow's parameters; `run` is 32 hex digits of a UUIDv7, minted by the caller. `plan` and
    `mode` are what the caller believes to be deployed: where the home believes otherwise, it looks again.
    """

    flow: str
    run: str
    input: msgspec.Raw
    key: str = ""
    plan: str = ""
    mode: str = ""
    traceparent: str = ""


class Find(msgspec.Struct, frozen=True, tag="find"):
    """Which run has this key?"""

    flow: str
    key: str


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """How did this run end?"""

    run: str


Request = Start | Find | Ask


class Accepted(msgspec.Struct, frozen=True, omit_defaults=True, tag="accepted"):
    """The run is committed here; `existing` if it was before."""

    run: str
    mode: str
    existing: bool = False


class Found(msgspec.Struct, frozen=True, tag="found"):
    """The run of a key; empty if there is none."""

    run: str


class Answer(msgspec.Struct, frozen=True, omit_defaults=True, tag="answer"):
    """What is known of a run: its `ended` event, or (`null`) that it is open here, or unknown here."""

    known: bool
    ended: msgspec.Raw = msgspec.Raw(b"null")


class Refused(msgspec.Struct, frozen=True, omit_defaults=True, tag="refused"):
    """Nothing was changed; `retry` if the same request may succeed later."""

    reason: str
    hint: str = ""
    retry: bool = False


Reply = Accepted | Found | Answer | Refused

_requests = msgspec.json.Decoder(list[Request])
_replies = msgspec.json.Decoder(list[Reply])
_encode = msgspec.json.Encoder().encode


def encode(messages: Sequence[Request] | Sequence[Reply]) -> bytes:
    """Requests or replies as JSON."""
    return _encode(messages)


def decode_requests(body: bytes) -> list[Request]:
    """Requests from JSON.

    Raises:
        InvalidInput: Not a list of requests.
    """
    try:
        return _requests.decode(body)
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"not a list of requests: {error}") from None


def decode_replies(body: bytes) -> list[Reply]:
    """Replies from JSON.

    Raises:
        InvalidInput: Not a list of replies.
    """
    try:
        return _replies.decode(body)
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"not a list of replies: {error}") from None
