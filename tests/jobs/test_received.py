"""Mails from outside, taken apart."""

from __future__ import annotations

import pytest

from packmule.jobs.email.received import read


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("jürgen@example.org", "jürgen@example.org"),
        ("=?utf-8?q?J=C3=BCrgen?= <jürgen@example.org>", "Jürgen <jürgen@example.org>"),
        ("=?utf-8?q?J=C3=BCrgen?= <太郎@example.org>", "Jürgen <太郎@example.org>"),
        ("=?utf-8?q?J=C3=BCrgen?= <\\u0041@example.org>", "Jürgen <\\u0041@example.org>"),
    ],
)
def test_headers_in_utf_8_are_shown_as_they_are(written: str, shown: str) -> None:
    assert read(f"To: {written}\r\n\r\nHello".encode()).header("to") == shown


def test_a_header_in_another_encoding_is_shown_as_far_as_it_can_be() -> None:
    assert (
        read(b"To: j\xfcrgen@example.org\r\n\r\nHello").header("to")
        == "j\N{REPLACEMENT CHARACTER}rgen@example.org"
    )
