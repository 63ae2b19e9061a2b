"""Objects in a folder keep the contract of object stores, and fail in words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segue.errors import ConfigError, StoreUnavailable
from segue.ports.objects import ObjectStore, digest
from segue.testing import ObjectsContract
from segue.testing.contracts.purging import fresh_run
from segue_files.objects import open_objects


class TestFileObjects(ObjectsContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.url = f"file://{tmp_path}/new/objects%20here"

    async def connect(self, namespace: str) -> ObjectStore:
        return await open_objects(self.url, namespace)


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("url", ["file://host/x", "file:objects", "file:///x?a=1", "file://"])
async def test_a_url_without_a_folder_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="names no folder"):
        await open_objects(url, "shop")


async def test_a_place_that_is_no_folder_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be kept"):
        await open_objects("file:///dev/null", "shop")


async def test_what_is_put_leaves_one_file_and_what_is_deleted_none(tmp_path: Path) -> None:
    objects, run = await open_objects(f"file://{tmp_path}", "shop"), fresh_run()
    await objects.put(run, digest(b"a"), b"a")
    assert files_in(tmp_path) == [digest(b"a")]
    await objects.delete([run])
    assert files_in(tmp_path) == []


async def test_a_disk_that_fails_is_worth_another_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    objects, run = await open_objects(f"file://{tmp_path}", "shop"), fresh_run()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreUnavailable, match="No space left") as caught:
        await objects.put(run, digest(b"a"), b"a")
    assert caught.value.retryable
    assert files_in(tmp_path) == []
    assert await objects.get(run, digest(b"a")) is None
