"""Registers the adapters of this package."""

from __future__ import annotations

from segue.hooks import Adapters, hookimpl
from segue_memory.journal import open_journal
from segue_memory.objects import open_objects
from segue_memory.store import open_store
from segue_memory.transport import open_transport


@hookimpl
def segue_register(adapters: Adapters) -> None:
    """Serve `memory://` as transport, store, journal and object store."""
    adapters.transport("memory", open_transport)
    adapters.store("memory", open_store)
    adapters.journal("memory", open_journal)
    adapters.objects("memory", open_objects)
