"""Whether what came as a provider's events was sent by it, and lately."""

from __future__ import annotations

import hmac
import re
import time
from base64 import b64decode
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from packmule.errors import Error, UsageError
from packmule.jobs.email.delivery.http.client import Api

OLDEST = 300.0
"""Seconds for which a signature is good: a later copy of the request may be a replay."""

_AWS = re.compile(r"sns\.[a-z0-9-]{1,40}\.amazonaws\.com(\.cn)?")
_SIGNED_BY_SNS = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_LONGEST_TIME = 15


class BadSignature(UsageError):
    """A provider's events are not signed as its key says, or too old."""


class NoCryptography(Error):
    """The package that verifies a provider's signatures is not installed."""


def verify(provider: str, body: bytes, said: Any, headers: Mapping[str, str], key: str) -> None:
    """Raise `BadSignature` unless the request is the provider's; `headers` have lower-case names."""
    if not key:
        raise BadSignature(f"{provider}: there is no key that could verify its events")
    if not _VERIFIERS[provider](body, said, headers, key):
        raise BadSignature(f"the events of {provider} are not signed with its key, or too old")


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
    return hmac.compare_digest(made, given) and _is_new(at)


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
    if not given or not der or not _is_new(at):
        return False
    return _is_signed(der, given, at.encode() + body, is_pem=False)


def _ses(body: bytes, said: Any, headers: Mapping[str, str], key: str) -> bool:
    """A notification of SNS: signed with a certificate at AWS, and of the topic `key`."""
    if not isinstance(said, dict) or said.get("TopicArn") != key or said.get("Type") != "Notification":
        return False
    values = {name: said[name] for name in _SIGNED_BY_SNS if isinstance(said.get(name), str)}
    given = _decoded(said.get("Signature", ""))
    if not given or said.get("SignatureVersion") != "2" or "Message" not in values:
        return False
    signed = "".join(f"{name}\n{value}\n" for name, value in values.items()).encode(errors="replace")
    pem = _pem(said.get("SigningCertURL"))
    return pem is not None and _is_signed(pem, given, signed, is_pem=True)


_pems: dict[str, bytes] = {}
MOST_PEMS = 20


def _pem(url: Any) -> bytes | None:
    """The certificate at a URL of AWS, and of nobody else."""
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        is_of_aws = parts.scheme == "https" and parts.port is None and _AWS.fullmatch(parts.netloc)
    except ValueError:
        return None
    if not is_of_aws or not re.fullmatch(r"/[A-Za-z0-9._-]{1,200}\.pem", parts.path):
        return None
    if parts.geturl() not in _pems:
        api = Api(f"https://{parts.netloc}")
        try:
            answer = api.get(parts.path)
        finally:
            api.close()
        if answer.status != 200:  # noqa: PLR2004
            return None
        if len(_pems) >= MOST_PEMS:
            _pems.clear()
        _pems[parts.geturl()] = answer.body
    return _pems[parts.geturl()]


def _is_signed(key: bytes, signature: bytes, signed: bytes, *, is_pem: bool) -> bool:
    try:
        from cryptography import x509  # noqa: PLC0415  an extra
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey  # noqa: PLC0415
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import load_der_public_key  # noqa: PLC0415
    except ImportError:
        raise NoCryptography("to verify events of ses and sendgrid: pip install cryptography") from None
    try:
        known = x509.load_pem_x509_certificate(key).public_key() if is_pem else load_der_public_key(key)
        if isinstance(known, EllipticCurvePublicKey):
            known.verify(signature, signed, ECDSA(SHA256()))
        elif isinstance(known, RSAPublicKey):
            known.verify(signature, signed, PKCS1v15(), SHA256())
        else:
            return False
    except (InvalidSignature, ValueError):
        return False
    return True


def _decoded(text: Any) -> bytes | None:
    try:
        return b64decode(text, validate=True) if isinstance(text, str) else None
    except ValueError:
        return None


def _is_new(at: str) -> bool:
    if not at.isascii() or not at.isdigit() or len(at) > _LONGEST_TIME:
        return False
    return abs(time.time() - int(at)) <= OLDEST


_VERIFIERS = {
    "ses": _ses,
    "postmark": _postmark,
    "mailgun": _mailgun,
    "sendgrid": _sendgrid,
    "resend": _resend,
}
