"""Opening adapters by URL: what is known, what is not, and that no message shows a password."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from segue import hooks
from segue.errors import ConfigError, PluginError
from segue.hooks import open_journal, open_store, open_transport, redact
from segue.ports.journal import Journal, RunQuery

OPENERS: list[Callable[[str], Awaitable[object]]] = [
    open_transport,
    lambda url: open_store(url, "part"),
    open_journal,
]
MALFORMED = ["", "memory", "memory:name", "memory:/name", "://name", "//name", "1://x", " memory://x", "me mory://x"]
SECRET = "s3cr3t"
WITH_SECRET = [
    f"oracle://user:{SECRET}@host/db",
    f"oracle+driver://user:{SECRET}@host:1521/db",
    f"oracle://:{SECRET}@host",
    f"oracle://{SECRET}@host",
    f"oracle://user:a@{SECRET}@host",
    f"oracle://user:a/{SECRET}#b?@host/db",
    f"oracle://user:{SECRET}@[host",
    f"oracle://user:a\n{SECRET}@host",
    f"oracle://host/db?user=me&password={SECRET}&x=1",
    f"user:{SECRET}@host/db",
    f"oracle:/user:{SECRET}@host/db",
    f"oracle:user:{SECRET}@host/db",
]


@pytest.mark.parametrize("opener", OPENERS)
async def test_memory_serves_every_port(opener: Callable[[str], Awaitable[object]]) -> None:
    opened = await opener("memory://hooks")
    assert await opener("MEMORY://hooks") is not None
    await opened.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize("opener", OPENERS)
async def test_an_unknown_scheme_names_the_known_ones(opener: Callable[[str], Awaitable[object]]) -> None:
    with pytest.raises(PluginError, match=r"no plugin serves oracle://") as caught:
        await opener("oracle+driver://host/db")
    assert "memory://" in caught.value.hint
    assert "'segue'" in caught.value.hint


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("url", MALFORMED)
async def test_a_malformed_url_is_refused(opener: Callable[[str], Awaitable[object]], url: str) -> None:
    with pytest.raises(PluginError, match="has no scheme") as caught:
        await opener(url)
    assert "memory://" in caught.value.hint


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("url", WITH_SECRET)
async def test_errors_do_not_show_passwords(opener: Callable[[str], Awaitable[object]], url: str) -> None:
    with pytest.raises(PluginError) as caught:
        await opener(url)
    assert SECRET not in str(caught.value)
    assert SECRET not in redact(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://localhost:4222", "nats://localhost:4222"),
        ("nats://me:pw@localhost:4222/x", "nats://***@localhost:4222/x"),
        ("sqlite:///.segue/state.db", "sqlite:///.segue/state.db"),
        ("postgresql://h/db?password=pw&sslmode=require", "postgresql://h/db?password=***&sslmode=require"),
    ],
)
def test_a_redacted_url_stays_readable(url: str, shown: str) -> None:
    assert redact(url) == shown


async def test_bad_options_are_named() -> None:
    with pytest.raises(ConfigError, match="redeliver"):
        await open_transport("memory://hooks?redeliver=1")
    with pytest.raises(ConfigError, match="seed") as caught:
        await open_store(f"memory://me:{SECRET}@hooks?seed=many", "part")
    assert SECRET not in str(caught.value)


def test_plugins_are_loaded_once() -> None:
    assert hooks.plugins() is hooks.plugins()
    assert hooks.adapters() is hooks.adapters()


async def test_a_plugin_brings_a_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    async def opener(url: str) -> Journal:
        return await open_journal(url.replace("mine+driver://", "memory://"))

    found = hooks.Adapters()
    found.journals |= hooks.adapters().journals
    found.journal("mine", opener)
    monkeypatch.setattr(hooks, "adapters", lambda: found)
    assert await (await open_journal("mine+driver://somewhere")).runs(RunQuery()) == []
    with pytest.raises(PluginError, match="no plugin serves mine:// as a store"):
        await open_store("mine://somewhere", "part")
