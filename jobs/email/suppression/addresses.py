"""Addresses and domains as the list of suppressed ones names them."""

from __future__ import annotations

from packmule.jobs.email.message.addresses import InvalidAddress, parse

DOMAIN = "@"


def suppressed_as(address: str) -> str:
    """An address without regard to case: whoever asked for no mail means all spellings.

    >>> suppressed_as("Ada@Example.org")
    'ada@example.org'
    """
    return address.lower()


def name_of(text: str) -> str:
    """The name of an address, or of a domain given as `example.org` or `@example.org`.

    >>> name_of("Ada <ada@Example.org>"), name_of("example.org")
    ('ada@example.org', '@example.org')

    Raises `InvalidAddress`.
    """
    text = text.strip()
    if DOMAIN in text.removeprefix(DOMAIN):
        return suppressed_as(parse(text).spec)
    domain = text.removeprefix(DOMAIN)
    if "." not in domain:
        raise InvalidAddress(f"{text[:80]!r} is neither an address nor a domain such as example.org")
    try:
        return DOMAIN + parse(f"x@{domain}").spec.partition(DOMAIN)[2].lower()
    except InvalidAddress:
        raise InvalidAddress(f"{text[:80]!r} is not a domain such as example.org") from None


def shown(name: str) -> str:
    """A name as people write it: a domain without its sign."""
    return name.removeprefix(DOMAIN)
