"""Every participant with the permissions that `segue export nats-permissions` writes: it can work, and nothing else."""

from __future__ import annotations

import os
import signal
from base64 import b64decode
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from nats.aio.msg import Msg
from orders import LOG, Order, place_order
from secured import BAD, NS, PLAN, Intruder, admin, as_user, deployed, everybody, history, journal_of, permissions
from stage import eventually

from segue import compose
from segue.errors import NotPermitted, ResultTimeout, UnknownRun
from segue.plan.projection import COORDINATOR, MODES, Mode
from segue.ports.transport import Group, Message
from segue.runtime.ids import new_run_id
from segue.wire import envelope, requests
from segue.wire.requests import Start
from segue.wire.rights import CLIENT, DEPLOYER
from segue_nats.server import NatsServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with NatsServer(tmp_path_factory.mktemp("secure"), config=permissions()) as found:
        yield found


PUBLISH = [
    *(f"{NS}.{letter}.place_order.{end}" for letter in "oc" for end in ("charge.completed", "run.ended")),
    *(f"{NS}.{letter}.place_order.{end}" for letter in "oc" for end in ("run.started", "run:notice.payments")),
    f"{NS}.o.place_order.run:notice.coordinator",
    f"{NS}.o.another_flow.reserve.completed",
    f"{NS}.do.payments.charge",
    f"{NS}.do.{BAD}.reserve",
    f"{NS}.to.coordinator",
    f"{NS}.to.payments",
    f"{NS}.reg.flow.place_order",
    f"{NS}.reg.plan.{PLAN.hash}",
    f"{NS}.reg.service.payments",
    f"{NS}.reg.store.payments",
    f"{NS}.reg.schedule.nightly",
    f"{NS}.dead.payments",
    "elsewhere.o.place_order.reserve.completed",
    *(
        f"$JS.API.STREAM.{verb}.{NS}-events"
        for verb in ("PURGE", "DELETE", "UPDATE", "CREATE", "MSG.GET", "MSG.DELETE")
    ),
    f"$JS.API.STREAM.MSG.DELETE.{NS}-registry",
    f"$JS.API.DIRECT.GET.{NS}-registry.{NS}.reg.service.{BAD}",
    "$JS.API.STREAM.NAMES",
    f"$JS.API.CONSUMER.CREATE.{NS}-events.spy",
    f"$JS.API.CONSUMER.CREATE.{NS}-events.spy.{NS}.c.>",
    f"$JS.API.CONSUMER.CREATE.{NS}-commands.{BAD}",
    f"$JS.API.CONSUMER.DELETE.{NS}-events.payments",
    f"$JS.API.CONSUMER.MSG.NEXT.{NS}-commands.payments",
    f"$JS.ACK.{NS}-commands.payments.1.1.1.1.1",
    "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.x",
]
SUBSCRIBE = [
    ">",
    f"{NS}.>",
    f"{NS}.c.place_order.charge.*",
    f"{NS}.to.payments",
    "_INBOX.>",
    "_INBOX.payments.>",
    "$JS.>",
]


@pytest.mark.parametrize("mode", MODES)
async def test_everybody_can_work_with_what_the_export_grants(server: NatsServer, tmp_path: Path, mode: Mode) -> None:
    async with everybody(server, tmp_path, mode) as client:
        runs = [await client.start(place_order, Order(f"{mode}-{n}", n)) for n in (5, 500, 5000)]
        assert {run.mode for run in runs} == {mode}
        values = [await run.result(10) for run in runs]
        failing = await client.start(place_order, Order(f"{mode}-none", 5, stock=0))
        assert (await failing.outcome(10)).status == "failed"
        stopped = await client.start(place_order, Order(f"{mode}-stop", 5))
        await stopped.cancel()
        assert (await stopped.outcome(10)).status in ("cancelled", "completed")

        async def journalled() -> bool:
            return any(event.kind == "ended" for event in await journal_of(tmp_path, runs[-1].id))

        await eventually(journalled)
        view = await client.where(runs[0].id)
    assert [value.paid for value in values] == [5, 500, 5000]
    assert view.run.status == "completed"
    log = (server.store_dir / "nats-server.log").read_text()
    assert "Permissions Violation" not in log, "nobody asked for more than it has"


async def test_nothing_else_can_be_said(strict: NatsServer) -> None:
    async with Intruder.inside(strict) as bad, admin(strict) as onlooker:
        for subject in PUBLISH:
            heard = await onlooker.subscribe(subject)
            await onlooker.flush()
            await bad.client.publish(subject, b"{}", reply=f"_INBOX.{BAD}.1")
            assert f'permissions violation for publish to "{subject.lower()}"' in await bad.refusal()
            await onlooker.flush()
            assert heard.pending_msgs == 0
            await heard.unsubscribe()


async def test_nothing_else_can_be_heard(strict: NatsServer) -> None:
    async with Intruder.inside(strict) as bad:
        for subject in SUBSCRIBE:
            await bad.client.subscribe(subject)
            assert f'permissions violation for subscription to "{subject.lower()}"' in await bad.refusal()


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A server of its own, so that the other's log stays clean; with streams."""
    folder = tmp_path_factory.mktemp("strict")
    with NatsServer(folder, config=permissions()) as found:
        anyio.run(deployed, as_user(found, DEPLOYER, folder), "choreographed")
        yield found


AT_ONCE = {"Nats-Schedule": "@at 2020-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"Nats-Rollup": "all"}, "rollup not permitted"),
        ({"Nats-Rollup": "sub"}, "rollup not permitted"),
        (AT_ONCE | {"Nats-Schedule-Target": f"{NS}.c.place_order.charge.completed"}, "schedules is disabled"),
    ],
)
async def test_streams_refuse_what_reaches_beyond_a_subject(
    strict: NatsServer, headers: dict[str, str], said: str
) -> None:
    async with Intruder.inside(strict) as bad:
        for subject in (f"{NS}.c.place_order.reserve.completed", f"{NS}.reg.service.{BAD}"):
            answer = await bad.ask(subject, b"{}", headers)
            assert said in answer["error"]["description"]
    async with admin(strict) as client:
        answer = await client.request(f"$JS.API.STREAM.INFO.{NS}-registry", b"", timeout=5)
        assert msgspec.json.decode(answer.data)["state"]["messages"] >= 2


@pytest.mark.parametrize("mode", MODES)
async def test_a_run_is_not_harmed_by_what_a_bad_service_says_in_its_own_place(
    strict: NatsServer, tmp_path: Path, mode: Mode
) -> None:
    """Its subjects are its own; what it says there of others, and in the name of others, counts nothing."""
    letter = "o" if mode == "orchestrated" else "c"
    own = f"{NS}.{letter}.place_order"
    async with everybody(strict, tmp_path, mode) as client, Intruder.inside(strict) as bad:
        first = await client.start(place_order, Order(f"{mode}-before", 7))
        await first.result(10)
        template = next(event for event in await history(tmp_path, first.id) if event.node == "charge")
        run = new_run_id()

        def forged(node: str, kind: str, data: Any, **more: Any) -> bytes:
            return envelope.encode(
                msgspec.structs.replace(
                    template,
                    id=f"{run}/{node}//1/{kind}",
                    type=f"segue.{kind}",
                    node=node,
                    run=run,
                    key="victim",
                    data=msgspec.Raw(msgspec.json.encode(data)),
                    **more,
                )
            )

        lies = [
            (f"{own}.reserve.completed", forged("charge", "completed", {"order": "victim", "amount": 0})),
            (f"{own}.reserve.failed", forged("reserve", "completed", "nowhere")),
            (f"{own}.reserve.completed", forged("run", "ended", {"status": "failed"})),
            (f"{own}.reserve.completed", forged("run", "started", {"order": {}})),
            (f"{own}.run:notice.{BAD}", forged("run", "stopped", {"reason": "cancelled"})),
            (f"{own}.run:notice.{BAD}", forged("run", "paused", None)),
            (f"{own}.run:notice.{BAD}", forged("charge", "compensated", None)),
            (f"{own}.run:notice.{BAD}", forged("review", "signalled", {"value": 1, "id": "x"})),
        ]
        for subject, body in lies:
            assert "error" not in await bad.ask(subject, body), "its own subjects are open to it"
        victim = await client.start(place_order, Order("victim", 500), run_id=run)
        assert (await victim.result(10)).paid == 500
        async with admin(strict) as onlooker:

            async def kept() -> bool:
                answer = await onlooker.request(f"$JS.API.STREAM.INFO.{NS}-dead", b"", timeout=5)
                return int(msgspec.json.decode(answer.data)["state"]["messages"]) >= len(lies)

            await eventually(kept)
        said = await history(tmp_path, run)
    assert not {event.kind for event in said} & {"stopped", "paused", "compensated", "signalled"}
    assert sum(event.kind == "ended" for event in said) == 1


@pytest.mark.parametrize("asked", ["email", COORDINATOR])
async def test_the_server_is_no_way_around(strict: NatsServer, tmp_path: Path, asked: str) -> None:
    """JetStream sends what is asked of it wherever the asker likes: requests that come so are not taken."""
    mode: Mode = "orchestrated" if asked == COORDINATOR else "choreographed"
    entry = f"{NS}.reg.service.{BAD}"
    key, given = f"in-{asked}", msgspec.Raw(msgspec.json.encode({"order": Order("x", 5)}))
    start = Start("place_order", new_run_id(), given, key)
    body, target = requests.encode([start]), f"{NS}.to.{asked}"
    async with everybody(strict, tmp_path, mode, absent=BAD) as client, Intruder.inside(strict) as bad:
        consumer = {"name": f"spy-{asked}", "filter_subject": f"{NS}.reg.>", "deliver_subject": target}
        create = {"stream_name": f"{NS}-registry", "config": consumer | {"ack_policy": "none"}}
        before = await bad.ask(f"$JS.API.STREAM.MSG.GET.{NS}-registry", b'{"last_by_subj": "%s"}' % entry.encode())
        await bad.ask(f"$JS.API.CONSUMER.CREATE.{NS}-registry.spy-{asked}.{NS}.reg.>", msgspec.json.encode(create))
        await bad.ask(entry, body)
        await bad.ask(f"{NS}.c.place_order.run:notice.{BAD}", body)
        pull = f"$JS.API.CONSUMER.MSG.NEXT.{NS}-events.{BAD}"
        await bad.client.publish(pull, b'{"batch": 100, "expires": 1000000000}', reply=target)
        await bad.client.flush()
        async with admin(strict) as onlooker:
            info = f"$JS.API.CONSUMER.INFO.{NS}-events.{BAD}"

            async def sent() -> bool:
                answer = await onlooker.request(info, b"", timeout=5)
                found = msgspec.json.decode(answer.data)
                return not found["num_pending"] and bool(found["num_ack_pending"])

            await eventually(sent)
        await anyio.sleep(0.2)
        with pytest.raises(UnknownRun):
            await client.get(place_order, key)
        await bad.ask(f"$JS.API.CONSUMER.DELETE.{NS}-registry.spy-{asked}")
        await bad.ask(entry, b64decode(before["message"]["data"]))
    assert not bad.refused, "all of it is granted"


async def test_nobody_is_made_to_speak_elsewhere(strict: NatsServer, tmp_path: Path) -> None:
    """A request whose answer is wanted on a subject of events gets none."""
    async with everybody(strict, tmp_path, "choreographed"), admin(strict) as client:
        target = f"{NS}.c.place_order.charge.completed"
        heard = await client.subscribe(target)
        await client.publish(f"{NS}.to.payments", b"[]", reply=target)
        await client.request(f"{NS}.to.payments", b"[]", timeout=5)
        await client.flush()
        assert heard.pending_msgs == 0


async def test_who_is_asked_cannot_foretell_the_next_question(strict: NatsServer, tmp_path: Path) -> None:
    """A responder may publish on any inbox, and learns ours from our question: the rest of it must be a secret."""
    places = []
    async with admin(strict) as client, compose.wired(as_user(strict, CLIENT, tmp_path)) as wiring:

        async def answer(message: Msg) -> None:
            places.append(message.reply.split("."))
            await message.respond(b"[]")

        await client.subscribe(f"{NS}.to.email", cb=answer)
        await client.flush()
        for _ in range(3):
            await wiring.transport.request(f"{NS}.to.email", b"[]", 5)
    assert {tuple(place[:-1]) for place in places} == {("_INBOX", CLIENT, places[0][2])}
    secrets = [int(place[-1], 16) for place in places]
    assert len({*secrets, *(later - earlier for earlier, later in pairwise(secrets))}) == 5
    assert max(secrets) > 2**48


async def test_who_may_not_is_told_at_once(strict: NatsServer, tmp_path: Path) -> None:
    config = as_user(strict, BAD, tmp_path)
    async with compose.wired(config) as wiring:
        transport = wiring.transport
        with anyio.fail_after(3):
            with pytest.raises(NotPermitted, match=r"may not publish on segue\.c\.place_order\.charge\.completed"):
                await transport.publish([Message(f"{NS}.c.place_order.charge.completed", b"{}")])
            with pytest.raises(NotPermitted, match=r"(?s)CONSUMER.INFO.segue-events.spy.*export nats-permissions"):
                await transport.declare(Group("events", "spy", (f"{NS}.c.>",)))
            with pytest.raises(NotPermitted, match="may not listen to"):
                async with transport.listen([f"{NS}.>"]):
                    pass
            with pytest.raises(NotPermitted, match=r"may not publish on segue.to.payments"):
                await transport.request(f"{NS}.to.payments", b"[]", 5)
    with anyio.fail_after(3), pytest.raises(NotPermitted, match=r"(?s)_inbox\.wrong.*inbox=NAME"):
        async with compose.wired(msgspec.structs.replace(config, transport=f"{config.transport}&inbox=wrong")):
            pass
    with anyio.fail_after(3), pytest.raises(NotPermitted, match=r"STREAM.INFO.another"):
        async with compose.wired(as_user(strict, BAD, tmp_path, "another")):
            pass


async def test_a_right_that_is_granted_later_is_used_then(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A service that may not say what it has done keeps trying: nothing is lost, and nothing is done twice."""
    whole = permissions()
    partly = whole.replace('"segue.o.place_order.charge.>"\n', "\n")
    with NatsServer(tmp_path / "nats", config=partly) as server:
        settings = tmp_path / "nats" / "nats-server.conf"
        async with everybody(server, tmp_path, "orchestrated") as client:
            run = await client.start(place_order, Order("granted", 5))
            with pytest.raises(ResultTimeout):
                await run.result(0.5)
            assert "may not publish on segue.o.place_order.charge.completed" in caplog.text
            settings.write_text(settings.read_text().replace(partly, whole))
            os.kill(server.pid, signal.SIGHUP)
            assert (await run.result(15)).paid == 5
    assert LOG["granted", "charge"] == 1


async def test_without_streams_it_is_said_who_makes_them(tmp_path: Path) -> None:
    with NatsServer(tmp_path, config=permissions()) as empty:
        with anyio.fail_after(5), pytest.raises(NotPermitted, match=r"(?s)stream 'segue-.*' is missing.*segue deploy"):
            async with compose.wired(as_user(empty, "payments", tmp_path)):
                pass
        async with compose.wired(as_user(empty, DEPLOYER, tmp_path)):
            pass  # has made the streams, but deployed nothing
        config = as_user(empty, COORDINATOR, tmp_path)
        async with compose.wired(config) as wiring:
            with anyio.fail_after(5), pytest.raises(NotPermitted, match=r"(?s)group 'coordinator' is missing.*deploy"):
                async with compose.coordinating(config, wiring):
                    pass
