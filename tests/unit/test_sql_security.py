"""Stores keep what is theirs to their owner: files of SQLite, passwords and certificates of PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from segue.errors import StoreUnavailable
from segue.hooks import open_journal, open_store
from segue.ports.store import Cell, CellKey, CellKind

SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with umask(0):
        store = await open_store(f"sqlite:///{folder}/x.db", "a")
        journal = await open_journal(f"sqlite:///{folder}/journal.db")
        await store.commit([Cell(CellKey("0" * 32, "n", "", 1, CellKind.OUTCOME), b"x")])
        found = {path.name: mode(path) for path in folder.iterdir()}
        await store.aclose()
        await journal.aclose()
    assert mode(folder) == 0o700
    assert {"x.db", "x.db-wal", "x.db-shm", "journal.db"} <= found.keys()
    assert set(found.values()) == {0o600}


async def test_what_exists_keeps_its_permissions(tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir(0o755)
    path = folder / "x.db"
    path.touch(0o640)
    path.chmod(0o640)
    await (await open_store(f"sqlite:///{path}", "a")).aclose()
    assert (mode(folder), mode(path)) == (0o755, 0o640)


class Postgres:
    """What connects is asked for its password, or told that there is no TLS; `heard` is what it said."""

    def __init__(self) -> None:
        self.heard = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard += await reader.read(1000)
        if self.heard.startswith(SSL_REQUEST):
            writer.write(b"N")
        else:
            writer.write(b"R" + (8).to_bytes(4, "big") + (3).to_bytes(4, "big"))
        self.heard += await reader.read(1000)
        writer.close()


@asynccontextmanager
async def postgres() -> AsyncIterator[tuple[Postgres, str]]:
    found = Postgres()
    async with await asyncio.start_server(found.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield found, f"postgresql://me@127.0.0.1:{port}/shop?gssencmode=disable"


async def test_a_password_of_postgresql_comes_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "pgpass"
    secret.write_text("127.0.0.1:*:shop:me:from-a-file\n")
    secret.chmod(0o600)
    async with postgres() as (server, url):
        with pytest.raises(StoreUnavailable) as caught:
            await open_store(f"{url}&sslmode=disable&passfile={secret}", "a")
    assert b"from-a-file" in server.heard
    assert "from-a-file" not in str(caught.value)


async def test_a_server_without_tls_hears_nothing_if_tls_is_a_must(tmp_path: Path) -> None:
    async with postgres() as (server, url):
        with pytest.raises(StoreUnavailable, match="does not support SSL"):
            await open_store(f"{url}&sslmode=verify-full&password=s3cret&sslrootcert=system", "a")
    assert server.heard == SSL_REQUEST
