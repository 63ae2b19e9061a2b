"""Requests to a participant, on `<ns>.to.<participant>`: a JSON list of requests in, a list of replies out.

A reply to a start means that the home has committed it. Requests of one tick travel together. Questions, which change
nothing (find, ask), are also answered on `<ns>.ask.<participant>`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from segue.errors import InvalidInput
from segue.machine.facts import Reason
from segue.plan.projection import Mode
from segue.wire.envelope import BROKEN, Parent


class Start(msgspec.Struct, frozen=True, omit_defaults=True, tag="start"):
    """Start a run of the flow's newest plan; the same key (or run id) again gives the same run.

    `input` is an object of the flow's parameters; `run` is 32 hex digits of a UUIDv7, minted by the caller. `plan` and
    `mode` are what the caller believes to be deployed: where the home believes otherwise, it looks again. `parent` is
    the node that the run is the subflow of. `dataref`, as of an event, stands for an `input` that is large.
    """

    flow: str
    run: str
    input: msgspec.Raw = msgspec.Raw(b"null")
    key: str = ""
    plan: str = ""
    mode: str = ""
    traceparent: str = ""
    parent: Parent | None = None
    dataref: str = ""


class Find(msgspec.Struct, frozen=True, tag="find"):
    """Which run has this key?"""

    flow: str
    key: str


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """How did this run end?"""

    run: str


class Send(msgspec.Struct, frozen=True, omit_defaults=True, tag="send"):
    """Send a signal to a run; the same `id` again changes nothing.

    `slot` tells waits of one name apart: the value that they match, or their tag. `dataref`, as of an
    event, stands for a `value` that is large.
    """

    run: str
    name: str
    value: msgspec.Raw = msgspec.Raw(b"null")
    slot: str = ""
    id: str = ""
    dataref: str = ""


class Cancel(msgspec.Struct, frozen=True, omit_defaults=True, tag="cancel"):
    """Stop a run, and undo what it did; `undone`: also if it completed, because its parent's node is undone."""

    run: str
    reason: Reason = "cancelled"


class Retry(msgspec.Struct, frozen=True, omit_defaults=True, tag="retry"):
    """Decide anew what an ended run failed at, and these nodes (`name`, or `name/tag` for an item or a round).

    `revision` is the one whose end the caller saw: if there is a newer one, it was retried already. 0: whichever.
    """

    run: str
    nodes: tuple[str, ...] = ()
    revision: int = 0


class Hold(msgspec.Struct, frozen=True, tag="hold"):
    """Hold a run, so that nothing starts in it, or let it go on."""

    run: str
    paused: bool


class Move(msgspec.Struct, frozen=True, omit_defaults=True, tag="move"):
    """Let a run be decided in this mode from now on.

    `epoch` is the placement that the caller saw: if there is a newer one, it was moved already. 0: whichever.
    """

    run: str
    mode: Mode
    epoch: int = 0


class Nap(msgspec.Struct, frozen=True, array_like=True):
    """A node that waits: for a signal of this slot, until a time (seconds since the epoch), or for both."""

    node: str
    tag: str
    revision: int
    slot: str
    until: float | None


class Page(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part of what is known of a run where it was decided until it was moved.

    `facts` are encoded events; `begun` are calls that may have been made (node, tag, revision); `ends` are events of
    the exits of regions that were stopped before.
    """

    facts: tuple[msgspec.Raw, ...] = ()
    begun: tuple[tuple[str, str, int], ...] = ()
    naps: tuple[Nap, ...] = ()
    ends: tuple[msgspec.Raw, ...] = ()


class Placing(msgspec.Struct, frozen=True, omit_defaults=True):
    """A run, as one who may never have heard of it must know it, and where it is decided from an epoch on."""

    run: str
    plan: str
    flow: str
    key: str
    epoch: int
    mode: Mode


class Yield(msgspec.Struct, frozen=True, omit_defaults=True, tag="yield"):
    """Decide nothing of a run any more, and hand over what is known of it, a page at a time."""

    to: Placing
    page: int = 0


class Install(msgspec.Struct, frozen=True, omit_defaults=True, tag="install"):
    """Take over a run: with the last page, what is its share is decided here."""

    to: Placing
    page: Page
    last: bool = False


class Purge(msgspec.Struct, frozen=True, omit_defaults=True, tag="purge"):
    """Forget runs that ended more than `before` seconds ago, some at a time.

    `dry` only counts. `after` is what the reply to the request before said: where to go on.
    """

    before: float
    flow: str = ""
    dry: bool = False
    after: str = ""


Request = Start | Find | Ask | Send | Cancel | Retry | Hold | Move | Yield | Install | Purge
Order = Send | Cancel | Retry | Hold | Move | Yield | Install
"""What changes a live run."""


class Purged(msgspec.Struct, frozen=True, omit_defaults=True, tag="purged"):
    """What came of the runs that were looked at: `runs` are over, and forgotten unless only counted, with their rows.

    `open`: old, but not over for so long. `unsure`: nobody could say. `after`: there are more; ask again with it.
    """

    runs: int
    rows: int = 0
    open: int = 0
    unsure: int = 0
    after: str = ""


class Accepted(msgspec.Struct, frozen=True, omit_defaults=True, tag="accepted"):
    """The run is committed here; `existing` if it was before."""

    run: str
    mode: str
    existing: bool = False


class Found(msgspec.Struct, frozen=True, tag="found"):
    """The run of a key; empty if there is none."""

    run: str


class Answer(msgspec.Struct, frozen=True, omit_defaults=True, tag="answer"):
    """What is known of a run: its `ended` event, or (`null`) that it is open here, or unknown here.

    Only who decides its end knows a run; `plan` is the hash of its plan. The end is that of the newest revision, once
    it ended; the epoch is that of its placement. `moving`: it is being handed over from here to that mode, and has
    still to get to those in `waits`.
    """

    known: bool
    ended: msgspec.Raw = msgspec.Raw(b"null")
    plan: str = ""
    epoch: int = 1
    moving: Mode | None = None
    waits: tuple[str, ...] = ()


class Done(msgspec.Struct, frozen=True, omit_defaults=True, tag="done"):
    """What was asked for is recorded; not `changed` if it had been before. `note` says more to people."""

    changed: bool
    note: str = ""


class Yielded(msgspec.Struct, frozen=True, omit_defaults=True, tag="yielded"):
    """Nothing of the run is decided here any more; `more`: there is another page."""

    page: Page
    more: bool = False


class Refused(msgspec.Struct, frozen=True, omit_defaults=True, tag="refused"):
    """Nothing was changed; `retry` if the same request may succeed later."""

    reason: str
    hint: str = ""
    retry: bool = False


Reply = Accepted | Found | Answer | Done | Yielded | Refused | Purged

_requests = msgspec.json.Decoder(list[Request])
_replies = msgspec.json.Decoder(list[Reply])
_encode = msgspec.json.Encoder().encode
_yielded = msgspec.json.Decoder(Yielded).decode
_placing = msgspec.json.Decoder(Placing).decode
_nap = msgspec.json.Decoder(Nap).decode


def encode(messages: Sequence[Request] | Sequence[Reply]) -> bytes:
    """Requests or replies as JSON."""
    return _encode(messages)


def encode_nap(nap: Nap) -> bytes:
    """What the mark of a waiting node says."""
    return _encode(nap)


def decode_nap(body: bytes) -> Nap:
    """The inverse of `encode_nap`."""
    return _nap(body)


def encode_placing(placing: Placing) -> bytes:
    """What the due row of a move says."""
    return _encode(placing)


def decode_placing(body: bytes) -> Placing:
    """The inverse of `encode_placing`."""
    return _placing(body)


def encode_page(page: Yielded) -> bytes:
    """A page as it is kept."""
    return _encode(page)


def decode_page(body: bytes) -> Yielded:
    """The inverse of `encode_page`."""
    return _yielded(body)


def decode_requests(body: bytes) -> list[Request]:
    """Requests from JSON.

    Raises:
        InvalidInput: Not a list of requests.
    """
    try:
        return _requests.decode(body)
    except BROKEN as error:
        raise InvalidInput(f"not a list of requests: {error}") from None


def decode_replies(body: bytes) -> list[Reply]:
    """Replies from JSON.

    Raises:
        InvalidInput: Not a list of replies.
    """
    try:
        return _replies.decode(body)
    except BROKEN as error:
        raise InvalidInput(f"not a list of replies: {error}") from None
