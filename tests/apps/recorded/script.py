"""Steps that do what a recording says, and note what they did.

A recording is one run of another engine, reduced to facts: what it was given, what each task came to at each attempt,
and how it ended. A task is a step here, which looks up what it did when it was recorded; where nothing is said of it,
it gives back what it got.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any, Literal

import anyio
import msgspec

from segue import Retry, Service, Step, current

DATA = Path(__file__).parents[2] / "data" / "recorded"


class Did(msgspec.Struct, forbid_unknown_fields=True):
    """What a task came to at one attempt: it gave a value, or failed with an error, or took too long."""

    gives: Any = msgspec.UNSET
    fails: str = ""
    says: str = ""
    takes: float = 0.0


class Ran(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How many calls of a task came to what, in any order; `attempts` is one for each call if it is not said."""

    completed: int = 0
    failed: int = 0
    attempts: int = 0


class Failed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """With what a run failed. An engine may not say what happened in words."""

    type: str
    message: str | None = None


class Recording(msgspec.Struct, forbid_unknown_fields=True):
    """One run on another engine.

    Attributes:
        name: What to call it here.
        source: The test that it was recorded by.
        flow: The flow that is its definition here.
        ran: What every task that was executed came to, by the engine's name of it.
        input: Its input, by parameter.
        does: What tasks came to, attempt by attempt (the last stands for all further ones); `task@tag` for one call.
        given: What tasks were given, in any order, where the recording says it.
        signals: What came from outside while it ran, by name and match.
        retries: How often a person retried the run.
        pauses: Whether a person paused and resumed it.
        cancels: The subflow whose run somebody cancelled.
        status: How it ended.
        output: Its value; unset if the recording does not say.
        error: With what it failed.
        differs: What is different here, and why: tasks with what they come to here.
    """

    name: str
    source: str
    flow: str
    ran: dict[str, Ran]
    input: dict[str, Any] = {}
    does: dict[str, list[Did]] = {}
    given: dict[str, list[Any]] = {}
    signals: dict[str, dict[str, Any]] = {}
    retries: int = 0
    pauses: bool = False
    cancels: str = ""
    status: Literal["completed", "failed", "cancelled"] = "completed"
    output: Any = msgspec.UNSET
    error: Failed | None = None
    differs: dict[str, Ran] = {}
    why: str = ""


class Origin(msgspec.Struct, forbid_unknown_fields=True):
    """Where recordings are from."""

    engine: str
    project: str
    files: list[str]
    license: str
    reduced: str


class Recordings(msgspec.Struct, forbid_unknown_fields=True):
    """The recorded runs of one engine."""

    origin: Origin
    runs: list[Recording]


class Scene:
    """The recording that is played, and what its steps did: one at a time."""

    def __init__(self) -> None:
        self.does: dict[str, list[Did]] = {}
        self.attempts: Counter[str] = Counter()
        self.given: dict[str, list[Any]] = {}

    def begin(self, recording: Recording) -> None:
        """Play this one from now on."""
        self.does = {named(task): done for task, done in recording.does.items()}
        self.attempts.clear()
        self.given = {}

    def did(self, task: str, given: Any) -> Did:
        """What a task came to at this attempt."""
        here = current()
        if here.attempt == 1:
            self.given.setdefault(task, []).append(given)
        self.attempts[task] += 1
        done = self.does.get(f"{task}@{here.tag}", self.does.get(task, [Did()]))
        return done[min(here.attempt + here.revision - 2, len(done) - 1)]


SCENE = Scene()


def load(engine: str) -> Recordings:
    """The recorded runs of an engine."""
    return msgspec.json.decode((DATA / f"{engine}.json").read_bytes(), type=Recordings)


def named(task: str) -> str:
    """The step's name of a task: engines have others than a-z, 0-9 and _ in their names."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", task).lower()


@cache
def error(name: str) -> type[Exception]:
    """The exception class of an error that was recorded."""
    return Exception if name == "Exception" else type(name, (Exception,), {})


async def play(task: str, given: Any) -> Any:
    """Do what the task did."""
    did = SCENE.did(task, given)
    if did.takes:
        await anyio.sleep(did.takes)
    if did.fails:
        raise error(did.fails)(did.says)
    return given if did.gives is msgspec.UNSET else did.gives


def task(service: Service, name: str, *, retry: Retry | None = None, timeout: float | None = None) -> Step[[Any], Any]:
    """A step that plays a task of the recording."""

    async def run(given: Any) -> Any:
        return await play(named(name), given)

    return service.step(name=named(name), retry=retry, timeout=timeout)(run)
