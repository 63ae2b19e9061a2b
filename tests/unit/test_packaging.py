"""The wheel: every package, its marker for type checkers, and entry points that resolve."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = {
    path.parent.name: path.parent
    for folder in ("core", "transports", "plugins")
    for path in (ROOT / folder).glob("*/__init__.py")
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    build = "import hatchling.build, sys; hatchling.build.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=ROOT, check=True, capture_output=True, text=True)
    return zipfile.ZipFile(next(folder.glob("segue-*.whl")))


def test_the_wheel_holds_every_module_of_every_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    wanted = {
        path.relative_to(package.parent).as_posix()
        for package in PACKAGES.values()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    info = f"segue-{PROJECT['project']['version']}.dist-info/"
    assert {name for name in wheel.namelist() if not name.startswith(info)} == wanted
    assert f"{info}licenses/LICENSE" in wheel.namelist()


def test_every_package_is_typed(wheel: zipfile.ZipFile) -> None:
    assert {f"{name}/py.typed" for name in PACKAGES} <= set(wheel.namelist())


def test_every_package_is_checked_for_types() -> None:
    assert set(PROJECT["tool"]["mypy"]["packages"]) == set(PACKAGES)


def test_entry_points_resolve() -> None:
    declared = PROJECT["project"]["entry-points"]["segue"]
    found = {point.name: point for point in entry_points(group="segue")}
    assert set(declared) <= set(found)
    for name, module in declared.items():
        assert found[name].load().__name__ == module
    (command,) = entry_points(group="console_scripts", name="segue")
    assert callable(command.load())


def test_constraints_are_plain_pins() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins
    assert [pin for pin in pins if pin.count("==") != 1 or set(" @/;").intersection(pin)] == []
