"""Every construct of the declaration in small flows: steps of three services, which write what they did into `LOG`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from segue import (
    App,
    Error,
    Retry,
    Service,
    after,
    attempt,
    compute,
    current,
    each,
    either,
    emit,
    finish,
    flow,
    n_of,
    otherwise,
    race,
    raise_,
    repeat,
    sleep,
    sleep_until,
    wait_for,
    when,
)

LOG: Counter[tuple[str, str]] = Counter()
"""How often (business key, what) was done in this process."""


class Line(msgspec.Struct):
    """A part of an order."""

    sku: str
    count: int = 1


class Order(msgspec.Struct):
    """What a customer wants. What fails for it is named in `broken`."""

    id: str
    lines: list[Line] = []
    total: int = 100
    broken: list[str] = []


class Job(msgspec.Struct):
    """Something that takes a while: `left` looks until it is done."""

    id: str
    left: int = 3


class Review(msgspec.Struct):
    """What a person said."""

    ok: bool
    by: str = "nobody"


class OutOfStock(Exception):
    """There is nothing left."""


class Refused(Exception):
    """The bank said no."""


class TooPoor(Refused):
    """There is no money."""


class TooMuch(Exception):
    """An order over the limit."""


shop, money, mail = Service("shop"), Service("money"), Service("mail")


def log(what: str) -> None:
    """Remember that something was done for the current run."""
    LOG[current().key, what] += 1


@shop.step
async def pick(order: str, sku: str, broken: list[str]) -> str:
    """Take an item off its shelf, if there is one."""
    log(f"pick {sku}")
    if sku in broken:
        raise OutOfStock(f"no {sku} for {order}")
    return f"{sku}!"


@pick.undo
async def put_back(sku: str, picked: str) -> None:
    """Put an item back."""
    log(f"put back {picked}")


@shop.step(retry=Retry(max_attempts=2, initial=0.01))
def reserve(order: Order) -> str:
    """A plain function: it runs in a worker thread."""
    log("reserve")
    if "reserve" in order.broken:
        raise OutOfStock(f"nothing for {order.id}")
    return f"shelf-{order.id}"


@reserve.undo
def release(order: Order) -> None:
    """Give the place free."""
    log("release")


@shop.step
async def look(job: Job) -> Job:
    """Look once whether a job is done."""
    log("look")
    return Job(job.id, job.left - 1)


@money.step(timeout=5, deadline=20)
async def charge(order: Order) -> int:
    """Take the money."""
    log("charge")
    if "charge" in order.broken:
        raise TooPoor(f"{order.id} costs {order.total}")
    return order.total


@charge.undo(retry=Retry(max_attempts=3, initial=0.01))
async def refund(order: Order, amount: int) -> None:
    """Give the money back."""
    log(f"refund {amount}")


@money.step
async def quote(order: Order, bank: str) -> int:
    """Ask a bank what it takes."""
    log(f"quote {bank}")
    if bank in order.broken:
        raise Refused(bank)
    return order.total + len(bank)


@money.step
async def quotes(prices: list[int]) -> int:
    """The best of several."""
    log("quotes")
    return min(prices)


@mail.step
async def tell(order: str, text: str) -> str:
    """Write to the customer."""
    log(f"tell {text}")
    return f"{order}: {text}"


@mail.step
async def listed(order: str, items: Sequence[str | None]) -> str:
    """Write what there is."""
    log("listed")
    return f"{order}: {', '.join(item or '-' for item in items)}"


@compute
def net(total: int, rate: int) -> int:
    """A pure function: whichever service needs it runs it."""
    return total * 100 // (100 + rate)


@flow(key=lambda order: order.id)
def picking(order: Order) -> str:
    """A map with a limit, whose body reads the outer order, over another one."""
    lines = each(order.lines, lambda line: pick(order.id, line.sku, order.broken), limit=2)
    letters = each(lines, lambda sku: tell(order.id, sku))
    with after(letters):
        return listed(order.id, lines)


@flow(key=lambda order: order.id)
def tolerant(order: Order) -> str:
    """One failed item is borne, and some items are skipped."""

    def body(line: Line) -> str:
        with when(line.count > 0):
            return pick(order.id, line.sku, order.broken)

    return listed(order.id, each(order.lines, body, tolerate=1))


@flow(key=lambda orders: orders[0].id)
def nested(orders: list[Order]) -> list[list[str]]:
    """A map in a map."""
    return each(orders, lambda order: each(order.lines, lambda line: pick(order.id, line.sku, order.broken)))


@flow(key=lambda job: job.id)
def poll(job: Job) -> Job:
    """Look until it is done, but not for ever."""
    return repeat(look, job, until=lambda job: job.left <= 0, cap=10, every=0.01)


@flow(key=lambda order: order.id)
def fastest(order: Order) -> str:
    """Whoever is first: a person, or the time. What the loser picked is put back."""

    def by_hand() -> str:
        picked = pick(order.id, "hand", order.broken)
        with after(wait_for("go", None)):
            return tell(order.id, picked)

    def by_time() -> str:
        with after(sleep(0.05)):
            return tell(order.id, "too late")

    return race(by_hand, by_time)


@flow(key=lambda order: order.id)
def quorum(order: Order) -> int:
    """Two of three banks."""
    return quotes(
        n_of(2, lambda: quote(order, "north"), lambda: quote(order, "south"), lambda: quote(order, "central"))
    )


@flow(key=lambda order: order.id)
def review(order: Order) -> str:
    """A person says yes or no, or nothing in time."""
    found = attempt(
        lambda: wait_for("review", Review, timeout=0.5, match=order.id), {TimeoutError: lambda: Review(ok=False)}
    )
    with when(found.ok):
        yes = tell(order.id, found.by)
    with otherwise():
        no = tell(order.id, "refused")
    return either(yes, no)


@flow(key=lambda order: order.id)
def rescued(order: Order) -> str:
    """Typed handlers, one that undoes first, and what is done in any case."""

    def body() -> str:
        place = reserve(order)
        charge(order)
        return tell(order.id, place)

    def poor(error: Error) -> str:
        return tell(order.id, error.message)

    return attempt(
        body,
        {Refused: poor, OutOfStock: lambda error: raise_(TooMuch, error.message, value=error.node)},
        finally_=lambda: tell(order.id, "bye"),
        undo=True,
    )


@flow(key=lambda order: order.id)
def saga(order: Order) -> str:
    """What was done is undone if a later step fails: in parallel branches, and in a map."""
    place = reserve(order)
    charge(order)
    picked = each(order.lines, lambda line: pick(order.id, line.sku, order.broken))
    with when(order.total > 1000), after(picked):
        raise_(TooMuch(f"no order over {1000}"))
    with after(picked):
        return tell(order.id, place)


@flow(key=lambda order: order.id)
def early(order: Order) -> str:
    """An early end, and an event for whom it may concern."""
    amount = charge(order)
    emit("order-paid", {"order": order.id, "amount": amount})
    with when(order.total == 0):
        finish("free")
    with after(sleep(0.01), sleep_until("2020-01-01T00:00:00Z")):
        return tell(order.id, "paid")


@flow(home=shop)
def countdown(n: int) -> int:
    """Calls itself."""
    with when(n <= 0):
        finish(0)
    return countdown(n - 1)


@flow(key=lambda order: order.id)
def family(order: Order, rate: int = 25) -> str:
    """Other flows as nodes, and a pure function."""
    letter = picking(order)
    amount = net(charge(order), rate)
    with when(amount > 10):
        count = countdown(3)
    with after(count):
        return tell(order.id, letter)


@flow(key=lambda order: order.id, on_failure="stop", deadline=30)
def hasty(order: Order) -> str:
    """The first failure stops the rest."""
    wait = wait_for("never", str)
    charge(order)
    return tell(order.id, wait)


app = App(
    "constructs",
    flows=[
        *(picking, tolerant, nested, poll, fastest, quorum, review, rescued, saga, early, countdown, family, hasty),
    ],
    services=[shop, money, mail],
)
