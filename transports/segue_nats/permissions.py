"""Permissions of NATS users: what each participant's rights are in subjects of NATS and of JetStream's API.

Two holes are closed by what is not granted. A direct get would have the server publish a stored message on a subject of
the asker's choice, and a consumer of one's own on a stream of events would show them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from segue.wire.rights import Rights

STREAMS = ("events", "commands", "dead", "registry", "advisories", "objects")
_HEAD = """\
# NATS users of namespace {namespace}: one for each participant, with what it needs and nothing else.
#
# Include this file in the server's config. Passwords come from variables of the config or of the server's environment:
# {variables}
# For NKEYs put `nkey: U...` in the place of user and password, for certificates (verify_and_map) the subject as user;
# then add inbox=<name of the participant> to the URL. Write it again after a deploy that brings new flows or nodes.
"""


class User(msgspec.Struct, frozen=True):
    """A NATS user: subjects that it may publish on, and subscribe to."""

    user: str
    kind: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def users(rights: Iterable[Rights], namespace: str) -> list[User]:
    """The NATS users of participants.

    Args:
        rights: What the participants need.
        namespace: First token of all subjects and part of all stream names.
    """
    return [
        User(
            item.participant,
            item.kind,
            tuple(dict.fromkeys(_publish(item, namespace))),
            (f"_INBOX.{item.participant}.>", *item.answer, *item.listen),
        )
        for item in rights
    ]


def _publish(rights: Rights, namespace: str) -> list[str]:
    registry = f"{namespace}-registry"
    found = [
        *rights.publish,
        *rights.ask,
        *(f"{namespace}.reg.{key}" for key in rights.registry),
        f"_INBOX.{rights.participant}.>",
        *(f"$JS.API.STREAM.INFO.{namespace}-{stream}" for stream in STREAMS),
        f"$JS.API.STREAM.MSG.GET.{registry}",
        f"$JS.API.CONSUMER.CREATE.{registry}.*.{namespace}.reg.>",
        f"$JS.API.CONSUMER.DELETE.{registry}.*",
    ]
    if rights.carries:
        found += [f"{namespace}.obj.>", f"$JS.API.STREAM.MSG.GET.{namespace}-objects"]
    if rights.forgets:
        found.append(f"$JS.API.STREAM.PURGE.{namespace}-objects")
    if rights.answer:
        found.append("_INBOX.>")
    for channel, group in rights.consume:
        stream = f"{namespace}-{channel}"
        found += [
            f"$JS.API.CONSUMER.INFO.{stream}.{group}",
            f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{group}",
            f"$JS.ACK.{stream}.{group}.>",
            # With the domain and the account in front, as newer servers may have it.
            f"$JS.ACK.*.*.{stream}.{group}.>",
            f"{namespace}.dead.{group}",
        ]
    found += [f"$JS.API.CONSUMER.INFO.{namespace}-{channel}.{group}" for channel, group in rights.inspect]
    if rights.administer:
        for stream in STREAMS:
            found += [f"$JS.API.STREAM.{verb}.{namespace}-{stream}" for verb in ("CREATE", "UPDATE")]
        for channel in ("events", "commands"):
            found.append(f"$JS.API.CONSUMER.CREATE.{namespace}-{channel}.>")
    return found


def variable(namespace: str, user: str) -> str:
    """The variable that holds the password of a user."""
    return re.sub(r"[^A-Z0-9]", "_", f"NATS_{namespace}_{user}_PASSWORD".upper())


def render(rights: Iterable[Rights], namespace: str, form: str) -> str:
    """Permissions as text.

    Args:
        rights: What the participants need.
        namespace: First token of all subjects and part of all stream names.
        form: `nats-conf`, an `authorization` block for the server's config; or `json`, a list of users.
    """
    found = users(rights, namespace)
    if form == "json":
        return msgspec.json.format(msgspec.json.encode(found)).decode() + "\n"
    names = " ".join(variable(namespace, user.user) for user in found)
    blocks = [_block(user, variable(namespace, user.user)) for user in found]
    body = "\n".join(blocks)
    return f"{_HEAD.format(namespace=namespace, variables=names)}\nauthorization {{\n  users = [\n{body}\n  ]\n}}\n"


def _block(user: User, password: str) -> str:
    return (
        f"    {{\n      # {user.kind}\n      user: {_quoted(user.user)}\n      password: ${password}\n"
        f"      permissions {{\n        publish {{ allow: {_listed(user.publish)} }}\n"
        f"        subscribe {{ allow: {_listed(user.subscribe)} }}\n      }}\n    }}"
    )


def _listed(subjects: Sequence[str]) -> str:
    inside = "".join(f"\n          {_quoted(subject)}" for subject in subjects)
    return f"[{inside}\n        ]"


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()
