"""A shop in three services: payments and inventory work side by side, e-mail confirms what both agreed to.

The flow at the end does not say who calls whom, or who is in charge; `segue.toml` does. What the services do to the
world (holds on cards, reservations, e-mails) goes to files in the folder SHOP_EFFECTS, one per service.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any
from zlib import crc32

import anyio
import msgspec

from segue import App, Retry, Service, after, current, flow, when

EFFECTS = Path(os.environ.get("SHOP_EFFECTS", ".segue/effects"))
DECIMALS = {
    "AED": 2,
    "CNY": 2,
    "EUR": 2,
    "GBP": 2,
    "ILS": 2,
    "INR": 2,
    "JPY": 0,
    "KRW": 0,
    "KWD": 3,
    "THB": 2,
    "USD": 2,
}
"""Currencies that we take, with their minor units: a yen has none, a Kuwaiti dinar has thousandths."""

NO_DELIVERY = {"AQ", "BV", "HM"}
SHELF = {"TEA-SENCHA-100": 40, "MUG-BLUE": 25, "BOOK-ATLAS": 6, "PEN-INK-B": 60, "LAMP-DESK": 4, "SCARF-WOOL": 12}
"""What the shelf has of each article; it is filled up every night, and big orders are what it cannot serve."""

THANKS = {
    "AE": "شكرًا لك، {}!", "BG": "Благодарим Ви, {}!", "CN": "谢谢您，{}！", "DE": "Vielen Dank, {}!",
    "ES": "¡Gracias, {}!", "FR": "Merci, {} !", "GR": "Ευχαριστούμε, {}!", "IL": "תודה, {}!", "IN": "धन्यवाद, {}!",
    "JP": "{}様、ありがとうございます。", "KR": "{}님, 감사합니다.", "KW": "شكرًا لك، {}!", "TH": "ขอบคุณค่ะ คุณ{}",
    "UA": "Дякуємо, {}!",
}  # fmt: skip


class Item(msgspec.Struct):
    """An article and how many of it; `price` is that of one, in minor units of the order's currency."""

    sku: str
    quantity: int
    price: int


class Customer(msgspec.Struct):
    """Who orders."""

    name: str
    email: str


class Address(msgspec.Struct):
    """Where the parcel goes; `country` is an ISO 3166 code."""

    street: str
    city: str
    postcode: str
    country: str


class Order(msgspec.Struct):
    """What the checkout sends; `total` is in minor units, `card` is the bank's token."""

    id: str
    placed: datetime
    customer: Customer
    address: Address
    items: list[Item]
    currency: str
    total: int
    card: str
    gift_note: str = ""


class Receipt(msgspec.Struct):
    """A hold on a card."""

    amount: int
    currency: str
    authorization: str


class Reservation(msgspec.Struct):
    """Articles set aside."""

    shelf: str
    articles: int


class Parcel(msgspec.Struct):
    """A reservation in gift paper."""

    reservation: Reservation
    card: str


class Confirmation(msgspec.Struct):
    """The e-mail that the customer gets."""

    to: str
    subject: str
    text: str


class Refused(Exception):
    """The order cannot be taken, however often it is tried."""


class UnsupportedCurrency(Refused):
    """We do not take this currency."""


class WrongTotal(Refused):
    """The total is not the sum of the items."""


class CardDeclined(Refused):
    """The bank says no."""


class OutOfStock(Refused):
    """The shelf has too few."""


class NoDelivery(Refused):
    """Nobody takes parcels there."""


class BankBusy(Exception):
    """The bank did not answer; it does at the next attempt."""


payments, inventory, email = Service("payments"), Service("inventory"), Service("email")


@payments.step(retry=Retry(max_attempts=4, initial=0.2, non_retryable=(Refused,)), timeout=10)
async def charge(order: Order) -> Receipt:
    """Hold the total on the card; it is taken when the parcel leaves."""
    if order.currency not in DECIMALS:
        raise UnsupportedCurrency(f"{order.currency} is not among {', '.join(DECIMALS)}")
    due = sum(item.quantity * item.price for item in order.items)
    if due != order.total or due <= 0:
        raise WrongTotal(f"the items come to {due}, the order says {order.total}")
    await anyio.sleep(0.01)  # the way to the bank
    if order.card == "tok_declined":
        raise CardDeclined("the bank declined the card")
    if order.card == "tok_slow_bank" and current().attempt == 1:
        raise BankBusy("no answer from the bank")
    receipt = Receipt(due, order.currency, f"A-{crc32(order.id.encode()):08x}")
    record("payments", receipt)
    return receipt


@inventory.step
def reserve(order: Order) -> Reservation:
    """Set the articles aside."""
    if order.address.country in NO_DELIVERY:
        raise NoDelivery(f"no parcels to {order.address.country}")
    for item in order.items:
        if item.quantity > SHELF.get(item.sku, 0):
            raise OutOfStock(f"{item.quantity} of {item.sku} wanted, {SHELF.get(item.sku, 0)} there")
    shelf = f"{order.address.country}-{crc32(order.id.encode()) % 40:02}"
    reservation = Reservation(shelf, sum(item.quantity for item in order.items))
    record("inventory", reservation)
    return reservation


@inventory.step
def wrap(reservation: Reservation, note: str) -> Parcel:
    """Wrap a gift, with the note on a card."""
    parcel = Parcel(reservation, note)
    record("inventory", parcel)
    return parcel


@email.step
def notify(order: Order, receipt: Receipt, reservation: Reservation) -> Confirmation:
    """Confirm the order to the customer."""
    thanks = THANKS.get(order.address.country, "Thank you, {}!").format(order.customer.name)
    due = money(receipt.amount, receipt.currency)
    text = f"{thanks}\n\n∑ {due} ({receipt.authorization}), 📦 {reservation.articles}"
    confirmation = Confirmation(order.customer.email, f"№ {order.id}", text)
    record("email", confirmation)
    return confirmation


@flow(key=lambda order: order.id, home=payments)
def place_order(order: Order) -> Confirmation:
    """From the checkout to the e-mail."""
    receipt = charge(order)
    reservation = reserve(order)
    with when(order.gift_note != ""), after(receipt):
        parcel = wrap(reservation, order.gift_note)
    with after(parcel):
        return notify(order, receipt, reservation)


app = App("shop", flows=[place_order], services=[payments, inventory, email])


class Effect(msgspec.Struct):
    """A line of a file of effects: what was done, for which order, by which call."""

    key: str
    step: str
    call: str
    what: Any


def record(service: str, what: msgspec.Struct) -> None:
    """Do it to the world: one line, written at once, so that replicas may share the file."""
    call = current()
    line = msgspec.json.encode(Effect(call.key, call.node, call.idempotency_key, what))
    EFFECTS.mkdir(parents=True, exist_ok=True)
    file = os.open(EFFECTS / f"{service}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line + b"\n")
    finally:
        os.close(file)


def money(amount: int, currency: str) -> str:
    """An amount in minor units, for people: `12.50 EUR`, `1,250 JPY`."""
    decimals = DECIMALS[currency]
    return f"{amount / 10**decimals:,.{decimals}f} {currency}"
