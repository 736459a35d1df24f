"""Keys: bounded in length, and different for different texts."""

from __future__ import annotations

import random

import pytest

from packmule.coordination.keys import LONGEST, InvalidName, bounded, named


@pytest.mark.parametrize("key", ["", "a", "a b", "größer", "a" * LONGEST, "{a}:*?"])
def test_a_short_key_stays_as_it_is(key):
    assert bounded(key) == key


@pytest.mark.parametrize("key", ["a" * (LONGEST + 1), "ü" * LONGEST, "\ud800", "a\udfff", "~", "x" * 10**6])
def test_any_other_key_is_shortened_to_a_valid_one(client, key):
    assert len(bounded(key).encode()) <= LONGEST
    assert client.set(bounded(key), 1)


def test_nobody_can_forge_the_short_form_of_anothers_key():
    long = "a" * 1000
    assert bounded(bounded(long)) != bounded(long)


def test_different_keys_stay_different():
    rng = random.Random(4)
    keys = {"".join(rng.choice("ab~ü\ud800") for _ in range(rng.randint(0, 200))) for _ in range(5000)}
    assert len({bounded(key) for key in keys}) == len(keys)


@pytest.mark.parametrize("key", [None, 1, b"a", ["a"]])
def test_a_key_that_is_not_text_is_refused(key):
    with pytest.raises(TypeError, match="a key must be text"):
        bounded(key)


@pytest.mark.parametrize("name", ["", "a:b", "a b", "ä", "a" * 101, None, "a\n"])
def test_an_ambiguous_name_is_refused(name):
    with pytest.raises(InvalidName, match="is not a valid name"):
        named(name)
