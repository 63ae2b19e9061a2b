"""One thread and one connection for an opened store or journal: all its calls go through here.

Calls that wait when the thread is free are served together: first the reads, then all writes in one transaction (group
commit: one fsync for many callers). If that transaction fails before its commit, the writes are tried one by one, so
that one caller's bad data does not fail its neighbours. If the commit itself fails, or the connection, nobody knows
what is recorded: all get `StoreUnavailable`, and the next call connects again.

A call whose caller was cancelled before its turn is dropped, so that it cannot land after what the caller does next.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from segue.errors import StoreError, StoreUnavailable
from segue_sql.errors import translated
from segue_sql.link import Database, Link

T = TypeVar("T")
W = TypeVar("W")


class _Call:
    __slots__ = ("error", "future", "read", "result", "write")

    def __init__(self, future: asyncio.Future[Any], read: Callable[[Link], Any] | None, write: Any) -> None:
        self.future = future
        self.read = read
        self.write = write
        self.result: Any = None
        self.error: Exception | None = None


class Lane(Generic[W]):
    """The way to a database.

    Args:
        database: What to connect to, at the first call and again after a loss.
        apply: Performs several writes within a transaction and returns the answer to each.
    """

    def __init__(self, database: Database, apply: Callable[[Link, Sequence[W]], Sequence[Any]]) -> None:
        self._database = database
        self._apply = apply
        self._loop = asyncio.get_running_loop()
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._link: Link | None = None
        self._closed = False
        self._ended = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="segue-sql", daemon=True)
        self._thread.start()

    async def read(self, work: Callable[[Link], T]) -> T:
        """Let `work` read, outside of any transaction."""
        result: T = await self._call(work, None)
        return result

    async def write(self, write: W) -> Any:
        """Perform a write, together with others, and return when it is durable."""
        return await self._call(None, write)

    async def aclose(self) -> None:
        """Finish the calls that wait, and disconnect."""
        if not self._closed:
            self._closed = True
            self._calls.put(None)
        await asyncio.shield(self._ended)
        self._thread.join()

    async def _call(self, read: Callable[[Link], Any] | None, write: W | None) -> Any:
        if self._closed:
            raise StoreError(f"{self._database.name} is closed")
        future = self._loop.create_future()
        self._calls.put(_Call(future, read, write))
        return await future

    def _run(self) -> None:
        open_ = True
        while open_:
            waiting = self._waiting()
            open_ = None not in waiting
            calls = [call for call in waiting if call is not None and not call.future.cancelled()]
            reads = [call for call in calls if call.read is not None]
            for call in reads:
                self._read(call)
            self._deliver(reads)
            writes = [call for call in calls if call.read is None and not call.future.cancelled()]
            if writes:
                self._write(writes)
                self._deliver(writes)
        self._drop()
        self._tell(partial(self._ended.set_result, None))

    def _waiting(self) -> list[_Call | None]:
        calls = [self._calls.get()]
        try:
            while True:
                calls.append(self._calls.get_nowait())
        except Empty:
            return calls

    def _read(self, call: _Call) -> None:
        assert call.read is not None
        try:
            link = self._connect()
            try:
                call.result = call.read(link)
            except BaseException:
                if not link.rollback():
                    self._drop()
                raise
        except Exception as error:
            call.error = self._translated(error)

    def _write(self, calls: list[_Call]) -> None:
        try:
            link = self._connect()
            link.begin()
        except Exception as error:
            self._drop()
            self._fail(calls, error)
            return
        try:
            results = self._apply(link, [call.write for call in calls])
        except Exception as error:
            if not link.rollback():
                self._drop()
                self._fail(calls, error)
            elif len(calls) == 1:
                self._fail(calls, error)
            else:
                for call in calls:
                    self._write([call])
            return
        try:
            link.commit()
        except Exception as error:
            self._drop()
            cause = self._translated(error)
            self._fail(calls, StoreUnavailable(cause.message, "the commit may or may not have happened"))
            return
        for call, result in zip(calls, results, strict=True):
            call.result = result

    def _connect(self) -> Link:
        if self._link is None:
            self._link = self._database.connect()
        return self._link

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _translated(self, error: Exception) -> Any:
        return translated(error, self._database.name, self._database.password)

    def _fail(self, calls: Iterable[_Call], error: Exception) -> None:
        for call in calls:
            call.error = self._translated(error)

    def _deliver(self, calls: list[_Call]) -> None:
        if calls:
            self._tell(partial(_settle, calls))

    def _tell(self, callback: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            """The event loop is gone, and with it everybody who could listen."""


def _settle(calls: list[_Call]) -> None:
    for call in calls:
        if call.future.done():
            continue
        if call.error is not None:
            call.future.set_exception(call.error)
        else:
            call.future.set_result(call.result)
