"""Objects in a stream that keeps the last message of each subject: `<ns>.obj.<run>.<digest>.<part>`.

Every part says in a header how many there are, and the first one is stored last, so an object is there when its first
part is. An object that is stored again replaces its parts by equal ones. A run's objects go with one request.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import suppress
from email.parser import BytesParser
from email.policy import compat32

from segue.errors import StoreUnavailable, TransportError
from segue_nats import api
from segue_nats.connection import Connection
from segue_nats.options import parse
from segue_nats.publisher import Post, Publisher
from segue_nats.topology import Topology

PART = 256 * 1024
"""Bytes of a part: as the JSON in which it comes back it must be far from any server's limit."""

PARTS = "Segue-Parts"
AT_ONCE = 8
"""Parts on their way together."""


async def open_objects(url: str, namespace: str) -> NatsObjects:
    """Connect and create the stream if it is missing.

    Args:
        url: `nats://` or `tls://`, see `segue_nats.options.parse`.
        namespace: First token of all subjects.

    Raises:
        ConfigError: The URL or the namespace is bad.
        TransportUnavailable: No server can be reached.
        TransportError: The server cannot do what is needed.
    """
    options = parse(url)
    connection = Connection(options)
    topology = Topology(connection, namespace, options)
    await connection.open()
    try:
        await topology.ensure_objects()
    except BaseException:
        await connection.close()
        raise
    return NatsObjects(connection, topology)


class NatsObjects:
    """Objects of a namespace.

    Args:
        connection: Connected.
        topology: With its stream in place.
    """

    def __init__(self, connection: Connection, topology: Topology) -> None:
        self._connection = connection
        self._topology = topology
        self._publisher = Publisher(connection)
        self._part = min(PART, connection.client.max_payload // 2)

    async def put(self, run: str, name: str, body: bytes) -> None:
        """Keep an object; acknowledged by the broker when this returns."""
        parts = [body[i : i + self._part] for i in range(0, len(body), self._part)] or [b""]
        headers = {PARTS: str(len(parts))}
        posts = [Post(self._subject(run, name, i), part, headers) for i, part in enumerate(parts)]
        try:
            for i in range(1, len(posts), AT_ONCE):
                await self._publisher.store(posts[i : i + AT_ONCE])
            await self._publisher.store(posts[:1])
        except TransportError as error:
            raise await self._unavailable(error) from error

    async def get(self, run: str, name: str) -> bytes | None:
        """The bytes of an object."""
        found: list[bytes] = []
        count = 1
        try:
            while len(found) < count:
                message = await self._message(self._subject(run, name, len(found)))
                if message is None:
                    return None
                count, part = message
                found.append(part)
        except TransportError as error:
            raise await self._unavailable(error) from error
        return b"".join(found)

    async def delete(self, runs: Sequence[str]) -> None:
        """Forget all objects of these runs."""
        stream = self._topology.objects
        try:
            for run in runs:
                await api.call(
                    self._connection, f"STREAM.PURGE.{stream}", {"filter": self._topology.object_subject(f"{run}.>")}
                )
        except TransportError as error:
            raise await self._unavailable(error) from error

    async def aclose(self) -> None:
        """Send what is unsent and disconnect."""
        await self._connection.close()

    def _subject(self, run: str, name: str, part: int) -> str:
        return self._topology.object_subject(f"{run}.{name}.{part}")

    async def _message(self, subject: str) -> tuple[int, bytes] | None:
        """How many parts there are, and the bytes of this one."""
        try:
            found = await api.call(
                self._connection, f"STREAM.MSG.GET.{self._topology.objects}", {"last_by_subj": subject}
            )
        except api.ApiError as error:
            if error.number == api.MESSAGE_NOT_FOUND:
                return None
            raise
        message = found["message"]
        _, _, lines = base64.b64decode(message.get("hdrs", "")).partition(b"\r\n")
        headers = BytesParser(policy=compat32).parsebytes(lines, headersonly=True)
        return int(headers[PARTS]), base64.b64decode(message.get("data", ""))

    async def _unavailable(self, error: TransportError) -> StoreUnavailable:
        """What a failure is to callers; a server that lost its data gets the stream again."""
        with suppress(TransportError):
            await self._topology.ensure_objects()
        return StoreUnavailable(f"the object store is not available: {error.message}", error.hint)
