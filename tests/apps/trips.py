"""Flows with every construct, over three services: what the runtime's tests run in both modes.

Steps note what they did in `done`, so that effects and compensation can be compared.
"""

from __future__ import annotations

import anyio
import msgspec

from segue import (
    App,
    Retry,
    Service,
    after,
    attempt,
    each,
    emit,
    finish,
    flow,
    n_of,
    race,
    raise_,
    repeat,
    sleep,
    wait_for,
    when,
)


class Trip(msgspec.Struct):
    id: str
    stops: list[int] = []
    price: int = 0


class Declined(Exception):
    """The bank says no."""


flights, hotels, bank = Service("flights"), Service("hotels"), Service("bank")
done: list[str] = []
inside: list[int] = []
together: list[int] = []


@flights.step
async def fly(trip: Trip) -> str:
    done.append(f"fly {trip.id}")
    return "seat"


@fly.undo
async def unfly(trip: Trip, seat: str) -> None:
    done.append(f"unfly {trip.id} {seat}")


@hotels.step
async def lodge(trip: Trip) -> str:
    done.append(f"lodge {trip.id}")
    return "room"


@lodge.undo
async def unlodge(trip: Trip, room: str) -> None:
    done.append(f"unlodge {trip.id} {room}")


@bank.step(retry=Retry(max_attempts=1))
async def pay(trip: Trip, seat: str, room: str) -> str:
    if trip.price > 100:
        raise Declined("too dear")
    done.append(f"pay {trip.id}")
    return "paid"


@hotels.step
async def grow(n: int) -> int:
    return n + 1


@bank.step
async def double(n: int) -> int:
    return 2 * n


@flights.step(retry=Retry(max_attempts=1))
async def odd(n: int) -> int:
    if n % 2 == 0:
        raise ValueError(f"{n} is even")
    return n


@flights.step
async def late(n: int) -> int:
    await anyio.sleep(0.3)
    return n


@flow(key=lambda trip: trip.id)
def book(trip: Trip) -> str:
    return pay(trip, fly(trip), lodge(trip))


@flow
def book_or_stay(trip: Trip) -> str:
    return attempt(lambda: pay(trip, fly(trip), lodge(trip)), {Declined: lambda error: error.message}, undo=True)


@flow
def visit(trip: Trip) -> list[int]:
    return each(trip.stops, lambda stop: double(grow(stop)), limit=2)


@hotels.step
async def crowd(n: int) -> int:
    inside.append(n)
    await anyio.sleep(0.05)
    together.append(len(inside))
    inside.remove(n)
    return n


@flow
def visit_slowly(trip: Trip) -> list[int]:
    return each(trip.stops, crowd, limit=2)


@flow
def visit_odd(trip: Trip) -> list[int | None]:
    return each(trip.stops, odd, tolerate=2)


@flow
def climb(trip: Trip) -> int:
    return repeat(grow, trip.price, until=lambda n: n >= 4, cap=5)


@flow
def fastest(trip: Trip) -> int:
    return race(lambda: grow(trip.price), lambda: late(trip.price))


@flow
def two_of(trip: Trip) -> list[int]:
    return n_of(2, lambda: grow(1), lambda: late(2), lambda: double(3))


@flow(key=lambda trip: trip.id)
def ask(trip: Trip) -> str:
    seat = fly(trip)
    with after(seat):
        return wait_for("answer", str)


@flow(home=bank)
def ask_briefly(trip: Trip) -> str:
    return attempt(lambda: wait_for("answer", str, timeout=0.2), {"Timeout": lambda: "nobody"})


@flow(home=hotels)
def nap(trip: Trip) -> int:
    with after(sleep(0.1)):
        return grow(trip.price)


@flow
def free(trip: Trip) -> str:
    with when(trip.price == 0):
        emit("gift", trip.id)
        finish("free")
    with when(trip.price < 0):
        raise_(Declined, "less than nothing")
    return pay(trip, fly(trip), lodge(trip))


@flow
def round_trip(trip: Trip) -> int:
    return grow(climb(trip))


@flow(home=bank)
def failing_child(trip: Trip) -> str:
    return attempt(lambda: book(trip), {Declined: lambda error: "caught"})


FLOWS = [
    book, book_or_stay, visit, visit_slowly, visit_odd, climb, fastest, two_of, ask, ask_briefly, nap, free, round_trip,
    failing_child,
]  # fmt: skip
app = App("trips", flows=FLOWS, services=[flights, hotels, bank])
