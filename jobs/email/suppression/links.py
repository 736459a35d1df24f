"""Unsubscribe links: each names one address, is signed, and can be made by nobody else."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from packmule.coordination.redis.backoff import retry_until_available
from packmule.errors import UsageError
from packmule.jobs import context
from packmule.jobs.email.letter import InvalidMessage
from packmule.jobs.email.message.addresses import parse
from packmule.jobs.email.message.allowed import PLACE
from packmule.jobs.email.suppression.addresses import suppressed_as
from packmule.units import YEAR

if TYPE_CHECKING:
    from redis import Redis

KEY = "pm:unsubscribe-key"
"""The string that signs unsubscribe links if the settings have no key; without it, such links are void."""

KEY_BYTES = 32

SECRET = "UNSUBSCRIBE"  # noqa: S105  its name
"""The secret of the settings that has keys of its own."""

SHORTEST_KEY = 16
LIFE = 2 * YEAR
"""Seconds for which a link works, at least."""

LONGEST_TOKEN = 700
_PURPOSE = b"unsubscribe "


class InvalidLink(UsageError, ValueError):
    """An unsubscribe link was changed, cut or made by somebody else, or is too old."""


class InvalidLinkKey(UsageError, ValueError):
    """A key of unsubscribe links is too short to keep anybody from guessing it."""


class LinkKeys(tuple[bytes, ...]):
    """The keys of unsubscribe links in the settings: the first signs, all verify. Lent to jobs.

    >>> len(LinkKeys.of("a-text-that-nobody-guesses the-one-of-last-year"))
    2
    """

    __slots__ = ()

    @classmethod
    def of(cls, text: str) -> LinkKeys:
        """The keys in a secret, with spaces between. Raises `InvalidLinkKey`."""
        keys = text.split()
        if any(len(each) < SHORTEST_KEY for each in keys):
            raise InvalidLinkKey(f"PACKMULE_SECRET_{SECRET}: a key has at least {SHORTEST_KEY} characters")
        return cls(hashlib.sha256(each.encode()).digest() for each in keys)


class UnsubscribeLinks:
    """Makes and reads the tokens of unsubscribe links.

    The first of `keys` signs them, or without one the key on the server of `client`, which is made when it is
    needed; any of these verifies them.

    >>> links = UnsubscribeLinks(client)  # doctest: +SKIP
    >>> links.read(links.token("Ada@example.org"))  # doctest: +SKIP
    'ada@example.org'
    """

    def __init__(self, client: Redis, keys: LinkKeys | None = None, *, is_patient: bool = False) -> None:
        """With `is_patient`, making a token waits until Redis is there."""
        self._client = client
        self._is_patient = is_patient
        self._keys = keys or LinkKeys()
        self._key = b""

    def token(self, address: str, seconds: float = LIFE) -> str:
        """The token of a link for `address`. Raises `InvalidAddress`."""
        name = suppressed_as(parse(address).spec).encode()
        day = int((time.time() + seconds) // 86_400) + 1  # all mails of a day have the same link
        if not (self._keys or self._key):
            self._key = retry_until_available(self._made) if self._is_patient else self._made()
        told = _text(name) + "." + format(day, "x")
        return f"{told}.{_signature(self._keys[0] if self._keys else self._key, told)}"

    def read(self, token: str) -> str:
        """The address in a token. Raises `InvalidLink`."""
        told, _, signature = token.rpartition(".")
        name, _, day = told.rpartition(".")
        if len(token) > LONGEST_TOKEN or not token.isascii():
            raise InvalidLink("this link isn't one of ours")
        if not any(hmac.compare_digest(signature, _signature(key, told)) for key in self._verifying()):
            raise InvalidLink("this link is incomplete: copy all of it, or use the one in a newer mail")
        if int(day, 16) * 86_400 < time.time():
            raise InvalidLink("this link is too old: use the one in a newer mail")
        try:
            return base64.urlsafe_b64decode(name + "=" * (-len(name) % 4)).decode()
        except (binascii.Error, ValueError):
            raise InvalidLink("this link isn't one of ours") from None

    def _verifying(self) -> Iterator[bytes]:
        """The keys that verify; Redis is asked if none of the others does."""
        yield from self._keys
        if not self._key:
            found: Any = self._client.get(KEY)
            self._key = found or b""
        if len(self._key) == KEY_BYTES:
            yield self._key

    def _made(self) -> bytes:
        found: Any = self._client.get(KEY)
        if found is None:
            self._client.set(KEY, secrets.token_bytes(KEY_BYTES), nx=True)
            found = self._client.get(KEY)
        if len(found or b"") != KEY_BYTES:
            raise InvalidLink(f"the key of unsubscribe links, {KEY} in Redis, is incomplete: delete it")
        return bytes(found)


def links_for(client: Redis | None) -> UnsubscribeLinks:
    """The links of a server; without one, as in a test that performs jobs at once, links of nobody."""
    keys = context.resources.get(LinkKeys)
    if client is None:
        return _Unkept()
    return UnsubscribeLinks(client, keys if isinstance(keys, LinkKeys) else None, is_patient=True)


def personal(
    ways: str | Sequence[str] | None, recipients: Sequence[str], links: UnsubscribeLinks
) -> str | Sequence[str] | None:
    """The unsubscribe URLs of a mail, with the recipient's token in place of `{token}`.

    Raises `InvalidMessage` if the mail has several recipients: then one could unsubscribe another.
    """
    urls = [ways] if isinstance(ways, str) else list(ways or ())
    if not any(PLACE in url for url in urls):
        return ways
    if len(recipients) != 1:
        raise InvalidMessage(f"an unsubscribe link with {PLACE} is for one recipient: send each a mail")
    token = links.token(recipients[0])
    return [url.replace(PLACE, token) for url in urls]


class _Unkept(UnsubscribeLinks):
    """Links that nobody can follow."""

    def __init__(self) -> None:
        self._keys, self._key = LinkKeys(), secrets.token_bytes(KEY_BYTES)


def _signature(key: bytes, told: str) -> str:
    return _text(hmac.digest(key, _PURPOSE + told.encode(), "sha256")[:16])


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
