"""What a command makes of its arguments: the application, the input, samples of input."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from segue import Flow, Service, flow
from segue.cli import apps
from segue.cli.runs import arguments
from segue.cli.samples import sample
from segue.config import load
from segue.errors import ConfigError, DeclarationError, InvalidInput, UnknownFlow

SHOP = """
from segue import App, Service, flow
service = Service("service")
@service.step
async def work(text: str) -> str:
    return text
@flow
def good(text: str) -> str:
    return work(text)
@flow
def broken(text: str) -> str:
    return work({}["x"])
app = App("shop", flows=[good, broken], services=[service])
class Space:
    inner = app
number = 1
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def loaded(name: str) -> Any:
    return apps.load(load({"app": name}, environ={}))


def refused(name: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(name)
    return str(caught.value)


def test_an_app_of_the_current_folder_is_found(folder: Path) -> None:
    (folder / "shop_a.py").write_text(SHOP)
    assert loaded("shop_a:app") is loaded("shop_a:Space.inner")
    assert list(loaded("shop_a:app").flows) == ["good", "broken"]


def test_an_app_beside_segue_toml_is_found_from_below(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "shop_b.py").write_text(SHOP)
    (folder / "segue.toml").write_text('app = "shop_b:app"\n')
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    assert apps.load(load(environ={})).name == "shop"


def test_without_a_name_the_ways_to_give_one_are_told() -> None:
    assert "--app shop:app" in refused("")
    assert apps.maybe(load({"app": ""}, environ={})) is None


def test_a_missing_module_is_told_with_the_place(folder: Path) -> None:
    assert refused("nowhere_a:app").startswith("there is no module 'nowhere_a'")
    assert str(folder) in refused("nowhere_a.inner:app")


def test_a_wrong_attribute_is_told_with_the_right_ones(folder: Path) -> None:
    (folder / "shop_c.py").write_text(SHOP)
    assert refused("shop_c:nope") == "module 'shop_c' has no 'nope'\n  apps there: shop_c:app"
    assert refused("shop_c:number") == "shop_c:number is not an App but int\n  apps there: shop_c:app"
    (folder / "empty_c.py").write_text("app = 1")
    assert "no App is there" in refused("empty_c:app")


@pytest.mark.parametrize(
    ("code", "what", "line"),
    [
        ("x = 1\nraise RuntimeError('boom')", "RuntimeError: boom", ":2: raise RuntimeError('boom')"),
        ("def f():\n  return {}['k']\n\nf()", "KeyError: 'k'", ":2: return {}['k']"),
        ("import json\njson.loads('{')", "JSONDecodeError", ":2: json.loads('{')"),
        ("x = 1\ndef (", "SyntaxError", ":2: def ("),
        ("import not_there_x", "ModuleNotFoundError: No module named 'not_there_x'", ":1: import not_there_x"),
        ("import sys\nsys.exit(3)", "SystemExit: 3", ":2: sys.exit(3)"),
    ],
)
def test_an_error_inside_is_told_with_its_line(folder: Path, code: str, what: str, line: str) -> None:
    (folder / "wrong_d.py").write_text(code)
    sys.modules.pop("wrong_d", None)
    message, _, hint = refused("wrong_d:app").partition("\n")
    assert message.startswith(f"module 'wrong_d' cannot be imported: {what}")
    assert hint.endswith(f"{folder / 'wrong_d.py'}{line}")


def test_a_wrong_declaration_speaks_for_itself(folder: Path) -> None:
    (folder / "wrong_e.py").write_text("from segue import Service\nService('No Name')")
    with pytest.raises(DeclarationError, match="No Name"):
        loaded("wrong_e:app")


def test_a_flow_that_cannot_be_compiled_is_told_with_its_place(folder: Path) -> None:
    (folder / "shop_f.py").write_text(SHOP)
    app = loaded("shop_f:app")
    with pytest.raises(ConfigError, match="flow 'broken' cannot be compiled: KeyError: 'x'") as caught:
        apps.plan_of(apps.flow_of(app, "broken"))
    assert "shop_f.py" in caught.value.hint
    with pytest.raises(UnknownFlow, match="no flow 'nope'") as unknown:
        apps.flow_of(app, "nope")
    assert "good, broken" in unknown.value.hint


class Item(msgspec.Struct):
    name: str
    size: Literal["s", "m"]


class Order(msgspec.Struct):
    id: int
    items: tuple[Item, Item]
    rest: list[Item]
    tags: dict[str, str]
    note: Annotated[str | None, msgspec.Meta(description="optional")] = None
    big: bool = False


class Tree(msgspec.Struct):
    inner: Tree | None


service = Service("service")


@service.step
async def take(order: Order) -> str:
    return ""


@service.step
async def plain(text: str, often: int = 1) -> str:
    return text


@service.step
async def tree(tree: Tree) -> str:
    return ""


@flow
def one(order: Order) -> str:
    return take(order)


@flow
def two(text: str, often: int = 1) -> str:
    return plain(text, often)


@flow
def defaulted(often: int = 1) -> str:
    return plain("x", often)


@flow
def deep(tree_: Tree) -> str:
    return tree(tree_)


@pytest.mark.parametrize(
    ("which", "given", "found"),
    [
        (one, {"id": 1}, {"order": {"id": 1}}),
        (one, {"order": {"id": 1}}, {"order": {"id": 1}}),
        (one, {"order": 1, "id": 2}, {"order": {"order": 1, "id": 2}}),
        (one, {}, {"order": {}}),
        (one, "text", {"order": "text"}),
        (two, {"text": "a"}, {"text": "a"}),
        (two, {"nobody": "a"}, {"nobody": "a"}),
        (defaulted, {}, {}),
        (defaulted, 3, {"often": 3}),
        (defaulted, {"often": 3}, {"often": 3}),
    ],
)
def test_the_value_of_an_only_parameter_stands_for_itself(which: Flow[..., Any], given: Any, found: Any) -> None:
    assert arguments(which.plan, given) == found


def test_several_parameters_need_an_object() -> None:
    with pytest.raises(InvalidInput, match="must be an object") as caught:
        arguments(two.plan, ["a", 1])
    assert caught.value.hint == "they are: text, often"


@pytest.mark.parametrize(
    ("which", "found"),
    [
        (one, {"id": 1, "items": [{"name": "text", "size": "m"}] * 2, "rest": [], "tags": {}}),
        (two, {"text": "text"}),
        (defaulted, {}),
        (deep, {"inner": None}),
    ],
)
def test_samples_fit_the_types(which: Flow[..., Any], found: Any) -> None:
    drawn = sample(which.plan)
    assert which.encode_input(arguments(which.plan, drawn))
    assert sorted(drawn) == sorted(found)
