"""How coroutines are driven without an event loop: every leaf that they await is an `Op`, which the world answers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from segue.testing.sim.timeline import Timeline

Where = Literal["read", "write", "publish", "receipt"]
"""What an operation needs: the participant's store, which it changes or not; the broker, with an answer or without."""


class Answerer(Protocol):
    """Decides when and how operations end."""

    timeline: Timeline

    def carry_out(self, task: Task, op: Op) -> None:
        """Carry out an operation, or let it fail; later, `task` is resumed."""
        ...


class Op:
    """An operation that a coroutine waits for.

    Args:
        where: What it needs.
        effect: Carries it out, in one step, and gives what is answered.
        partly: Carries out some of it, if that may happen.
    """

    __slots__ = ("effect", "partly", "where")

    def __init__(self, where: Where, effect: Callable[[], Any], partly: Callable[[], Any] | None = None) -> None:
        self.where: Where = where
        self.effect = effect
        self.partly = partly

    def __await__(self) -> Generator[Op, Any, Any]:
        return (yield self)


class Pause:
    """Nothing happens for some seconds."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __await__(self) -> Generator[Pause, Any, None]:
        yield self


class Ask:
    """A call back: `begin` gets a function that answers with a value or an error."""

    __slots__ = ("begin",)

    def __init__(self, begin: Callable[[Callable[[Any, BaseException | None], None]], None]) -> None:
        self.begin = begin

    def __await__(self) -> Generator[Ask, Any, Any]:
        return (yield self)


class SimEvent:
    """An `anyio.Event` of virtual time."""

    __slots__ = ("_set", "_waiting")

    def __init__(self) -> None:
        self._set = False
        self._waiting: list[Callable[[Any, BaseException | None], None]] = []

    def set(self) -> None:
        """Let those go on who wait."""
        self._set = True
        waiting, self._waiting = self._waiting, []
        for answer in waiting:
            answer(None, None)

    def is_set(self) -> bool:
        """Whether it happened."""
        return self._set

    async def wait(self) -> None:
        """Wait until it happens."""
        if not self._set:
            await Ask(self._waiting.append)


class Task:
    """A coroutine of a process, and what is called with its result.

    Args:
        world: Answers its operations.
        coroutine: What is run.
        done: Called with its result, unless it is dropped before.
    """

    __slots__ = ("_coroutine", "_done", "dropped", "owner", "world")

    def __init__(
        self,
        world: Answerer,
        coroutine: Coroutine[Any, Any, Any],
        done: Callable[[Any], None],
        owner: Any = None,
    ) -> None:
        self.world = world
        self.owner = owner
        self.dropped = False
        self._coroutine = coroutine
        self._done = done

    def resume(self, value: Any = None, error: BaseException | None = None) -> None:
        """Go on until the next operation."""
        if self.dropped:
            return
        until = getattr(self.owner, "stalled_until", 0.0)
        if until > self.world.timeline.now:
            self.world.timeline.at(until, self.resume, value, error)
            return
        try:
            found = self._coroutine.send(value) if error is None else self._coroutine.throw(error)
        except StopIteration as end:
            self._done(end.value)
            return
        if isinstance(found, Op):
            self.world.carry_out(self, found)
        elif isinstance(found, Pause):
            self.world.timeline.after(found.seconds, self.resume)
        elif isinstance(found, Ask):
            found.begin(self._answer)
        else:
            raise TypeError(f"a simulated process waits for {found!r}, which needs an event loop")

    def drop(self) -> None:
        """Forget it, wherever it is."""
        self.dropped = True
        self._coroutine.close()

    def _answer(self, value: Any, error: BaseException | None) -> None:
        # Not at once: whoever answers is in the middle of something.
        self.world.timeline.after(0.0, self.resume, value, error)
