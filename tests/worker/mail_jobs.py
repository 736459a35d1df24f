"""Jobs of others that send mails, which the tests let real processes perform."""

from __future__ import annotations

from typing import Any

from packmule import job


@job(singleton=True)
def alone(to: str) -> dict[str, Any]:
    """Send a mail as a singleton."""
    from packmule.jobs.email import email

    return email(to, "alone", "t")


@job
async def awaited(to: str) -> dict[str, Any]:
    """Send a mail from the event loop."""
    from packmule.jobs.email import email

    return email(to, "awaited", "t")


@job(isolate=True)
def chunk_apart(key: str, rows: list[dict[str, Any]]) -> dict[str, int]:
    """Send a chunk of a bulk send in a process of its own."""
    from packmule.jobs.email.bulk.chunk import email_chunk
    from packmule.jobs.email.bulk.mail import BulkMail

    return email_chunk(key, BulkMail("Hi {{ name }}", "t"), rows)
