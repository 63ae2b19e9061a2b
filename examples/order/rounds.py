"""A round of the demo: all orders in one mode, and what became of them; and two rounds side by side."""

from __future__ import annotations

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import anyio
import msgspec
from anyio.abc import TaskGroup
from children import Broken
from rich.box import SIMPLE_HEAD
from rich.table import Table
from shop import Confirmation, Effect, Order, place_order

from segue.runtime.client import Client
from segue.runtime.handle import RunHandle
from segue.runtime.where import RunView

Mode = Literal["orchestrated", "choreographed"]

RATE = 60
"""Orders a second that the checkout sends."""

END_TIMEOUT, JOURNAL_TIMEOUT = 60.0, 15.0


class Result(NamedTuple):
    """What became of an order: its e-mail, or by which node, error and message it was refused."""

    email: Confirmation | None
    refusals: tuple[tuple[str, str, str], ...]

    @property
    def reason(self) -> str:
        """Why it was refused, in a few words."""
        return " and ".join(error for _, error, _ in self.refusals)


class Round:
    """Places orders and collects what became of them.

    Args:
        client: Starts the runs.
        mode: Mode that the flow is deployed in.
        suffix: Appended to the orders' ids: a business key names one run for good.

    Attributes:
        mode: The mode.
        results: What became of each order, by its id.
        history: State and number of attempts of each node, by order, from the journal.
        effects: What services did to the world, by order: steps and what they did.
        times: Seconds from the start to the end, by order.
    """

    def __init__(self, client: Client, mode: Mode, suffix: str) -> None:
        self.mode = mode
        self.results: dict[str, Result] = {}
        self.history: dict[str, tuple[tuple[str, str, int], ...]] = {}
        self.effects: dict[str, tuple[tuple[str, Any], ...]] = {}
        self.times: dict[str, float] = {}
        self._client = client
        self._suffix = suffix
        self._runs: dict[str, str] = {}

    def key(self, order: Order) -> str:
        """The business key of an order in this round."""
        return order.id + self._suffix

    async def place(self, tasks: TaskGroup, orders: Sequence[Order]) -> None:
        """Start a run for each order, at the pace of the checkout.

        Args:
            tasks: Where the ends of the runs are awaited.
            orders: The orders.

        Raises:
            Broken: A run was accepted in another mode, or was there before.
        """
        first = time.monotonic()
        for i, order in enumerate(orders):
            await anyio.sleep(max(first + i / RATE - time.monotonic(), 0))
            began = time.monotonic()
            run = await self._client.start(place_order, order, key=self.key(order))
            if run.mode != self.mode or run.existing:
                raise Broken(f"{run!r} is {run.mode}{', and was there before' if run.existing else ''}")
            self._runs[order.id] = run.id
            tasks.start_soon(self._follow, order, run, began)

    async def stuck(self, orders: Sequence[Order], node: str) -> str:
        """The key of the first of these orders whose run stands at a node, by the journal.

        Raises:
            Broken: There is none.
        """
        with anyio.move_on_after(JOURNAL_TIMEOUT):
            while True:
                for order in orders:
                    view = await self._look(order)
                    if view is not None and any(each.node == node and each.state == "open" for each in view.nodes):
                        return self.key(order)
                await anyio.sleep(0.05)
        raise Broken(f"no order waits for {node}")

    async def collect(self, orders: Sequence[Order], effects: Path) -> None:
        """Read the history from the journal, and what the services did to the world from their files.

        Args:
            orders: The orders, whose runs have ended.
            effects: Folder of the services' files.

        Raises:
            Broken: The journal has not heard of all ends in time.
        """
        with anyio.move_on_after(JOURNAL_TIMEOUT) as scope:
            for order in orders:
                view = await self._ended(order)
                self.history[order.id] = tuple((node.node, node.state, node.attempts) for node in view.nodes)
        if scope.cancelled_caught:
            raise Broken(f"after {JOURNAL_TIMEOUT:g} s the journal has {len(self.history)} of {len(orders)} ends")
        done = effects_in(effects)
        self.effects = {order.id: tuple(sorted(done[self.key(order)], key=str)) for order in orders}

    def sent(self) -> dict[str, int]:
        """How many e-mails each order got."""
        return {order: sum(step == "notify" for step, _ in found) for order, found in self.effects.items()}

    async def _follow(self, order: Order, run: RunHandle[Confirmation], began: float) -> None:
        ended = await run.outcome(END_TIMEOUT)
        self.times[order.id] = time.monotonic() - began
        email = msgspec.json.decode(ended.value, type=Confirmation) if ended.status == "completed" else None
        causes = ((cause.node, cause.error) for cause in ended.causes)
        self.results[order.id] = Result(email, tuple((node, e.type, e.message) for node, e in causes if e is not None))

    async def _ended(self, order: Order) -> RunView:
        while True:
            view = await self._look(order)
            if view is not None and view.run.status != "running":
                return view
            await anyio.sleep(0.05)

    async def _look(self, order: Order) -> RunView | None:
        try:
            return await self._client.where(self._runs[order.id])
        except LookupError:
            return None


def effects_in(folder: Path) -> defaultdict[str, list[tuple[str, Any]]]:
    """What services did to the world, by the business key of the run: steps and what they did."""
    found: defaultdict[str, list[tuple[str, Any]]] = defaultdict(list)
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            effect = msgspec.json.decode(line, type=Effect)
            found[effect.key].append((effect.step, effect.what))
    return found


def differences(rounds: Sequence[Round]) -> Iterator[str]:
    """What differs between two rounds, or is wrong in one of them."""
    first, second = rounds
    for order in first.results:
        for what, left, right in (
            ("outcome", first.results[order], second.results[order]),
            ("history", first.history[order], second.history[order]),
            ("effects", first.effects[order], second.effects[order]),
        ):
            if left != right:
                yield f"{what} of order {order}: {first.mode} {left}, {second.mode} {right}"
    for each in rounds:
        for order, sent in each.sent().items():
            due = int(each.results[order].email is not None)
            if sent != due:
                yield f"order {order}, {each.mode}, got {sent} e-mails instead of {due}"


def side_by_side(rounds: Sequence[Round], undisturbed: Sequence[Order]) -> Table:
    """Both rounds in one table.

    Args:
        rounds: The rounds.
        undisturbed: Orders that were placed while all services ran; only their times mean something.
    """
    table = Table("", *(each.mode for each in rounds), "", box=SIMPLE_HEAD, header_style="bold")
    _group(
        table,
        "orders",
        [Counter("refused" if r.refusals else "confirmed" for r in each.results.values()) for each in rounds],
    )
    _group(table, "refused for", [Counter(r.reason for r in each.results.values() if r.refusals) for each in rounds])
    _group(table, "e-mails", [_mail(each) for each in rounds])
    _group(table, "history", [_states(each) for each in rounds])
    times = [statistics.median(each.times[order.id] for order in undisturbed) for each in rounds]
    table.add_row("median time, all services up", *(f"{seconds * 1000:.0f} ms" for seconds in times))
    return table


def _mail(each: Round) -> dict[str, int]:
    sent = each.sent()
    confirmed = [order for order, result in each.results.items() if result.email]
    return {
        "sent": sum(sent.values()),
        "confirmed without one": sum(not sent[order] for order in confirmed),
        "confirmed with two": sum(sent[order] > 1 for order in confirmed),
        "to refused": sum(sent.values()) - sum(sent[order] for order in confirmed),
    }


def _states(each: Round) -> Counter[str]:
    """How often each node came to each state, and how many attempts were repeated."""
    found: Counter[str] = Counter()
    for nodes in each.history.values():
        for node, state, attempts in nodes:
            found[f"{node} {state}"] += 1
            found[f"{node} tried again"] += max(attempts - 1, 0)
    return +found


def _group(table: Table, title: str, counts: Sequence[Mapping[str, int]]) -> None:
    table.add_row(title, style="bold")
    for name in sorted({name for count in counts for name in count}):
        cells = [str(count.get(name, 0)) for count in counts]
        table.add_row(f"  {name}", *cells, "same" if len(set(cells)) == 1 else "DIFFERENT")
    table.add_section()
