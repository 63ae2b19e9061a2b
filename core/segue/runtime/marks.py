"""How far a participant's store is: marks in it, and in the registry, so that an older store is not taken for current.

A store that was restored from a backup has forgotten what its participant said: steps would run twice, and a key would
start a second run. So a mark with the next number is committed now and then, as a cell, and told to the registry; a
participant whose store has not the mark that the registry knows does not serve. `restore` makes such a store good.

What was committed after the last mark is not seen to be missing: up to `EVERY` seconds, before a process was killed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import anyio

from segue.errors import SegueError, StoreBehind
from segue.ports.store import Cell, CellKey, CellKind
from segue.runtime.tasks import task_group
from segue.wire.records import StoreRecord

if TYPE_CHECKING:
    from segue.runtime.participant import Participant

log = logging.getLogger("segue.marks")

EVERY = 5.0
"""Seconds between two marks, if anything was recorded in between."""

LAST_WORD = 2.0
"""Seconds that the mark of a process that stops may take."""

_SPACE = "f" * 8
"""What the run ids of marks begin with: later than all times, so that they are never taken for old runs."""
_END = "f" * 32


def mark_cell(number: int) -> CellKey:
    """The cell of a mark."""
    return CellKey(f"{_SPACE}{number:024x}", "mark", "", 1, CellKind.MARK)


class Marks:
    """The marks of a participant's store.

    Args:
        host: The participant.
    """

    def __init__(self, host: Participant) -> None:
        self._host = host
        self._store = ""
        self._number = 0
        self._told = 0
        self._counted = 0

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Check the store, and mark it while the context is open and once more at its end.

        Raises:
            StoreBehind: The store has not all that its participant said.
        """
        if not self._host.store.durable:
            yield
            return
        await self.find()
        self.check()
        await self._host.insist(partial(self._mark, self._number or 1))
        async with task_group() as tasks:
            tasks.start_soon(self._watch)
            yield
            tasks.cancel_scope.cancel()
        with anyio.move_on_after(LAST_WORD, shield=True):
            await self._again()

    async def find(self) -> None:
        """Look for the last mark in the store."""
        host = self._host
        found: dict[CellKey, bytes] = {}
        after = mark_cell(0).run
        while runs := await host.insist(partial(host.store.runs, after, _END, 100)):
            cells = [mark_cell(int(run.removeprefix(_SPACE), 16)) for run in runs]
            found |= await host.insist(partial(host.store.load, cells))
            after = runs[-1]
        marks = sorted(found)
        if marks:
            self._number, self._store = int(marks[-1].run.removeprefix(_SPACE), 16), found[marks[-1]].decode()
        for mark in marks[:-2]:
            await host.insist(partial(host.store.purge, mark.run, 10))

    def check(self) -> None:
        """Compare the last mark with the one that the registry knows.

        Raises:
            StoreBehind: It is not as far, or another store.
        """
        name, known = self._host.name, self._host.catalog.stores.get(self._host.name)
        if known is None or (known.store == self._store and known.number <= self._number):
            return
        what = "is older than what was said from it" if known.store == self._store else "is another one than before"
        if not self._number:
            what = "is empty, and was not before"
        raise StoreBehind(
            f"the store of {name} {what}: it is at mark {self._number}, and was at {known.number}",
            f"put the right one there; or fold the journal into it: segue restore {name} (--accept takes it as it is)",
        )

    async def accept(self) -> None:
        """From now on, the store as it is counts as current. Call `find` before."""
        known = self._host.catalog.stores.get(self._host.name)
        await self._mark(max(self._number, known.number if known else 0) + 1)
        await self._tell()

    async def _watch(self) -> None:
        while True:
            await anyio.sleep(EVERY)
            await self._again()

    async def _again(self) -> None:
        """A further mark, if anything was recorded since the last one.

        Raises:
            StoreBehind: The last one is not there any more.
        """
        counts = self._host.counts
        counted = counts.events + counts.calls + counts.started + counts.ended
        try:
            if counted != self._counted:
                if not await self._host.store.runs(mark_cell(self._number - 1).run, _END, 1):
                    raise StoreBehind(
                        f"the store of {self._host.name} went back behind mark {self._number} while it was served",
                        f"fold the journal into it: segue restore {self._host.name}",
                    )
                await self._mark(self._number + 1)
                self._counted = counted
            elif self._told != self._number:
                await self._tell()
        except StoreBehind:
            raise
        except SegueError as error:
            log.warning("%s: its store is not marked for now: %s", self._host.name, error.message)

    async def _mark(self, number: int) -> None:
        cell = mark_cell(number)
        store = self._store or os.urandom(8).hex()
        found = await self._host.store.commit([Cell(cell, store.encode())])
        self._store, self._number = found.lost.get(cell, store.encode()).decode(), number
        try:
            await self._tell()
        except SegueError as error:
            log.warning("%s: the mark of its store is not in the registry: %s", self._host.name, error.message)
        if number > 2:
            await self._host.store.purge(mark_cell(number - 2).run, 10)

    async def _tell(self) -> None:
        known = self._host.catalog.stores.get(self._host.name)
        if known is None or known.store != self._store or known.number < self._number:
            await self._host.catalog.mark(StoreRecord(self._host.name, self._store, self._number))
        self._told = self._number
