"""Obligations of every transport: dead letters, which can be looked at, published again, and removed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from segue.ports.transport import DeadLetter, Message
from segue.testing.contracts.expect import eventually
from segue.testing.contracts.groups import GroupContract
from segue.testing.contracts.stage import Stage, collect, numbered, receive, silent


class DeadLetterContract(GroupContract):
    """The part of `TransportContract` that is about dead letters."""

    @asynccontextmanager
    async def buried(self, count: int = 1) -> AsyncIterator[tuple[Stage, list[DeadLetter]]]:
        """A stage on which the group `g` of events discarded so many messages, and the letters."""
        async with self.stage() as stage:
            await stage.events("g", stage.event("*"))
            sent = [Message(stage.event("n"), body, body.decode()) for body in numbered(count)]
            await stage.bus.publish(sent)
            async with stage.bus.consume("events", "g") as member:
                done: set[bytes] = set()
                while len(done) < count:
                    fresh = [delivery for delivery in await receive(member) if delivery.body not in done]
                    await member.discard(sorted(fresh, key=lambda delivery: delivery.body), "not wanted")
                    done |= {delivery.body for delivery in fresh}
            found: list[DeadLetter] = []

            async def there() -> bool:
                found[:] = await stage.bus.dead.page(1000)
                return len(found) >= count

            await eventually(there)
            yield stage, found

    async def test_a_dead_letter_says_everything(self) -> None:
        body, reason = bytes(range(256)), 'line one\nX-Header: "two"; ä' + 2000 * "!"
        async with self.stage() as stage:
            assert await stage.bus.dead.page(10) == []
            await stage.commands("s", stage.command("s", "*"))
            await stage.bus.publish([Message(stage.command("s", "step"), body, "id")])
            async with stage.bus.consume("commands", "s") as member:
                await member.retry(await receive(member), 0)
                await member.discard(await receive(member), reason)
            [letter] = await (await stage.another()).dead.page(10)
            assert (letter.group, letter.subject, letter.body) == ("s", stage.command("s", "step"), body)
            assert letter.deliveries >= 2
            assert abs(letter.time - time.time()) < 60
            assert " ".join(letter.reason.split()).startswith('line one X-Header: "two"; ä!!!')
            assert letter.id.isalnum()
            assert await stage.bus.dead.get(letter.id) == letter

    async def test_dead_letters_come_in_pages_oldest_first(self) -> None:
        async with self.buried(7) as (stage, letters):
            assert [letter.body for letter in letters] == numbered(7)
            assert await stage.bus.dead.page(3) == letters[:3]
            assert await stage.bus.dead.page(3, letters[2].id) == letters[3:6]
            assert await stage.bus.dead.page(3, letters[5].id) == letters[6:]
            assert await stage.bus.dead.page(3, letters[6].id) == []
            assert await stage.bus.dead.discard(letters[3].id)
            assert await stage.bus.dead.page(2, letters[3].id) == letters[4:6]

    async def test_a_requeued_letter_comes_once_more_and_is_gone(self) -> None:
        async with self.buried(2) as (stage, [letter, other]):
            async with stage.bus.consume("events", "g") as member:
                assert await silent(member, 0.1)
                assert await stage.bus.dead.requeue(letter.id)
                [delivery] = await receive(member)
                assert (delivery.subject, delivery.body, delivery.deliveries) == (letter.subject, letter.body, 1)
                await member.ack([delivery])
                assert not await stage.bus.dead.requeue(letter.id)
                assert await silent(member)
            assert await stage.bus.dead.page(10) == [other]

    async def test_what_is_discarded_again_after_a_requeue_is_a_letter_again(self) -> None:
        async with self.buried() as (stage, [letter]):
            for round in range(3):
                assert await stage.bus.dead.requeue(letter.id)
                async with stage.bus.consume("events", "g") as member:
                    await member.discard(await receive(member), f"no, for the {round}. time")
                [letter] = await stage.bus.dead.page(10)
                assert (letter.body, letter.reason) == (numbered(1)[0], f"no, for the {round}. time")

    async def test_a_requeued_command_goes_to_its_service(self) -> None:
        async with self.stage() as stage:
            await stage.commands("s", stage.command("s", "*"))
            await stage.bus.publish([Message(stage.command("s", "step"), b"do it", "id")])
            async with stage.bus.consume("commands", "s") as member:
                await member.discard(await receive(member), "not now")
                [letter] = await stage.bus.dead.page(10)
                assert await stage.bus.dead.requeue(letter.id)
                assert await collect(member, 1) == {b"do it"}

    async def test_a_discarded_letter_is_gone_for_good(self) -> None:
        async with self.buried(2) as (stage, [letter, other]):
            assert await stage.bus.dead.discard(letter.id)
            assert not await stage.bus.dead.discard(letter.id)
            assert await stage.bus.dead.get(letter.id) is None
            assert await stage.bus.dead.page(10) == [other]
            async with stage.bus.consume("events", "g") as member:
                assert await silent(member)

    async def test_letters_that_never_were(self) -> None:
        async with self.buried() as (stage, [letter]):
            for id in ("", "0", "999999999", "-1", "x", "1; drop", "9" * 40):
                assert await stage.bus.dead.get(id) is None, id
                assert not await stage.bus.dead.requeue(id), id
                assert not await stage.bus.dead.discard(id), id
            assert await stage.bus.dead.page(10) == [letter]
