"""Flows for the fault tests, in processes of their own: `EFFECTS=file python battered.py CONFIG NAME...`.

Every execution of a step or an undo leaves a row in the SQLite table of effects: which call it was, in which process
and when, and a value that no other execution has. What a step returns is that value, so a result tells which execution
counted.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from functools import cache
from uuid import uuid4

import anyio
import crashing
import msgspec

from segue import App, Retry, Service, after, current, each, flow, sleep
from segue.config import Config

EFFECTS = os.environ.get("EFFECTS", "")
COLUMNS = "run, node, tag, what, value, token, pid, began, at"
ITEMS = 4
left, right, desk = Service("left"), Service("right"), Service("desk")


class Declined(Exception):
    """The last step of a saga says no."""


@cache
def database(path: str) -> sqlite3.Connection:
    """The table of effects; kills of processes are survived without a sync."""
    found = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
    found.execute("pragma journal_mode = wal")
    found.execute("pragma synchronous = off")
    found.execute(f"create table if not exists effect ({COLUMNS})")
    return found


def effect(began: float, what: str = "did", value: str = "") -> str:
    """Do something to the world, and return what identifies this time."""
    here, value = current(), value or uuid4().hex[:12]
    row = (here.run, here.node, here.tag, what, value, here.idempotency_key, os.getpid(), began, time.time())
    database(EFFECTS).execute("insert into effect values (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    return value


@left.step
async def one(n: int) -> str:
    """Takes a moment, so that kills fall into it."""
    began = time.time()
    await anyio.sleep(0.02)
    return effect(began)


@left.step
async def further(text: str) -> str:
    """A second step of the same service."""
    return f"{text}>{effect(time.time())}"


@right.step
async def other(n: int) -> str:
    """The other side."""
    return effect(time.time())


@right.step
def weigh(n: int) -> str:
    """A plain function, in a worker thread."""
    return effect(time.time())


@desk.step
async def merge(a: str, b: str, n: int) -> str:
    """Brings both together."""
    return f"{n}:{a}|{b}|{effect(time.time())}"


@desk.step
async def total(parts: list[str]) -> str:
    """Of a map."""
    return f"{','.join(parts)}|{effect(time.time())}"


@desk.step
async def note(n: int) -> str:
    """After a pause."""
    return effect(time.time())


@left.step
async def book(n: int) -> str:
    """Can be undone."""
    return effect(time.time())


@book.undo
async def unbook(n: int, value: str) -> None:
    """Undoes what was recorded, and no other execution."""
    effect(time.time(), "undid", value)


@right.step
async def hold(n: int) -> str:
    """Can be undone."""
    return effect(time.time())


@hold.undo
async def unhold(n: int, value: str) -> None:
    """Undoes what was recorded, and no other execution."""
    effect(time.time(), "undid", value)


@desk.step(retry=Retry(max_attempts=1))
async def settle(n: int, a: str, b: str) -> str:
    """Refuses every second saga."""
    if n % 8 == 1:
        raise Declined("no")
    return f"{a}|{b}|{effect(time.time())}"


@flow(key=lambda n: n)
def both(n: int) -> str:
    """Two branches and a join."""
    return merge(further(one(n)), other(n), n)


@flow(key=lambda n: n)
def saga(n: int) -> str:
    """Fails now and then, and is undone."""
    return settle(n, book(n), hold(n))


@flow(key=lambda n: n)
def spread(n: int) -> str:
    """A map and its join."""
    return total(each([10 * n + i for i in range(ITEMS)], weigh))


@flow(key=lambda n: n)
def patient(n: int) -> str:
    """Waits for a timer."""
    with after(sleep(0.5)):
        return note(n)


@flow(key=lambda n: n, home=desk)
def single(n: int) -> str:
    """One step of a service that may be away; another one takes the start."""
    return other(n)


app = App("battered", flows=[both, saga, spread, patient, single], services=[left, right, desk])
MIXED = (both, saga, spread, patient)
"""Run number `n` of a mixed load is one of `MIXED[n % 4]`."""
EXPECTED = {
    "both": {("one", ""), ("further", ""), ("other", ""), ("merge", "")},
    "saga": {("book", ""), ("hold", ""), ("settle", "")},
    "spread": {*(("weigh", str(i)) for i in range(ITEMS)), ("total", "")},
    "patient": {("note", "")},
    "single": {("other", "")},
}
"""The calls of a run that succeeds, by flow."""


if __name__ == "__main__":
    anyio.run(crashing.serving, msgspec.json.decode(sys.argv[1], type=Config), app, sys.argv[2:])
