"""Durations and sizes are read as people write them, everywhere alike."""

from __future__ import annotations

import pytest

from packmule.units import duration, given_size, given_span, size, span


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


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (0, "0 s"),
        (0.0004, "400 us"),
        (0.25, "250 ms"),
        (75, "75 s"),
        (119.99, "2 min"),
        (600, "10 min"),
        (7200, "2 h"),
        (40_000, "11.1 h"),
        (100 * 3600, "4.2 d"),
        (366 * 86_400, "366 d"),
        (-90, "-90 s"),
    ],
)
def test_a_measured_span_is_shown_in_three_digits(seconds, shown):
    assert span(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (0, "0 s"),
        (0.2, "200 ms"),
        (1, "1 s"),
        (2.5, "2.5 s"),
        (90, "90 s"),
        (600, "10 min"),
        (1001, "1,001 s"),
        (3600, "1 h"),
        (5400, "90 min"),
        (7 * 86_400, "7 d"),
    ],
)
def test_a_span_that_was_given_is_shown_exactly(seconds, shown):
    assert given_span(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 bytes"), (1000, "1,000 bytes"), (256 << 10, "256 KiB"), (25 << 20, "25 MiB"), (2 << 30, "2 GiB")],
)
def test_a_size_that_was_given_is_shown_exactly(count, shown):
    assert given_size(count) == shown
