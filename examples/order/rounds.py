"""A round of the demo: all orders in one mode; what became of them, and the two rounds side by side."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import anyio
import msgspec
from children import Broken
from rich.table import Table
from shop import Confirmation, Effect, Order, place_order

from segue.runtime.client import Client, RunHandle
from segue.runtime.where import RunView

Mode = Literal["orchestrated", "choreographed"]
RATE = 60
"""Orders a second that the checkout sends."""
END_TIMEOUT, JOURNAL_TIMEOUT = 60.0, 15.0


class Result(NamedTuple):
    """What became of an order: its e-mail, or why it was refused."""

    status: str
    email: Confirmation | None
    reasons: tuple[tuple[str, str, str], ...]

    @property
    def kind(self) -> str:
        """In a few words."""
        kinds = " + ".join(error for _, error, _ in self.reasons)
        return "confirmed by e-mail" if self.email else f"refused: {kinds}"


class Round:
    """Places orders and collects what became of them.

    Args:
        client: Starts the runs.
        mode: Mode that the flow is deployed in.
        suffix: Appended to the orders' ids: a business key names one run for good.
    """

    def __init__(self, client: Client, mode: Mode, suffix: str) -> None:
        self.mode = mode
        self.results: dict[str, Result] = {}
        self.history: dict[str, tuple[tuple[str, str, int], ...]] = {}
        self.effects: dict[str, tuple[tuple[str, Any], ...]] = {}
        self.times: dict[str, float] = {}
        self._client = client
        self._suffix = suffix
        self._runs: dict[str, RunHandle[Confirmation]] = {}

    def key(self, order: Order) -> str:
        """The business key of an order in this round."""
        return order.id + self._suffix

    async def place(self, orders: Sequence[Order]) -> None:
        """Start a run for each order, at the pace of the checkout.

        Raises:
            Broken: A run was accepted in another mode, or is one of before.
        """
        began = time.monotonic()
        for i, order in enumerate(orders):
            await anyio.sleep(max(began + i / RATE - time.monotonic(), 0))
            run = await self._client.start(place_order, order, key=self.key(order))
            if run.mode != self.mode or run.existing:
                raise Broken(f"{run!r} is {run.mode}{' and was there before' if run.existing else ''}")
            self._runs[order.id] = run

    async def follow(self, orders: Sequence[Order]) -> None:
        """Wait for the end of the runs of these orders, which need not have been placed yet."""
        async with anyio.create_task_group() as tasks:
            for order in orders:
                tasks.start_soon(self._follow, order)

    async def stuck(self, orders: Sequence[Order], node: str) -> str:
        """The key of the first of these orders whose run stands at a node, by the journal."""
        with anyio.move_on_after(JOURNAL_TIMEOUT):
            while True:
                for order in orders:
                    view = await self._look(order)
                    if view is not None and any(each.node == node and each.state == "open" for each in view.nodes):
                        return self.key(order)
                await anyio.sleep(0.05)
        raise Broken(f"no order stands at {node}")

    async def collect(self, orders: Sequence[Order], effects: Path) -> None:
        """Read the history from the journal, and what the services did to the world from their files.

        Raises:
            Broken: The journal has not heard of all ends in time.
        """
        with anyio.move_on_after(JOURNAL_TIMEOUT) as scope:
            for order in orders:
                while (view := await self._look(order)) is None or view.run.status == "running":
                    await anyio.sleep(0.05)
                self.history[order.id] = tuple((node.node, node.state, node.attempts) for node in view.nodes)
        if scope.cancelled_caught:
            raise Broken(f"the journal is behind: {len(self.history)} of {len(orders)} runs after {JOURNAL_TIMEOUT:g} s")
        done: dict[str, list[tuple[str, Any]]] = {self.key(order): [] for order in orders}
        for path in sorted(effects.glob("*.jsonl")):
            for line in path.read_bytes().splitlines():
                effect = msgspec.json.decode(line, type=Effect)
                if effect.key in done:
                    done[effect.key].append((effect.step, effect.what))
        self.effects = {order.id: tuple(sorted(done[self.key(order)], key=str)) for order in orders}

    def emails(self) -> dict[str, int]:
        """How many e-mails each order got."""
        return {order: sum(step == "notify" for step, _ in found) for order, found in self.effects.items()}

    async def _follow(self, order: Order) -> None:
        while order.id not in self._runs:
            await anyio.sleep(0.01)
        began = time.monotonic()
        ended = await self._runs[order.id].outcome(END_TIMEOUT)
        self.times[order.id] = time.monotonic() - began
        email = msgspec.json.decode(ended.value, type=Confirmation) if ended.status == "completed" else None
        reasons = tuple((cause.node, cause.error.type, cause.error.message) for cause in ended.causes if cause.error)
        self.results[order.id] = Result(ended.status, email, reasons)

    async def _look(self, order: Order) -> RunView | None:
        try:
            return await self._client.where(self._runs[order.id].id)
        except LookupError:
            return None


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
        for order, sent in each.emails().items():
            due = 1 if each.results[order].email else 0
            if sent != due:
                yield f"order {order} got {sent} e-mails, {each.mode}; it should be {due}"


def side_by_side(rounds: Sequence[Round], decides: Sequence[str]) -> Table:
    """Both rounds in one table.

    Args:
        rounds: The rounds.
        decides: Who decided in each.
    """
    table = Table("", *(each.mode for each in rounds), "", title=None, header_style="bold")
    table.add_row("who decides", *decides)
    table.add_section()
    _rows(table, [Counter(result.kind for result in each.results.values()) for each in rounds], str)
    table.add_section()
    _rows(table, [Counter({"e-mails sent": sum(each.emails().values())}) for each in rounds], str)
    wrong = [sum(sent != bool(each.results[order].email) for order, sent in each.emails().items()) for each in rounds]
    _row(table, "orders with a lost or second e-mail", [str(number) for number in wrong])
    table.add_section()
    _rows(table, [_states(each) for each in rounds], lambda name: f"history: {name}")
    table.add_section()
    table.add_row("median time to the end", *(f"{statistics.median(each.times.values()) * 1000:.0f} ms" for each in rounds))
    return table


def _states(each: Round) -> Counter[str]:
    """How often each node came to each state, and how many attempts were repeated."""
    found: Counter[str] = Counter()
    for nodes in each.history.values():
        for node, state, attempts in nodes:
            found[f"{node} {state}"] += 1
            found[f"{node} tried again"] += max(attempts - 1, 0)
    return +found


def _rows(table: Table, counts: Sequence[Counter[str]], name: Callable[[str], str]) -> None:
    for kind in dict.fromkeys(kind for count in counts for kind in sorted(count)):
        _row(table, name(kind), [str(count[kind]) for count in counts])


def _row(table: Table, name: str, cells: Sequence[str]) -> None:
    table.add_row(name, *cells, "same" if len(set(cells)) == 1 else "DIFFERENT")
