"""Flows that call each other, two deep, and fail after the inner ones completed; steps note what they did in `done`."""

from __future__ import annotations

import anyio

from segue import App, Retry, Service, after, attempt, each, flow, raise_, wait_for, when

front, back = Service("front"), Service("back")
done: list[str] = []
stuck: set[str] = set()


class Sorry(Exception):
    """Nothing comes of it."""


@back.step
async def pack(order: str) -> str:
    done.append(f"pack {order}")
    return f"box of {order}"


@pack.undo(retry=Retry(max_attempts=1))
async def unpack(order: str, box: str) -> None:
    if order in stuck:
        raise Sorry(f"{box} is sealed")
    done.append(f"unpack {box}")


@front.step
async def label(order: str, box: str) -> str:
    done.append(f"label {box}")
    return f"labelled {box}"


@label.undo
async def peel(labelled: str) -> None:
    done.append(f"peel {labelled}")


@front.step(retry=Retry(max_attempts=1))
async def hand_over(order: str, parcel: str) -> str:
    if order.startswith("bad"):
        raise Sorry(f"nobody takes {parcel}")
    return f"handed over {parcel}"


@back.step
async def count(order: str) -> int:
    return len(order)


@flow(home=back)
def boxing(order: str) -> str:
    """The innermost one."""
    return pack(order)


@flow(home=front)
def parcelling(order: str) -> str:
    """Calls another one."""
    return label(order, boxing(order))


@flow(home=front, key=lambda order: order)
def shipping(order: str) -> str:
    """Fails after its subflow completed."""
    return hand_over(order, parcelling(order))


@flow(home=back)
def counting(order: str) -> int:
    """Has nothing to undo."""
    return count(order)


@flow(home=front, key=lambda order: order)
def tallying(order: str) -> int:
    """Fails after subflows that have nothing to undo."""
    counted = counting(order)
    with when(counted > 2), after(pack(order)):
        raise_(Sorry, "too many")
    return counted


@flow(home=back, key=lambda order: order)
def trying(order: str) -> str:
    """Undoes an attempt with subflows in a map, and goes on."""

    def body() -> str:
        parcels = each(["a", "b"], parcelling)
        with after(parcels):
            return hand_over(order, "parcels")

    return attempt(body, {Sorry: lambda error: error.message}, undo=True)


@flow(home=front, key=lambda order: order)
def asking(order: str) -> str:
    """Waits after its subflow completed."""
    parcel = parcelling(order)
    with after(parcel):
        return wait_for("go", str)


app = App(
    "nested",
    flows=[boxing, parcelling, shipping, counting, tallying, trying, asking],
    services=[front, back],
)


async def until(what: str, seconds: float = 10.0) -> None:
    """Wait until something was done."""
    with anyio.fail_after(seconds):
        while what not in done:
            await anyio.sleep(0.01)
