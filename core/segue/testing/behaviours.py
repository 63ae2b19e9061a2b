"""What the world around a run does: steps, undo calls and signals, all pure functions of a seed."""

from __future__ import annotations

import json
import zlib
from typing import Any, NamedTuple, Protocol

import msgspec

from segue.machine.facts import Cause, Failure, Key, Outcome

GIVEN: dict[str, Any] = {"order": {"n": 4, "ok": True, "tags": [3, 1], "name": "żółw"}}
"""The input of every run of a generated plan."""

ERRORS: dict[str, tuple[str, ...]] = {
    "Broken": (),
    "Declined": ("PaymentError",),
    "Fraud": ("Declined", "PaymentError"),
    "Offline": ("OSError",),
}
"""Errors of scripted steps, with their bases."""

LISTING, COUNTING = "list", "count"
"""How the names of steps begin that return a list, or a number; others return anything."""

UNSENT, PERHAPS = "never", "maybe"
"""How the names of signals begin that nobody sends, or that are sent to some slots only; others are always sent."""


class Sent(NamedTuple):
    """A signal: `early`: before its wait is open; `copies`: further signals for the same slot, which do not count."""

    value: Any
    early: bool = False
    copies: tuple[Any, ...] = ()


class Behaviour(Protocol):
    """The world around a run; what it does may depend on nothing but the arguments."""

    def __call__(self, key: Key, args: dict[str, Any], revision: int = 1, executed: int = 0) -> Outcome:
        """Execute the step (or the child run) of a node, which was executed so often before."""

    def undo(self, key: Key, revision: int = 1, tried: int = 0) -> Failure | None:
        """Undo a completed step, which was tried so often before; the error if it fails."""

    def signal(self, name: str, slot: str) -> Sent | None:
        """The signal for a slot, if one is ever sent."""


class Scripted(msgspec.Struct, frozen=True):
    """Steps whose outcome depends on the seed, the place, the revision and the arguments.

    Attributes:
        seed: Another seed, other outcomes.
        failing: Share of calls that fail; they gather at some nodes, which then fail in every other call.
        cancelled: Share of calls that their service declares cancelled, gathered in the same way.
        fickle: Return another value at every execution, so that only recording makes results single.
        clumsy: Share of undo calls that fail once or twice.
    """

    seed: int = 0
    failing: float = 0.15
    cancelled: float = 0.03
    fickle: bool = False
    clumsy: float = 0.15

    def __call__(self, key: Key, args: dict[str, Any], revision: int = 1, executed: int = 0) -> Outcome:
        """Execute a step once."""
        node, tag = key
        lot = _draw(self.seed, "lot", node) % 1000 / 1000
        if lot < 2 * (self.failing + self.cancelled) and _draw(self.seed, "fate", node, tag, revision) % 2:
            if lot >= 2 * self.failing:
                return Outcome("cancelled", causes=(Cause(node, tag),))
            return Outcome("failed", causes=(Cause(node, tag, self._error(key, revision)),))
        return Outcome("completed", _value(node, _draw(self.seed, node, tag, args, executed if self.fickle else 0)))

    def _error(self, key: Key, revision: int) -> Failure:
        name = list(ERRORS)[_draw(self.seed, "error", *key, revision) % len(ERRORS)]
        return Failure(name, f"{key.node} broke", bases=ERRORS[name])

    def undo(self, key: Key, revision: int = 1, tried: int = 0) -> Failure | None:
        """Undo a step once; whoever tries again succeeds in the end."""
        lot = _draw(self.seed, "undo", *key, revision)
        if lot % 1000 / 1000 < self.clumsy and tried <= lot // 1000 % 2:
            return Failure("Broken", f"the undo of {key.node} broke")
        return None

    def signal(self, name: str, slot: str) -> Sent | None:
        """The signal for a slot; its value is a number, a flag or a list."""
        draw = _draw(self.seed, "signal", name, slot)
        if name.startswith(UNSENT) or (name.startswith(PERHAPS) and draw % 2):
            return None
        value = (draw // 8 % 5, draw // 8 % 2 == 0, list(range(draw // 8 % 4)))[draw // 64 % 3]
        return Sent(value, early=draw // 2 % 2 == 0, copies=("again",) * (draw // 4 % 2))


def _draw(*parts: object) -> int:
    return zlib.crc32(json.dumps(parts, sort_keys=True).encode())


def _value(node: str, draw: int) -> Any:
    n, shape = draw // 16 % 10, draw % 16
    if node.startswith(LISTING):
        return [(n + i) % 5 for i in range(shape % 5)]
    if node.startswith(COUNTING) or shape < 6:
        return n
    if shape < 11:
        return {"n": n, "ok": n % 2 == 0, "tags": list(range(n % 4)), "name": f"№{n}"}
    return (n % 2 == 0, n > 4, None, f"text {n}", [n, n + 1])[shape - 11]
