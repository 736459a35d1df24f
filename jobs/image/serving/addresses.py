"""Addresses of renditions: each names a preset and a stored image, and is signed."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import quote

from packmule.config import secret
from packmule.errors import UsageError
from packmule.jobs.storage import checked

PREFIX = "/i"
SECRET = "images"  # noqa: S105  its name
LEAST_BYTES = 16
SIGNATURE_BYTES = 18
_PURPOSE = b"packmule image "


class WeakImageKey(UsageError, ValueError):
    """A key that signs addresses is so short that others could guess it."""


class Addresses:
    """Makes and checks addresses; the first key signs, and addresses that another has signed hold too."""

    def __init__(self, keys: Sequence[str]) -> None:
        """Raise `WeakImageKey` if there is none, or one of less than 16 bytes."""
        self._keys = [key.encode() for key in keys]
        if not keys or any(len(key) < LEAST_BYTES for key in self._keys):
            raise WeakImageKey(
                f"PACKMULE_SECRET_IMAGES: give keys of at least {LEAST_BYTES} bytes, with spaces between "
                "them; openssl rand -hex 32 makes one"
            )

    def path(self, source: str, preset: str) -> str:
        """The path of an address. Raises `OutsideStorage` for a source that no storage can have.

        >>> Addresses(["0123456789abcdef"]).path("uploads/a b.jpg", "thumb")
        '/i/pW9BcvIuX8J6aIoxRYtyNr9_/thumb/uploads/a%20b.jpg'
        """
        signature = _signature(self._keys[0], preset, checked(source))
        return f"{PREFIX}/{signature}/{quote(preset, safe='@')}/{quote(source)}"

    def is_signed(self, signature: str, preset: str, source: str) -> bool:
        """Whether one of the keys has made this signature for this source and preset."""
        given = signature.encode(errors="replace")
        return any(hmac.compare_digest(given, _signature(key, preset, source).encode()) for key in self._keys)


def url_for(source: str, preset: str = "thumb", base: str = "", keys: Sequence[str] = ()) -> str:
    """The URL at which the dashboard's server at `base` serves `preset` of the stored image `source`.

    It is signed with the first of `keys`, by default those of the secret `PACKMULE_SECRET_IMAGES`. Raises
    `SettingsError` without any, `WeakImageKey`, and `OutsideStorage`.

    >>> url_for("uploads/a.jpg", "hero@2x", "https://img.example.org", ["0123456789abcdef"])
    'https://img.example.org/i/7XD6QAAnQYKvlDJzDQRgy6hM/hero@2x/uploads/a.jpg'
    """
    return base.rstrip("/") + addresses(keys).path(source, preset)


def addresses(keys: Sequence[str] = ()) -> Addresses:
    """The addresses of these keys, or of the environment's. Raises `SettingsError` and `WeakImageKey`."""
    return _addresses(tuple(keys or secret(SECRET).split()))


@lru_cache(maxsize=16)
def _addresses(keys: tuple[str, ...]) -> Addresses:
    return Addresses(keys)


def _signature(key: bytes, preset: str, source: str) -> str:
    content = f"{preset}/{source}".encode(errors="replace")
    return base64.urlsafe_b64encode(hmac.digest(key, _PURPOSE + content, "sha256")[:SIGNATURE_BYTES]).decode()
