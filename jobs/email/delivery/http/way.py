"""A provider as a way out: one request a letter, and what its answer says of the recipients."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from packmule.jobs import current
from packmule.jobs.email.delivery.channel import NOT_AGAIN, Limits
from packmule.jobs.email.delivery.http.client import ANSWER_SECONDS, Answer, AnswerLost, Api
from packmule.jobs.email.delivery.http.fields import Body, Lacking
from packmule.jobs.email.delivery.http.providers import PROVIDERS, Provider
from packmule.jobs.email.delivery.http.signing import signed
from packmule.jobs.email.delivery.route import TemporaryFailure
from packmule.jobs.email.delivery.ways import InvalidServer
from packmule.jobs.email.letter import Letter
from packmule.jobs.email.outcome import Journal, Outcome, State
from packmule.plain_text import one_line
from packmule.units import DAY

MAX_WORDS = 500
MARGIN = 5.0
ASKS = 2
"""How often a provider is asked that knows again what it was asked."""

SPARE = 600.0
"""Seconds before the end of a key's life in which it's used no more, since clocks differ."""

_NOT_TAKEN_YET = frozenset({401, 402, 403, 404, 408, 425, 429, 503})
"""Statuses with which a provider refuses for now, or until somebody mends the account."""

_ANOTHER_TEXT = "invalid_idempotent_request"
_UNDER_WAY = "concurrent_idempotent_requests"
"""Refusals of a key that was used before: for another text, or by a request that has not ended."""


class HttpWay:
    """The provider that `url` names, such as `resend://KEY` or `mailgun://KEY@mg.example.org?region=eu`.

    `?api=http://127.0.0.1:8080` names another place of the API, for tests. It `is_only` if no other way may
    get its mails later. Raises `InvalidServer`.
    """

    def __init__(self, url: str, is_only: bool = True) -> None:
        self.is_only = is_only
        provider = self.provider = PROVIDERS[url.partition("://")[0]]
        how = f"write {provider.example}, with %-escapes for signs such as @ / ? # : in the key"
        try:
            parts = urlsplit(url)
            user, password = unquote(parts.username or ""), unquote(parts.password or "")
            rest = parts.netloc.rpartition("@")[2]
            options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        except ValueError:
            raise InvalidServer(how) from None
        wants_host = "@" in provider.example
        self.key, self.host = (user, rest) if "@" in parts.netloc else (unquote(parts.netloc), "")
        self.secret = password
        api = options.pop("api", None)
        region = options.pop("region", "") if "region" in provider.options else ""
        if (
            not self.key
            or not (self.key + self.secret).isascii()
            or not (self.key + self.secret).isprintable()
            or (bool(self.secret) != (provider.known_by is None))
            or (wants_host and not _is_host(self.host))
            or (not wants_host and bool(self.host))
            or parts.path not in {"", "/"}
            or parts.fragment
            or set(options) - provider.options
            or (provider.regions and region not in provider.regions)
        ):
            raise InvalidServer(how)
        self.options = options
        self.limits = Limits()
        self.region = self.host
        placed = provider.url.format(host=self.host, region=provider.regions.get(region, ""))
        self.url = api or placed
        self.path = provider.path.format(host=self.host)
        if urlsplit(self.url).scheme not in {"http", "https"} or not urlsplit(self.url).hostname:
            raise InvalidServer("?api= must be an http:// or https:// URL of a host")

    def __str__(self) -> str:
        """The provider's name."""
        return self.provider.name

    def open(self) -> HttpChannel:
        """A fresh channel, as `Way.open` says."""
        api = Api(self.url)
        api.connect()
        return HttpChannel(self, api)

    def headers(self, body: Body, letter: Letter) -> dict[str, str]:
        """The headers of a request."""
        if self.provider.known_by is None:
            host = urlsplit(self.url).netloc
            return dict(signed(self.key, self.secret, self.region, "ses", host, self.path, body.data))
        headers = {"Content-Type": body.content_type, **self.provider.known_by(self.key)}
        if self.provider.key_life:
            headers["Idempotency-Key"] = idempotency_key(letter)
        return headers

    def request(self, body: Body, letter: Letter) -> str:
        """A digest of a request, and until when the provider knows it; "" if it can't be repeated later.

        Another way knows nothing of its key: if there is one, that might get the mail then.
        """
        if not self.provider.key_life or not self.is_only:
            return ""
        told = "\0".join([self.url, self.path, self.key, idempotency_key(letter)]).encode() + body.data
        until = int(time.time() + self.provider.key_life - SPARE)
        return f"{blake2b(told, digest_size=16).hexdigest()} {until}"

    def knows(self, letter: Letter) -> bool:
        """As `Way.knows` says: only the same request in its key's life."""
        digest, _, until = letter.request.partition(" ")
        try:
            now = self.request(self.provider.body(letter, self.options), letter)
            return digest == now.partition(" ")[0] and time.time() < float(until)
        except (Lacking, ValueError):
            return False

    def mask(self, text: str) -> str:
        """`text` as one printable, bounded line without the key."""
        known = self.provider.known_by(self.key) if self.provider.known_by else {}
        encoded = known.get("Authorization", "").rpartition(" ")[2]
        for secret in (self.secret, self.key, encoded):
            if secret:
                text = text.replace(secret, "***")
        return one_line(text, MAX_WORDS)


class HttpChannel:
    """Carries letters over a kept connection to a provider."""

    def __init__(self, way: HttpWay, api: Api) -> None:
        self.way = way
        self.api = api
        self.process = api.process
        self.is_fresh = True

    @property
    def is_usable(self) -> bool:
        """Whether this process opened it, and it is still connected."""
        return self.process == os.getpid() and self.api.is_ready

    def carry(self, letter: Letter, ahead: Letter | None, journal: Journal) -> tuple[str, ...]:
        """Send a letter, as `Channel.carry` says."""
        provider = self.way.provider
        part = replace(letter, recipients=letter.recipients[: provider.most])
        left = letter.recipients[provider.most :]
        try:
            body = provider.body(part, self.way.options)
        except Lacking as error:
            journal.ended(letter, dict.fromkeys(part.recipients, Outcome(State.REFUSED, str(error))))
            return left
        self.is_fresh = False
        self.api.heed()
        if not journal.begin(part):
            return ()
        unknown = Outcome(State.UNKNOWN, f"{self.way}: the job was broken off before the answer")
        try:
            outcome = self._asked(part, body, journal)
        except BaseException:
            journal.ended(letter, dict.fromkeys(part.recipients, unknown))
            raise
        journal.ended(letter, dict.fromkeys(part.recipients, outcome))
        return left

    def close(self) -> None:
        """Close the connection."""
        self.api.close()

    def _asked(self, letter: Letter, body: Body, journal: Journal) -> Outcome:
        """What the provider answers; one that knows the request again is asked again if its answer is lost.

        If it is lost for good, the outcome says by which request the provider may be asked later.
        """
        asks = ASKS if self.way.provider.key_life else 1
        current.prolong(asks * (ANSWER_SECONDS + MARGIN))
        request, is_in_doubt = letter.request or self.way.request(body, letter), bool(letter.request)
        outcome = Outcome(State.UNKNOWN, f"{self.way}: {NOT_AGAIN}")
        if letter.request and not self.way.knows(letter):  # the journal may have waited for long
            return outcome
        for number in range(asks):
            if number and not journal.still(letter):
                break
            try:
                if number:
                    self.api.connect()
                outcome = self._judged(
                    self.api.post(self.way.path, self.way.headers(body, letter), body.data), request
                )
                break
            except AnswerLost as error:
                is_in_doubt = True
                lost = self.way.mask(f"{self.way}: the answer was lost: {error}")
                outcome = Outcome(State.UNKNOWN, lost, request=request)
            except TemporaryFailure as error:
                outcome = Outcome(State.DEFERRED, self.way.mask(str(error)))
                break
        if is_in_doubt and outcome.state is State.DEFERRED:
            return outcome._replace(state=State.UNKNOWN, request=request)
        return outcome

    def _judged(self, answer: Answer, request: str) -> Outcome:
        provider, said = self.way.provider, _fields_of(answer.body)
        code = _code(provider, answer, said)
        if 200 <= answer.status < 300 and code in {"", "0"}:  # noqa: PLR2004
            id = said.get(provider.id_field) or answer.headers.get("x-message-id", "")
            if provider.id_field and not id:  # it isn't the provider that answers, such as a proxy
                text = self.way.mask(f"{self.way}: {answer.status} without an id")
                return Outcome(State.UNKNOWN, text, request=request)
            return Outcome(State.ACCEPTED, self.way.mask(f"{self.way}: {answer.status} {id}"))
        text = self.way.mask(f"{self.way}: {answer.status} {code} {_reason(said, answer.body)}")
        if answer.status in _NOT_TAKEN_YET or code in provider.of_account:
            return Outcome(State.DEFERRED, text, retry_at=_retry_at(answer))
        if not 400 <= answer.status < 500 or code in (_ANOTHER_TEXT, _UNDER_WAY):  # noqa: PLR2004
            return Outcome(State.UNKNOWN, text, request="" if code == _ANOTHER_TEXT else request)
        return Outcome(State.REFUSED, text, code in provider.bad_addresses)


def idempotency_key(letter: Letter) -> str:
    """What tells this letter to these recipients from any other: the same for each attempt."""
    named = "\0".join([letter.message_id, *sorted(letter.recipients)])
    return "packmule-" + blake2b(named.encode(errors="replace"), digest_size=20).hexdigest()


def _is_host(host: str) -> bool:
    return bool(host) and host.isascii() and all(c.isalnum() or c in ".-" for c in host)


def _fields_of(body: bytes) -> Mapping[str, Any]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _code(provider: Provider, answer: Answer, said: Mapping[str, Any]) -> str:
    if provider.name == "ses":
        return answer.headers.get("x-amzn-errortype", "").partition(":")[0]
    code = said.get(provider.code_field, "") if provider.code_field else ""
    return str(code) if isinstance(code, str | int) else ""


def _reason(said: Mapping[str, Any], body: bytes) -> str:
    for name in ("message", "Message", "errors"):
        if found := said.get(name):
            return found if isinstance(found, str) else json.dumps(found)
    return body[: 4 * MAX_WORDS].decode(errors="replace")  # more than is kept: half a key would not be masked


def _retry_at(answer: Answer) -> float | None:
    after = answer.headers.get("retry-after", "")
    if not after.isascii() or not after.isdigit() or len(after) > 6:  # noqa: PLR2004
        return None
    return time.time() + min(int(after), DAY)
