"""Headers that a call may add: by an allow-list, so that none changes where a mail goes or what it is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from packmule.jobs.email.letter import InvalidMessage
from packmule.jobs.email.message.addresses import parse
from packmule.jobs.email.message.headers import checked, of_text, of_tokens

MAX_HEADERS = 30
MAX_VALUE = 2_000
MAX_TAGS = 10
MAX_METADATA = 20
MAX_TAG = 100
MAX_URL = 900

TOKENS = frozenset(
    ["archived-at", "auto-submitted", "feedback-id", "importance", "in-reply-to", "list-archive", "list-help",
     "list-id", "list-owner", "list-post", "list-subscribe", "precedence", "priority", "references",
     "sensitivity", "thread-index", "content-language"]
)  # fmt: skip
"""Headers whose values are ASCII and have a grammar, so they are never encoded."""

TEXTS = frozenset(["comments", "keywords", "organization", "thread-topic"])

_NAME = re.compile(r"[A-Za-z0-9-]{1,60}")
_TOKEN = re.compile(rf"[!-~]{{1,{MAX_URL}}}(?: [!-~]{{1,{MAX_URL}}})*")
PLACE = "{token}"
"""In an unsubscribe URL, the place of what names and proves the recipient."""

_WEB = re.compile(r"https://[^\s<>\"\\^`{|}@]+")
_OURS = re.compile(r"x-(?:envelope|packmule|original-to|staging)(?:-.*)?|x-(?:bcc|resent.*)")


def custom(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """`headers`, checked: `X-...` and those of `TOKENS` and `TEXTS`. Raises `InvalidMessage`."""
    if len(headers) > MAX_HEADERS:
        raise InvalidMessage(f"there are {len(headers)} headers, over the limit of {MAX_HEADERS}")
    seen: set[str] = set()
    for name, value in headers.items():
        known = name.lower()
        if not _NAME.fullmatch(name) or not (known in TOKENS | TEXTS or known.startswith("x-")):
            raise InvalidMessage(
                f"the header {checked('name of a header', name)[:80]!r} can't be set: there are X-..., "
                f"{', '.join(sorted(TOKENS | TEXTS))}; other headers have their own arguments"
            )
        if _OURS.fullmatch(known):
            raise InvalidMessage(f"the header {name} is Packmule's own: choose another name")
        if known in seen:
            raise InvalidMessage(f"the header {name} is given twice")
        seen.add(known)
        if len(checked(f"header {name}", value)) > MAX_VALUE:
            raise InvalidMessage(f"the header {name} has more than {MAX_VALUE:,} characters")
        if known in TOKENS and not _TOKEN.fullmatch(value):
            raise InvalidMessage(f"the header {name} must be ASCII words with single spaces between them")
    return tuple(headers.items())


def line_of(name: str, value: str) -> str:
    """A checked header as it is sent."""
    if name.lower() in TOKENS or name.startswith("List-"):
        return of_tokens(name, value.split(" "))
    return of_text(name, value)


def unsubscribing(ways: str | Sequence[str] | None) -> tuple[tuple[str, str], ...]:
    """List-Unsubscribe for `ways`: an https URL, which mail readers post to (RFC 8058), or a mailto URL.

    >>> unsubscribing("https://example.org/u/7")[0]
    ('List-Unsubscribe', '<https://example.org/u/7>')

    Raises `InvalidMessage`.
    """
    urls = [ways] if isinstance(ways, str) else ways or []
    for url in urls:
        checked("unsubscribe URL", url)
        is_fit = _WEB.fullmatch(url.replace(PLACE, "token")) or url.startswith("mailto:")
        if not is_fit or not url.isascii() or len(url) > MAX_URL or set(url) & set("<>, "):
            raise InvalidMessage(
                f"unsubscribe={url[:80]!r}: give https://... (readers post to it) or mailto:..., "
                f"ASCII without spaces or commas, of at most {MAX_URL} characters"
            )
        if url.startswith("mailto:"):
            parse(url.removeprefix("mailto:").partition("?")[0])
    if not urls:
        return ()
    listed = ("List-Unsubscribe", ", ".join(f"<{url}>" for url in urls))
    if not any(url.startswith("https:") for url in urls):
        return (listed,)
    return (listed, ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"))


def labels(
    tags: Sequence[str], metadata: Mapping[str, str] | None
) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """`tags` and `metadata`, checked; providers get them, the mail doesn't have them.

    Raises `InvalidMessage`.
    """
    if len(tags) > MAX_TAGS or len(metadata or {}) > MAX_METADATA:
        raise InvalidMessage(f"a mail has at most {MAX_TAGS} tags and {MAX_METADATA} entries of metadata")
    for text in (*tags, *(metadata or {}), *(metadata or {}).values()):
        if not checked("tag or metadata", text) or len(text) > MAX_TAG:
            raise InvalidMessage(f"a tag, and a name and value of metadata, has 1 to {MAX_TAG} characters")
    return tuple(tags), dict(metadata or {})
