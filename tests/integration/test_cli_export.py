"""`segue export nats-permissions`, and that no command shows a secret."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from orders import app, place_order
from test_cli import Folder

from segue.wire.rights import ROLES, rights
from segue.wire.subjects import Subjects
from segue_nats.permissions import render, variable
from segue_nats.server import NatsServer, find_binary

WHO = [*sorted(app.services), *ROLES]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path, 'app = "orders:app"\nnamespace = "shop-1"\ntransport = "nats://127.0.0.1:1"\n')


def test_it_writes_what_the_plans_say(folder: Folder) -> None:
    """Without a broker: what the application declares is enough."""
    done = folder.run("export", "nats-permissions")
    assert (done.code, done.err) == (0, "")
    assert done.out == render(rights([place_order.plan], Subjects("shop-1"), app.services), "shop-1", "nats-conf")
    assert folder.run("export", "nats-permissions", "--save", "users.conf").code == 0
    assert (folder.path / "users.conf").read_text() == done.out


def test_a_server_takes_it_as_it_is(folder: Folder) -> None:
    folder.run("export", "nats-permissions", "--save", "users.conf")
    environ = {variable("shop-1", user): f"{user}-1" for user in WHO}
    check = [str(find_binary()), "-t", "-c", "users.conf"]
    done = subprocess.run(check, cwd=folder.path, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    environ.popitem()
    missing = subprocess.run(check, cwd=folder.path, env=environ, capture_output=True, text=True)
    assert "NATS_SHOP_1_DEPLOYER_PASSWORD" in missing.stderr, "a user without a password is none"


@pytest.mark.parametrize("flags", [("--format", "json"), ("-o", "json")])
def test_programs_read_json(folder: Folder, flags: tuple[str, ...]) -> None:
    users = folder.run("export", "nats-permissions", *flags).json
    assert [user["user"] for user in users] == WHO
    payments = users[WHO.index("payments")]
    assert payments["kind"] == "service"
    assert "shop-1.c.place_order.charge.>" in payments["publish"]
    answers = [f"shop-1.{kind}.payments" for kind in ("to", "ask", "move")]
    assert payments["subscribe"] == ["_INBOX.payments.>", *answers]
    assert not [subject for user in users for subject in user["publish"] if subject in (">", "$JS.>", "$JS.API.>")]


def test_the_deployed_plans_count_too(folder: Folder, nats_server: NatsServer) -> None:
    where = ("--transport", nats_server.url, "--namespace", "exported")
    assert folder.run("deploy", *where).code == 0
    (folder.path / "segue.toml").write_text("")
    deployed = folder.run("export", "nats-permissions", *where)
    assert deployed.code == 0, deployed.err
    assert '"exported.c.place_order.charge.>"' in deployed.out
    both = folder.run("export", "nats-permissions", "--deployed", "--app", "trips:app", *where)
    assert '"exported.c.place_order.charge.>"' in both.out
    assert both.out != deployed.out


def test_nothing_to_write(folder: Folder, nats_server: NatsServer) -> None:
    (folder.path / "segue.toml").write_text("")
    done = folder.run("export", "nats-permissions", "--transport", nats_server.url, "--namespace", "empty-one")
    assert (done.code, done.out) == (2, "")
    assert "there are no services" in done.err


def test_a_file_that_cannot_be_written(folder: Folder) -> None:
    done = folder.run("export", "nats-permissions", "--save", "no/such/folder.conf")
    assert (done.code, done.out) == (2, "")
    assert "cannot be written" in done.err


@pytest.mark.parametrize(
    "arguments",
    [("config",), ("config", "-o", "json"), ("runs",), ("mode",), ("start", "place_order"), ("db", "upgrade")],
)
def test_secrets_are_not_shown(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "secret").write_text("from-a-file")
    folder = Folder(
        tmp_path,
        f'app = "orders:app"\ntransport = "nats://me@127.0.0.1:1?password_file={tmp_path}/secret"\n'
        'store = "postgresql://me:hunter2@127.0.0.1:1/x?sslpassword=hunter3"\n'
        'journal = "postgresql://me:hunter2@127.0.0.1:1/x?sslpassword=hunter3"\n',
    )
    for environ in ({}, {"SEGUE_DEBUG": "1"}, {"SEGUE_TRANSPORT": "nats://me:hunter4@127.0.0.1:1"}):
        done = folder.run(*arguments, **environ)
        said = done.out + done.err
        assert said
        assert not [word for word in ("from-a-file", "hunter") if word in said], said
