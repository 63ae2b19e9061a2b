"""A help desk: what the tests of live runs act on. `broken` says which tickets cannot be fixed for now."""

from __future__ import annotations

from pathlib import Path

import msgspec

from segue import App, Retry, Service, after, each, flow, wait_for


class Ticket(msgspec.Struct):
    """What somebody wants."""

    id: str
    parts: list[str] = []


class Answer(msgspec.Struct):
    """What somebody decides."""

    by: str
    yes: bool = True


class Broken(Exception):
    """It cannot be fixed for now."""


front, back = Service("front"), Service("back")
broken: set[str] = set()
done: list[str] = []


@front.step
async def open_ticket(ticket: Ticket) -> str:
    """Has an undo."""
    done.append(f"open {ticket.id}")
    return f"T-{ticket.id}"


@open_ticket.undo
async def close_ticket(ticket: Ticket, number: str) -> None:
    """Takes it back."""
    done.append(f"close {number}")


@back.step(retry=Retry(max_attempts=1))
async def fix(number: str, answer: Answer) -> str:
    """Fails as long as the ticket is broken."""
    if number in broken:
        raise Broken(f"{number} is broken")
    done.append(f"fix {number}")
    return f"{number} fixed for {answer.by}"


@back.step(retry=Retry(max_attempts=1))
def order(part: str) -> str:
    """Of one part; a missing one must be found first."""
    if part in broken or (part == "missing" and not Path("found").exists()):
        raise Broken(f"no {part}")
    return part.upper()


@flow(key=lambda ticket: ticket.id)
def support(ticket: Ticket) -> str:
    """Waits for an answer before it goes on."""
    number = open_ticket(ticket)
    with after(number):
        answer = wait_for("answer", Answer)
    return fix(number, answer)


@flow(key=lambda ticket: ticket.id, home=back)
def parts(ticket: Ticket) -> list[str]:
    """Every part is agreed on."""

    def part_of(part: str) -> str:
        with after(wait_for("agreed", None, match=part)):
            return order(part)

    return each(ticket.parts, part_of)


@flow(key=lambda ticket: ticket.id, home=back)
def rounds(ticket: Ticket) -> list[str]:
    """Every part is named by somebody, in its turn."""
    return each(ticket.parts, lambda part: wait_for("named", str))


app = App("desk", flows=[support, parts, rounds], services=[front, back])
