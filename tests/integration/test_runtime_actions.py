"""What a client does to live runs: signal, cancel, pause, resume, retry; in both modes alike."""

from __future__ import annotations

import desk
import msgspec
import pytest
from desk import Answer, Ticket, app, support
from desk import parts as parts_flow
from desk import rounds as rounds_flow
from stage import Stage, eventually, stage

from segue import InvalidInput, ResultTimeout, RunFailed, UnknownRun
from segue.config import Config
from segue.errors import AmbiguousRun, NotAccepted, TransportUnavailable
from segue.plan.projection import COORDINATOR, MODES, Mode
from segue.runtime.handle import RunHandle
from segue.wire import requests
from segue.wire.requests import Done

each_mode = pytest.mark.parametrize("mode", MODES)


@pytest.fixture(autouse=True)
def clean() -> None:
    desk.done.clear()
    desk.broken.clear()


async def told(here: Stage, run: str, *kinds: str) -> None:
    """Wait until the journal has events of these kinds."""

    async def there() -> bool:
        return {event.kind for event in await here.events(run, until="")} >= set(kinds)

    await eventually(there)


@each_mode
async def test_a_signal_by_key_id_and_handle(mode: Mode, memory: Config) -> None:
    async with stage(app, memory, mode) as here, here.running():
        client = here.client
        for n, how in enumerate(("key", "id", "handle")):
            run = await client.start(support, Ticket(f"s{n}"))
            named = {"key": run.key, "id": run.id, "handle": run}[how]
            answer = Answer("ann") if how == "key" else {"by": "ann"}
            assert await client.signal(named, "answer", answer) == Done(True)
            assert await run.result(5) == f"T-s{n} fixed for ann"
            late = await run.signal("answer", Answer("bob"))
            assert (late.changed, late.note) == (False, "the run has ended")


@each_mode
async def test_an_early_signal_counts_and_the_first_one_wins(mode: Mode, memory: Config) -> None:
    async with stage(app, memory, mode) as here:
        async with here.running(*(name for name in here.everybody if name != "front")):
            # Nobody has opened the ticket yet, so nothing waits.
            run = await here.client.start(support, Ticket("e"))
            assert (await run.signal("answer", Answer("first"), id="one")).changed
            again = await run.signal("answer", Answer("second"))
            assert not again.changed
            assert "first one counts" in again.note
            assert (await run.signal("answer", Answer("first"), id="one")).changed
            async with here.running("front"):
                assert await run.result(5) == "T-e fixed for first"


@each_mode
async def test_what_does_not_fit_is_refused_before_it_is_sent(mode: Mode, memory: Config) -> None:
    async with stage(app, memory, mode) as here, here.running():
        run = await here.client.start(support, Ticket("w"))
        with pytest.raises(InvalidInput, match=r"waits for no signal 'go'\n  its signals: answer"):
            await run.signal("go")
        with pytest.raises(InvalidInput, match=r"signal 'answer' of 'support' does not fit at \$: 'by' is a required"):
            await run.signal("answer", {"yes": True})
        with pytest.raises(InvalidInput, match="has a match"):
            await run.signal("answer", Answer("ann"), match="x")
        with pytest.raises(InvalidInput, match="its tag has 0 indices, not 1"):
            await run.signal("answer", Answer("ann"), tag="0")
        with pytest.raises(InvalidInput, match="is no tag"):
            await run.signal("answer", Answer("ann"), tag="first")
        with pytest.raises(InvalidInput, match="cannot be sent"):
            await run.signal("answer", object())
        assert (await run.signal("answer", Answer("ann"))).changed
        await run.result(5)


@each_mode
async def test_signals_for_items_of_a_map(mode: Mode, memory: Config) -> None:
    async with stage(app, memory, mode) as here, here.running():
        matched = await here.client.start(parts_flow, Ticket("m", ["bolt", "nut"]))
        with pytest.raises(InvalidInput, match="give its `match` value"):
            await matched.signal("agreed")
        for part in ("nut", "bolt"):
            assert (await matched.signal("agreed", match=part)).changed
        assert await matched.result(5) == ["BOLT", "NUT"]
        tagged = await here.client.start(rounds_flow, Ticket("t", ["a", "b"]))
        with pytest.raises(InvalidInput, match="its tag has 1 indices, not 0"):
            await tagged.signal("named", "x")
        for tag, value in (("1", "second"), ("0", "first")):
            assert (await tagged.signal("named", value, tag=tag)).changed
        assert await tagged.result(5) == ["first", "second"]


@each_mode
async def test_cancel_undoes_what_was_done(mode: Mode, config: Config) -> None:
    async with stage(app, config, mode) as here, here.running():
        run = await here.client.start(support, Ticket("c"))
        await told(here, run.id, "completed")
        assert await here.client.cancel("c") == Done(True)
        with pytest.raises(RunFailed, match="was cancelled"):
            await run.result(10)
        assert desk.done == ["open c", "close T-c"]
        again = await run.cancel()
        assert (again.changed, again.note) == (False, "the run has ended")
        await here.events(run.id)
        view = await here.client.where("c")
        assert (view.run.status, view.stop) == ("cancelled", "cancelled")
        states = {node.node: node.state for node in view.nodes}
        assert states == {"open_ticket": "undone", "answer": "cancelled", "fix": "cancelled"}


@each_mode
async def test_a_paused_run_starts_nothing(mode: Mode, memory: Config) -> None:
    async with stage(app, memory, mode) as here, here.running():
        run = await here.client.start(support, Ticket("p"))
        await told(here, run.id, "completed")
        assert (await run.pause()).changed
        assert (await run.pause()).note == "the run is paused"
        assert (await run.signal("answer", Answer("ann"))).changed
        with pytest.raises(ResultTimeout):
            await run.result(0.3)
        await told(here, run.id, "paused")
        assert (await here.client.where("p")).run.status == "paused"
        assert desk.done == ["open p"]
        assert (await run.resume()).changed
        assert not (await run.resume()).changed
        assert await run.result(5) == "T-p fixed for ann"


@each_mode
async def test_a_retry_ends_again_under_the_next_revision(mode: Mode, config: Config) -> None:
    async with stage(app, config, mode) as here, here.running():
        desk.broken.add("T-r")
        run = await here.client.start(support, Ticket("r"))
        assert not (await run.retry()).changed
        await run.signal("answer", Answer("ann"))
        with pytest.raises(RunFailed, match="T-r is broken"):
            await run.result(10)
        with pytest.raises(InvalidInput, match=r"no node 'mend'\n  its nodes: open_ticket, answer, fix"):
            await run.retry(["mend"])
        found = await here.client.get(support, "r")
        desk.broken.clear()
        assert await found.retry() == Done(True)
        # Both handles wait for the end of the second revision; the first one was told by the same client.
        assert await run.result(10) == "T-r fixed for ann"
        assert await found.result(10) == "T-r fixed for ann"
        assert desk.done == ["open r", "close T-r", "open r", "fix T-r"]

        async def seen() -> bool:
            return (await here.client.where("r")).run.status == "completed"

        await eventually(seen)
        view = await here.client.where("r")
        assert (view.run.revision, view.run.error, view.stop) == (2, "", "")
        assert {node.node: node.state for node in view.nodes} == dict.fromkeys(
            ("open_ticket", "answer", "fix"), "completed"
        )


async def test_a_run_is_found_whatever_its_mode_and_flow(memory: Config) -> None:
    async with stage(app, memory) as here, here.running():
        old = await here.client.start(support, Ticket("x"))
        await here.switch(support, "choreographed")
        new = await here.client.start(support, Ticket("y"))
        other = await here.client.start(rounds_flow, Ticket("x", []))
        found = await here.client.find("x", support)
        assert (found.id, found.mode, found.key) == (old.id, "orchestrated", "x")
        found = await here.client.find(new.id)
        assert (found.id, found.mode, found.flow) == (new.id, "choreographed", "support")
        with pytest.raises(AmbiguousRun, match=r"'x': rounds, support\n  name the flow"):
            await here.client.cancel("x")
        with pytest.raises(UnknownRun, match="no run has the key 'z'"):
            await here.client.cancel("z")
        with pytest.raises(UnknownRun, match="no run of 'rounds' has the key 'y'"):
            await here.client.cancel("y", flow=rounds_flow)
        for run in (old, new):
            assert (await here.client.cancel(run.key, flow="support")).changed
            assert (await run.outcome(5)).status == "cancelled"
        assert await other.result(5) == []


async def test_who_does_not_answer_may_know(memory: Config) -> None:
    async with stage(app, memory) as here:
        async with here.running("front", "back"):
            with pytest.raises(TransportUnavailable, match="coordinator did not answer"):
                await here.client.cancel("x")
        async with here.running(COORDINATOR):
            with pytest.raises(UnknownRun):
                await here.client.cancel("x")


async def test_a_lost_answer_is_asked_for_again(memory: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals carry ids and retries the revision, so asking again changes nothing more."""
    async with stage(app, memory) as here, here.running():
        run = await here.client.start(support, Ticket("l"))
        ask, asked = here.wiring.transport.request, []

        async def lossy(subject: str, body: bytes, timeout: float) -> bytes:
            answer = await ask(subject, body, timeout)
            [request] = requests.decode_requests(body)
            if isinstance(request, requests.Send | requests.Retry):
                asked.append(request)
                if len(asked) % 2:
                    raise TransportUnavailable("lost")
            return answer

        monkeypatch.setattr(here.wiring.transport, "request", lossy)
        desk.broken.add("T-l")
        assert (await run.signal("answer", Answer("ann"))).changed
        assert len(asked) == 2
        assert asked[0] == asked[1]
        assert (await run.outcome(5)).status == "failed"
        desk.broken.clear()
        await run.retry()
        assert asked[2:] == [requests.Retry(run.id, (), 1)] * 2
        assert await run.result(5) == "T-l fixed for ann"
        await told(here, run.id, "reset")
        events = await here.events(run.id)
        assert sum(event.kind == "reset" for event in events) == 1


async def test_what_the_home_refuses_is_said(memory: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage(app, memory) as here, here.running():
        run: RunHandle[str] = await here.client.start(support, Ticket("n"))
        ask = here.wiring.transport.request

        async def refuse(subject: str, body: bytes, timeout: float) -> bytes:
            if isinstance(requests.decode_requests(body)[0], requests.Cancel):
                return requests.encode([requests.Refused("not today", "come tomorrow")])
            return await ask(subject, body, timeout)

        monkeypatch.setattr(here.wiring.transport, "request", refuse)
        with pytest.raises(NotAccepted, match=r"not today\n  come tomorrow"):
            await run.cancel()


@each_mode
async def test_only_the_home_knows_a_run(mode: Mode, memory: Config) -> None:
    """A service that heard of the start does not answer for the run."""
    async with stage(app, memory, mode) as here, here.running():
        run = await here.client.start(support, Ticket("h"))
        await told(here, run.id, "completed")
        knows = set()
        for name in (COORDINATOR, "front", "back"):
            body = requests.encode([requests.Ask(run.id)])
            [answer] = requests.decode_replies(await here.wiring.transport.request(f"segue.to.{name}", body, 2))
            assert isinstance(answer, requests.Answer)
            if answer.known:
                knows.add(name)
                assert (answer.plan, bytes(answer.ended)) == (support.plan.hash, b"null")
                assert msgspec.json.decode(answer.ended) is None
        assert knows == {COORDINATOR if mode == "orchestrated" else support.plan.home}
