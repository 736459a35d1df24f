"""Rates: valid text is parsed exactly, and anything else is refused with advice."""

from __future__ import annotations

import random

import pytest

from packmule.coordination.limits.rate import InvalidRate, Rate
from packmule.units import CENTURY


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/m", Rate(100, 60.0, 100)),
        ("10/s", Rate(10, 1.0, 10)),
        ("5/30s", Rate(5, 30.0, 5)),
        ("1000/h", Rate(1000, 3600.0, 1000)),
        ("20/d", Rate(20, 86_400.0, 20)),
        ("1/14d", Rate(1, 1_209_600.0, 1)),
        (" 100/m  burst  20 ", Rate(100, 60.0, 20)),
        ("1000000/s", Rate(1_000_000, 1.0)),
    ],
)
def test_a_rate_is_read_from_its_text(text, rate):
    assert Rate.parse(text) == rate


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("", r"such as 100/m"),
        ("10/fortnight", r"'10/fortnight' is not a rate: write a number, / and s, m, h or d"),
        ("10", r"such as 100/m"),
        ("/m", r"such as 100/m"),
        ("-1/s", r"such as 100/m"),
        ("10/s burst", r"such as 100/m"),
        ("10/s by {a}", r"such as 100/m"),
        ("1.5/s", r"3/2s"),
        ("1/1.5s", r"3/2s"),
        ("0/m", r"numbers must be at least 1"),
        ("10/0s", r"numbers must be at least 1"),
        ("10/s burst 0", r"numbers must be at least 1"),
        ("\u0661/s", r"such as 100/m"),
        ("1/s\n2/s", r"such as 100/m"),
        ("9" * 5000 + "/s", r"at most 10 digits"),
        ("1/" + "9" * 5000 + "s", r"at most 10 digits"),
        ("2000000/s", r"too fast"),
        ("700000/s", r"too fast"),
        ("1/9999999999d", r"at most a hundred years"),
        ("1/36500d burst 2", r"more than a hundred years"),
        ("1/d burst 9999999999", r"more than a hundred years"),
        (None, r"write it as text"),
        (b"1/s", r"write it as text"),
        (100, r"write it as text"),
    ],
)
def test_an_invalid_rate_is_refused_with_advice(text, advice):
    with pytest.raises(InvalidRate, match=advice) as refused:
        Rate.parse(text)
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize(
    ("limit", "period", "burst"),
    [
        (0, 1.0, 0),
        (True, 1.0, 0),
        (1.5, 1.0, 0),
        (1, 0.0, 0),
        (1, -1.0, 0),
        (1, float("nan"), 0),
        (1, float("inf"), 0),
        (1, "60", 0),
        (1, 1.0, -1),
    ],
)
def test_invalid_numbers_of_a_rate_are_refused(limit, period, burst):
    with pytest.raises(InvalidRate):
        Rate(limit, period, burst)


def test_a_rate_reads_back_from_its_own_text():
    rng = random.Random(4)
    for _ in range(2000):
        count, limit, burst = rng.randint(1, 90), rng.randint(1, 10_000), rng.randint(1, 10_000)
        rate = Rate.parse(f"{limit}/{count}{rng.choice('smhd')} burst {burst}")
        assert Rate.parse(str(rate)) == rate


def test_any_text_is_parsed_or_refused():
    rng = random.Random(4)
    read = 0
    for _ in range(20_000):
        text = "".join(rng.choice("0123456789//smhd burst.-\x00é") for _ in range(rng.randint(0, 14)))
        if rng.random() < 0.5:
            limit, count = rng.randint(-2, 10 ** rng.randint(1, 12)), rng.choice(["", "3", "0"])
            text = f"{limit}/{count}{rng.choice('smhdx')}"
        try:
            rate = Rate.parse(text)
        except InvalidRate:
            continue
        read += 1
        # All numbers in Lua are whole and exact, and never faster than the rate.
        assert rate.interval_us * rate.limit >= rate.period_us
        assert rate.capacity_us <= CENTURY * 1_000_000 < 2**53 - 2**51
        assert rate.interval_us * rate.limit <= rate.period_us * 1.01
    assert read > 1000
