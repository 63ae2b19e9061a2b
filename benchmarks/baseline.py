"""Services written by hand over nats-py: `python baseline.py payments|inventory|email order|chain plain|lean URL FILE`.

The join keeps both halves in SQLite: one commit (WAL, synchronous=FULL) for each batch, then the outputs are stored,
then the inputs are acknowledged. Whatever is delivered again finds its row, and its output has the same message id, so
a crash at any point loses nothing and does nothing twice within the broker's window.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import msgspec
import payloads
from children import run, until_told
from clients import Output, Publisher, Style, acknowledge, batches, connect, publisher
from payloads import CHAIN, Link, Order, Receipt, Reservation

Shape = Literal["order", "chain"]
Handler = Callable[[bytes], Output]

ENDS: dict[Shape, tuple[str, str]] = {"order": ("f.ordered", "f.sent"), "chain": ("f.link.0", f"f.link.{CHAIN}")}
"""Subjects that a flow starts and ends with."""

SERVICES = ("payments", "inventory", "email")
PAID, HELD = "f.paid", "f.held"
_encode = msgspec.json.Encoder().encode
_order = msgspec.json.Decoder(Order).decode
_receipt = msgspec.json.Decoder(Receipt).decode
_reservation = msgspec.json.Decoder(Reservation).decode
_link = msgspec.json.Decoder(Link).decode


def links(service: str) -> list[int]:
    """The steps of the chain that a service does."""
    return list(range(SERVICES.index(service), CHAIN, len(SERVICES)))


def durables(shape: Shape) -> dict[str, list[str]]:
    """The durable consumers of a flow, by what they listen to."""
    if shape == "order":
        return {"payments": ["f.ordered"], "inventory": ["f.ordered"], "email": [PAID, HELD]}
    return {f"link-{place}": [f"f.link.{place}"] for place in range(CHAIN)}


def charge(body: bytes) -> Output:
    """Order in, receipt out."""
    receipt = payloads.charge(_order(body))
    return Output(PAID, _encode(receipt), f"{receipt.id}-paid")


def reserve(body: bytes) -> Output:
    """Order in, reservation out."""
    reservation = payloads.reserve(_order(body))
    return Output(HELD, _encode(reservation), f"{reservation.id}-held")


def notify(paid: bytes, held: bytes) -> Output:
    """Receipt and reservation in, confirmation out."""
    confirmation = payloads.notify(_receipt(paid), _reservation(held))
    return Output(ENDS["order"][1], _encode(confirmation), f"{confirmation.id}-sent")


def forward(place: int) -> Handler:
    """The handler of one step of the chain."""

    def handle(body: bytes) -> Output:
        link = payloads.forward(_link(body))
        return Output(f"f.link.{place + 1}", _encode(link), f"{link.id}-{place + 1}")

    return handle


class Inbox:
    """Halves that wait for each other, in SQLite.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute(
            "CREATE TABLE inbox (flow TEXT, part TEXT, body BLOB, PRIMARY KEY (flow, part)) WITHOUT ROWID"
        )

    def put(self, rows: Iterable[tuple[str, str, bytes]]) -> list[tuple[bytes, bytes]]:
        """Keep halves in one commit; returns the pairs that are complete with them."""
        rows = list(rows)
        found = []
        self._database.execute("BEGIN IMMEDIATE")
        self._database.executemany("INSERT OR IGNORE INTO inbox VALUES (?, ?, ?)", rows)
        for flow in {row[0] for row in rows}:
            parts = dict(self._database.execute("SELECT part, body FROM inbox WHERE flow = ?", (flow,)).fetchall())
            if len(parts) == 2:
                found.append((parts[PAID], parts[HELD]))
        self._database.execute("COMMIT")
        return found


async def relay(connection: Any, style: Style, durable: str, outbox: Publisher, handle: Handler) -> None:
    """One input, one output."""
    async for messages in batches(connection, style, durable):
        await outbox.store([handle(message.data) for message in messages])
        await acknowledge(connection, messages)


async def join(connection: Any, style: Style, outbox: Publisher, path: str) -> None:
    """Two inputs, one output."""
    loop, thread, inbox = asyncio.get_running_loop(), ThreadPoolExecutor(1), Inbox(path)
    async for messages in batches(connection, style, "email"):
        rows = []
        for message in messages:
            decode = _receipt if message.subject == PAID else _reservation
            rows.append((decode(message.data).id, message.subject, message.data))
        pairs = await loop.run_in_executor(thread, inbox.put, rows)
        await outbox.store([notify(paid, held) for paid, held in pairs])
        await acknowledge(connection, messages)


async def main(service: str, shape: Shape, style: Style, url: str, path: str) -> None:
    """Serve until told to stop."""
    connection = await connect(url)
    outbox = await publisher(connection, style)
    if shape == "chain":
        work = [relay(connection, style, f"link-{place}", outbox, forward(place)) for place in links(service)]
    elif service == "email":
        work = [join(connection, style, outbox, path)]
    else:
        work = [relay(connection, style, service, outbox, charge if service == "payments" else reserve)]
    tasks = [asyncio.create_task(one) for one in work]
    told = asyncio.create_task(until_told())
    done, _ = await asyncio.wait([told, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    # Closing ends also a fetch that has swallowed its cancellation.
    await connection.close()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


if __name__ == "__main__":
    run(f"baseline-{sys.argv[1]}", main, *sys.argv[1:])
