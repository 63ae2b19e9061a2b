"""What `memory://` URLs name: options, and the state that all openers of a name share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

import msgspec

from segue.errors import ConfigError
from segue.hooks import redact

T = TypeVar("T")


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The query of a URL.

    Attributes:
        redelivery: Seconds after which an unacknowledged delivery comes again.
        window: Seconds for which a message id is remembered.
        seed: Reorder and repeat deliveries, as this seed says; None delivers in order, once.
    """

    redelivery: float = 5.0
    window: float = 120.0
    seed: int | None = None


def parse(url: str) -> tuple[str, Options]:
    """Name and options of a URL.

    Raises:
        ConfigError: An option is unknown or its value is bad.
    """
    parts = urlsplit(url)
    try:
        options = msgspec.convert(dict(parse_qsl(parts.query, keep_blank_values=True)), Options, strict=False)
    except msgspec.ValidationError as error:
        known = ", ".join(Options.__struct_fields__)
        raise ConfigError(f"bad option in {redact(url)}: {error}", f"memory:// takes {known}") from None
    return parts.netloc + parts.path, options


_shared: dict[tuple[str, str, str], Any] = {}


def shared(kind: str, name: str, part: str, make: Callable[[], T]) -> T:
    """The one object of that kind, name and part; made by the first who asks."""
    found: T | None = _shared.get((kind, name, part))
    if found is None:
        found = _shared[kind, name, part] = make()
    return found


def forget(name: str) -> None:
    """Drop what is kept under a name; who opens it next starts empty."""
    for key in [key for key in _shared if key[1] == name]:
        del _shared[key]
