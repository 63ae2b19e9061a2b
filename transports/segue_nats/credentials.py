"""Who we are and whom we trust, as nats-py takes it.

Files are read here, at every connect, so that they can be changed at any time. Nothing of this is kept or shown.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from nats.aio.client import RawCredentials

from segue_nats.options import Options


def credentials(options: Options) -> dict[str, Any]:
    """The arguments of `connect` that prove who we are.

    Raises:
        OSError: A file cannot be read.
        ValueError: A file holds something else, perhaps because it is being replaced.
    """
    if options.creds:
        # Left to itself, nats-py never returns from reading a file that is being replaced.
        return {"user_credentials": RawCredentials(_creds(options.creds))}
    if options.nkey:
        return {"nkeys_seed_str": _seed(options.nkey, _secret(options.nkey))}
    if options.token_file:
        return {"token": _secret(options.token_file)}
    if options.password_file:
        return {"user": options.user, "password": _secret(options.password_file)}
    if options.password:
        return {"user": options.user, "password": options.password}
    return {"token": options.user} if options.user else {}


def encryption(options: Options) -> dict[str, Any]:
    """The arguments of `connect` for TLS; certificates and host names are checked.

    Raises:
        OSError: A file cannot be read, or holds no certificate or key (`ssl.SSLError`).
    """
    if not options.tls:
        return {}
    context = ssl.create_default_context(cafile=options.ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if options.cert:
        context.load_cert_chain(options.cert, options.key or None)
    found: dict[str, Any] = {"tls": context}
    if options.tls_name:
        found["tls_hostname"] = options.tls_name
    return found


def _creds(path: str) -> str:
    content = Path(path).read_text()
    lines = [line.strip() for line in content.splitlines()]
    for what in ("NATS USER JWT", "USER NKEY SEED"):
        found = [i for i, line in enumerate(lines) if f"BEGIN {what}" in line]
        if not found or not any(f"END {what}" in line for line in lines[found[0] + 2 :]):
            raise ValueError(f"{path} holds no complete {what}")
        if what == "USER NKEY SEED":
            _seed(path, lines[found[0] + 1])
    return content


def _seed(path: str, text: str) -> str:
    import nkeys

    try:
        nkeys.from_seed(bytearray(text.encode())).wipe()
    except Exception:
        # Whatever it says may show what it read.
        raise ValueError(f"{path} holds no seed of an NKEY") from None
    return text


def _secret(path: str) -> str:
    found = Path(path).read_text().strip()
    if not found:
        raise ValueError(f"{path} is empty")
    return found
