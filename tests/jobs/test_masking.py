"""Masking: which values are hidden, and how an edited copy gets them back."""

from __future__ import annotations

from typing import Any

import pytest

from packmule import job
from packmule.jobs import registry
from packmule.jobs.masking import DEEPEST, MASK, is_hidden, masked, masked_call, unmasked


@job
def charge(account: int, card_pin: str = "", note: str = "") -> None:
    pass


@pytest.mark.parametrize(
    "name",
    ["password", "Passwd", "user_password", "token", "accessToken", "client_secret", "Authorization", "otp",
     "api_key", "apiKey", "API-KEY", "x-api-key", "private_key", "cookie", "pwd", "pin", "credentials"],
)  # fmt: skip
def test_secrets_are_hidden_by_their_names(name):
    assert masked([{"deep": {name: "s3cret"}}]) == [{"deep": {name: MASK}}]
    assert masked({name: ["s3cret"]}) == {name: MASK}


def test_other_values_stay_as_they_are():
    value = {
        "key": 1,
        "author": "ada",
        "shipping": "x",
        "monkey": [1.5, None, True],
        "big": 2**70,
        "passed": "yes",
    }
    assert masked(value) == value
    flags = {"has_password": True, "token": None, "max_tokens": 4096}
    assert masked(flags) == flags


def test_passwords_in_urls_are_hidden():
    assert (
        masked("see redis://u:s3cret@host/0, then http://a@b")
        == f"see redis://u:{MASK}@host/0, then http://a@b"
    )


def test_positional_arguments_are_known_by_their_parameters():
    assert masked_call(charge.job.name, [7, "0000"], {"note": "a"}) == ([7, MASK], {"note": "a"})
    assert masked_call("gone.job", [7, "0000"], {"pin": "1"}) == ([7, "0000"], {"pin": MASK})


def test_no_near_name_is_looked_for_to_show_a_job_that_is_not_registered(monkeypatch):
    """It would take a page of jobs a second."""
    monkeypatch.setattr(registry, "_meant", None)
    assert masked_call("gone.job", [7], {}) == ([7], {})


def test_values_nested_without_end_are_hidden():
    value: Any = "s3cret"
    for _ in range(DEEPEST + 5):
        value = [value]
    assert is_hidden(masked(value)) or "s3cret" not in str(masked(value))


def test_an_edited_copy_keeps_the_secrets_that_were_not_typed_again():
    original = {"user": "ada", "token": "9f2c", "list": [{"pin": "1", "a": 1}], "url": "redis://:s3cret@h"}
    shown = masked(original)
    assert unmasked(shown, original) == original
    shown["user"] = "bob"
    shown["list"][0]["a"] = 2
    assert unmasked(shown, original) == {**original, "user": "bob", "list": [{"pin": "1", "a": 2}]}
    shown["token"] = "new"
    assert unmasked(shown, original)["token"] == "new"


def test_a_secret_that_moved_stays_hidden_so_that_it_can_be_refused():
    original = {"list": [{"pin": "1"}, {"pin": "2"}]}
    changed = masked(original)
    del changed["list"][0]
    assert is_hidden(unmasked(changed, original))
