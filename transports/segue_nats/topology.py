"""The streams of a namespace and the durable consumers of its groups.

    <ns>-events      <ns>.o.>, <ns>.c.>   kept for a week, for every group that listens
    <ns>-commands    <ns>.do.>            a work queue: gone when done
    <ns>-dead        <ns>.dead.>          what groups discarded, kept for 30 days, or until it is removed
    <ns>-registry    <ns>.reg.>           the last message of each subject
    <ns>-objects     <ns>.obj.>           large values, until their run is purged
    <ns>-advisories                       the broker's notes on messages that it gave up to deliver

Streams that exist are left as they are, for they may have been tuned, unless the URL asks for something else. What is
missing after the server lost its data is created again on reconnect, by whoever may: a user that only works with
streams and consumers does with what is there.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

from segue.errors import ConfigError, NotPermitted, TransportError
from segue.ports.transport import Backlog, Channel, Group
from segue_nats import api
from segue_nats.connection import Connection
from segue_nats.options import Options
from segue_nats.refusals import HINT

log = logging.getLogger("segue.nats")

DAY = 86400.0
MAX_ACK_PENDING = 20_000
MAX_DELIVER = 10_000
"""A backstop against endless redelivery; who consumes counts attempts itself."""

_SET = ("filter_subjects", "ack_wait", "max_ack_pending", "max_deliver")
"""What of a group's consumer may change."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]+")


def nanoseconds(seconds: float) -> int:
    """JetStream's unit of time."""
    return round(seconds * 1_000_000_000)


class Topology:
    """Creates what a namespace needs, and knows what it is called.

    Args:
        connection: Where.
        namespace: First token of all subjects and part of all stream names.
        options: What the URL asks for.
    """

    def __init__(self, connection: Connection, namespace: str, options: Options) -> None:
        if not _TOKEN.fullmatch(namespace):
            raise ConfigError(f"namespace {namespace!r} is not allowed", "use letters, digits, _ and -")
        self.namespace = namespace
        self.registry = f"{namespace}-registry"
        self.objects = f"{namespace}-objects"
        self.dead = f"{namespace}-dead"
        self.advisories = f"{namespace}-advisories"
        self._connection = connection
        self._options = options
        self._groups: dict[tuple[Channel, str], Group] = {}

    def stream(self, channel: Channel) -> str:
        """The stream of a channel."""
        return f"{self.namespace}-{channel}"

    def dead_subject(self, group: str) -> str:
        """Where a group's discarded messages go."""
        return f"{self.namespace}.dead.{group}"

    def registry_subject(self, key: str) -> str:
        """Where a registry key lives; `>` for all of them."""
        return f"{self.namespace}.reg.{key}"

    def object_subject(self, name: str) -> str:
        """Where a part of an object lives; `<run>.>` for all of a run."""
        return f"{self.namespace}.obj.{name}"

    async def ensure_objects(self) -> None:
        """Create the stream of large values if it is missing.

        Raises:
            TransportError: A stream of that name exists and is something else.
        """
        await self._ensure(
            self._stream(
                self.objects, [self.object_subject(">")], max_msgs_per_subject=1, discard="old", deny_delete=False
            )
        )

    async def ensure(self) -> None:
        """Create the streams that are missing, and set what the URL asks for.

        Raises:
            TransportError: A stream of that name exists and is something else.
        """
        await asyncio.gather(*(self._ensure(config) for config in self._streams()))

    async def restore(self, channel: Channel = "events", name: str = "") -> bool:
        """Create again what the server lost: streams, and the consumers of the groups declared here.

        Returns:
            Whether the group of this name is there.
        """
        await self.ensure()
        for group in tuple(self._groups.values()):
            if await self._info(group.channel, group.name) is None:
                await self._declare(group)
        return bool(name) and await self._info(channel, name) is not None

    async def declare(self, group: Group) -> None:
        """Create or update the durable consumer of a group.

        Raises:
            ConfigError: The name or the patterns are not allowed.
            TransportError: The patterns overlap with each other, or with another group's commands.
        """
        if not _TOKEN.fullmatch(group.name):
            raise ConfigError(f"group name {group.name!r} is not allowed", "use letters, digits, _ and -")
        await self._declare(group)
        self._groups[group.channel, group.name] = group

    async def backlog(self, channel: Channel, name: str) -> Backlog | None:
        """What a group has not finished; None if there is no such group."""
        info = await self._info(channel, name)
        return None if info is None else Backlog(info["num_pending"], info["num_ack_pending"])

    async def _info(self, channel: Channel, name: str) -> dict[str, Any] | None:
        try:
            return await api.call(self._connection, f"CONSUMER.INFO.{self.stream(channel)}.{name}")
        except api.ApiError as error:
            if error.number in (api.CONSUMER_NOT_FOUND, api.STREAM_NOT_FOUND):
                return None
            raise

    async def _declare(self, group: Group) -> None:
        stream = self.stream(group.channel)
        config = {
            "durable_name": group.name,
            "filter_subjects": self._filters(group),
            "ack_policy": "explicit",
            "ack_wait": nanoseconds(self._options.redelivery),
            "max_ack_pending": MAX_ACK_PENDING,
            "max_deliver": MAX_DELIVER,
            # A work queue holds what nobody has done yet, so its consumer starts with that.
            "deliver_policy": "new" if group.channel == "events" else "all",
        }
        found = await self._info(group.channel, group.name)
        if found is not None and all(_field(found["config"], key) == config[key] for key in _SET):
            return
        try:
            await api.call(
                self._connection, f"CONSUMER.CREATE.{stream}.{group.name}", {"stream_name": stream, "config": config}
            )
        except NotPermitted as error:
            if found is None:
                raise NotPermitted(
                    f"group {group.name!r} is missing on {group.channel}: {error.message}", HINT
                ) from None
            log.info("group %s on %s stays as it is: %s", group.name, group.channel, error.message)
        except api.ApiError as error:
            raise TransportError(
                f"group {group.name!r} cannot be declared on {group.channel}: {error.message}",
                "patterns must lie in the channel; no two of a group may overlap, on commands no two of all groups",
            ) from error

    def _filters(self, group: Group) -> list[str]:
        roots = self._roots(group.channel)
        found: dict[str, None] = {}
        for pattern in group.patterns:
            tokens = pattern.split(".")
            # A filter must lie within one subject of its stream, so a wildcard over these is spelt out.
            if tokens[:2] in (["*"], [">"]):
                found.update(dict.fromkeys(f"{root}.>" for root in roots))
            elif tokens[0] in ("*", self.namespace) and tokens[1] in ("*", ">"):
                rest = ".".join(tokens[2:]) or ">"
                found.update(dict.fromkeys(f"{root}.{rest}" for root in roots))
            else:
                found[pattern] = None
        if found.keys() >= {f"{root}.>" for root in roots}:
            # No filter means everything. The server looks through all subjects for each message where there are several
            # filters, which makes a difference of twenty times with 2,000 subjects.
            return []
        return list(found) or [f"{roots[0]}._"]

    def _roots(self, channel: Channel) -> tuple[str, ...]:
        letters = ("o", "c") if channel == "events" else ("do",)
        return tuple(f"{self.namespace}.{letter}" for letter in letters)

    async def _ensure(self, config: dict[str, Any]) -> None:
        name = config["name"]
        try:
            info = await api.call(self._connection, f"STREAM.INFO.{name}")
        except api.ApiError as error:
            if error.number != api.STREAM_NOT_FOUND:
                raise
            try:
                info = await api.call(self._connection, f"STREAM.CREATE.{name}", config)
            except NotPermitted as refused:
                raise NotPermitted(f"stream {name!r} is missing: {refused.message}", HINT) from None
            except api.ApiError as refused:
                if refused.number != api.NAME_IN_USE:
                    raise
                # Somebody with other options was faster.
                info = await api.call(self._connection, f"STREAM.INFO.{name}")
        found = info["config"]
        if found["retention"] != config["retention"] or not set(config["subjects"]) <= set(found.get("subjects", ())):
            raise TransportError(
                f"stream {name!r} exists and is not Segue's: {found['retention']}, {found.get('subjects')}",
                "choose another namespace",
            )
        wanted = {key: config[key] for key in self._asked(name) if found.get(key) != config[key]}
        if wanted:
            await api.call(self._connection, f"STREAM.UPDATE.{name}", found | wanted)

    def _asked(self, stream: str) -> list[str]:
        """Which fields of a stream the URL sets."""
        found = []
        if self._options.replicas is not None:
            found.append("num_replicas")
        if self._options.max_age is not None and stream == self.stream("events"):
            found += ["max_age", "duplicate_window"]
        return found

    def _streams(self) -> list[dict[str, Any]]:
        namespace = self.namespace
        kept = self._options.max_age or 7 * DAY
        events, commands = self.stream("events"), self.stream("commands")
        gave_up = [f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{stream}.>" for stream in (events, commands)]
        event_subjects = [f"{root}.>" for root in self._roots("events")]
        return [
            self._stream(
                events, event_subjects, max_age=nanoseconds(kept), duplicate_window=nanoseconds(min(120, kept))
            ),
            self._stream(commands, [f"{namespace}.do.>"], retention="workqueue"),
            self._stream(self.dead, [self.dead_subject(">")], max_age=nanoseconds(30 * DAY), deny_delete=False),
            self._stream(
                self.registry, [self.registry_subject(">")], max_msgs_per_subject=1, discard="old", deny_delete=False
            ),
            self._stream(self.advisories, gave_up, max_age=nanoseconds(30 * DAY)),
        ]

    def _stream(self, name: str, subjects: list[str], **settings: Any) -> dict[str, Any]:
        return {
            "name": name,
            "subjects": subjects,
            "retention": "limits",
            "storage": "file",
            "discard": "new",
            "deny_delete": True,
            "allow_rollup_hdrs": False,
            "num_replicas": self._options.replicas or 1,
        } | settings


def _field(config: dict[str, Any], key: str) -> Any:
    """What a consumer is set to; the server tells of a single filter apart."""
    if key == "filter_subjects":
        return config.get(key) or [config[one] for one in ("filter_subject",) if config.get(one)]
    return config.get(key)
