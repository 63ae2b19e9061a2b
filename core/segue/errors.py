"""Every failure that Segue raises: what happened, whose fault it is, whether a retry helps, what to do next."""

from __future__ import annotations

from typing import ClassVar, Literal

Fault = Literal["caller", "service", "infrastructure", "segue"]


class SegueError(Exception):
    """Root of all errors raised by Segue.

    Args:
        message: What happened, in one sentence.
        hint: What to do next; shown on a line of its own.
    """

    fault: ClassVar[Fault] = "segue"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class DeclarationError(SegueError):
    """A flow, step or service is declared in a way that cannot be run; raised at build, with file and line."""

    fault = "caller"


class PlaceholderError(DeclarationError, TypeError):
    """A flow body used a placeholder as if it were a value (`if`, iteration, f-string ...)."""


class PlanError(SegueError, ValueError):
    """A serialised plan is broken, of an unknown format, or not the plan that its hash names."""

    fault = "caller"


class ConfigError(SegueError, ValueError):
    """A configuration key is unknown or its value is bad; names the key and where it was set."""

    fault = "caller"


class PluginError(ConfigError):
    """No plugin serves this URL, or the plugin's own dependencies are not installed."""


class UnknownFlow(SegueError, LookupError):
    """No flow of this name is deployed."""

    fault = "caller"


class UnknownSchedule(SegueError, LookupError):
    """There is no schedule of this name."""

    fault = "caller"


class UnknownDeadLetter(SegueError):
    """There is no dead letter of this id, or it was requeued or discarded."""

    fault = "caller"


class UnknownRun(SegueError, LookupError):
    """No run has this id or key."""

    fault = "caller"


class AmbiguousRun(SegueError, LookupError):
    """An id, a key, or a fragment of either fits more than one run."""

    fault = "caller"


class ContractMismatch(SegueError):
    """A plan calls a step that its service does not offer, or offers with other types; nothing was deployed."""

    fault = "caller"


class InvalidInput(SegueError, ValueError):
    """A value does not fit the declared type; nothing was changed."""

    fault = "caller"


class PayloadTooLarge(SegueError, ValueError):
    """A message is larger than the transport takes; nothing was published."""

    fault = "caller"


class TransportError(SegueError):
    """The transport refused an operation."""

    fault = "infrastructure"


class TransportUnavailable(TransportError, ConnectionError):
    """The transport cannot be reached, or did not answer in time; what was sent may or may not have been stored."""

    retryable = True


class NotPermitted(TransportUnavailable):
    """The broker forbids it to this user; it works as soon as somebody grants it."""


class StoreError(SegueError):
    """The store refused an operation."""

    fault = "infrastructure"


class StoreUnavailable(StoreError, ConnectionError):
    """The store cannot be reached, or its answer was lost; the commit may or may not have happened."""

    retryable = True


class StoreBehind(StoreError):
    """A participant's store has not all that the participant said: it is older, or another one; nothing was done."""


class ObjectLost(StoreError):
    """A large value is not in the object store, or not as it was put there; it may come back, as after a restore."""

    retryable = True


class NotAccepted(SegueError):
    """The home of a run refused a start, or what was asked of the run; nothing was changed."""

    fault = "caller"


class ResultTimeout(SegueError, TimeoutError):
    """A run has not ended within the time given; it goes on."""

    fault = "caller"
    retryable = True


class RunFailed(SegueError):
    """A run ended without completing: an uncaught failure, or it was cancelled."""

    fault = "service"


class OutcomeConflict(SegueError):
    """Two different outcomes of one node were heard; this is a bug, please report it."""
