"""The ways that `PACKMULE_MAIL_URL` can name, by their URLs' schemes."""

from __future__ import annotations

from packmule.errors import UsageError
from packmule.jobs.email.delivery.channel import Way


class InvalidServer(UsageError, ValueError):
    """The mail server's URL is missing or invalid."""


def way_of(url: str, is_only: bool = True) -> Way:
    """The way that `url` names; it `is_only` if no other way may get its mails later.

    Raises `InvalidServer`, whose text never quotes the URL.

    >>> str(way_of("smtp://mail.example.org"))
    'mail.example.org:25'
    """
    scheme = url.partition("://")[0]
    if scheme in {"smtp", "smtps"}:
        from packmule.jobs.email.delivery.smtp.way import SmtpWay  # noqa: PLC0415  each only where it is used

        return SmtpWay(url)
    if scheme in {"file", "memory"}:
        from packmule.jobs.email.delivery.stored import StoringWay  # noqa: PLC0415

        return StoringWay(url)
    if scheme in {"ses", "postmark", "mailgun", "sendgrid", "resend"}:
        from packmule.jobs.email.delivery.http.way import HttpWay  # noqa: PLC0415

        return HttpWay(url, is_only)
    raise InvalidServer(
        "PACKMULE_MAIL_URL: a URL begins with smtp, smtps, ses, postmark, mailgun, sendgrid, resend, file or "
        "memory, and ://"
    )
