"""Subflows that completed are undone with what they belong to: parent and child in every pair of modes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product

import nested
import pytest
from nested import app
from stage import Stage, eventually, stage

from segue import Flow, RunFailed
from segue.config import Config
from segue.plan.projection import MODES, Mode
from segue.runtime import overdue, turn

PARENTS: tuple[Flow[..., object], ...] = (nested.shipping, nested.tallying, nested.trying, nested.asking)

each_pair = pytest.mark.parametrize(("parent", "child"), list(product(MODES, MODES)))


@pytest.fixture(autouse=True)
def clean() -> None:
    nested.done.clear()
    nested.stuck.clear()


@asynccontextmanager
async def open_stage(config: Config, parent: Mode, child: Mode) -> AsyncIterator[Stage]:
    """The outermost flows in one mode, those that they call in another one, and the innermost ones in the first."""
    async with stage(app, config, None) as here:
        await here.deploy(parent, *PARENTS, nested.boxing)
        await here.deploy(child, nested.parcelling, nested.counting)
        async with here.running():
            yield here


UNDONE = ["pack {0}", "label box of {0}", "peel labelled box of {0}", "unpack box of {0}"]


def undone(*orders: str) -> list[str]:
    return [line.format(order) for order in orders for line in UNDONE]


@each_pair
async def test_a_completed_subflow_is_undone_two_deep(parent: Mode, child: Mode, config: Config) -> None:
    async with open_stage(config, parent, child) as here:
        good = await here.client.start(nested.shipping, "good")
        assert await good.result(10) == "handed over labelled box of good"
        assert nested.done == undone("good")[:2]
        nested.done.clear()
        run = await here.client.start(nested.shipping, "bad")
        with pytest.raises(RunFailed, match="nobody takes"):
            await run.result(10)
        assert nested.done == undone("bad")
        await here.events(run.id)
        view = await here.client.where(run.id)
        states = {node.node: node.state for node in view.nodes}
        assert states == {"parcelling": "undone", "hand_over": "failed"}
        [inner] = [node.child for node in view.nodes if node.node == "parcelling"]

        async def told() -> bool:
            seen = await here.client.where(inner)
            return {node.state for node in seen.nodes} == {"undone"} and seen.stop == "undone"

        await eventually(told)
        nested.done.clear()
        assert (await run.retry()).changed
        with pytest.raises(RunFailed, match="nobody takes"):
            await run.result(10)
        assert nested.done == undone("bad")


@each_pair
async def test_a_subflow_without_anything_to_undo_is_undone_at_once(parent: Mode, child: Mode, memory: Config) -> None:
    async with open_stage(memory, parent, child) as here:
        run = await here.client.start(nested.tallying, "many")
        with pytest.raises(RunFailed, match="too many"):
            await run.result(5)
        assert nested.done == ["pack many", "unpack box of many"]


@each_pair
async def test_subflows_in_an_attempt_are_undone_before_its_handler(parent: Mode, child: Mode, memory: Config) -> None:
    async with open_stage(memory, parent, child) as here:
        run = await here.client.start(nested.trying, "bad")
        assert await run.result(5) == "nobody takes parcels"
        assert sorted(nested.done) == sorted(undone("a", "b"))
        assert nested.done.index("peel labelled box of a") < nested.done.index("unpack box of a")


@each_pair
async def test_cancelling_undoes_a_subflow_that_completed(parent: Mode, child: Mode, memory: Config) -> None:
    async with open_stage(memory, parent, child) as here:
        run = await here.client.start(nested.asking, "x")
        await nested.until("label box of x")
        await here.events(run.id, until="completed")
        await eventually(lambda: waits(here, run.id))
        assert (await run.cancel()).changed
        with pytest.raises(RunFailed, match="cancelled"):
            await run.result(5)
        assert nested.done == undone("x")


async def waits(here: Stage, run: str) -> bool:
    return any(node.state == "waiting_signal" for node in (await here.client.where(run)).nodes)


@each_pair
async def test_an_undo_that_fails_within_is_seen_and_heals(
    parent: Mode, child: Mode, memory: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "UNDO_AGAIN", 0.6)
    async with open_stage(memory, parent, child) as here:
        nested.stuck.add("bad")
        run = await here.client.start(nested.shipping, "bad")

        await here.events(run.id, until="stopped")

        async def failed() -> bool:
            [entry, *_] = (await here.client.where(run.id)).nodes
            if entry.state != "compensating":
                return False
            [inner, *_] = (await here.client.where(entry.child)).nodes
            if inner.state != "compensating":
                return False
            [packed] = (await here.client.where(inner.child)).nodes
            return packed.state == "undo_failed" and packed.error is not None and "sealed" in packed.error.message

        await eventually(failed)
        assert nested.done == undone("bad")[:3]
        nested.stuck.clear()
        with pytest.raises(RunFailed, match="nobody takes"):
            await run.result(10)
        assert nested.done == undone("bad")


@each_pair
async def test_what_a_broker_loses_of_an_undo_is_asked_for_again(
    parent: Mode, child: Mode, memory: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child's stop, its tokens and its answer are lost once each; the parent's due row has it all said again."""
    monkeypatch.setattr(overdue, "LEASE", 0.3)
    monkeypatch.setattr("segue.runtime.whole.LEASE", 0.3)
    async with open_stage(memory, parent, child) as here:
        publish, lost = here.wiring.transport.publish, set()

        async def lossy(messages):  # type: ignore[no-untyped-def]
            kept = []
            for message in messages:
                mark = (message.subject, message.body.count(b'"segue.compensated"'))
                if ":notice." in message.subject and "shipping" not in message.subject and mark not in lost:
                    lost.add(mark)
                else:
                    kept.append(message)
            await publish(kept)

        monkeypatch.setattr(here.wiring.transport, "publish", lossy)
        run = await here.client.start(nested.shipping, "bad")
        with pytest.raises(RunFailed, match="nobody takes"):
            await run.result(20)
        assert lost
        assert nested.done == undone("bad")
