"""The providers as data: where each is, how it knows us, what it wants, and what its refusals mean."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from packmule.jobs.email.delivery.http import fields
from packmule.jobs.email.delivery.http.fields import Body
from packmule.jobs.email.letter import Letter
from packmule.units import DAY


def _bearer(key: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _basic(key: str) -> Mapping[str, str]:
    return {"Authorization": f"Basic {b64encode(f'api:{key}'.encode()).decode()}"}


def _postmark(key: str) -> Mapping[str, str]:
    return {"X-Postmark-Server-Token": key, "Accept": "application/json"}


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider's API. `{host}` and what `regions` has stand in its `url` and `path`.

    `body` makes its fields from a letter and the URL's options, those in `options`. `known_by` makes the
    headers that carry the key; without it requests are signed. `bad_addresses` are codes of refusals of
    the address itself, and `of_account` those that say something of the account, so later mails may go.
    `most` is how many recipients a request may have. For `key_life` seconds it knows a request
    again by its `Idempotency-Key`; one of 0 never does.
    """

    name: str
    url: str
    path: str
    body: Callable[[Letter, Mapping[str, str]], Body]
    known_by: Callable[[str], Mapping[str, str]] | None
    id_field: str
    code_field: str = ""
    example: str = ""
    options: frozenset[str] = frozenset()
    regions: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    bad_addresses: frozenset[str] = frozenset()
    of_account: frozenset[str] = frozenset()
    most: int = 50
    key_life: float = 0.0


PROVIDERS = {
    each.name: each
    for each in (
        Provider(
            "ses",
            "https://email.{host}.amazonaws.com",
            "/v2/email/outbound-emails",
            fields.ses,
            None,
            "MessageId",
            example="ses://ACCESS_KEY_ID:SECRET_ACCESS_KEY@eu-west-1",
            options=frozenset({"set"}),
            of_account=frozenset(
                {
                    "AccountSuspendedException",
                    "SendingPausedException",
                    "LimitExceededException",
                    "MailFromDomainNotVerifiedException",
                    "TooManyRequestsException",
                    "NotFoundException",
                }
            ),
        ),
        Provider(
            "postmark",
            "https://api.postmarkapp.com",
            "/email",
            fields.postmark,
            _postmark,
            "MessageID",
            code_field="ErrorCode",
            example="postmark://SERVER_TOKEN",
            options=frozenset({"stream"}),
            bad_addresses=frozenset({"406"}),  # it has bounced there, or somebody complained
            of_account=frozenset({"10", "400", "401", "405", "412", "413"}),
        ),
        Provider(
            "mailgun",
            "https://api{region}.mailgun.net",
            "/v3/{host}/messages.mime",
            fields.mailgun,
            _basic,
            "id",
            example="mailgun://KEY@mg.example.org",
            options=frozenset({"region"}),
            regions=MappingProxyType({"": "", "us": "", "eu": ".eu"}),
            most=1000,
        ),
        Provider(
            "sendgrid",
            "https://api{region}.sendgrid.com",
            "/v3/mail/send",
            fields.sendgrid,
            _bearer,
            "",
            example="sendgrid://KEY",
            options=frozenset({"region"}),
            regions=MappingProxyType({"": "", "us": "", "eu": ".eu"}),
            most=1000,
        ),
        Provider(
            "resend",
            "https://api.resend.com",
            "/emails",
            fields.resend,
            _bearer,
            "id",
            code_field="name",
            example="resend://KEY",
            of_account=frozenset({"daily_quota_exceeded", "monthly_quota_exceeded"}),
            key_life=DAY,
        ),
    )
}
