"""Who we are and whom we trust: TLS, passwords, tokens, NKEYs, JWTs; and all of these changed while runs are going."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

import anyio
import nkeys
import pytest
import trustme
from orders import Order, app, place_order

from segue import compose
from segue.config import Config
from segue.errors import ConfigError, TransportUnavailable
from segue.hooks import open_transport
from segue.plan.projection import MODES, Mode
from segue.ports.transport import Message
from segue.runtime import deploy
from segue.runtime.client import Client
from segue_nats.options import parse
from segue_nats.server import NatsServer, run_server

EVENT = "segue.o.flow.node.completed"


async def works(url: str) -> None:
    async with aclosing(await open_transport(url, "segue")) as bus:
        await bus.publish([Message(EVENT, b"x")])


def pem(folder: Path, name: str, blob: trustme.Blob) -> Path:
    path = folder / name
    blob.write_to_path(str(path))
    return path


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory, ca: trustme.CA) -> Iterator[tuple[NatsServer, Path]]:
    """A server that shows a certificate for `broker.example` alone, and wants to see one, and the folder with ours."""
    folder = tmp_path_factory.mktemp("tls")
    shown, ours = ca.issue_cert("broker.example"), ca.issue_cert("payments.example")
    authority = pem(folder, "ca.pem", ca.cert_pem)
    chain, key = pem(folder, "server.pem", shown.cert_chain_pems[0]), pem(folder, "server.key", shown.private_key_pem)
    pem(folder, "cert.pem", ours.cert_chain_pems[0])
    pem(folder, "key.pem", ours.private_key_pem)
    pem(folder, "both.pem", ours.private_key_and_cert_chain_pem)
    pem(folder, "foreign.pem", trustme.CA().cert_pem)
    lines = f'cert_file: "{chain}", key_file: "{key}", ca_file: "{authority}", verify: true'
    with NatsServer(folder / "data", config=f"tls {{ {lines} }}") as server:
        yield server, folder


def over_tls(tls: tuple[NatsServer, Path], options: str) -> str:
    server, folder = tls
    return f"{server.url.replace('nats://', 'tls://')}?{options.replace('@', str(folder) + '/')}"


OURS = "cert=@cert.pem&key=@key.pem"


@pytest.mark.parametrize("ours", [OURS, "cert=@both.pem"])
async def test_both_sides_show_certificates(tls: tuple[NatsServer, Path], ours: str) -> None:
    await works(over_tls(tls, f"ca=@ca.pem&tls_name=broker.example&{ours}"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (f"ca=@ca.pem&{OURS}", "(?i)certificate.*mismatch|not valid for"),
        (f"ca=@foreign.pem&tls_name=broker.example&{OURS}", "certificate verify failed"),
        (f"tls_name=broker.example&{OURS}", "certificate verify failed"),
        ("ca=@ca.pem&tls_name=broker.example", "(?i)tls|certificate required|reset|eof|broken pipe|empty response"),
        (f"ca=@key.pem&{OURS}", "(?s)no certificate.*check the files"),
        ("ca=@ca.pem&cert=@cert.pem&key=@server.key", "(?s)(?i)mismatch.*check the files"),
    ],
)
async def test_without_the_right_certificates_nothing_is_said(
    tls: tuple[NatsServer, Path], options: str, said: str
) -> None:
    with pytest.raises(TransportUnavailable, match=said):
        await works(over_tls(tls, options))


async def test_certificates_make_tls_a_must(nats_server: NatsServer, tls: tuple[NatsServer, Path]) -> None:
    with pytest.raises(TransportUnavailable, match="offers no TLS"):
        await works(f"{nats_server.url}?ca={tls[1]}/ca.pem")


def seed() -> bytes:
    found: bytes = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    return found


async def test_a_password_a_token_and_an_nkey_come_from_files(tmp_path: Path) -> None:
    secret, key = tmp_path / "secret", seed()
    public = nkeys.from_seed(bytearray(key)).public_key.decode()
    for config, content, url in (
        ('user: me, password: "s3 cret"', b"s3 cret\n", "me@127.0.0.1:{}?password_file={}"),
        ("token: s3cret", b"s3cret\n", "127.0.0.1:{}?token_file={}"),
        (f"users: [{{ nkey: {public} }}]", key + b"\n", "127.0.0.1:{}?nkey={}"),
    ):
        secret.write_bytes(content)
        async with run_server(tmp_path / "data", config=f"authorization {{ {config} }}") as server:
            place = url.format(server.url.rpartition(":")[2], secret)
            await works(f"nats://{place}")
            secret.write_bytes(seed() if "nkey" in url else b"another")
            with pytest.raises(
                TransportUnavailable, match=r"(?s)(Authorization Violation|reset).*user, password"
            ) as said:
                await works(f"nats://{place}")
            assert content.decode().strip() not in f"{said.value!r} {said.value} {parse(f'nats://{place}')!r}"
            secret.write_bytes(b"not a seed" if "nkey" in url else b" ")
            with pytest.raises(ConfigError, match=r"seed|empty"):
                await works(f"nats://{place}")


class Signer:
    """An operator with an account for us and one for the server, and the users that ours vouches for."""

    def __init__(self) -> None:
        self._operator = _pair(nkeys.PREFIX_BYTE_OPERATOR)
        self._account, self._system = _pair(nkeys.PREFIX_BYTE_ACCOUNT), _pair(nkeys.PREFIX_BYTE_ACCOUNT)

    def config(self) -> str:
        limits = dict.fromkeys(("subs", "data", "payload", "conn", "imports", "exports", "leaf"), -1)
        stored = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
        ours, system = (
            (
                pair.public_key.decode(),
                self._sign(self._operator, pair, {"type": "account", "version": 2, "limits": found}),
            )
            for pair, found in ((self._account, limits | stored), (self._system, limits))
        )
        return (
            f"operator: {self._sign(self._operator, self._operator, {'type': 'operator', 'version': 2})}\n"
            f"system_account: {system[0]}\nresolver: MEMORY\n"
            f"resolver_preload: {{ {ours[0]}: {ours[1]}, {system[0]}: {system[1]} }}\n"
        )

    def creds(self, lasting: float) -> str:
        """A credentials file of a fresh user, good for so many seconds."""
        key = seed()
        user = nkeys.from_seed(bytearray(key))
        rights = {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}
        jwt = self._sign(self._account, user, rights, lasting)
        return (
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{key.decode()}\n------END USER NKEY SEED------\n"
        )

    def _sign(self, by: nkeys.KeyPair, whom: nkeys.KeyPair, nats: dict[str, object], lasting: float = 0) -> str:
        claims: dict[str, object] = {"iat": int(time.time()), "iss": by.public_key.decode(), "name": "n"}
        claims |= {"sub": whom.public_key.decode(), "nats": nats}
        if lasting:
            claims["exp"] = int(time.time() + lasting)
        claims["jti"] = base64.b32encode(hashlib.sha256(json.dumps(claims).encode()).digest()).decode().rstrip("=")
        parts = [_encoded(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, claims)]
        return ".".join([*parts, _encoded(by.sign(".".join(parts).encode()))])


def _pair(kind: int) -> nkeys.KeyPair:
    return nkeys.from_seed(bytearray(nkeys.encode_seed(os.urandom(32), kind)))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@asynccontextmanager
async def everybody(config: Config, mode: Mode) -> AsyncIterator[Client]:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        wiring = await enter(compose.wired(config))
        await deploy.deploy(wiring.transport, wiring.catalog, wiring.subjects, [(place_order.plan, mode)])
        for name in app.services:
            await enter(compose.serve(config, await enter(compose.wired(config)), app.services[name]))
        await enter(compose.coordinating(config, await enter(compose.wired(config))))
        yield await enter(compose.connect(config=config))


def configured(url: str, folder: Path) -> Config:
    return Config(transport=url, store=f"sqlite:///{folder}/{{part}}.db", journal=f"sqlite:///{folder}/journal.db")


async def one_run(client: Client, number: int) -> None:
    """A run whose start is repeated until it is accepted."""
    while True:
        try:
            run = await client.start(place_order, Order(f"n{number}", number))
            break
        except TransportUnavailable:
            await anyio.sleep(0.05)
    assert (await run.result(20)).paid == number


@pytest.mark.parametrize("mode", MODES)
async def test_a_password_is_changed_while_runs_are_going(tmp_path: Path, mode: Mode) -> None:
    """First the server's, then the file, as happens to people; between the two nobody can connect."""
    secret = tmp_path / "secret"
    secret.write_text("password-0")
    async with run_server(tmp_path / "nats", config="authorization { user: me, password: password-0 }") as server:
        settings = tmp_path / "nats" / "nats-server.conf"
        url = server.url.replace("//", "//me@") + f"?redelivery=1&password_file={secret}"
        async with everybody(configured(url, tmp_path), mode) as client, anyio.create_task_group() as tasks:
            for number in range(60):
                tasks.start_soon(one_run, client, number)
                await anyio.sleep(0.02)
                if number % 20 == 10:
                    before, after = f"password-{number // 20}", f"password-{number // 20 + 1}"
                    settings.write_text(settings.read_text().replace(before, after))
                    os.kill(server.pid, signal.SIGHUP)
                    await anyio.sleep(0.2)
                    secret.write_text(after)
        log = (tmp_path / "nats" / "nats-server.log").read_text()
        assert log.count("Reloaded server configuration") == 3
        assert "authentication error" in log


async def test_credentials_that_expire_are_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is being written holds up nobody, and is read again when it is whole."""
    signer, creds = Signer(), tmp_path / "user.creds"
    creds.write_text(signer.creds(60))
    with NatsServer(tmp_path / "nats", config=signer.config()) as server:
        config = configured(f"{server.url}?redelivery=1&creds={creds}&inbox=me", tmp_path)
        async with everybody(config, "orchestrated") as client:
            await one_run(client, 1)
            creds.write_text(signer.creds(3))
            await anyio.to_thread.run_sync(server.stop)
            await anyio.to_thread.run_sync(server.start)
            await one_run(client, 2)
            whole = signer.creds(60)
            creds.write_text(whole[:300])
            with anyio.fail_after(15):
                while "authentication expired" not in caplog.text:
                    await anyio.sleep(0.05)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one_run, client, 3)
                await anyio.sleep(0.3)
                creds.write_text(whole)
    assert not [line for line in whole.split() if len(line) > 40 and line in caplog.text]
