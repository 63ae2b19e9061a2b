"""Registers the adapter of this package."""

from __future__ import annotations

from segue.hooks import Adapters, hookimpl
from segue_files.objects import open_objects


@hookimpl
def segue_register(adapters: Adapters) -> None:
    """Serve `file://` as an object store."""
    adapters.objects("file", open_objects)
