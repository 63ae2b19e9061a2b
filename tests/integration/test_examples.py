"""The examples do what they say: each app, in both modes, in and out of order, against an independent evaluator."""

from __future__ import annotations

import importlib.util
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from segue.testing import World, run_everywhere

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = {
    "ARABIC", "ARMENIAN", "BENGALI", "CJK", "CYRILLIC", "DEVANAGARI", "ETHIOPIC", "GEORGIAN", "GREEK", "HANGUL",
    "HEBREW", "HIRAGANA", "KATAKANA", "LATIN", "TAMIL", "THAI",
}  # fmt: skip


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("SHOP_EFFECTS", str(tmp_path))
    yield load(EXAMPLES / "order" / "shop.py")
    del sys.modules["example_shop"]


def orders_of(shop: Any) -> dict[str, Any]:
    lines = (EXAMPLES / "order" / "orders.jsonl").read_bytes().splitlines()
    return {order.id: order for order in (msgspec.json.decode(line, type=shop.Order) for line in lines)}


async def test_the_first_flow_runs_in_both_modes() -> None:
    example = load(EXAMPLES / "quickstart" / "flow.py")
    found = await run_everywhere(example.app, example.place_order, example.Order("4711", 4200))
    assert found.value == "Order 4711: receipt of 4200, from shelf 1"
    assert found.states == {"charge": "completed", "reserve": "completed", "notify": "completed"}


def test_orders_are_as_orders_are(shop: Any) -> None:
    orders = orders_of(shop)
    names = [order.customer.name for order in orders.values()]
    scripts = {
        unicodedata.name(letter).split()[0].split("-")[0] for name in names for letter in name if letter.isalpha()
    }
    assert len(orders) == 200
    assert scripts >= SCRIPTS
    assert len({order.currency for order in orders.values()}) >= 10
    assert any(len(order.items) > 3 for order in orders.values())
    assert any("\u200d" in order.gift_note for order in orders.values()), "an emoji of several characters"
    assert orders["4711"].gift_note == ""


REFUSED = {
    "UnsupportedCurrency": lambda order, shop: order.currency not in shop.DECIMALS,
    "WrongTotal": lambda order, shop: order.total != sum(item.quantity * item.price for item in order.items),
    "CardDeclined": lambda order, shop: order.card == "tok_declined",
    "OutOfStock": lambda order, shop: any(item.quantity > shop.SHELF.get(item.sku, 0) for item in order.items),
    "NoDelivery": lambda order, shop: order.address.country in shop.NO_DELIVERY,
}


@pytest.mark.parametrize("error", REFUSED)
async def test_an_order_is_refused(shop: Any, error: str) -> None:
    broken = [
        order
        for order in orders_of(shop).values()
        if [name for name, applies in REFUSED.items() if applies(order, shop)] == [error]
    ]
    assert len(broken) >= 4
    found = await run_everywhere(shop.app, shop.place_order, broken[0], seeds=(None, 1))
    assert found.ended.status == "failed"
    assert [cause.error.type for cause in found.ended.causes if cause.error] == [error]
    assert found.states["notify"] == "aborted"


async def test_a_gift_is_wrapped(shop: Any, tmp_path: Path) -> None:
    order = next(order for order in orders_of(shop).values() if order.gift_note and order.card.startswith("tok_s"))
    assert order.card == "tok_slow_bank", "this one is charged at the second attempt"
    async with World(shop.app) as world:
        run = await world.start(shop.place_order, order)
        confirmation = await run.result(timeout=10)
        view = await world.where(run.id)
    assert isinstance(confirmation, shop.Confirmation)
    assert order.customer.name in confirmation.text
    assert {node.node: (node.state, node.attempts) for node in view.nodes} == {
        "charge": ("completed", 2),
        "reserve": ("completed", 1),
        "wrap": ("completed", 1),
        "notify": ("completed", 1),
    }
    lines = (tmp_path / "inventory.jsonl").read_bytes().splitlines()
    effects = [msgspec.json.decode(line, type=shop.Effect) for line in lines]
    assert [effect.step for effect in effects] == ["reserve", "wrap"]
    assert effects[1].what["card"] == order.gift_note


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [(4230, "EUR", "42.30 EUR"), (1250, "JPY", "1,250 JPY"), (4230, "KWD", "4.230 KWD"), (5, "USD", "0.05 USD")],
)
def test_amounts_have_the_decimals_of_their_currency(shop: Any, amount: int, currency: str, text: str) -> None:
    assert shop.money(amount, currency) == text
