"""Durations and sizes as people write them, and the units they are written in."""

from __future__ import annotations

import re

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

DAY = 86_400
YEAR = 366 * DAY
CENTURY = 36_500 * DAY
"""Added to the time of day in microseconds, still a whole number in Lua."""

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": DAY}

SPANS = (
    *((0.001, "us", 1e-6), (1.0, "ms", 1e-3), (120.0, "s", 1.0)),
    *((7200.0, "min", 60.0), (2.0 * DAY, "h", 3600.0)),
)
"""Up to which seconds a measured span is shown in a unit, and the unit's seconds."""

WHOLE = (("d", DAY), ("h", 3_600), ("min", 60))
"""Units in which a span that somebody gave is shown if it is so many of them."""

_DURATION = re.compile(
    r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9}(?:\.\d{1,9})?)s?)?", re.ASCII
)
_SIZE = re.compile(r"(\d{1,15})([KMGT]?)(?:i?B)?", re.ASCII | re.IGNORECASE)


def duration(text: str) -> float:
    """The seconds of a text: `duration("1h30m") == 5400`. A number alone is seconds.

    Raises `ValueError` if the text is not a duration.
    """
    found = _DURATION.fullmatch(text)
    if not text or not found:
        raise ValueError("not a duration: write 90s, 5m, 1h30m or 2d, or a number of seconds")
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return days * DAY + hours * 3_600 + minutes * 60 + seconds


def size(text: str) -> int:
    """The bytes of a text: `size("2M") == 2_097_152`. A number alone is bytes.

    Raises `ValueError` if the text is not a size above zero.
    """
    found = _SIZE.fullmatch(text)
    if not found or not int(found[1]):
        raise ValueError("not a size: write 300M, 2G or a number of bytes")
    return int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[found[2].upper()]


def span(seconds: float | None) -> str:
    """Measured seconds as people say them: 340 us, 12 ms, 3.4 s, 5 min, 2.5 h, 3.1 d.

    >>> span(0.0123), span(75), span(0), span(None), span(100 * 3600)
    ('12.3 ms', '75 s', '0 s', '-', '4.2 d')
    """
    if not seconds:
        return "-" if seconds is None else "0 s"
    if seconds < 0:
        return f"-{span(-seconds)}"
    for bound, unit, size in SPANS:
        if seconds < bound * 0.9995:  # which would be rounded up to the bound
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / DAY:,.1f}".removesuffix(".0") + " d"


def given_span(seconds: float | None) -> str:
    """Seconds that somebody gave as people say them, exactly: 600 are 10 min, 5400 are 90 min, 90 are 90 s.

    >>> given_span(600), given_span(3600), given_span(7 * DAY), given_span(0.5), given_span(1001)
    ('10 min', '1 h', '7 d', '500 ms', '1,001 s')
    """
    if not seconds or seconds < 1:
        return span(seconds)
    unit, size = next(((unit, size) for unit, size in WHOLE if seconds % size == 0), ("s", 1))
    return f"{seconds / size:,.3f}".rstrip("0").rstrip(".") + f" {unit}"


def given_size(count: int) -> str:
    """Bytes that somebody gave as people say them, exactly: 2 GiB, 256 KiB, 1,000 bytes.

    >>> given_size(2 * GIB), given_size(1_000)
    ('2 GiB', '1,000 bytes')
    """
    units = ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"))
    size, unit = next(((size, unit) for size, unit in units if count and count % size == 0), (1, "bytes"))
    return f"{count // size:,} {unit}"
