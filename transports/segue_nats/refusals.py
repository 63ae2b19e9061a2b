"""What the server forbids us: it says so on the side, and what was asked is never answered.

The words of the server come in lower case, so subjects are compared that way.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from segue.errors import NotPermitted

log = logging.getLogger("segue.nats")

_SAID = re.compile(r"permissions violation for (publish|subscription) to \"([^\"]*)\"")
HINT = "`segue export nats-permissions` writes what each participant needs; what is made once, `segue deploy` makes"


class Refusals:
    """Told by the connection, and asked by those who wait for answers.

    Args:
        shown: The server, for messages.
        inbox: Pattern on which answers arrive.
    """

    def __init__(self, shown: str, inbox: str) -> None:
        self._shown = shown
        self._inbox = inbox.lower()
        self._silent: set[str] = set()
        self._logged: set[str] = set()
        self._watching: set[Callable[[str], None]] = set()

    def renew(self) -> None:
        """A new connection: what was forbidden may be allowed now."""
        self._silent.clear()
        self._logged.clear()

    def heard(self, text: str) -> bool:
        """The server said something; whether it was that it forbids something."""
        found = _SAID.search(text)
        if found is None:
            return False
        subject = found[2]
        if found[1] == "subscription":
            self._silent.add(subject)
        if subject not in self._logged:
            self._logged.add(subject)
            log.warning("%s", self._words(found[1], subject))
        for tell in tuple(self._watching):
            tell(subject)
        return True

    @contextmanager
    def watch(self, tell: Callable[[str], None]) -> Iterator[None]:
        """Call `tell` with the subjects, in lower case, of what is refused meanwhile."""
        self._watching.add(tell)
        try:
            yield
        finally:
            self._watching.discard(tell)

    def of_question(self, subject: str, refused: str) -> NotPermitted | None:
        """The error of a question, if what was refused leaves it without an answer."""
        if refused == subject.lower():
            return NotPermitted(self._words("publish", subject), HINT)
        if refused == self._inbox:
            return self._deaf()
        return None

    def check(self, subject: str) -> None:
        """Check a subscription that the server has seen.

        Raises:
            NotPermitted: It is forbidden.
        """
        if self._inbox in self._silent:
            raise self._deaf()
        if subject.lower() in self._silent:
            raise NotPermitted(self._words("subscription", subject), HINT)

    def _words(self, what: str, subject: str) -> str:
        verb = "publish on" if what == "publish" else "listen to"
        return f"this user may not {verb} {subject} at {self._shown}"

    def _deaf(self) -> NotPermitted:
        return NotPermitted(
            self._words("subscription", self._inbox),
            "add inbox=NAME to the URL, where the user's permissions allow _INBOX.NAME.>",
        )
