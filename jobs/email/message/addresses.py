"""Email addresses: their syntax, checked before anything is sent, judged as mail servers judge it."""

from __future__ import annotations

import re
from functools import lru_cache

from packmule.errors import UsageError
from packmule.jobs.email.letter import Mailbox

UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters that no header may contain: control characters, line ends and lone surrogates."""

MAX_LOCAL = 64
MAX_DOMAIN = 253
MAX_ADDRESS = 254
MAX_NAME = 500
MAX_SHOWN = 80

PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
"""A name that needs no quotes."""

_ATOM = r"[^\s\"(),.:;<>@\[\\\]]+"
_LOCAL = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_QUOTED_TEXT = r'"(?:[^"\\]|\\.)*"'
_NAMED = re.compile(rf"(?P<name>{_QUOTED_TEXT}|[^<>]*)\s*<(?P<spec>{_QUOTED_TEXT}@[^<>]*|[^<>]*)>")
_QUOTED = re.compile(r'"(?P<inner>(?:[^"\\]|\\.)+)"')
_LABEL = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMBER = re.compile(r"(?:.*\.)?[0-9]+")


class InvalidAddress(UsageError, ValueError):
    """A text is not an email address; the error says what is wrong with it."""


def address(text: str) -> str:
    """`text` as people write it: with its display name, if any, and its domain in ASCII.

    >>> address("Ada <ada@bücher.example>")
    'Ada <ada@xn--bcher-kva.example>'

    Only the syntax is checked: whether the mailbox exists is up to its server. Raises `InvalidAddress`.
    """
    name, spec = parse(text)
    if not name:
        return spec
    return f"{name if PHRASE.fullmatch(name) else quoted(name)} <{spec}>"


def domain_of(spec: str) -> str:
    """The domain of a bare address, in lower case."""
    return spec.rpartition("@")[2].lower()


@lru_cache(maxsize=1024)  # more than a chunk of a bulk send
def parse(text: str) -> Mailbox:
    """Parse one address, with or without a display name. Raises `InvalidAddress`."""
    if unfit := UNFIT.search(text):
        raise _invalid(text, f"it contains {unfit.group()!r}")
    named = _NAMED.fullmatch(text.strip())
    name, spec = (_display_name(text, named["name"].strip()), named["spec"]) if named else ("", text)
    local, at, domain = spec.strip().rpartition("@")
    if not at:
        raise _invalid(text, "it has no @; write name@example.org")
    local, domain = _local(text, local), _domain(text, domain)
    if len(local.encode()) > MAX_LOCAL or len(local.encode()) + 1 + len(domain) > MAX_ADDRESS:
        raise _invalid(text, f"it is longer than {MAX_LOCAL} bytes before the @ or {MAX_ADDRESS} in all")
    return Mailbox(name, f"{local}@{domain}")


def quoted(text: str) -> str:
    """`text` in quotes, as names and the parts before an @ are written that hold spaces or signs."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _local(text: str, local: str) -> str:
    """What stands before the @; quotes that it does not need are left out, as servers compare it so."""
    if _LOCAL.fullmatch(local):
        return local
    if within := _QUOTED.fullmatch(local):
        inner = re.sub(r"\\(.)", r"\1", within["inner"])
        return inner if _LOCAL.fullmatch(inner) else quoted(inner)
    if "@" in local:
        raise _invalid(text, "it has more than one @; give one address at a time")
    raise _invalid(
        text, "before the @ it may have letters, digits and signs such as . + - _, or any text in quotes"
    )


def _display_name(text: str, name: str) -> str:
    if len(name) > MAX_NAME:
        raise _invalid(text, f"its name is longer than {MAX_NAME} characters")
    if within := _QUOTED.fullmatch(name):
        return re.sub(r"\\(.)", r"\1", within["inner"])
    # Unquoted, these could turn one address into two.
    if set(name) & set('",;:@'):
        raise _invalid(
            text,
            'put a name that contains , ; : or @ in quotes, as in "Sales, Berlin" <sales@example.org>, '
            "and give several addresses as a list",
        )
    return name


def _domain(text: str, domain: str) -> str:
    if not domain or len(domain) > MAX_DOMAIN or domain.endswith("."):
        raise _invalid(text, "after the @ it needs a domain such as example.org")
    if domain.isascii():
        # Not by idna: names in use, such as ex_ample.org, are more than it allows.
        if not _DOMAIN.fullmatch(domain) or _NUMBER.fullmatch(domain):
            raise _invalid(text, f"{_short(domain)} is not a domain")
        return domain.lower()
    import idna  # noqa: PLC0415  keeps workers that send nothing small

    try:
        return idna.encode(domain, uts46=True, std3_rules=True).decode()
    except idna.IDNAError:
        raise _invalid(text, f"{_short(domain)} is not a domain") from None


def _invalid(text: str, why: str) -> InvalidAddress:
    return InvalidAddress(f"{_short(text)} is not an email address: {why}")


def _short(text: str) -> str:
    return repr(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}...")
