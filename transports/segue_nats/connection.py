"""A connection to NATS that comes back.

nats-py can reconnect by itself, but not always: an -ERR of the server (a changed password), a callback that raises or
an unexpected exception in its reader leave a client that is closed or deaf for good, and what was in flight is neither
answered nor failed. So its reconnecting is switched off and there is one mechanism, here: a client that is lost, for
whatever reason, is replaced by a new one, with the same subscriptions. Everybody who waits for an answer is told.

Two more habits of nats-py shape this file. A cancelled or timed out `flush()` kills its reader when the pong comes, and
its PING overtakes commands not yet written; so `sync()` sends a message to itself instead. And closing a connection
that broke with unsent commands stops half-way, leaving tasks behind; so it is run a second time.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription

from segue.errors import NotPermitted, TransportError, TransportUnavailable
from segue_nats.client import Client
from segue_nats.credentials import credentials, encryption
from segue_nats.inbox import Inbox
from segue_nats.options import Options
from segue_nats.refusals import Refusals

log = logging.getLogger("segue.nats")

Callback = Callable[[Msg], Awaitable[None]]
LOST = (nats.errors.Error, OSError)
"""What nats-py raises when a command cannot be sent."""

CONNECT_ATTEMPTS = 3
CONNECT_TIMEOUT = 3
PING_INTERVAL = 10
POLL = 1.0
LONGEST_PAUSE = 2.0
UNSENT_BYTES = 16 * 1024 * 1024
INBOX = "_INBOX"
OLDEST_SERVER = (2, 10)


class NobodyResponds(Exception):
    """The server knows nobody who listens on the subject of a request."""


class Subscription:
    """A subscription that outlives clients.

    Args:
        connection: Whose it is.
        subject: Subject or pattern.
        queue: Queue group, or "".
        callback: Called with each message, one at a time.
    """

    def __init__(self, connection: Connection, subject: str, queue: str, callback: Callback) -> None:
        self._connection = connection
        self._subject = subject
        self._queue = queue
        self._callback = callback
        self._native: NatsSubscription | None = None

    async def attach(self, client: NatsClient) -> None:
        """Subscribe on this client."""
        self._native = await client.subscribe(
            self._subject, queue=self._queue, cb=self._callback, pending_msgs_limit=-1, pending_bytes_limit=-1
        )

    async def close(self) -> None:
        """Unsubscribe; what was not handled yet is dropped."""
        self._connection.subscriptions.discard(self)
        if self._native is not None:
            try:
                await self._native.unsubscribe()
            except LOST:
                log.debug("unsubscribing from %s: no connection", self._subject)


class Connection:
    """Connects, and connects again when the connection is lost, until it is closed.

    Args:
        options: Where and how to connect.

    Attributes:
        inbox: Where answers arrive.
        refusals: What the server forbids.
        subscriptions: What to subscribe to on each new client.
        on_connected: Called after each connect but the first.
    """

    def __init__(self, options: Options) -> None:
        self.inbox = Inbox(".".join(filter(None, (INBOX, options.inbox, secrets.token_hex(10)))))
        self.subscriptions: set[Subscription] = {Subscription(self, self.inbox.pattern, "", self.inbox.deliver)}
        self.on_connected: list[Callable[[], None]] = []
        self.refusals = Refusals(options.shown, self.inbox.pattern)
        self._options = options
        self._client: NatsClient | None = None
        self._up = asyncio.Event()
        self._lost = asyncio.Event()
        self._trouble: Exception | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def client(self) -> NatsClient:
        """The client of now.

        Raises:
            TransportUnavailable: There is no connection at the moment.
        """
        if self._client is None:
            raise self.unavailable("there is no connection to")
        return self._client

    def unavailable(self, what: str) -> TransportUnavailable:
        """The error for something that could not be done, with what the server or the socket said last."""
        hint = "is nats-server running there? `segue dev` starts one"
        if isinstance(self._trouble, OSError | ValueError) and not isinstance(self._trouble, ConnectionError):
            hint = f"check the files and the names that the URL gives; {hint}"
        elif "authorization" in self._why().lower():
            hint = f"check user, password or credentials file; {hint}"
        return TransportUnavailable(f"{what} {self._options.shown}{self._why()}", hint)

    async def open(self) -> None:
        """Connect for the first time.

        Raises:
            TransportUnavailable: No server can be reached.
            TransportError: The server is too old.
        """
        await self._attach(await self._connect())
        version = self.client.connected_server_version
        if (version.major, version.minor) < OLDEST_SERVER:
            await self.close()
            raise TransportError(
                f"nats-server {version.major}.{version.minor} at {self._options.shown} is too old",
                f"Segue needs {OLDEST_SERVER[0]}.{OLDEST_SERVER[1]} or newer",
            )
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Send what is unsent and disconnect."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        client, self._client = self._client, None
        self._up.clear()
        if client is not None:
            await client.close()
        self.inbox.lost()

    async def ready(self, timeout: float) -> None:
        """Wait until there is a connection.

        Raises:
            TransportUnavailable: There is none after `timeout` seconds.
        """
        if self._up.is_set():
            return
        try:
            async with asyncio.timeout(timeout):
                await self._up.wait()
        except TimeoutError:
            raise self.unavailable(f"there was no connection for {timeout:.3g} s to") from None

    async def subscribe(self, subject: str, callback: Callback, queue: str = "") -> Subscription:
        """Subscribe, now and on every later connection; in force after `sync()`."""
        subscription = Subscription(self, subject, queue, callback)
        self.subscriptions.add(subscription)
        if self._client is not None:
            try:
                await subscription.attach(self._client)
            except LOST:
                log.debug("subscribing to %s is left to the next connection", subject)
        return subscription

    async def publish(self, subject: str, body: bytes = b"", reply: str = "") -> bool:
        """Send a message that may get lost; False if there is no connection."""
        if self._client is None:
            return False
        try:
            await self._client.publish(subject, body, reply)
        except LOST:
            return False
        return True

    async def request(self, subject: str, body: bytes, timeout: float) -> Msg:
        """Ask and wait for the answer.

        Raises:
            NobodyResponds: At once, if nobody listens there.
            NotPermitted: At once, if the server forbids it.
            TransportUnavailable: No answer within `timeout` seconds, or the connection was lost.
        """
        reply = self.inbox.subject()
        return await self._ask(subject, body, reply, timeout)

    async def sync(self, timeout: float = 10.0) -> None:
        """Return when the server has processed all that was sent before.

        Raises:
            NotPermitted: The server forbids us to talk to ourselves.
            TransportUnavailable: There was no connection in time.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            await self.ready(deadline - loop.time())
            echo = self.inbox.subject()
            try:
                await self._ask(echo, b"", "", deadline - loop.time(), echo)
            except NotPermitted:
                raise
            except TransportUnavailable:
                if loop.time() >= deadline:
                    raise
                # Subscriptions are made again before the next connection counts as up, so only time was lost.
                await asyncio.sleep(0.01)
            else:
                return

    async def _ask(self, subject: str, body: bytes, reply: str, timeout: float, answered: str = "") -> Msg:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Msg | None] = loop.create_future()

        def settle(_: str, message: Msg | None) -> None:
            if not answer.done():
                answer.set_result(message)

        def refuse(refused: str) -> None:
            error = self.refusals.of_question(subject, refused)
            if error is not None and not answer.done():
                answer.set_exception(error)

        expected = answered or reply
        self.inbox.expect(expected, settle)
        try:
            with self.refusals.watch(refuse):
                if not await self.publish(subject, body, reply):
                    raise self.unavailable(f"{subject} cannot be asked, there is no connection to")
                async with asyncio.timeout(timeout):
                    message = await answer
        except TimeoutError:
            raise self.unavailable(f"no answer on {subject} within {timeout:.3g} s from") from None
        finally:
            self.inbox.forget((expected,))
        if message is None:
            raise self.unavailable(f"the connection was lost before {subject} was answered by")
        if not message.data and (message.headers or {}).get("Status") == "503":
            raise NobodyResponds
        return message

    async def _connect(self) -> NatsClient:
        options = self._options
        try:
            arguments = self._arguments()
        except (OSError, ValueError) as error:
            self._trouble = error
            raise self.unavailable("cannot connect to") from None
        servers = random.sample(options.servers, len(options.servers))
        for server in servers * CONNECT_ATTEMPTS:
            client = Client(options.tls)
            try:
                await client.connect(servers=[server], **arguments)
            except (*LOST, TimeoutError) as error:
                # Where nothing listens the library raises an empty error, after having told the real one.
                if not isinstance(error, nats.errors.NoServersError):
                    self._trouble = error
                await client.close()
                # The reset that follows a refusal may overtake the words that say why.
                if not isinstance(self._trouble, ConnectionResetError) and server == servers[-1]:
                    break
            else:
                self._trouble = None
                return client
        raise self.unavailable("cannot connect to")

    def _arguments(self) -> dict[str, Any]:
        return {
            "name": "segue",
            "allow_reconnect": False,
            "max_reconnect_attempts": 1,
            "reconnect_time_wait": 0,
            "connect_timeout": CONNECT_TIMEOUT,
            "ping_interval": PING_INTERVAL,
            "max_outstanding_pings": 2,
            "pending_size": UNSENT_BYTES,
            "flush_timeout": CONNECT_TIMEOUT,
            "error_cb": self._on_error,
            "closed_cb": self._on_closed,
            **credentials(self._options),
            **encryption(self._options),
        }

    async def _attach(self, client: NatsClient) -> None:
        self.refusals.renew()
        attached: set[Subscription] = set()
        while missing := self.subscriptions - attached:
            for subscription in missing:
                await subscription.attach(client)
            attached |= missing
        self._client = client
        self._up.set()

    async def _keep(self) -> None:
        while True:
            try:
                # A client that cannot finish closing tells nobody, so look now and then.
                async with asyncio.timeout(POLL):
                    await self._lost.wait()
            except TimeoutError:
                pass
            self._lost.clear()
            if self._client is None or self._client.is_closed:
                try:
                    await self._replace()
                except Exception:
                    log.exception("reconnecting failed, trying again")

    async def _replace(self) -> None:
        client, self._client = self._client, None
        self._up.clear()
        self.inbox.lost()
        if client is not None:
            self._trouble = client.last_error or self._trouble
            log.warning("lost the connection to %s%s", self._options.shown, self._why())
        pause = 0.05
        while True:
            try:
                await self._attach(await self._connect())
                break
            except (TransportUnavailable, *LOST) as error:
                log.debug("%s", error)
            # Jitter, so that many workers do not come back at the same instant.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, LONGEST_PAUSE)
        log.warning("connected to %s again", self._options.shown)
        for tell in tuple(self.on_connected):
            tell()

    def _why(self) -> str:
        trouble = self._trouble
        return "" if trouble is None else f": {str(trouble) or type(trouble).__name__}"

    async def _on_error(self, error: Exception) -> None:
        if not self.refusals.heard(str(error)):
            self._trouble = error
        log.debug("nats: %s", error)

    async def _on_closed(self) -> None:
        self._lost.set()
