"""Signatures by the Standard Webhooks specification: a receiver with the secret detects forged messages."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping

from packmule.errors import Error, UsageError

PREFIX = "whsec_"
LEAST_BYTES = 16
TOLERANCE = 300.0
"""Seconds by which the time of a message may differ from the receiver's."""


class InvalidSecret(UsageError, ValueError):
    """A secret is too short, or not base64 after its `whsec_`."""


class InvalidSignature(Error, ValueError):
    """A message was not signed with the secret, or too long ago."""


def key_of(secret: str) -> bytes:
    """The key in a secret: base64 after `whsec_`, or else the text itself. Raises `InvalidSecret`."""
    try:
        key = (
            base64.b64decode(secret.removeprefix(PREFIX), validate=True) if secret.startswith(PREFIX) else b""
        )
    except binascii.Error:
        raise InvalidSecret(f"a secret must be base64 after {PREFIX}") from None
    key = key or secret.encode()
    if len(key) < LEAST_BYTES:
        raise InvalidSecret(f"a secret needs at least {LEAST_BYTES} bytes")
    return key


def sign(key: bytes, id: str, at: int, body: bytes) -> dict[str, str]:
    """The headers that sign the message `id`, sent at the Unix time `at`."""
    digest = hmac.new(key, f"{id}.{at}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": id,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def verify(secret: str, headers: Mapping[str, str], body: bytes, now: float | None = None) -> None:
    """Check a received message; the names of `headers` are in lower case. Raises `InvalidSignature`.

    >>> signed = sign(key_of("a secret of enough bytes"), "1", 1795600000, b"{}")
    >>> verify("a secret of enough bytes", signed, b"{}", now=1795600001)
    """
    try:
        id, at, signatures = (headers[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
        sent = int(at)
    except (KeyError, ValueError):
        raise InvalidSignature(
            "the headers webhook-id, webhook-timestamp and webhook-signature are required"
        ) from None
    if abs((time.time() if now is None else now) - sent) > TOLERANCE:
        raise InvalidSignature("the message is too old, or from the future")
    expected = sign(key_of(secret), id, sent, body)["webhook-signature"]
    if not any(hmac.compare_digest(each.encode(), expected.encode()) for each in signatures.split(" ")):
        raise InvalidSignature("the signature does not match")
