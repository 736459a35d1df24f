"""The names of mails in the ledger: keys of sends, ids of mails, and the keys of Redis."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b, sha1
from typing import Any

import msgspec

from packmule.errors import UsageError

COUNTED = "pm:mail-counts:"

INDEXES = ("pm:mails:active", "pm:mails:deferred", "pm:mails:suppressed", "pm:mails:unknown")
"""The sorted sets of the ids of mails in open states, by when these expire; `mails.lua` has the order."""

ID_LENGTH = 26
ID = re.compile(r"[a-z2-7]{26}")
LONGEST_KEY = 200

_HEX = re.compile(r"[0-9a-f]{32}")
_SHORTENED = re.compile(r"~[A-Za-z0-9_-]{22}")
_MAIL = "pm:mail:"
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = [first + second for first in _LETTERS for second in _LETTERS]
"""The text of each ten bits in base32: its encoder takes longer than the hash."""

_encode = msgspec.json.Encoder(order="sorted", enc_hook=str).encode


class InvalidKey(UsageError, ValueError):
    """A send's key is empty, too long or not printable."""


def send_of_key(key: str) -> str:
    """The name of the send that was given a key. Raises `InvalidKey`.

    >>> send_of_key("order-7-shipped")
    'abxbxrkfs243msvsxhvlwqjqmq'
    """
    if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY or not key.isprintable():
        raise InvalidKey(f"key={key!r:.210}: give 1 to {LONGEST_KEY} printable characters")
    return _digest(b"key", key.encode(errors="surrogatepass"))


def send_of_content(scope: str, content: Any) -> str:
    """The name of a send that was given none: that of this content, in the scope of a job or a batch."""
    try:
        told = _encode(content)
    except UnicodeEncodeError:  # half a character, which no mail can hold
        told = json.dumps(content, sort_keys=True, default=str).encode()
    return _digest(scope.encode(errors="surrogatepass"), told)


def mail_id(send: str, recipient: str) -> str:
    """The id of a send's mail to one recipient, as 26 letters and digits that mail servers leave as they are.

    >>> mail_id("7fzikxchknsf2ux4vntotcgrs4", "ada@Example.org") == mail_id(
    ...     "7fzikxchknsf2ux4vntotcgrs4", "ada@example.org")
    True
    """
    return _digest(send.encode(), compared(recipient).encode(errors="surrogatepass"))


def compared(address: str) -> str:
    """An address as mail servers compare it: case counts before the @ alone."""
    local, at, domain = address.rpartition("@")
    return f"{local}{at}{domain.lower()}"


def origin_of(created_at: bytes) -> str:
    """What tells the life of a job that was created then, and does not repeat, from others; as `reserve.lua`.

    >>> origin_of(b"2026-12-01T02:00:00.000000Z")
    '4464e198'
    """
    return sha1(created_at + b"|", usedforsecurity=False).hexdigest()[:8]


def mail_key(id: str) -> str:
    """The string that holds a mail's entry."""
    return f"{_MAIL}{id}"


def counts_key(send: str) -> str:
    """The hash of how many mails of a send are in which state."""
    return f"{COUNTED}{send}"


def short(id: str) -> str:
    """A job's or batch's id as entries hold it: the usual one takes 23 characters instead of 32."""
    if not _HEX.fullmatch(id):
        return id
    return "~" + urlsafe_b64encode(bytes.fromhex(id)).decode().rstrip("=")


def long(id: str) -> str:
    """The id that `short` was given."""
    return urlsafe_b64decode(f"{id[1:]}==").hex() if _SHORTENED.fullmatch(id) else id


def _digest(*parts: bytes) -> str:
    whole = blake2b(digest_size=16)
    for part in parts:
        whole.update(len(part).to_bytes(4, "big") + part)
    number = int.from_bytes(whole.digest()) << 2
    return "".join([_PAIRS[number >> place & 1023] for place in range(120, -1, -10)])
