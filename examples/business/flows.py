"""Business flows as they are met everywhere: each a page that says how it is declared.

    segue dev flows:app
    segue start checkout --input '{"id": "4711", "amount": 120}'
    segue signal 4711 paid '{"ok": true}'

Every flow runs in a test, in both modes.
"""

from __future__ import annotations

import msgspec

from segue import (
    App,
    Error,
    Retry,
    Service,
    after,
    attempt,
    either,
    expr,
    flow,
    hours,
    minutes,
    n_of,
    otherwise,
    race,
    raise_,
    repeat,
    sleep,
    wait_for,
    when,
)


class Order(msgspec.Struct):
    """What a customer buys."""

    id: str
    amount: int


class Payment(msgspec.Struct):
    """What the payment provider calls back with."""

    ok: bool
    reference: str = ""


class Claim(msgspec.Struct):
    """Somebody wants money back."""

    id: str
    amount: int


class Decision(msgspec.Struct):
    """What a person says."""

    ok: bool
    by: str


class Trip(msgspec.Struct):
    """A journey: nights in a hotel, and whether a car is wanted."""

    id: str
    nights: int
    budget: int


class Job(msgspec.Struct):
    """A job of somebody else's system: `left` is how often it still says that it is not done."""

    id: str
    left: int


class Declined(Exception):
    """The customer's bank said no."""


class TooDear(Exception):
    """The journey costs more than there is."""


shop, payments, warehouse = Service("shop"), Service("payments"), Service("warehouse")
flights, hotels, cars = Service("flights"), Service("hotels"), Service("cars")


@warehouse.step
async def reserve(order: Order) -> str:
    """Set the goods aside."""
    return f"shelf of {order.id}"


@reserve.undo
async def release(order: Order, shelf: str) -> None:
    """Put them back."""


@payments.step(retry=Retry(max_attempts=3, initial=1))
async def ask_for_payment(order: Order) -> str:
    """Send the customer to the provider's page; the provider calls back."""
    return f"page of {order.id}"


@warehouse.step
async def ship(order: Order, reference: str) -> str:
    """Send the goods."""
    return f"{order.id} shipped, paid by {reference}"


@flow(key=lambda order: order.id, home=payments)
def checkout(order: Order) -> str:
    """A call-back: whoever has the order's id may signal; a refusal or silence undoes the reservation."""
    shelf = reserve(order)
    page = ask_for_payment(order)
    with after(page):
        payment = wait_for("paid", Payment, timeout=minutes(30))
    with when(~payment.ok):
        raise_(Declined, expr.text("order {} was not paid", order.id))
    with after(shelf):
        return ship(order, payment.reference)


@shop.step
async def examine(claim: Claim, judge: str) -> Decision:
    """What one of them thinks."""
    return Decision(claim.amount < 1000, judge)


@payments.step
async def pay_back(claim: Claim) -> str:
    """Give the money back."""
    return f"{claim.amount} paid back"


@shop.step
async def refuse(claim: Claim) -> str:
    """Say no."""
    return f"claim {claim.id} refused"


@flow(key=lambda claim: claim.id)
def quorum(claim: Claim) -> str:
    """Two of three decide, whoever is first; the third is not waited for."""
    votes = n_of(2, lambda: examine(claim, "north"), lambda: examine(claim, "south"), lambda: examine(claim, "west"))
    with when(votes[0].ok & votes[1].ok):
        yes = pay_back(claim)
    with otherwise():
        no = refuse(claim)
    return either(yes, no)


@flow(key=lambda order: order.id, home=warehouse)
def either_or(order: Order) -> str:
    """The customer cancels, or the courier is there: the first event counts, and the other no more."""

    def fetched() -> str:
        return ship(order, wait_for("courier", str))

    def cancelled() -> str:
        return expr.text("{} cancelled: {}", order.id, wait_for("cancelled", str))

    return race(fetched, cancelled)


@shop.step
async def remind(claim: Claim, times: int) -> int:
    """Write to whoever has to decide."""
    return times + 1


@flow(key=lambda claim: claim.id, home=shop)
def approval(claim: Claim) -> str:
    """A human task: a reminder each day, and after the third day nobody has agreed."""

    def reminders() -> Decision:
        def day(times: int) -> int:
            with after(sleep(hours(24))):
                return remind(claim, times)

        with after(repeat(day, 0, until=lambda times: times >= 3, cap=3)):
            return Decision(False, "nobody")

    decision = race(lambda: wait_for("decision", Decision), reminders)
    with when(decision.ok):
        yes = pay_back(claim)
    with otherwise():
        no = refuse(claim)
    return either(yes, no)


@flights.step
async def book_flight(trip: Trip) -> int:
    """Gives the price, as all of these."""
    return 200


@book_flight.undo
async def cancel_flight(trip: Trip, price: int) -> None:
    """Give the seat back."""


@hotels.step
async def book_hotel(trip: Trip) -> int:
    """So many nights."""
    return 80 * trip.nights


@book_hotel.undo
async def cancel_hotel(trip: Trip, price: int) -> None:
    """Give the room back."""


@cars.step
async def book_car(trip: Trip, paid: int) -> int:
    """The last one: fails if there is not enough left."""
    if paid + 50 > trip.budget:
        raise TooDear(f"{paid + 50} is more than {trip.budget}")
    return 50


@book_car.undo
async def cancel_car(trip: Trip, price: int) -> None:
    """Give the car back."""


@flow(key=lambda trip: trip.id)
def saga(trip: Trip) -> int:
    """Three services; what was booked is cancelled if a later one fails."""
    flight, hotel = book_flight(trip), book_hotel(trip)
    return flight + hotel + book_car(trip, flight + hotel)


@cars.step
async def look(job: Job) -> Job:
    """Ask the other system."""
    return Job(job.id, job.left - 1)


@flow(key=lambda job: job.id)
def poll(job: Job) -> str:
    """Every five minutes, ten times at most; then somebody must look."""

    def done() -> str:
        last = repeat(look, job, until=lambda job: job.left <= 0, cap=10, every=minutes(5))
        return expr.text("{} done", last.id)

    def given_up(error: Error) -> str:
        return expr.text("{} given up: {}", job.id, error.type)

    return attempt(done, {"LoopCap": given_up})


FLOWS = [checkout, quorum, either_or, approval, saga, poll]
app = App("business", flows=FLOWS, services=[shop, payments, warehouse, flights, hotels, cars])
