"""Addresses as the list of suppressed ones has them."""

from __future__ import annotations


def suppressed_as(address: str) -> str:
    """An address without regard to case: whoever asked for no mail means all spellings.

    >>> suppressed_as("Ada@Example.org")
    'ada@example.org'
    """
    return address.lower()
