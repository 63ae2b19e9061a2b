"""A service that is not done for a long time: what the tests of stopping run."""

from __future__ import annotations

import asyncio
from pathlib import Path

from segue import App, Service, flow

slow = Service("slow")


@slow.step
async def sleep(seconds: float) -> str:
    """Leave a file when it begins, then sleep."""
    await asyncio.to_thread(Path("began").touch)
    await asyncio.sleep(seconds)
    return "rested"


@flow
def rest(seconds: float) -> str:
    """Sleep once."""
    return sleep(seconds)


app = App("slow", flows=[rest], services=[slow])
