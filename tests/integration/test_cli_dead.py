"""`segue dead`: letters are listed, shown, published again and removed; what is in them cannot command a terminal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from stage import NAMES
from test_cli import Folder

from segue.hooks import open_transport
from segue.ports.transport import Group, Message, Transport
from segue_nats.server import NatsServer

EVIL = b'[{"correlationid": "\\u001b[2J", "flow": "shop\\n\\u202eflow"}]'


class Letters:
    """A folder whose transport has dead letters."""

    def __init__(self, path: Path, url: str) -> None:
        self.url, self.namespace = url, f"t{next(NAMES)}"
        self.folder = Folder(path, f'transport = "{url}"\nnamespace = "{self.namespace}"\n')
        self.do(self._bury)

    def do(self, work: Callable[[Transport], Awaitable[Any]]) -> Any:
        """Do something with the transport."""

        async def run() -> Any:
            transport = await open_transport(self.url, self.namespace)
            try:
                return await work(transport)
            finally:
                await transport.aclose()

        return anyio.run(run)

    async def _bury(self, bus: Transport) -> None:
        subject = f"{self.namespace}.o.shop.pay.completed"
        await bus.declare(Group("events", "desk", (f"{self.namespace}.o.>",)))
        readable = msgspec.json.encode([{"correlationid": f"{n:032x}", "flow": "shop"} for n in (1, 2, 1)])
        bodies = [readable, b"\x1b]0;title\x07 junk", b"\xff\x00binary", EVIL]
        for n, body in enumerate(bodies):
            await bus.publish([Message(subject if n != 2 else f"{self.namespace}.o.rent.x.completed", body)])
            async with bus.consume("events", "desk") as member:
                await member.discard(await member.receive(1), f"Reason {n}: \x1b[31mred")

    async def waiting(self, bus: Transport) -> int:
        """How many messages wait for the group."""
        backlog = await bus.backlog("events", "desk")
        assert backlog is not None
        return backlog.waiting


@pytest.fixture
def letters(tmp_path: Path, nats_server: NatsServer) -> Letters:
    return Letters(tmp_path, nats_server.url)


def test_letters_are_listed_and_chosen(letters: Letters) -> None:
    folder = letters.folder
    found = folder.json("dead", "list")
    assert [line["participant"] for line in found] == ["desk"] * 4
    assert [line["reason"][:9] for line in found] == [f"Reason {n}:" for n in range(4)]
    assert (found[0]["flows"], found[0]["runs"]) == (["shop"], [f"{1:032x}", f"{2:032x}"])
    ids = [line["id"] for line in found]
    for flags, chosen in {
        ("--flow", "rent"): ids[2:3],
        ("--flow", "shop"): ids[:2],
        ("--reason", "REASON 3"): ids[3:],
        ("--flow", "shop", "--reason", "reason 1"): ids[1:2],
        ("--limit", "2"): ids[:2],
        ("--reason", "nothing like that"): [],
    }.items():
        assert [line["id"] for line in folder.json("dead", "list", *flags)] == chosen, flags
    shown = folder.run("dead", "list")
    assert shown.code == 0
    assert not set("\x1b\x07\u202e") & set(shown.out)
    assert shown.out.splitlines()[-1] == "4 dead letters"
    assert f"{1:032x} and 1 more" in shown.out
    assert folder.run("dead", "list", "--limit", "3").out.splitlines()[-1] == "there are more; --limit shows them"
    assert folder.run("dead", "list", "--reason", "zzz").out == "no dead letters\n"
    assert folder.run("dead", "list", "--limit", "0").code == 2


def test_a_letter_is_shown_with_its_payload(letters: Letters) -> None:
    folder = letters.folder
    ids = [line["id"] for line in folder.json("dead", "list")]
    told = folder.json("dead", "show", ids[0])
    assert msgspec.json.decode(told["payload"])[1] == {"correlationid": f"{2:032x}", "flow": "shop"}
    assert told["letter"]["subject"] == f"{letters.namespace}.o.shop.pay.completed"
    assert folder.json("dead", "show", ids[2])["base64"] is True
    for id in ids:
        shown = folder.run("dead", "show", id)
        assert shown.code == 0
        assert not set("\x1b\x07\x00\u202e") & set(shown.out)
    assert "\\x1b]0;title\\x07 junk" in folder.run("dead", "show", ids[1]).out
    assert "\\xff\\x00binary" in folder.run("dead", "show", ids[2]).out
    missing = folder.run("dead", "show", "99999")
    assert (missing.code, missing.err.splitlines()[0]) == (1, "error: there is no dead letter '99999'")


def test_letters_are_requeued_and_discarded_by_id(letters: Letters) -> None:
    folder = letters.folder
    ids = [line["id"] for line in folder.json("dead", "list")]
    assert folder.run("dead", "requeue", ids[0]).out == "requeued 1 dead letter\n"
    assert letters.do(letters.waiting) == 1
    again = folder.run("dead", "requeue", ids[0], ids[1], ids[1])
    assert again.code == 1
    assert again.out.splitlines() == ["requeued 1 dead letter", f"not there: {ids[0]}"]
    assert folder.json("dead", "discard", ids[2])["ids"] == [ids[2]]
    assert [line["id"] for line in folder.json("dead", "list")] == ids[3:]
    assert folder.run("dead", "discard", ids[2]).code == 1
    assert letters.do(letters.waiting) == 2


def test_all_is_shown_before_it_is_done(letters: Letters) -> None:
    folder = letters.folder
    ids = [line["id"] for line in folder.json("dead", "list")]
    preview = folder.run("dead", "discard", "--all", "--flow", "shop")
    assert preview.code == 1
    first, last = preview.out.splitlines()
    assert (first, last) == (f"would discard 2 dead letters: {', '.join(ids[:2])}", "nothing was done; --yes does it")
    assert len(folder.json("dead", "list")) == 4
    done = folder.json("dead", "discard", "--all", "--flow", "shop", "--yes")
    expected = {"action": "discard", "preview": False, "count": 2, "ids": ids[:2], "missing": []}
    assert done == expected
    assert folder.json("dead", "requeue", "--all", "--yes")["count"] == 2
    assert letters.do(letters.waiting) == 2
    assert folder.run("dead", "requeue", "--all", "--yes").code == 1


@pytest.mark.parametrize(
    "arguments", [(), ("1", "--all"), ("1", "--yes"), ("1", "--flow", "shop")], ids=["none", "both", "yes", "flow"]
)
def test_what_is_meant_must_be_clear(letters: Letters, arguments: tuple[str, ...]) -> None:
    for action in ("requeue", "discard"):
        done = letters.folder.run("dead", action, *arguments)
        assert (done.code, done.out) == (2, "")
    assert len(letters.folder.json("dead", "list")) == 4
