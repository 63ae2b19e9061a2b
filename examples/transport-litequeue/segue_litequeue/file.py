"""One SQLite file: a thread that owns the connection, transactions, and waiting for changes.

SQLite lets one connection write at a time, in all processes together. So a transaction that begins IMMEDIATE sees
everything and is alone: that is all the locking there is, and a process that is killed leaves nothing locked.

Waiting: whoever finds nothing to do waits for a bell. It rings after writes of this connection, and when the file's
`data_version` has changed, which is how SQLite tells that another connection has written; that is polled.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Generic, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from segue.errors import TransportError, TransportUnavailable

T = TypeVar("T")
POLL = 0.004
"""Seconds between two looks at what other connections have written."""
BUSY = 10.0
"""Seconds to wait for another process's transaction."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS message (    -- what was published; stays until all have done it and the window is over
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    stream TEXT NOT NULL,               -- <namespace>-<channel>
    id TEXT,                            -- the publisher's; NULL if it gave none
    subject TEXT NOT NULL,
    body BLOB NOT NULL,
    time REAL NOT NULL,
    UNIQUE (stream, id)                 -- a repeat is not stored
);
CREATE TABLE IF NOT EXISTS queue (      -- a declared group
    queue INTEGER PRIMARY KEY,
    stream TEXT NOT NULL,
    name TEXT NOT NULL,
    patterns TEXT NOT NULL,             -- separated by spaces
    UNIQUE (stream, name)
);
CREATE TABLE IF NOT EXISTS delivery (   -- a message that a group has not done
    queue INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    deliveries INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL,                  -- may be taken from this time on: published, delayed, or its lease is over
    member TEXT,                        -- who has the lease
    PRIMARY KEY (queue, seq)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS delivery_due ON delivery (queue, due);
CREATE INDEX IF NOT EXISTS delivery_seq ON delivery (seq);
CREATE TABLE IF NOT EXISTS dead_letter (stream TEXT, name TEXT, subject TEXT, body BLOB, reason TEXT, time REAL);
CREATE TABLE IF NOT EXISTS registry (
    version INTEGER PRIMARY KEY AUTOINCREMENT,  -- a new value is a new row, so followers look for higher versions
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    UNIQUE (namespace, key) ON CONFLICT REPLACE
);
CREATE TABLE IF NOT EXISTS responder (
    responder TEXT PRIMARY KEY,
    subject TEXT NOT NULL,
    seen REAL NOT NULL,                 -- its last sign of life
    turn INTEGER NOT NULL DEFAULT 0     -- the last request that it was given
);
CREATE TABLE IF NOT EXISTS request (
    request INTEGER PRIMARY KEY AUTOINCREMENT,
    responder TEXT NOT NULL,
    body BLOB NOT NULL,
    expires REAL NOT NULL,
    answer BLOB,
    error TEXT
);
"""


class QueueFile:
    """A connection to the file. Open it with `QueueFile.open`.

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

    @classmethod
    async def open(cls, path: str) -> QueueFile:
        """Open the file; create it at the first need.

        Raises:
            TransportUnavailable: It cannot be opened.
        """
        file = cls(path)
        try:
            file._connection = await file._in_thread(partial(_connect, path))
        except BaseException:
            file._thread.shutdown()
            raise
        file._watch = asyncio.create_task(file._watching())
        return file

    async def run(self, work: Callable[[sqlite3.Connection], T], *, rings: bool = False) -> T:
        """Run `work` on the connection, in its thread, and ring the bell if asked to.

        Cancellation is heard before the work begins. What has begun is waited for, so its result is never lost.

        Raises:
            TransportUnavailable: The file is locked or full, or this connection is closed.
            TransportError: It is no queue file.
        """
        await checkpoint()
        if self._connection is None:
            raise TransportUnavailable("this connection is closed", "open another one")
        with anyio.CancelScope(shield=True):
            result = await self._in_thread(partial(work, self._connection))
        if rings:
            self._ring()
        return result

    async def changed(self, rings: int, timeout: float | None = None) -> None:
        """Return when the bell has rung more than `rings` times, or after `timeout` seconds."""
        with anyio.move_on_after(timeout):
            while self.rings == rings:
                await self._bell.wait()

    async def aclose(self) -> None:
        """Close the connection; those who wait are told."""
        connection, self._connection = self._connection, None
        if connection is None or self._watch is None:
            return
        with anyio.CancelScope(shield=True):
            self._watch.cancel()
            await asyncio.wait([self._watch])
            await self._in_thread(connection.close)
        self._thread.shutdown()
        self._ring()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.OperationalError as error:
            hint = "is the folder there, writable and not full, and does nobody hold a transaction open?"
            raise TransportUnavailable(f"{self._path}: {error}", hint) from error
        except sqlite3.Error as error:
            raise TransportError(f"{self._path}: {error}", "is it a queue file?") from error

    async def _watching(self) -> None:
        known = None
        while True:
            try:
                version = await self.run(_data_version)
            except TransportError:
                version = None  # Those who are woken will find out what is wrong.
            if version is None or version != known:
                self._ring()
            known = version
            await asyncio.sleep(POLL)

    def _ring(self) -> None:
        self.rings += 1
        self._bell.set()
        self._bell = anyio.Event()


class Feed(Generic[T]):
    """What `fetch` finds, then what it finds after each change.

    Args:
        file: Whose changes.
        fetch: Returns what is new since it was called last.
    """

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


@contextmanager
def transaction(connection: sqlite3.Connection, *, durable: bool = False) -> Iterator[None]:
    """A transaction; it is durable where the port says so, for only that needs the disk to have it before going on.

    If the machine loses power, what was not durable may be lost: at worst, leases and acknowledgements, and then messages
    come again.
    """
    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        yield


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        with transaction(connection, durable=True):
            for statement in SCHEMA.split(";\n"):
                connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


def _data_version(connection: sqlite3.Connection) -> int:
    [version] = connection.execute("PRAGMA data_version").fetchone()
    return int(version)
