"""One SQLite file: a thread that owns the connection, transactions, and waiting for changes.

SQLite lets one connection write at a time, in all processes together. So a transaction that begins IMMEDIATE sees
everything and is alone: that is all the locking there is, and a process that is killed leaves nothing locked.

Waiting: whoever finds nothing to do waits for a bell. It rings after writes of this connection, and when the file's
`data_version` has changed, which is how SQLite tells that another connection has written; that is polled.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Generic, TypeVar

import anyio
from anyio.lowlevel import checkpoint
from segue.errors import TransportError, TransportUnavailable

T = TypeVar("T")
POLL = 0.004
"""Seconds between two looks at what other connections have written."""
BUSY = 10.0
"""Seconds to wait for the transactions of others."""

SCHEMA = """
BEGIN IMMEDIATE;
-- What was published. stream: <namespace>-<channel>; id: NULL if the publisher gave none.
CREATE TABLE IF NOT EXISTS message (seq INTEGER PRIMARY KEY AUTOINCREMENT, stream TEXT, id TEXT, subject TEXT,
    body BLOB, time REAL, UNIQUE (stream, id));
-- The declared groups. patterns: separated by spaces.
CREATE TABLE IF NOT EXISTS queue (queue INTEGER PRIMARY KEY, stream TEXT, name TEXT, patterns TEXT,
    UNIQUE (stream, name));
-- What a group has not done. due: may be taken from then on; until then, its member has it, if any.
CREATE TABLE IF NOT EXISTS delivery (queue INTEGER, seq INTEGER, due REAL, member TEXT, deliveries INTEGER DEFAULT 0,
    PRIMARY KEY (queue, seq)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS delivery_due ON delivery (queue, due);
CREATE INDEX IF NOT EXISTS delivery_seq ON delivery (seq);
-- What groups discarded.
CREATE TABLE IF NOT EXISTS dead_letter (letter INTEGER PRIMARY KEY AUTOINCREMENT, namespace TEXT, name TEXT,
    subject TEXT, body BLOB, reason TEXT, deliveries INTEGER, time REAL);
-- A new value is a new row, so followers look for higher versions.
CREATE TABLE IF NOT EXISTS registry (version INTEGER PRIMARY KEY AUTOINCREMENT, namespace TEXT, key TEXT, value BLOB,
    UNIQUE (namespace, key) ON CONFLICT REPLACE);
-- Who answers. seen: its last sign of life; turn: the last request that it was given.
CREATE TABLE IF NOT EXISTS responder (responder TEXT PRIMARY KEY, subject TEXT, seen REAL, turn INTEGER DEFAULT 0);
CREATE TABLE IF NOT EXISTS request (request INTEGER PRIMARY KEY AUTOINCREMENT, responder TEXT, body BLOB,
    expires REAL, answer BLOB, error TEXT);
COMMIT;
"""


class QueueFile:
    """A connection to the file.

    Args:
        path: The file. Call `connect` before anything else.

    Attributes:
        rings: How often the bell has rung; read it before looking for work, then pass it to `changed`.
    """

    def __init__(self, path: str) -> None:
        self.rings = 0
        self._path = path
        self._thread = ThreadPoolExecutor(1, "segue-litequeue")
        self._connection: sqlite3.Connection | None = None
        self._bell = anyio.Event()
        self._watch: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Open the file; create it at the first need.

        Raises:
            TransportUnavailable: It cannot be opened.
            TransportError: It is something else.
        """
        try:
            self._connection = await self._in_thread(partial(_connect, self._path))
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        self._watch = asyncio.create_task(self._watching())

    async def execute(
        self, sql: str, *values: object, durable: bool = False, rings: bool = False
    ) -> list[tuple[Any, ...]]:
        """Run one statement, which is a transaction by itself, and return its rows; the rest as in `transact`."""
        return await self._run(lambda connection: connection.execute(sql, values).fetchall(), durable, rings)

    async def transact(
        self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False, rings: bool = False
    ) -> T:
        """Run `work` in a transaction.

        Args:
            work: Runs in the thread; what it raises rolls back.
            durable: Wait for the disk. Else a power failure may undo it; leases and acks may be, for it only repeats.
            rings: Ring the bell afterwards: somebody may have something to do now.

        Raises:
            TransportUnavailable: The file is locked, full or closed.
        """

        def whole(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                return work(connection)

        return await self._run(whole, durable, rings)

    async def changed(self, rings: int, timeout: float | None = None) -> None:
        """Return when the bell has rung more than `rings` times, or after `timeout` seconds."""
        with anyio.move_on_after(timeout):
            while self.rings == rings:
                await self._bell.wait()

    async def aclose(self) -> None:
        """Close the connection; those who wait are woken, and told."""
        connection, self._connection = self._connection, None
        if connection is not None and self._watch is not None:
            with anyio.CancelScope(shield=True):
                self._watch.cancel()
                await asyncio.wait([self._watch])
                await self._in_thread(connection.close)
            self._thread.shutdown()
            self._ring()

    async def _run(self, work: Callable[[sqlite3.Connection], T], durable: bool, rings: bool) -> T:
        # Cancellation is heard before the work begins. What has begun is waited for, so that its result is not lost.
        await checkpoint()
        connection = self._connection
        if connection is None:
            raise TransportUnavailable("this connection is closed", "open another one")

        def prepared() -> T:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            return work(connection)

        with anyio.CancelScope(shield=True):
            result = await self._in_thread(prepared)
        if rings:
            self._ring()
        return result

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.OperationalError as error:
            hint = "is the folder there and writable, the disk not full, and nobody in a long transaction?"
            raise TransportUnavailable(f"{self._path}: {error}", hint) from error
        except sqlite3.Error as error:
            raise TransportError(f"{self._path}: {error}", "is it a queue file?") from error

    async def _watching(self) -> None:
        known: object = None
        while True:
            await asyncio.sleep(POLL)
            try:
                version: object = await self.execute("PRAGMA data_version")
            except TransportError as error:
                version = error  # Who is woken finds out for itself.
            if version != known:
                known = version
                self._ring()

    def _ring(self) -> None:
        self.rings += 1
        self._bell.set()
        self._bell = anyio.Event()


class Feed(Generic[T]):
    """What `fetch` finds now and after every change; `fetch` returns what is new since it was called last."""

    def __init__(self, file: QueueFile, fetch: Callable[[], Awaitable[list[T]]]) -> None:
        self._file = file
        self._fetch = fetch
        self._found: deque[T] = deque()

    def __aiter__(self) -> Feed[T]:
        return self

    async def __anext__(self) -> T:
        while not self._found:
            rings = self._file.rings
            self._found.extend(await self._fetch())
            if not self._found:
                await self._file.changed(rings)
        return self._found.popleft()


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None)
    try:
        _use_wal(connection)
        connection.executescript(SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    """Let reading go on beside writing. SQLite itself does not wait for others who set this at the same time."""
    give_up = time.monotonic() + BUSY
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
        time.sleep(POLL)
