"""Objects as files: `<folder>/<namespace>/<start of the run>/<run>/<digest>`.

A file appears whole or not at all: it is written under another name, brought to disk, and renamed. The start of a run's
id is its time, so that no folder gets too many entries, and old ones get empty together.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import anyio.to_thread

from segue.errors import ConfigError, StoreUnavailable

T = TypeVar("T")

PERIOD = 6
"""Digits of a run id that name a folder of runs: about five hours."""


async def open_objects(url: str, namespace: str) -> FileObjects:
    """Open the objects of a namespace in a folder; it is created if it is absent.

    Args:
        url: `file:///absolute/path`.
        namespace: A folder in it.

    Raises:
        ConfigError: The URL names no absolute path, or no folder can be there.
    """
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or parts.query or parts.fragment:
        raise ConfigError(f"{url!r} names no folder", "write file:///absolute/path")
    folder = Path(path) / namespace
    try:
        await anyio.to_thread.run_sync(partial(folder.mkdir, parents=True, exist_ok=True))
    except OSError as error:
        raise ConfigError(f"objects cannot be kept in {str(folder)!r}: {error.strerror}") from None
    return FileObjects(folder)


class FileObjects:
    """Objects in a folder.

    Args:
        folder: Where; must be there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, run: str, name: str, body: bytes) -> None:
        """Keep an object; it is on disk when this returns."""
        await self._do(partial(_write, self._of(run), name, body))

    async def get(self, run: str, name: str) -> bytes | None:
        """The bytes of an object."""
        return await self._do(partial(_read, self._of(run) / name))

    async def delete(self, runs: Sequence[str]) -> None:
        """Forget all objects of these runs."""
        await self._do(partial(_delete, [self._of(run) for run in runs]))

    async def aclose(self) -> None:
        """Nothing to close; the files stay."""

    def _of(self, run: str) -> Path:
        return self._folder / run[:PERIOD] / run

    async def _do(self, work: Callable[[], T]) -> T:
        try:
            return await anyio.to_thread.run_sync(work)
        except OSError as error:
            raise StoreUnavailable(f"objects in {str(self._folder)!r} are not available: {error.strerror}") from error


def _write(folder: Path, name: str, body: bytes) -> None:
    path = folder / name
    if path.exists() and path.stat().st_size == len(body):
        return
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=folder, prefix=".")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise
    # The file is safe only when its folders are.
    for place in (folder, folder.parent, folder.parent.parent):
        _sync(place)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _delete(folders: Sequence[Path]) -> None:
    for folder in folders:
        if folder.exists():
            shutil.rmtree(folder)
        try:
            folder.parent.rmdir()
        except OSError:
            """Other runs of that time are still there, or it is gone already."""
