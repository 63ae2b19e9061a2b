"""A NATS server with a user for each participant, and participants that are these users."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import nats
from nats.aio.client import Client as NatsClient
from orders import app, place_order
from stage import eventually

from segue import compose
from segue.config import Config
from segue.plan.projection import COORDINATOR, Mode
from segue.runtime import deploy
from segue.runtime.client import Client
from segue.wire import envelope
from segue.wire.rights import CLIENT, DEPLOYER, ROLES, rights
from segue.wire.subjects import OBSERVER, Subjects
from segue_nats.permissions import render, variable
from segue_nats.server import NatsServer

NS = "segue"
PLAN = place_order.plan
USERS = (*app.services, *ROLES)
BAD = "inventory"
"""The service whose credentials are in the wrong hands."""


def secret(user: str) -> str:
    return f"{user}-s3cret"


def permissions() -> str:
    words = [f"{variable(NS, user)}: {secret(user)}" for user in (*USERS, "admin")]
    text = render(rights([PLAN], Subjects(NS), app.services), NS, "nats-conf")
    admin = f"  users = [\n    {{ user: admin, password: ${variable(NS, 'admin')} }}\n"
    return "\n".join([*words, text.replace("  users = [\n", admin)])


def as_user(server: NatsServer, user: str, folder: Path, namespace: str = NS) -> Config:
    return Config(
        transport=server.url.replace("//", f"//{user}:{secret(user)}@") + "?redelivery=2",
        namespace=namespace,
        store=f"sqlite:///{server.store_dir}/{{part}}.db",  # the registry knows how far these are
        journal=f"sqlite:///{folder}/journal.db",
    )


async def deployed(config: Config, mode: Mode) -> None:
    async with compose.wired(config) as wiring:
        await deploy.deploy(wiring.transport, wiring.catalog, wiring.subjects, [(PLAN, mode)], 0)


@asynccontextmanager
async def everybody(server: NatsServer, folder: Path, mode: Mode, absent: str = "") -> AsyncIterator[Client]:
    """All participants but one, each connected as the user that it is; a client."""
    await deployed(as_user(server, DEPLOYER, folder), mode)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        for name in {*app.services} - {absent}:
            config = as_user(server, name, folder)
            await enter(compose.serve(config, await enter(compose.wired(config)), app.services[name]))
        config = as_user(server, COORDINATOR, folder)
        await enter(compose.coordinating(config, await enter(compose.wired(config))))
        config = as_user(server, OBSERVER, folder)
        await enter(compose.observing(config, await enter(compose.wired(config))))
        yield await enter(compose.connect(config=as_user(server, CLIENT, folder)))


class Intruder:
    """A plain NATS client with the credentials of the bad service."""

    def __init__(self, client: NatsClient) -> None:
        self.client = client
        self.refused: list[str] = []

    async def _on_error(self, error: Exception) -> None:
        self.refused.append(str(error))

    @classmethod
    @asynccontextmanager
    async def inside(cls, server: NatsServer) -> AsyncIterator[Intruder]:
        found = cls(NatsClient())
        await found.client.connect(
            server.url, user=BAD, password=secret(BAD), inbox_prefix=f"_INBOX.{BAD}", error_cb=found._on_error
        )
        try:
            yield found
        finally:
            await found.client.close()

    async def refusal(self) -> str:
        """The next thing that the server refuses."""
        with anyio.fail_after(5):
            while not self.refused:
                await anyio.sleep(0.001)
        return self.refused.pop(0)

    async def ask(self, subject: str, body: bytes = b"", headers: dict[str, str] | None = None) -> dict[str, Any]:
        answer = await self.client.request(subject, body, timeout=5, headers=headers)
        found: dict[str, Any] = msgspec.json.decode(answer.data)
        return found


@asynccontextmanager
async def admin(server: NatsServer) -> AsyncIterator[NatsClient]:
    client = await nats.connect(server.url, user="admin", password=secret("admin"))
    try:
        yield client
    finally:
        await client.close()


async def journal_of(folder: Path, run: str) -> list[envelope.Event]:
    async with compose.journal(Config(journal=f"sqlite:///{folder}/journal.db")) as journal:
        return [envelope.decode(entry.body) for entry in await journal.history(run)]


async def history(folder: Path, run: str) -> list[envelope.Event]:
    """The journal of a run that has ended."""
    found: list[envelope.Event] = []

    async def ended() -> bool:
        found[:] = await journal_of(folder, run)
        return any(event.kind == "ended" for event in found)

    await eventually(ended)
    return found
