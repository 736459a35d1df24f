"""Return paths that tell for whom a mail was (VERP): a bounce to one names its recipient by itself."""

from __future__ import annotations

from packmule.errors import UsageError
from packmule.jobs.email.message.addresses import MAX_LOCAL, InvalidAddress, parse

PLACE = "{to}"


class InvalidReturnPath(UsageError, ValueError):
    """The return path of the settings is no address."""


def return_path(pattern: str, recipients: tuple[str, ...]) -> str:
    """The envelope sender: `pattern` with the recipient in place of `{to}`, if there is one recipient.

    A mail to several, or to an address that is too long for it, has `pattern` without `{to}`.

    >>> return_path("bounces+{to}@example.org", ("ada@example.com",))
    'bounces+ada=example.com@example.org'
    """
    plain = parse(pattern.replace(f"+{PLACE}", "").replace(PLACE, "")).spec
    if PLACE not in pattern or len(recipients) != 1:
        return plain
    named = pattern.replace(PLACE, recipients[0].replace("@", "="))
    if len(named.rpartition("@")[0].encode()) > MAX_LOCAL:
        return plain
    try:
        return parse(named).spec
    except InvalidAddress:
        return plain


def checked_path(pattern: str) -> str:
    """A pattern of the settings, if mails can have return paths of it. Raises `InvalidReturnPath`.

    >>> checked_path("bounces+{to}@example.org")
    'bounces+{to}@example.org'
    """
    try:
        return_path(pattern, ())
    except InvalidAddress as error:
        raise InvalidReturnPath(f"PACKMULE_MAIL_RETURN_PATH: {error}") from None
    return pattern


def recipient_of(pattern: str, address: str) -> str | None:
    """The recipient whose mail had the return path `address`; None if it names none.

    >>> recipient_of("bounces+{to}@example.org", "bounces+ada=example.com@example.org")
    'ada@example.com'
    """
    before, place, after = pattern.partition(PLACE)
    local, at, domain = address.strip().rpartition("@")
    tail, _, own = after.rpartition("@")
    if not place or not at or domain.lower() != own.lower():
        return None
    if not local.lower().startswith(before.lower()) or not local.endswith(tail):
        return None
    name, equals, of = local[len(before) : len(local) - len(tail)].rpartition("=")
    try:
        return parse(f"{name}@{of}").spec if equals else None
    except InvalidAddress:
        return None
