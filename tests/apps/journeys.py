"""Flows over three services that stop where a test says: what is moved while it is under way.

`held` has the steps that wait, by name of step and number; `done` says what was executed, in order.
"""

from __future__ import annotations

import anyio
import msgspec

from segue import App, Retry, Service, after, attempt, current, each, flow, repeat, sleep, wait_for


class Trip(msgspec.Struct):
    """Where to go."""

    id: str
    stops: list[int] = []
    luggage: str = ""


class NoRoom(Exception):
    """The hotel is full."""


rail, hotel, desk = Service("rail"), Service("hotel"), Service("desk")
held: dict[str, anyio.Event] = {}
done: list[str] = []


async def does(what: str) -> None:
    """Note it, and stay as long as it is held."""
    done.append(what)
    if what in held:
        await held[what].wait()


@rail.step
async def ride(trip: Trip, n: int) -> int:
    """Has an undo."""
    await does(f"ride {n}")
    return n + 1


@ride.undo
async def walk_back(trip: Trip, n: int, result: int) -> None:
    """Takes it back."""
    await does(f"back {n}")


@hotel.step(retry=Retry(max_attempts=1))
async def stay(n: int) -> int:
    """There is no room for 13."""
    await does(f"stay {n}")
    if n == 13:
        raise NoRoom("13")
    return n * 10


@hotel.step(retry=Retry(max_attempts=3, initial=0.6))
async def nap(n: int) -> int:
    """Fails at first."""
    await does(f"nap {n} {current().attempt}")
    if current().attempt == 1:
        raise NoRoom("not yet")
    return n


@desk.step
async def note(values: list[int]) -> str:
    """Writes down what it is given."""
    await does("note")
    return "-".join(str(value) for value in values)


@flow(key=lambda trip: trip.id)
def straight(trip: Trip) -> str:
    """One after the other."""
    return note([stay(ride(trip, 1))])


@flow(key=lambda trip: trip.id)
def asking(trip: Trip) -> str:
    """Waits for an answer for some time, and sleeps."""
    place = ride(trip, 1)
    with after(place):
        answer = wait_for("answer", int, timeout=60)
    with after(answer):
        rest = sleep(0.8)
    with after(rest):
        return note([stay(answer)])


@flow(key=lambda trip: trip.id)
def impatient(trip: Trip) -> str:
    """Waits, but not for long."""

    def ask() -> int:
        return wait_for("answer", int, timeout=1.0)

    return note([attempt(ask, handlers={"Timeout": lambda error: stay(7)})])


@flow(key=lambda trip: trip.id)
def tour(trip: Trip) -> str:
    """Many at once, two at a time."""
    return note(each(trip.stops, lambda n: stay(ride(trip, n)), limit=2))


@flow(key=lambda trip: trip.id)
def circles(trip: Trip) -> str:
    """Round and round."""
    return note([repeat(lambda n: ride(trip, n), 0, lambda n: n >= 6, cap=9)])


@flow(key=lambda trip: trip.id)
def full(trip: Trip) -> str:
    """Cannot end well."""
    first = ride(trip, 1)
    second = ride(trip, first)
    with after(second):
        return note([stay(13)])


@flow(key=lambda trip: trip.id)
def patient(trip: Trip) -> str:
    """Backs off."""
    return note([nap(ride(trip, 1))])


@flow(key=lambda trip: trip.id)
def outing(trip: Trip) -> str:
    """Has another flow in it."""
    inner = straight(trip)
    with after(inner):
        return note([stay(5)])


app = App(
    "journeys",
    flows=[straight, asking, impatient, tour, circles, full, patient, outing],
    services=[rail, hotel, desk],
)
