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

SCHEMA = (
    # What was published; `stream` is <namespace>-<channel>, `id` NULL if the publisher gave none.
    """message (seq INTEGER PRIMARY KEY AUTOINCREMENT, stream TEXT, id TEXT, subject TEXT, body BLOB, time REAL,
                UNIQUE (stream, id))""",
    # The declared groups; patterns are separated by spaces.
    "queue (queue INTEGER PRIMARY KEY, stream TEXT, name TEXT, patterns TEXT, UNIQUE (stream, name))",
    # What a group has not done. From `due` on, a message may be taken; who has it is its `member` until then.
    """delivery (queue INTEGER, seq INTEGER, due REAL, member TEXT, deliveries INTEGER DEFAULT 0,
                 PRIMARY KEY (queue, seq)) WITHOUT ROWID""",
    "dead_letter (stream TEXT, name TEXT, subject TEXT, body BLOB, reason TEXT, time REAL)",
    # A new value is a new row, so followers look for higher versions.
    """registry (version INTEGER PRIMARY KEY AUTOINCREMENT, namespace TEXT, key TEXT, value BLOB,
                 UNIQUE (namespace, key) ON CONFLICT REPLACE)""",
    # Who answers: its last sign of life, and the last request that it was given.
    "responder (responder TEXT PRIMARY KEY, subject TEXT, seen REAL, turn INTEGER DEFAULT 0)",
    """request (request INTEGER PRIMARY KEY AUTOINCREMENT, responder TEXT, body BLOB, expires REAL,
                answer BLOB, error TEXT)""",
)
INDEXES = ("delivery_due ON delivery (queue, due)", "delivery_seq ON delivery (seq)")


class QueueFile:
    """A connection to the file.

    Args:
        connection: Opened by `thread`, and used by it only.
        thread: One thread.
        path: For messages.

    Attributes:
        rings: How often the bell has rung; read it before looking for work, then pass it to `changed`.
    """

    def __init__(self, connection: sqlite3.Connection, thread: ThreadPoolExecutor, path: str) -> None:
        self.rings = 0
        self._connection = connection
        self._thread = thread
        self._path = path
        self._closed = False
        self._bell = anyio.Event()
        self._watch = asyncio.create_task(self._watching())

    @classmethod
    async def open(cls, path: str) -> QueueFile:
        """Open the file; create it at the first need.

        Raises:
            TransportUnavailable: It cannot be opened.
            TransportError: It is something else.
        """
        thread = ThreadPoolExecutor(1, "segue-litequeue")
        try:
            return cls(await _in_thread(thread, path, partial(_connect, path)), thread, path)
        except BaseException:
            thread.shutdown(wait=False)
            raise

    async def execute(self, sql: str, *values: object, rings: bool = False) -> list[tuple[Any, ...]]:
        """Run one statement, a transaction by itself, and return its rows."""
        return await self._run(lambda connection: connection.execute(sql, values).fetchall(), rings)

    async def transact(
        self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False, rings: bool = False
    ) -> T:
        """Run `work` in a transaction.

        Args:
            work: Runs in the thread; raising rolls back.
            durable: Wait for the disk. Without, a power failure may undo it; what only causes a redelivery may be undone.
            rings: Ring the bell afterwards: somebody may have something to do now.
        """

        def whole(connection: sqlite3.Connection) -> T:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                return work(connection)

        return await self._run(whole, rings)

    async def changed(self, rings: int, timeout: float | None = None) -> None:
        """Return when the bell has rung more than `rings` times, or after `timeout` seconds."""
        with anyio.move_on_after(timeout):
            while self.rings == rings:
                await self._bell.wait()

    async def aclose(self) -> None:
        """Close the connection; those who wait are woken, and told."""
        if self._closed:
            return
        self._closed = True
        with anyio.CancelScope(shield=True):
            self._watch.cancel()
            await asyncio.wait([self._watch])
            await _in_thread(self._thread, self._path, self._connection.close)
        self._thread.shutdown()
        self._ring()

    async def _run(self, work: Callable[[sqlite3.Connection], T], rings: bool) -> T:
        # Cancellation is heard before the work begins. What has begun is waited for, so that its result is not lost.
        await checkpoint()
        if self._closed:
            raise TransportUnavailable("this connection is closed", "open another one")
        with anyio.CancelScope(shield=True):
            result = await _in_thread(self._thread, self._path, partial(work, self._connection))
        if rings:
            self._ring()
        return result

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


async def _in_thread(thread: ThreadPoolExecutor, path: str, work: Callable[[], T]) -> T:
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, work)
    except sqlite3.OperationalError as error:
        hint = "is the folder there and writable, the disk not full, and nobody in a long transaction?"
        raise TransportUnavailable(f"{path}: {error}", hint) from error
    except sqlite3.Error as error:
        raise TransportError(f"{path}: {error}", "is it a queue file?") from error


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        with connection:
            for table in SCHEMA:
                connection.execute(f"CREATE TABLE IF NOT EXISTS {table}")
            for index in INDEXES:
                connection.execute(f"CREATE INDEX IF NOT EXISTS {index}")
    except BaseException:
        connection.close()
        raise
    return connection
