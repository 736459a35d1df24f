"""Signing letters: the header DKIM-Signature in front of each, relaxed in both parts (RFC 6376 and 8463)."""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256

from packmule.jobs.email.dkim.keys import Key, read_key
from packmule.jobs.email.letter import Letter
from packmule.jobs.email.message.addresses import domain_of

SIGNED = (
    "from", "sender", "reply-to", "subject", "date", "message-id", "to", "cc", "in-reply-to", "references",
    "mime-version", "content-type", "content-transfer-encoding", "list-id", "list-help", "list-subscribe",
    "list-post", "list-owner", "list-archive", "list-unsubscribe", "list-unsubscribe-post",
)  # fmt: skip
"""What a signature covers of the headers that a letter has: those of RFC 6376, 5.4.1, and of RFC 8058."""

ONCE = ("from", "reply-to", "subject", "date")
"""Headers of which nobody may add one more: readers might show that one."""

_FIELD = re.compile(rb"\r\n(?![ \t])")
_SPACES = re.compile(rb"[ \t]{2,}|\t")
_FOLD = re.compile(rb"\r\n(?=[ \t])")
_LINE = 72


class Signer:
    """Signs letters whose From is of a domain that has keys, or of one below it.

    >>> Signer([read_key("s1._domainkey.example.org=s1.pem")]).signed(letter)  # doctest: +SKIP
    """

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys: defaultdict[str, list[Key]] = defaultdict(list)
        for key in keys:
            self._keys[key.domain].append(key)

    def signed(self, letter: Letter) -> Letter:
        """The letter with a signature of each key of its domain."""
        sender = letter.message.sender.spec if letter.message else letter.sender
        keys = self._keys_of(domain_of(sender))
        if not keys:
            return letter
        head, _, body = letter.content.partition(b"\r\n\r\n")
        names, covered = _covered(head)
        digest = b64encode(sha256(_relaxed_body(body)).digest()).decode()
        made = b"".join(_signature(key, names, covered, digest) for key in keys)
        return replace(letter, content=made + letter.content)

    def _keys_of(self, domain: str) -> Sequence[Key]:
        while domain and domain not in self._keys:
            domain = domain.partition(".")[2]
        return self._keys.get(domain, ())


def signer_of(named: Sequence[str]) -> Signer:
    """What signs with the keys that are named (`keys.read_key`)."""
    return Signer(map(read_key, named))


def _signature(key: Key, names: Sequence[str], covered: bytes, digest: str) -> bytes:
    """The header of one signature."""
    parts = [
        f"v=1; a={key.algorithm}-sha256; c=relaxed/relaxed; t={int(time.time())};",
        f"d={key.domain}; s={key.selector};",
        *_folded("h=" + ":".join(names) + ";", ":"),
        f"bh={digest};",
        "b=",
    ]
    field = ("DKIM-Signature: " + "\r\n ".join(parts)).encode()
    signed = b64encode(key.sign(sha256(covered + _relaxed(field)).digest()))
    return field + b"\r\n ".join(signed[at : at + _LINE] for at in range(0, len(signed), _LINE)) + b"\r\n"


def _covered(head: bytes) -> tuple[list[str], bytes]:
    """The names of the headers that are covered, and these headers in that order, each relaxed."""
    found: defaultdict[str, list[bytes]] = defaultdict(list)
    for field in _FIELD.split(head):
        found[field.partition(b":")[0].strip().decode("ascii", "replace").lower()].append(field)
    names, covered = list[str](), list[bytes]()
    for name in SIGNED:
        for field in reversed(found[name]):  # those who verify read from the last to the first
            names.append(name)
            covered.append(_relaxed(field) + b"\r\n")
        if name in ONCE:
            names.append(name)
    return names, b"".join(covered)


def _relaxed(field: bytes) -> bytes:
    name, _, value = _FOLD.sub(b"", field).partition(b":")
    return name.strip().lower() + b":" + _SPACES.sub(b" ", value).strip()


def _relaxed_body(body: bytes) -> bytes:
    lines = _SPACES.sub(b" ", body).replace(b" \r\n", b"\r\n").rstrip(b" ")
    whole = lines.rstrip(b"\r\n")
    return whole + b"\r\n" if whole else b""


def _folded(text: str, sign: str) -> Iterator[str]:
    """Yield lines of a text that may be broken after a sign."""
    line = ""
    for part in re.findall(f"[^{sign}]+{sign}?", text):
        if line and len(line) + len(part) > _LINE:
            yield line
            line = ""
        line += part
    yield line
