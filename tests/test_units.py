"""Durations and sizes are read as people write them, everywhere alike."""

from __future__ import annotations

import pytest

from packmule.units import duration, size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("0", 0),
        ("1.5", 1.5),
        ("5m", 300),
        ("1h30m", 5_400),
        ("2d", 172_800),
        ("1d0.5s", 86_400.5),
    ],
)
def test_a_duration_is_read(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "soon", "-1", "nan", "inf", "1w", "5 m", "30m1h", "1.5h", "1e3", "١", "9" * 99]
)
def test_what_is_not_a_duration_is_refused(text):
    with pytest.raises(ValueError, match="1h30m"):
        duration(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1", 1),
        ("300M", 300 << 20),
        ("2G", 2 << 30),
        ("512k", 512 << 10),
        ("1TiB", 1 << 40),
        ("10MB", 10 << 20),
    ],
)
def test_a_size_is_read(text, count):
    assert size(text) == count


@pytest.mark.parametrize("text", ["", "0", "0M", "much", "-1G", "1.5G", "2P", "M", "١", "9" * 99])
def test_what_is_not_a_size_is_refused(text):
    with pytest.raises(ValueError, match="300M"):
        size(text)
