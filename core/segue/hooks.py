"""Plugins: pluggy hooks that register adapters or observe, synchronously; ports do the asynchronous work.

A plugin is a module named by an entry point in the group `segue`. Built-in adapters are plugins too. They are loaded at
the first need, so that importing Segue stays cheap.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from functools import cache
from pathlib import Path
from typing import TypeVar

import pluggy

from segue.errors import PluginError
from segue.ports.journal import Journal
from segue.ports.objects import ObjectStore
from segue.ports.store import StateStore
from segue.ports.transport import Transport
from segue.wire.rights import Rights

GROUP = "segue"
T = TypeVar("T")
_SCHEME = re.compile(r"([a-z][a-z0-9.-]*)(?:\+[a-z0-9.+-]*)?://", re.IGNORECASE)
_USER = re.compile(r"^([a-z0-9.+-]*://)?.*@", re.IGNORECASE | re.DOTALL)
_SECRET = re.compile(r"((?:password|passwd|secret|token)=)[^&]*", re.IGNORECASE)
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)

OpenTransport = Callable[[str, str], Awaitable[Transport]]
OpenStore = Callable[[str, str], Awaitable[StateStore]]
RunBroker = Callable[[Path, str], AbstractAsyncContextManager[str]]
Upgrade = Callable[[str], tuple[int, int]]
OpenJournal = Callable[[str], Awaitable[Journal]]
Permits = Callable[[Iterable[Rights], str, str], str]
OpenObjects = Callable[[str, str], Awaitable[ObjectStore]]


class Adapters:
    """Adapters by URL scheme, filled by `segue_register`."""

    def __init__(self) -> None:
        self.brokers: dict[str, RunBroker] = {}
        self.upgrades: dict[str, Upgrade] = {}
        self.transports: dict[str, OpenTransport] = {}
        self.stores: dict[str, OpenStore] = {}
        self.journals: dict[str, OpenJournal] = {}
        self.permits: dict[str, Permits] = {}
        self.object_stores: dict[str, OpenObjects] = {}

    def transport(self, scheme: str, opener: OpenTransport) -> None:
        """Register `opener(url, namespace)` for `scheme://` transports."""
        self.transports[scheme] = opener

    def store(self, scheme: str, opener: OpenStore) -> None:
        """Register `opener(url, part)` for `scheme://` state stores; `part` names the participant."""
        self.stores[scheme] = opener

    def broker(self, scheme: str, run: RunBroker) -> None:
        """Register a broker that `segue dev` can run: `run(folder, url)` gives its URL while the context is open.

        That is `url` if it names a free port of this machine, else another one. Entering raises `PluginError` if the
        broker's program is not installed.
        """
        self.brokers[scheme] = run

    def permissions(self, broker: str, render: Permits) -> None:
        """Register `render(rights, namespace, form)`: the rights of participants as a broker's permissions."""
        self.permits[broker] = render

    def upgrade(self, scheme: str, run: Upgrade) -> None:
        """Register `run(url)`, which brings the tables of a database up to date: their version before and after."""
        self.upgrades[scheme] = run

    def journal(self, scheme: str, opener: OpenJournal) -> None:
        """Register `opener(url)` for `scheme://` journals."""
        self.journals[scheme] = opener

    def objects(self, scheme: str, opener: OpenObjects) -> None:
        """Register `opener(url, namespace)` for `scheme://` object stores, which keep values that are too large.

        Where a transport of the same scheme is used, it is the object store unless another one is configured.
        """
        self.object_stores[scheme] = opener


class Hooks:
    """The hooks that a plugin may implement, with `segue.hookimpl`."""

    @hookspec
    def segue_register(self, adapters: Adapters) -> None:
        """Register the adapters that this plugin brings. Called once per process, before the first URL is opened."""

    @hookspec
    def segue_step_finished(self, service: str, step: str, run: str, node: str, kind: str, seconds: float) -> None:
        """An attempt of a step finished here.

        `kind` is completed, failed, cancelled or attempt.failed; of an undo compensated or compensation.failed.
        """

    @hookspec
    def segue_run_ended(self, flow: str, run: str, key: str, status: str) -> None:
        """A run whose home is here has ended."""


@cache
def plugins() -> pluggy.PluginManager:
    """The plugins of this process, loaded from their entry points."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Hooks)
    manager.load_setuptools_entrypoints(GROUP)
    manager.check_pending()
    return manager


@cache
def adapters() -> Adapters:
    """The adapters of all plugins."""
    found = Adapters()
    plugins().hook.segue_register(adapters=found)
    return found


async def open_transport(url: str, namespace: str = "segue") -> Transport:
    """Open a transport by its URL's scheme.

    Raises:
        PluginError: The URL is malformed or nobody serves its scheme.
        TransportUnavailable: The broker cannot be reached.
    """
    return await _pick(adapters().transports, url, "transport")(url, namespace)


async def open_store(url: str, part: str) -> StateStore:
    """Open a participant's part of a state store.

    Raises:
        PluginError: The URL is malformed or nobody serves its scheme.
        StoreUnavailable: The store cannot be reached.
    """
    return await _pick(adapters().stores, url, "store")(url, part)


async def open_journal(url: str) -> Journal:
    """Open a journal.

    Raises:
        PluginError: The URL is malformed or nobody serves its scheme.
        StoreUnavailable: The journal cannot be reached.
    """
    return await _pick(adapters().journals, url, "journal")(url)


async def open_objects(url: str, transport: str, namespace: str) -> ObjectStore | None:
    """Open the object store of a URL; of none that of the transport, if that brings one.

    Args:
        url: The object store, "" for the transport's own, or `none`.
        transport: URL of the transport.
        namespace: The namespace.

    Raises:
        PluginError: The URL is malformed or nobody serves its scheme.
        StoreUnavailable: The store cannot be reached.
        TransportUnavailable: The broker cannot be reached.
    """
    known = adapters().object_stores
    if url == "none":
        return None
    if not url:
        found = _SCHEME.match(transport)
        if found is None or found[1].lower() not in known:
            return None
        url = transport
    return await _pick(known, url, "object store")(url, namespace)


def _pick(openers: dict[str, T], url: str, what: str) -> T:
    found = _SCHEME.match(url)
    if found is None:
        raise PluginError(f"{what} URL {redact(url)!r} has no scheme", f"known here: {_known(openers)}")
    scheme = found[1].lower()
    if scheme not in openers:
        raise PluginError(
            f"no plugin serves {scheme}:// as a {what}",
            f"known here: {_known(openers)}; others come as packages with an entry point in the group {GROUP!r}",
        )
    return openers[scheme]


def _known(openers: Iterable[str]) -> str:
    return ", ".join(f"{scheme}://" for scheme in sorted(openers)) or "none"


def redact(url: str) -> str:
    """A URL without user and password, for messages and logs; malformed ones too, so whatever may be one is hidden."""
    return _SECRET.sub(r"\1***", _USER.sub(r"\1***@", url))
