"""Whether what came as a provider's events was sent by it, and lately."""

from __future__ import annotations

import hmac
import time
from base64 import b64decode
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from packmule.errors import UsageError
from packmule.jobs.email.crypto import require_cryptography
from packmule.jobs.email.delivery.http import sns
from packmule.units import DAY

OLDEST = 300.0
"""Seconds for which a signature is good: a later copy of the request may be a replay."""

OLDEST_REPEATED = DAY
"""Seconds for one of a provider that may send the same request again as long as nobody takes it."""

OLDEST_OF_SNS = 3900.0
"""SNS tries for an hour, and its signature has the time of the first try."""

INVITATION = "SubscriptionConfirmation"
_SIGNED_BY_SNS = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    INVITATION: ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}
_LONGEST_TIME = 15


class BadSignature(UsageError):
    """A provider's events are not signed as its key says, or too old."""


class BadKey(UsageError, ValueError):
    """A key is none by which events of its provider are verified."""


def verify(provider: str, body: bytes, said: Any, headers: Mapping[str, str], key: str) -> None:
    """Raise `BadSignature` unless the request is the provider's; `headers` have lower-case names.

    A `key` may be several with spaces between, of which any will do.
    """
    keys = key.split()
    if not keys:
        raise BadSignature(f"{provider}: there is no key that could verify its events")
    if not any(_VERIFIERS[provider](body, said, headers, each) for each in keys):
        raise BadSignature(f"the events of {provider} are not signed with its key, or are too old")


def check_key(provider: str, key: str) -> None:
    """Raise `BadKey` for a key that can verify nothing of `provider`, and `NoCryptography`, `InvalidTopic`.

    >>> check_key("postmark", "s3cret")
    """
    for each in key.split():
        if provider == "ses":
            sns.host_of(each)
            require_cryptography("events of ses and sendgrid")
        elif provider == "resend" and not _decoded(each.removeprefix("whsec_")):
            raise BadKey("give the signing secret of the webhook, which begins with whsec_")
        elif provider == "sendgrid":
            require_cryptography("events of ses and sendgrid")
            try:
                _public_key(_decoded(each) or b"", is_pem=False)
            except ValueError:
                raise BadKey("give the verification key of the event webhook, which is base64") from None


def _postmark(body: bytes, said: Any, headers: Mapping[str, str], key: str) -> bool:
    """It signs nothing, but sends the user and password of its webhook's URL."""
    kind, _, given = headers.get("authorization", "").partition(" ")
    _, _, password = (_decoded(given) or b"").partition(b":")
    return kind.lower() == "basic" and hmac.compare_digest(password, key.encode())


def _mailgun(body: bytes, said: Any, headers: Mapping[str, str], key: str) -> bool:
    signature = said.get("signature") if isinstance(said, dict) else None
    if not isinstance(signature, dict):
        return False
    values = [signature.get(name) for name in ("timestamp", "token", "signature")]
    if not all(isinstance(value, str) and value.isascii() for value in values):
        return False
    at, token, given = map(str, values)
    made = hmac.new(key.encode(), f"{at}{token}".encode(), "sha256").hexdigest()
    return hmac.compare_digest(made, given) and _is_new(at, OLDEST_REPEATED)


def _resend(body: bytes, said: Any, headers: Mapping[str, str], key: str) -> bool:
    secret = _decoded(key.removeprefix("whsec_"))
    id, at = headers.get("svix-id", ""), headers.get("svix-timestamp", "")
    if not secret or not id or not _is_new(at):
        return False
    made = hmac.digest(secret, f"{id}.{at}.".encode() + body, "sha256")
    given = [
        each.partition(",")[2] for each in headers.get("svix-signature", "").split() if each[:3] == "v1,"
    ]
    return any(hmac.compare_digest(made, _decoded(each) or b"") for each in given)


def _sendgrid(body: bytes, said: Any, headers: Mapping[str, str], key: str) -> bool:
    name = "x-twilio-email-event-webhook-"
    at, given = headers.get(f"{name}timestamp", ""), _decoded(headers.get(f"{name}signature", ""))
    der = _decoded(key)
    if not given or not der or not _is_new(at, OLDEST_REPEATED):
        return False
    return _is_signed(der, given, at.encode() + body, is_pem=False)


def _ses(body: bytes, said: Any, headers: Mapping[str, str], key: str) -> bool:
    """A message of SNS: signed with a certificate at AWS, of the topic `key`, and sent within the hour."""
    if not isinstance(said, dict) or said.get("TopicArn") != key or not _is_of_hour(said.get("Timestamp")):
        return False
    named = _SIGNED_BY_SNS.get(str(said.get("Type")), ())
    values = {name: said[name] for name in named if isinstance(said.get(name), str)}
    given = _decoded(said.get("Signature", ""))
    if not given or said.get("SignatureVersion") != "2" or "Message" not in values:
        return False
    signed = "".join(f"{name}\n{value}\n" for name, value in values.items()).encode(errors="replace")
    pem = sns.pem_at(key, said.get("SigningCertURL"))
    return pem is not None and _is_signed(pem, given, signed, is_pem=True)


def _is_of_hour(at: Any) -> bool:
    try:
        sent_at = datetime.fromisoformat(at).timestamp()
    except (TypeError, ValueError, OverflowError):
        return False
    return abs(time.time() - sent_at) <= OLDEST_OF_SNS


def _is_signed(key: bytes, signature: bytes, signed: bytes, *, is_pem: bool) -> bool:
    require_cryptography("events of ses and sendgrid")
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  an extra
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

    try:
        known = _public_key(key, is_pem=is_pem)
        if isinstance(known, EllipticCurvePublicKey):
            known.verify(signature, signed, ECDSA(SHA256()))
        elif isinstance(known, RSAPublicKey):
            known.verify(signature, signed, PKCS1v15(), SHA256())
        else:
            return False
    except (InvalidSignature, ValueError):
        return False
    return True


def _public_key(key: bytes, *, is_pem: bool) -> object:
    """The public key in a certificate, or as DER. Raises `ValueError`."""
    from cryptography import x509  # noqa: PLC0415  an extra
    from cryptography.hazmat.primitives.serialization import load_der_public_key  # noqa: PLC0415

    return x509.load_pem_x509_certificate(key).public_key() if is_pem else load_der_public_key(key)


def _decoded(text: Any) -> bytes | None:
    try:
        return b64decode(text, validate=True) if isinstance(text, str) else None
    except ValueError:
        return None


def _is_new(at: str, oldest: float = OLDEST) -> bool:
    if not at.isascii() or not at.isdigit() or len(at) > _LONGEST_TIME:
        return False
    return abs(time.time() - int(at)) <= oldest


_VERIFIERS = {
    "ses": _ses,
    "postmark": _postmark,
    "mailgun": _mailgun,
    "sendgrid": _sendgrid,
    "resend": _resend,
}
