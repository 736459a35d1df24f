"""Email addresses: their syntax, checked before anything is sent, and their encoding in headers."""

from __future__ import annotations

import re
from email.header import Header
from email.headerregistry import Address
from email.utils import quote

from packmule.errors import UsageError

UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters that no header may contain: control characters, line ends and lone surrogates."""

MAX_LOCAL = 64
MAX_ADDRESS = 254
MAX_NAME = 500
MAX_SHOWN = 80
MAX_ENCODED = 66

_PLAIN = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]+")
_ATOM = r"[^\s\"(),.:;<>@\[\\\]]+"
_LOCAL = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_NAMED = re.compile(r"(?P<name>[^<>]*)<(?P<spec>[^<>]*)>")
_QUOTED = re.compile(r'"(?P<inner>(?:[^"\\]|\\.)*)"')


class InvalidAddress(UsageError, ValueError):
    """A text is not an email address; the error says what is wrong with it."""


def address(text: str) -> str:
    """`text` as it is written in a header: with its display name, if any, and its domain in ASCII.

    >>> address("Ada <ada@bücher.example>")
    'Ada <ada@xn--bcher-kva.example>'

    Only the syntax is checked: whether the mailbox exists is up to its server. Raises `InvalidAddress`.
    """
    return str(parse(text))


def parse(text: str) -> Address:
    """Parse one address, with or without a display name. Raises `InvalidAddress`."""
    if unfit := UNFIT.search(text):
        raise _invalid(text, f"it contains {unfit.group()!r}")
    named = _NAMED.fullmatch(text.strip())
    name, spec = (_display_name(text, named["name"].strip()), named["spec"]) if named else ("", text)
    local, at, domain = spec.strip().rpartition("@")
    if not at:
        raise _invalid(text, "it has no @; write name@example.org")
    if not _LOCAL.fullmatch(local):
        raise _invalid(text, "before the @ it may have letters, digits and signs such as . + - _")
    ascii_domain = _ascii(text, domain)
    if len(local.encode()) > MAX_LOCAL or len(local.encode()) + 1 + len(ascii_domain) > MAX_ADDRESS:
        raise _invalid(text, f"it is longer than {MAX_LOCAL} bytes before the @ or {MAX_ADDRESS} in all")
    return Address(name, local, ascii_domain)


def on_the_wire(known: Address) -> str:
    """`known` as encoded in a header: its name quoted if necessary, or encoded if it is not ASCII."""
    name = known.display_name
    if not name:
        return known.addr_spec
    if not name.isascii() or "=?" in name:
        name = Header(name, "utf-8", maxlinelen=MAX_ENCODED).encode(linesep="\r\n")
    elif not _PLAIN.fullmatch(name):
        name = f'"{quote(name)}"'
    return f"{name} <{known.addr_spec}>"


def _display_name(text: str, name: str) -> str:
    if len(name) > MAX_NAME:
        raise _invalid(text, f"its name is longer than {MAX_NAME} characters")
    if quoted := _QUOTED.fullmatch(name):
        return re.sub(r"\\(.)", r"\1", quoted["inner"])
    # Unquoted, these could turn one address into two.
    if set(name) & set('",;:@'):
        raise _invalid(
            text,
            'put a name that contains , ; : or @ in quotes, as in "Sales, Berlin" <sales@example.org>, '
            "and give several addresses as a list",
        )
    return name


def _ascii(text: str, domain: str) -> str:
    import idna  # noqa: PLC0415  keeps workers that send nothing small

    if len(domain) > MAX_ADDRESS or domain.endswith("."):
        raise _invalid(text, "after the @ it needs a domain such as example.org")
    try:
        return idna.encode(domain, uts46=True, std3_rules=True).decode()
    except idna.IDNAError:
        raise _invalid(text, f"{_short(domain)} is not a domain") from None


def _invalid(text: str, why: str) -> InvalidAddress:
    return InvalidAddress(f"{_short(text)} is not an email address: {why}")


def _short(text: str) -> str:
    return repr(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}...")
