"""A process of a Segue deployment: `python segue_node.py payments|inventory|email|coordinator|observer URL FOLDER`.

Further replicas are called `inventory.2` and so on. FOLDER is where the SQLite files are, or the URL of a database.
"""

from __future__ import annotations

import sys
from pathlib import Path

from children import run, until_told
from segue_app import app

from segue import compose
from segue import config as configuration
from segue.config import Config
from segue.plan.projection import COORDINATOR
from segue.runtime.process import settle
from segue.wire.subjects import OBSERVER


def settings(url: str, folder: Path | str) -> Config:
    """The configuration of a deployment: a broker, and a SQLite file for each participant.

    Args:
        url: The broker.
        folder: Where the files are; or the URL of a database for all.
    """
    database = str(folder)
    stored = "://" in database
    flags = {
        "transport": url,
        "store": database if stored else f"sqlite:///{folder}/{{part}}.db",
        "journal": database if stored else f"sqlite:///{folder}/journal.db",
        "namespace": "bench",
    }
    return configuration.load(flags, cwd=Path.cwd() if stored else Path(folder), environ={})


async def main(name: str, url: str, folder: str) -> None:
    """Take part until told to stop."""
    config = settings(url, folder)
    name = name.partition(".")[0]
    async with compose.wired(config, name) as wiring:
        if name == COORDINATOR:
            async with compose.coordinating(config, wiring):
                settle()
                await until_told()
        elif name == OBSERVER:
            async with compose.observing(config, wiring):
                settle()
                await until_told()
        else:
            async with compose.serve(config, wiring, app.services[name]):
                settle()
                await until_told()


if __name__ == "__main__":
    run(f"segue-{sys.argv[1]}", main, *sys.argv[1:])
