"""Tracebacks for a reader: own frames apart from those of libraries, and none of the values if need be."""

from __future__ import annotations

import json
import traceback

import pytest

from packmule.observe.tracebacks import parts, without_values

CALL = """Traceback (most recent call last):
  File "/srv/app/shop.py", line 12, in report
    total = sum_up(rows)
            ^^^^^^^^^^^^
  File "/usr/lib/python3.11/json/__init__.py", line 346, in loads
    return _default_decoder.decode(s)
  File "/srv/venv/lib/python3.11/site-packages/pandas/io.py", line 9, in read
    raise ValueError("secret 4711")
ValueError: secret 4711
  with a second line

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/srv/app/shop.py", line 14, in report
    raise Late("no van 4711") from error
shop.Late: no van 4711"""


def test_frames_of_libraries_stand_together():
    found = parts(CALL)
    assert [(part.kind, part.frames) for part in found] == [
        ("text", 0), ("own", 1), ("library", 2), ("text", 0), ("own", 1), ("text", 0),
    ]  # fmt: skip
    assert "\n".join(part.text for part in found) == CALL
    assert found[1].text.endswith("^^^^")


def test_a_traceback_of_libraries_alone_is_shown_whole():
    only = CALL.replace("/srv/app/", "/srv/venv/lib/python3.11/site-packages/app/")
    assert {part.kind for part in parts(only)} == {"text"}


def test_no_value_is_left_without_the_right():
    shown = without_values(CALL)
    assert "4711" not in shown
    assert shown.count("shop.py") == 2
    assert shown.endswith("\nLate")
    assert without_values("") == ""
    assert without_values("some text 4711") == ""


@pytest.mark.parametrize(
    "text", ["", "\n\n", '  File "', "\x00\x1b[2J", '  File "a", line 1, in b', "x" * 300_000]
)
def test_any_text_is_shown(text):
    assert isinstance("".join(part.text for part in parts(text)), str)
    without_values(text)


def test_groups_of_errors_are_parsed():
    try:
        try:
            json.loads("{")
        except ValueError as error:
            raise ExceptionGroup("several 4711", [error, KeyError("4711")]) from None
    except ExceptionGroup:
        text = traceback.format_exc()
    assert "\n".join(part.text for part in parts(text)) == text.rstrip("\n")
    assert "4711" not in without_values(text)
