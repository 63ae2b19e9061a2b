"""Dead letters as people look for them: by flow, by reason, and by the runs that they are about."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec

from segue.errors import InvalidInput
from segue.ports.transport import DeadLetter, DeadLetters
from segue.wire import envelope

PAGE = 100


class _About(msgspec.Struct, rename={"run": "correlationid"}):
    """What most messages say of themselves, even those that cannot be read otherwise."""

    run: str = ""
    flow: str = ""


_about = msgspec.json.Decoder(_About)


class Contents(msgspec.Struct, frozen=True):
    """What a dead letter is about, as far as it can be read: ids of runs, and names of flows, each once."""

    runs: tuple[str, ...]
    flows: tuple[str, ...]


def contents(letter: DeadLetter) -> Contents:
    """The runs and flows that a letter is about; what cannot be read is left out."""
    found = []
    try:
        parts = envelope.split(letter.body)
    except InvalidInput:
        parts = []
    for part in parts:
        try:
            found.append(_about.decode(part))
        except (msgspec.MsgspecError, UnicodeError):
            continue
    tokens = letter.subject.split(".")
    named = [] if len(tokens) < 3 or tokens[1] == "do" else [tokens[2]]
    flows = [about.flow for about in found if about.flow] or named
    return Contents(tuple(dict.fromkeys(about.run for about in found if about.run)), tuple(dict.fromkeys(flows)))


async def letters(dead: DeadLetters, flow: str = "", reason: str = "") -> AsyncGenerator[tuple[DeadLetter, Contents]]:
    """The letters there are, oldest first, with their contents.

    Args:
        dead: Where they are.
        flow: Only those about this flow.
        reason: Only those whose reason has this text in it, in capitals or not.
    """
    after = ""
    while page := await dead.page(PAGE, after):
        for letter in page:
            about = contents(letter)
            if (not flow or flow in about.flows) and reason.lower() in letter.reason.lower():
                yield letter, about
        after = page[-1].id
