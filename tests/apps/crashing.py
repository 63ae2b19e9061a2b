"""Participants as processes of their own, to be killed: `EFFECTS=file python crashing.py CONFIG NAME...`.

Prints `ready` once all that are named take part. Every execution of a step leaves a row in the SQLite table of effects,
and returns something else each time, so that a repeated execution that counted would be seen.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import AsyncExitStack
from functools import cache
from uuid import uuid4

import anyio
import msgspec

from segue import App, Service, compose, current, flow
from segue.config import Config
from segue.plan.projection import COORDINATOR
from segue.wire.subjects import OBSERVER

EFFECTS = os.environ.get("EFFECTS", "")
left_side, right_side, desk = Service("left"), Service("right"), Service("desk")


@cache
def database(path: str) -> sqlite3.Connection:
    """The table of effects."""
    found = sqlite3.connect(path, timeout=30, isolation_level=None)
    found.execute("pragma journal_mode = wal")
    found.execute("pragma synchronous = off")
    found.execute("create table if not exists effect (run text, node text, value text)")
    return found


def effect() -> str:
    """Do something to the world, and return what identifies this time."""
    here, value = current(), uuid4().hex[:8]
    if EFFECTS:
        database(EFFECTS).execute("insert into effect values (?, ?, ?)", (here.run, here.node, value))
    return value


@left_side.step
async def one(n: int) -> str:
    """One side."""
    await anyio.sleep(0.02)
    return effect()


@right_side.step
async def other(n: int) -> str:
    """The other side."""
    return effect()


@left_side.step
async def further(text: str) -> str:
    """A second step of the first service."""
    return f"{text}>{effect()}"


@desk.step
async def merge(a: str, b: str, n: int) -> str:
    """Brings both together."""
    return f"{n}:{a}|{b}|{effect()}"


@flow(key=lambda n: n)
def both(n: int) -> str:
    """Two branches and a join."""
    return merge(further(one(n)), other(n), n)


app = App("crashing", flows=[both], services=[left_side, right_side, desk])


async def main(config: Config, names: list[str], app: App = app) -> None:
    """Take part in an app until killed."""
    async with AsyncExitStack() as stack:
        wiring = await stack.enter_async_context(compose.wired(config))
        for name in names:
            if name == COORDINATOR:
                await stack.enter_async_context(compose.coordinating(config, wiring))
            elif name == OBSERVER:
                await stack.enter_async_context(compose.observing(config, wiring))
            else:
                await stack.enter_async_context(compose.serve(config, wiring, app.services[name]))
        print("ready", flush=True)
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, msgspec.json.decode(sys.argv[1], type=Config), sys.argv[2:])
