"""What goes over the wire, seen by a plain NATS client that knows nothing of Segue."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import nats
import pytest
from nats.aio.msg import Msg
from orders import Order, app, place_order
from stage import Stage, eventually, stage

from segue.config import Config
from segue.plan.projection import MODES, Mode

each_mode = pytest.mark.parametrize("mode", MODES)
Seen = list[tuple[str, list[dict[str, Any]]]]


@asynccontextmanager
async def watching(config: Config) -> AsyncIterator[Seen]:
    """Everything that is said in the namespace; a message holds one event or a batch."""
    seen: Seen = []

    async def on_message(message: Msg) -> None:
        found = json.loads(message.data or b"[]")
        seen.append((message.subject, found if isinstance(found, list) else [found]))

    client = await nats.connect(config.transport.split("?")[0])
    try:
        await client.subscribe(f"{config.namespace}.>", cb=on_message)
        await client.flush()
        yield seen
    finally:
        await client.close()


async def run_some(here: Stage, seen: Seen) -> None:
    ns = here.config.namespace
    runs = [await here.client.start(place_order, Order(f"w{n}", (50, 500, 5000)[n % 3], n % 4)) for n in range(12)]
    for run in runs:
        await run.outcome(10)

    async def ended() -> bool:
        ends = [item for subject, items in seen if subject.endswith(".run.ended") for item in items]
        return len({item["correlationid"] for item in ends}) == len(runs)

    await eventually(ended)
    seen[:] = [(subject.removeprefix(f"{ns}."), items) for subject, items in seen if ".to." not in subject]


async def test_nobody_is_in_charge_of_choreographed_runs(nats: Config) -> None:
    async with stage(app, nats, "choreographed") as here, here.running(), watching(nats) as seen:
        await run_some(here, seen)
        subjects = {subject for subject, _ in seen if not subject.startswith("reg.")}
        assert not [subject for subject in subjects if not subject.startswith("c.")]
        sources = {item["source"] for _, items in seen for item in items}
        assert sources == {f"/{nats.namespace}/{name}" for name in app.services}


async def test_choreographed_runs_need_no_coordinator(nats: Config) -> None:
    async with stage(app, nats, "choreographed") as here, here.running("email", "payments", "inventory", "observer"):
        run = await here.client.start(place_order, Order("alone", 500))
        assert (await run.result(10)).note == "reviewed shelf-alone"


async def test_orchestrated_runs_are_commanded(nats: Config) -> None:
    async with stage(app, nats, "orchestrated") as here, here.running(), watching(nats) as seen:
        await run_some(here, seen)
        subjects = {subject for subject, _ in seen if not subject.startswith("reg.")}
        assert not [subject for subject in subjects if subject.startswith("c.")]
        assert {"do.payments.charge", "do.email.notify", "o.place_order.charge.completed"} <= subjects
        for subject, items in seen:
            commanded = subject.startswith("do.") or ".run." in subject
            for item in items:
                assert (item["source"] == f"/{nats.namespace}/coordinator") == commanded, subject


@each_mode
async def test_all_messages_are_cloudevents(mode: Mode, nats: Config) -> None:
    """CloudEvents 1.0: required attributes are texts and not empty, extension names are lower case, times RFC 3339."""
    async with stage(app, nats, mode) as here, here.running(), watching(nats) as seen:
        await run_some(here, seen)
        items = [item for subject, items in seen if subject[:2] in ("c.", "o.", "do") for item in items]
    assert len(items) > 50
    for item in items:
        assert item["specversion"] == "1.0"
        for name in ("id", "source", "type"):
            assert isinstance(item[name], str)
            assert item[name]
        assert datetime.fromisoformat(item["time"]).tzinfo is not None
        assert all(name.isalnum() and name.islower() and name.isascii() for name in item)
        assert all(
            isinstance(value, str | int | bool) for name, value in item.items() if name not in ("data", "inputs")
        )
        assert len(item["correlationid"]) == 32
    assert len({(item["source"], item["id"]) for item in items}) == len({item["id"] for item in items})


@each_mode
async def test_the_same_facts_are_heard_in_both_modes(mode: Mode, nats: Config) -> None:
    """Whoever listens with a wildcard for the mode need not know it."""
    async with stage(app, nats, mode) as here, here.running(), watching(nats) as seen:
        await run_some(here, seen)
    facts = {
        (item["key"], subject[2:], json.dumps(item.get("data"), sort_keys=True))
        for subject, items in seen
        if subject[:2] in ("c.", "o.") and subject.rsplit(".", 1)[1] in ("completed", "started", "ended")
        for item in items
    }
    assert {fact for fact in facts if fact[0] == "w1"} == {
        ("w1", "place_order.run.started", '{"order": {"id": "w1", "stock": 1, "total": 500}}'),
        ("w1", "place_order.charge.completed", '{"amount": 500, "order": "w1"}'),
        ("w1", "place_order.reserve.completed", '"shelf-w1"'),
        ("w1", "place_order.review.completed", '"reviewed"'),
        ("w1", "place_order.archive.completed", "null"),
        *{
            fact
            for fact in facts
            if fact[0] == "w1" and ("notify" in fact[1] or "either" in fact[1] or "ended" in fact[1])
        },
    }
    [notified] = [fact for fact in facts if fact[:2] == ("w1", "place_order.notify.completed")]
    assert json.loads(notified[2]) == {"gift": None, "note": "reviewed shelf-w1", "order": "w1", "paid": 500}
