"""A service whose step kills its process when it is told to: `EFFECTS=file python deadly.py CONFIG NAME...`.

Prints `ready` once all that are named take part, and starts them anew, with a line of its own, whenever they die.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Literal

import anyio
import msgspec
from crashing import effect, serving

from segue import App, Service, flow
from segue.config import Config
from segue.runtime import overdue, suspects

ward, home = Service("ward"), Service("home")
How = Literal["well", "at once", "later"]


@ward.step
async def treat(n: int, how: How) -> str:
    """Kills its process, before its call is parked or afterwards, unless all is well or it is cured."""
    value = effect()
    if how == "later":
        await anyio.sleep(1.1)
    if how != "well" and "CURED" not in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


@home.step
async def rest(treated: str) -> str:
    """What follows."""
    return f"home after {treated}"


@flow
def stay(n: int, how: How) -> str:
    """Two steps, the first of which may be deadly."""
    return rest(treat(n, how))


app = App("deadly", flows=[stay], services=[ward, home])


def keep(run: Callable[[], Any]) -> None:
    """Run something in a child process, again and again; dies with its own parent."""
    while True:
        child = os.fork()
        if child == 0:
            run()
            os._exit(0)
        os.waitpid(child, 0)
        print("died", flush=True)


if __name__ == "__main__":
    config = msgspec.json.decode(sys.argv[1], type=Config)
    overdue.LEASE, overdue.PARK_AFTER, suspects.LOST = 1.5, 0.1, 2
    keep(lambda: anyio.run(serving, config, app, sys.argv[2:]))
