"""The client: starts that may be repeated, results that may be awaited, and errors that say what to do."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest
from orders import LOG, Order, Summary, app, place_order
from stage import eventually, stage

import segue
from segue import App, InvalidInput, NotAccepted, ResultTimeout, RunFailed, Service, UnknownFlow, UnknownRun, flow
from segue.config import Config, ObjectsConfig
from segue.errors import PayloadTooLarge, TransportUnavailable
from segue.plan.projection import COORDINATOR, MODES, Mode
from segue.ports.transport import Message
from segue.runtime import client as clients
from segue.runtime import ends, starter
from segue.runtime.ids import new_run_id

each_mode = pytest.mark.parametrize("mode", MODES)
HOME = {"orchestrated": COORDINATOR, "choreographed": "email"}


@each_mode
async def test_a_key_is_one_run(mode: Mode, config: Config) -> None:
    LOG.clear()
    async with stage(app, config, mode) as here, here.running():
        run = await here.client.start(place_order, Order("a1", 5))
        again = await here.client.start(place_order, Order("a1", 5))
        assert (again.id, again.existing, run.existing) == (run.id, True, False)
        assert await run.result(10) == await again.result(10) == Summary("a1", 5, "small shelf-a1")
        late = await here.client.start(place_order, Order("a1", 5))
        assert (late.id, late.existing) == (run.id, True)
        assert (await late.result(5)).paid == 5
    assert set(LOG.values()) == {1}


@each_mode
async def test_a_run_id_is_one_run(mode: Mode, memory: Config) -> None:
    LOG.clear()
    async with stage(app, memory, mode) as here, here.running():
        name = new_run_id()
        one, other = [await here.client.start(place_order, Order("", 5), key="", run_id=name) for _ in range(2)]
        assert one.id == other.id == name
        assert (await one.result(5), (await other.result(5))) == (await one.result(5), await one.result(5))
        dashed = f"{name[:8]}-{name[8:12]}-{name[12:16]}-{name[16:20]}-{name[20:]}".upper()
        assert (await here.client.start(place_order, Order("", 5), key="", run_id=dashed)).id == name
    assert LOG["", "charge"] == 1


@each_mode
async def test_concurrent_starts_of_one_key_are_one_run(mode: Mode, config: Config) -> None:
    """Even if they bring different inputs: one of them counts, for everybody."""
    LOG.clear()
    found: list[Any] = []

    async def start(client: clients.Client, total: int) -> None:
        run = await client.start(place_order, Order("same", total))
        found.append((run.id, await run.result(10)))

    async with stage(app, config, mode) as here, here.running(), here.running():
        async with clients.client(here.wiring) as second, anyio.create_task_group() as tasks:
            for total in range(25):
                tasks.start_soon(start, here.client, total)
                tasks.start_soon(start, second, 100 - total)
    assert len(found) == 50
    [(run, summary)] = {(run, msgspec.json.encode(value)) for run, value in found}
    assert msgspec.json.decode(summary, type=Summary).order == "same"
    assert run
    assert set(LOG.values()) == {1}


@each_mode
async def test_many_starts_at_once(mode: Mode, config: Config) -> None:
    """What a web application does: one client, a task to a request."""

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[clients.Client]:
        async with segue.connect(config=config) as client:
            yield client

    answers: dict[str, Any] = {}

    async def request(client: clients.Client, order: str) -> None:
        run = await client.start(place_order, Order(order, 200))
        answers[order] = await run.result(timeout=20)

    async with stage(app, config, mode) as here, here.running(), lifespan() as client:
        async with anyio.create_task_group() as tasks:
            for n in range(200):
                tasks.start_soon(request, client, f"order-{n}")
    assert answers == {f"order-{n}": Summary(f"order-{n}", 200, f"reviewed shelf-order-{n}") for n in range(200)}


@each_mode
async def test_result_can_be_awaited_after_the_end_and_by_key(mode: Mode, memory: Config) -> None:
    async with stage(app, memory, mode) as here, here.running():
        run = await here.client.start(place_order, Order("k", 5))
        await run.result(5)
        async with clients.client(here.wiring) as other:
            found = await other.get(place_order, "k")
            assert (found.id, found.key, found.mode) == (run.id, "k", mode)
            assert await found.result(1) == Summary("k", 5, "small shelf-k")
            by_name = await other.get("place_order", "k")
            assert await by_name.result(1) == {"order": "k", "paid": 5, "note": "small shelf-k", "gift": None}
            with pytest.raises(UnknownRun, match="no run of 'place_order' has the key 'nobody'"):
                await other.get(place_order, "nobody")


@asynccontextmanager
async def deaf(*args: object) -> AsyncIterator[AsyncIterator[Message]]:
    """Listening that never hears anything."""

    async def nothing() -> AsyncIterator[Message]:
        await anyio.sleep_forever()
        yield Message("", b"")

    yield nothing()


@each_mode
async def test_result_without_ever_hearing_the_end(mode: Mode, memory: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "ASK_FIRST", 0.1)
    async with stage(app, memory, mode) as here, here.running():
        monkeypatch.setattr(here.wiring.transport, "listen", deaf)
        run = await here.client.start(place_order, Order("k", 5))
        assert (await run.result(5)).paid == 5


@each_mode
async def test_the_home_of_a_run_is_asked_not_that_of_the_newest_plan(
    mode: Mode, memory: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ends, "ASK_FIRST", 0.1)
    one, other = Service("one"), Service("other")

    @one.step
    async def work(n: int) -> int:
        await anyio.sleep(0.2)
        return n

    def body(n: int) -> int:
        return work(n)

    before = flow(name="moving", home=one)(body)
    after = flow(name="moving", home=other)(body)
    async with stage(App("a", [before], [one, other]), memory, mode) as here, here.running():
        monkeypatch.setattr(here.wiring.transport, "listen", deaf)
        run = await here.client.start(before, 3)
        await here.deploy(mode, after)
        assert await run.result(5) == 3


async def test_result_timeout_leaves_the_run_alone(memory: Config) -> None:
    async with stage(app, memory) as here:
        async with here.running(COORDINATOR):
            run = await here.client.start(place_order, Order("t", 5))
            with pytest.raises(ResultTimeout, match=rf"run {run.id} of place_order has not ended within 0.1 s"):
                await run.result(0.1)
        async with here.running():
            assert (await run.result(5)).order == "t"


async def test_failure_says_which_step_and_why(memory: Config) -> None:
    async with stage(app, memory) as here, here.running():
        run = await here.client.start(place_order, Order("f", 5, stock=0))
        with pytest.raises(RunFailed) as caught:
            await run.result(5)
        text = str(caught.value)
        assert text == f"run {run.id} of place_order failed: reserve (OutOfStock: no f left)\n  segue where {run.id}"


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((), {}, "order"),
        ((Order("a", 1), Order("b", 1)), {}, "takes 1"),
        ((Order("a", 1),), {"order": Order("a", 1)}, "twice"),
        ((Order("a", 1),), {"other": 1}, "other"),
        (({"id": "a", "total": "many"},), {}, "total"),
        ((Order("", 1),), {}, "key"),
        ((7,), {}, "order"),
        ((Order("a\x00b", 1),), {}, "key"),
        ((Order("a" * 2000, 1),), {}, "key"),
    ],
)
async def test_bad_input_is_refused_before_it_is_sent(
    memory: Config, args: tuple[Any, ...], kwargs: dict[str, Any], text: str
) -> None:
    async with stage(app, memory) as here:
        with pytest.raises(InvalidInput, match=text):
            await here.client.start(place_order, *args, **kwargs)


async def test_a_start_by_name_is_checked_by_the_plan(memory: Config) -> None:
    async with stage(app, memory) as here, here.running():
        run = await here.client.start("place_order", {"id": "n", "total": 5})
        assert run.key == "n"
        assert (await run.result(5))["paid"] == 5
        with pytest.raises(InvalidInput, match="'id' is a required property"):
            await here.client.start("place_order", {"total": 5})
        with pytest.raises(InvalidInput, match="needs 'order'"):
            await here.client.start("place_order")


async def test_unknown_flow(memory: Config) -> None:
    async with stage(app, memory) as here:
        with pytest.raises(UnknownFlow, match="'no_such' is not deployed") as caught:
            await here.client.start("no_such", 1)
        assert "place_order" in caught.value.hint
        with pytest.raises(UnknownFlow):
            await here.client.get("no_such", "key")


async def test_a_large_input_is_refused(memory: Config) -> None:
    service = Service("s")

    @service.step
    async def size(text: str) -> int:
        return len(text)

    @flow
    def measure(text: str) -> int:
        return size(text)

    small = msgspec.structs.replace(memory, objects=ObjectsConfig("none"))
    async with stage(App("a", [measure], [service]), small) as here, here.running():
        with pytest.raises(PayloadTooLarge, match="the input of measure has 2,000,0") as caught:
            await here.client.start(measure, "x" * 2_000_000)
        assert "[objects] url" in caught.value.hint
        largest = here.wiring.values.max_event - 20
        run = await here.client.start(measure, "x" * largest)
        assert (await run.outcome(5)).status in ("completed", "failed")


@each_mode
async def test_start_while_the_home_is_down(mode: Mode, memory: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starter, "TIMEOUT", 0.5)
    async with stage(app, memory, mode) as here:
        began = time.monotonic()
        with pytest.raises(TransportUnavailable) as caught:
            await here.client.start(place_order, Order("d", 5))
        assert time.monotonic() - began < 3
        assert HOME[mode] in caught.value.message
        assert caught.value.hint


@each_mode
async def test_start_while_the_home_comes_back(mode: Mode, config: Config) -> None:
    async with stage(app, config, mode) as here, anyio.create_task_group() as tasks:
        handles = []

        async def start() -> None:
            handles.append(await here.client.start(place_order, Order("b", 5)))

        tasks.start_soon(start)
        await anyio.sleep(0.4)
        assert not handles
        async with here.running():

            async def started() -> bool:
                return bool(handles)

            await eventually(started)
            assert (await handles[0].result(10)).order == "b"


async def test_a_start_that_is_given_up_does_not_hold_up_the_next(memory: Config) -> None:
    """Requests of a web application are cancelled at any time, also the very first one."""
    async with stage(app, memory) as here, here.running():
        for _ in range(4):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await here.client.start(place_order, Order("c", 5))
        for delay in (0.0, 0.0005, 0.001, 0.002):
            with anyio.move_on_after(delay):
                await here.client.start(place_order, Order("c", 5))
        with anyio.fail_after(5):
            run = await here.client.start(place_order, Order("c", 5))
            assert (await run.result()).order == "c"


async def test_listening_that_fails_once_is_tried_again(memory: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage(app, memory) as here, here.running():
        listen, calls = here.wiring.transport.listen, []

        def flaky(patterns: Any) -> Any:
            calls.append(patterns)
            if len(calls) == 1:
                raise TransportUnavailable("no")
            return listen(patterns)

        monkeypatch.setattr(here.wiring.transport, "listen", flaky)
        with pytest.raises(TransportUnavailable):
            await here.client.start(place_order, Order("l", 5))
        with anyio.fail_after(5):
            run = await here.client.start(place_order, Order("l", 5))
            assert (await run.result()).order == "l"


async def test_garbage_among_the_ends_does_no_harm(memory: Config) -> None:
    async with stage(app, memory) as here, here.running():
        first = await here.client.start(place_order, Order("g1", 5))
        subject = "segue.o.place_order.run.ended"
        for body in (b"{", b"[1]", b'{"id": 1}', b"\xff"):
            await here.wiring.transport.publish([Message(subject, body)])
        await first.result(5)
        run = await here.client.start(place_order, Order("g2", 5))
        assert (await run.result(5)).order == "g2"


@each_mode
async def test_a_refusal_says_why(mode: Mode, memory: Config) -> None:
    """A start at a participant that is not the home."""
    from segue.wire import requests

    async with stage(app, memory, mode) as here, here.running():
        body = requests.encode(
            [requests.Start("place_order", new_run_id(), msgspec.Raw(b'{"order": {}}'), "k"), requests.Ask("nonsense")]
        )
        answer = await here.wiring.transport.request("segue.to.inventory", body, 2)
        refused, unknown = requests.decode_replies(answer)
        assert isinstance(refused, requests.Refused)
        assert "inventory is not the home" in refused.reason
        assert isinstance(unknown, requests.Refused | requests.Answer)
        garbage = await here.wiring.transport.request("segue.to.inventory", b"{", 2)
        assert isinstance(requests.decode_replies(garbage)[0], requests.Refused)


async def test_wrong_starts_do_not_hurt_their_neighbours(config: Config) -> None:
    """Whatever a client in another language sends."""
    from segue.wire import requests

    good = requests.Start("place_order", new_run_id(), msgspec.Raw(b'{"order": {"id": "ok", "total": 5}}'), "ok")
    replace = msgspec.structs.replace
    wrong = [
        replace(good, run="zz", key="w1"),
        replace(good, run=new_run_id(), input=msgspec.Raw(b"[1]"), key="w2"),
        replace(good, run=new_run_id(), flow="none", key="w3"),
        replace(good, run=new_run_id(), key="w\u0000"),
        replace(good, run=new_run_id(), key="w" * 100_000),
    ]
    async with stage(app, config) as here, here.running():
        body = requests.encode([*wrong, good])
        answer = await here.wiring.transport.request(f"{config.namespace}.to.coordinator", body, 10)
        *refused, accepted = requests.decode_replies(answer)
        assert [type(reply) for reply in refused] == [requests.Refused] * len(wrong)
        assert not any(reply.retry for reply in refused)  # type: ignore[union-attr]
        assert accepted == requests.Accepted(good.run, "orchestrated")
        assert (await (await here.client.get(place_order, "ok")).result(10)).paid == 5


async def test_not_accepted_is_said(memory: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The home refuses what a client lets pass."""
    from segue.wire import requests

    async with stage(app, memory) as here:

        async def refuse(body: bytes) -> bytes:
            return requests.encode([requests.Refused("not today", "come tomorrow")])

        async with here.wiring.transport.respond("segue.to.coordinator", refuse):
            with pytest.raises(NotAccepted, match=r"not today\n  come tomorrow"):
                await here.client.start(place_order, Order("n", 1))
