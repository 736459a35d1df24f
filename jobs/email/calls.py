"""What a call of the e-mail job sends, and to whom: its send in the ledger, and its recipients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from packmule.coordination.redis.replies import as_text, pipelined
from packmule.errors import UsageError
from packmule.jobs import keys
from packmule.jobs.email.ledger import names
from packmule.jobs.email.ledger.entry import Entry
from packmule.jobs.email.ledger.reserving import Send
from packmule.jobs.email.letter import InvalidMessage
from packmule.jobs.email.message import draft
from packmule.jobs.email.message.addresses import parse
from packmule.units import DAY

if TYPE_CHECKING:
    from redis import Redis

    from packmule.jobs.context import Running
    from packmule.jobs.job_type import JobType
    from packmule.jobs.reader import JobInfo

NAME = "packmule.jobs.email.email"
"""The job whose calls these are."""

NO_CONTENT = frozenset(
    ["to", "cc", "bcc", "key", "on_unknown", "give_up_after", "return_path", "tags", "metadata"]
)
"""Arguments that say to whom and how a mail is sent, and not what it says."""

LONGEST_TRY = 30 * DAY


def send_of(arguments: Mapping[str, Any], job_id: str, batch: str) -> Send:
    """What a call sends: what its key names, or else its content within its batch, or within its job.

    Raises `InvalidKey`.
    """
    if (key := arguments.get("key")) is not None:
        return Send(names.send_of_key(key), key)
    content = {
        name: value
        for name, value in arguments.items()
        if name not in NO_CONTENT and value not in (None, [], {})
    }
    if batch:
        return Send(names.send_of_content(f"batch {batch}", content))
    return Send(names.send_of_content(f"job {job_id}", content), is_of_job=True)


def likely_origin(arguments: Mapping[str, Any], send: Send, job: Running) -> str | None:
    """The origin of a job's life if its mail may be built before it is reserved, or None.

    A job that was queued at once was created then. Of any other this is not the origin. A mail with files is
    not built before it's known that it is to be sent.
    """
    if arguments["attachments"] or arguments["images"]:
        return None
    if not send.is_of_job:
        return ""
    return names.origin_of(job.enqueued_at) if job.attempt == 1 and job.enqueued_at else None


def check(*args: Any, key: str | None = None, give_up_after: float = 0.0, **kwargs: Any) -> None:
    """Refuse a call that no mail can come of, before it is enqueued.

    Raises `InvalidMessage`, `InvalidAddress`, `InvalidTemplate` or `InvalidKey`.
    """
    draft.check(*args, **kwargs)
    if key is not None:
        names.send_of_key(key)
    if not 0 <= give_up_after <= LONGEST_TRY:
        raise InvalidMessage(f"give_up_after={give_up_after!r}: give seconds from 0 to {LONGEST_TRY:,}")


def envelope(arguments: Mapping[str, Any]) -> list[str]:
    """A call's recipients as the envelope has them, each once. Raises `InvalidAddress`."""
    given = [each for name in ("to", "cc", "bcc") for each in draft.listed(arguments.get(name))]
    return list(dict.fromkeys(parse(each).spec for each in given))


def mails_of_job(client: Redis, id: str) -> list[Entry]:
    """What the ledger knows of the mails of the job `id`. Raises `NoSuchJob`."""
    from packmule.jobs import registry  # noqa: PLC0415  only pages and commands read it
    from packmule.jobs.reader import read  # noqa: PLC0415

    (reply,) = pipelined(client, [("HGET", keys.job_key(id), "batch")], None)
    batch, _, word = as_text(reply or b"").partition(" ")
    registry.defer(registry.READY)
    return mails_of(client, read(client, id), registry.find(NAME), "" if word else batch)


def mails_of(client: Redis, info: JobInfo, job: JobType, batch: str = "") -> list[Entry]:
    """What the ledger knows of the mails of a job of the type `job`, which is in `batch`.

    Mails that it does not know are left out, and so are all if the job's arguments can't be read.
    """
    from packmule.jobs.email.ledger import reader  # noqa: PLC0415

    try:
        if info.name != NAME:
            return []
        arguments = job.arguments_of(info.args, info.kwargs)
        send, recipients = send_of(arguments, info.id, batch), envelope(arguments)
    except (UsageError, TypeError, ValueError, msgspec.MsgspecError):
        return []
    found = reader.current(client, list(reader.of_send(client, send.name, recipients)))
    return [each for each in found if each is not None]
