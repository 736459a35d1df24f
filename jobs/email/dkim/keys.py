"""The keys that sign mails: each is a file, and a record of its domain has its public part."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from packmule.errors import UsageError
from packmule.jobs.email.crypto import require_cryptography

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

MARK = "._domainkey."
"""What stands between the selector and the domain in a record's name."""

FEWEST_BITS = 1024
"""Bits of an RSA key, below which receivers take a signature for none (RFC 8301)."""

GOOD_BITS = 2048
LARGEST_FILE = 64 * 1024
LONGEST_STRING = 255
"""Characters of one string of a TXT record."""

_LABELS = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?)*")


class InvalidDkim(UsageError, ValueError):
    """A key that is to sign mails can't be used."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key that signs the mails of a domain; `sign` signs the SHA-256 that a signature is about."""

    domain: str
    selector: str
    algorithm: str
    bits: int
    public: bytes
    sign: Callable[[bytes], bytes]

    @property
    def is_strong(self) -> bool:
        """Whether nobody is expected to break it soon."""
        return self.algorithm == "ed25519" or self.bits >= GOOD_BITS

    @property
    def name(self) -> str:
        """The name of its record."""
        return f"{self.selector}{MARK}{self.domain}"

    @property
    def record(self) -> str:
        """The value of its record."""
        return f"v=DKIM1; k={self.algorithm}; p={b64encode(self.public).decode()}"

    @property
    def strings(self) -> list[str]:
        """The value as the strings of a TXT record."""
        value = self.record
        return [value[at : at + LONGEST_STRING] for at in range(0, len(value), LONGEST_STRING)]


def read_key(text: str) -> Key:
    """The key that `s1._domainkey.example.org=/etc/dkim/s1.pem` names: the record's name, and a PEM file.

    Raises `InvalidDkim`, and `NoCryptography`.
    """
    name, _, path = text.partition("=")
    selector, mark, domain = name.strip().lower().partition(MARK)
    if not mark or not path.strip() or not all(map(_LABELS.fullmatch, (selector, domain))):
        raise InvalidDkim(
            f"PACKMULE_DKIM: {text[:100]!r} is not the name of a record and the path of its key, such as "
            "s1._domainkey.example.org=/etc/dkim/s1.pem"
        )
    require_cryptography("DKIM")
    try:
        return _key(domain, selector, _content(Path(path.strip())))
    except ValueError as error:
        raise InvalidDkim(f"PACKMULE_DKIM: {path.strip()}, the key of {name.strip()}: {error}") from None


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_FILE)
    except OSError as error:
        raise ValueError(f"it can't be read: {error.strerror or type(error).__name__}") from None


def _key(domain: str, selector: str, pem: bytes) -> Key:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415  an extra
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        PublicFormat,
        load_pem_private_key,
    )

    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("it is not a private key in PEM without a password") from None
    if isinstance(key, Ed25519PrivateKey):
        public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return Key(domain, selector, "ed25519", 256, public, key.sign)
    if isinstance(key, RSAPrivateKey):
        if key.key_size < FEWEST_BITS:
            raise ValueError(f"it has {key.key_size} bits, but receivers ask for {GOOD_BITS}")
        public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return Key(domain, selector, "rsa", key.key_size, public, partial(_signed, key))
    raise ValueError("it is neither an RSA key nor an Ed25519 key")


def _signed(key: RSAPrivateKey, digest: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15  # noqa: PLC0415  an extra
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

    return key.sign(digest, PKCS1v15(), Prehashed(SHA256()))
