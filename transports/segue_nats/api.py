"""JetStream's JSON API over plain requests: nats-py's classes drop the fields that they do not know."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from segue.errors import NotPermitted, TransportError, TransportUnavailable
from segue_nats.connection import Connection, NobodyResponds

PATIENCE = 15.0
ATTEMPT = 5.0
PAUSE = 0.1

STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
MESSAGE_NOT_FOUND = 10037
NAME_IN_USE = 10058
TEMPORARY = frozenset({10008, 10023})
"""JetStream is temporarily unavailable; insufficient resources."""


class ApiError(TransportError):
    """JetStream refused a request; `number` is its own error code."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


async def call(connection: Connection, endpoint: str, body: Any = None, patience: float = PATIENCE) -> dict[str, Any]:
    """Ask the JetStream API; asked again while the server starts, elects or is away, so `endpoint` must be idempotent.

    Args:
        connection: Where.
        endpoint: What follows `$JS.API.`.
        body: JSON to be, or None.
        patience: Seconds after which to give up.

    Raises:
        ApiError: The server refused.
        NotPermitted: The user lacks the right.
        TransportUnavailable: No answer.
        TransportError: The server has no JetStream.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    data = b"" if body is None else msgspec.json.encode(body)
    while True:
        left = deadline - loop.time()
        await connection.ready(left)
        try:
            answer = await connection.request(f"$JS.API.{endpoint}", data, min(ATTEMPT, left))
        except NobodyResponds:
            if loop.time() + PAUSE >= deadline:
                raise TransportError(
                    "the NATS server answers, but has no JetStream",
                    "start it with -js, or enable jetstream in its config",
                ) from None
        except NotPermitted:
            raise
        except TransportUnavailable:
            if loop.time() + PAUSE >= deadline:
                raise
        else:
            found: dict[str, Any] = msgspec.json.decode(answer.data)
            error = found.get("error")
            if error is None:
                return found
            number = error.get("err_code", 0)
            if number not in TEMPORARY or loop.time() + PAUSE >= deadline:
                raise ApiError(f"JetStream refused {endpoint}: {error.get('description', error)}", number)
        await asyncio.sleep(PAUSE)
