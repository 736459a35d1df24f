"""Fingerprints: what failures of the same cause have in common, and what tells others apart."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import ModuleType

import msgspec
import pytest
from rq.timeouts import JobTimeoutException

from packmule.jobs import wire
from packmule.worker.process.failure import (
    LONGEST_EXAMPLE,
    LONGEST_NAME,
    LONGEST_TEXT,
    Failure,
    failure_of,
    plain_failure,
    with_example,
)

SHOP = """
import json


def find(id, text="no order {id}"):
    raise LookupError(text.format(id=id))


def late(id):
    find(id)


def twice(id):

    # on other lines
    find(id)


def read(text):
    return json.loads(text)


def deep(depth):
    return deep(depth - 1) if depth else find(1)
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of a user's, which is none of ours."""
    path = tmp_path / "shop.py"
    path.write_text(SHOP)
    module = ModuleType("shop")
    exec(compile(SHOP, path, "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, "shop", module)
    return module


def failing(call: Callable[[], object], job: str = "shop.job") -> Failure:
    try:
        call()
    except BaseException as error:
        return failure_of(error, job)
    raise AssertionError("it did not fail")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("order 17 is gone", "order 18 is gone"),
        ("no such user 'ada'", "no such user 'grace'"),
        ('no key "a b"', 'no key ""'),
        ("object at 0x7f3a2c", "object at 0x7f3a2d"),
        ("job 2a9f77aa-0c4e-4f3b-8f0e-1f0a77b2c4d5", "job deadbeef-dead-beef-dead-beefdeadbeef"),
        ("can't mail ada@example.com", "can't mail grace@example.org"),
        ("no file /tmp/a/b", "no file /var/c"),
        ("took 1.5 s", "took 22 s"),
        ("it's gone\nline 1", "it's gone\nand more"),
    ],
)
def test_texts_that_differ_in_values_have_one_fingerprint(one, other):
    first, second = (plain_failure("E", text, "j").fingerprint for text in (one, other))
    assert first == second


@pytest.mark.parametrize(
    ("one", "other"), [("no such user", "no such order"), ("it's gone", "it's here"), ("", "gone")]
)
def test_texts_that_differ_in_words_have_two(one, other):
    assert plain_failure("E", one, "j").fingerprint != plain_failure("E", other, "j").fingerprint


def test_job_and_class_tell_errors_apart(shop):
    found = {
        failing(lambda: shop.find(1)).fingerprint,
        failing(lambda: shop.find(1), "shop.other").fingerprint,
        failing(lambda: shop.late(1)).fingerprint,
        failing(lambda: int("no order 1")).fingerprint,
    }
    assert len(found) == 4


def test_a_line_that_moved_changes_nothing(shop):
    before = failing(lambda: shop.twice(1))
    moved = SHOP.replace("# on other lines", "# on other lines\n\n")
    exec(compile(moved, shop.find.__code__.co_filename, "exec"), shop.__dict__)
    assert failing(lambda: shop.twice(2)).fingerprint == before.fingerprint


def test_where_it_failed_is_the_innermost_function_of_the_jobs_own_code(shop):
    failed = failing(lambda: shop.read("{"))
    assert (failed.type, failed.where) == ("JSONDecodeError", "shop.py:read")
    assert failed.job == "shop.job"


def test_without_code_of_the_job_that_of_libraries_counts():
    import json

    assert failing(lambda: json.loads("{")).where.endswith("JSONDecoder.raw_decode")


def test_the_depth_of_a_recursion_does_not_count(shop):
    assert failing(lambda: shop.deep(3)).fingerprint == failing(lambda: shop.deep(40)).fingerprint


def test_what_the_worker_raises_anywhere_counts_without_its_place(shop):
    def late(text):
        raise JobTimeoutException(text)

    shop.raising = late
    exec("def here(): raising('longer than 2 s')\ndef there(): raising('longer than 3 s')", shop.__dict__)
    assert failing(shop.here).fingerprint == failing(shop.there).fingerprint


def test_a_group_of_errors_is_known_by_its_first():
    group = ExceptionGroup("two", [ExceptionGroup("one", [KeyError("a")]), ValueError("b")])
    failed = failure_of(group, "j")
    assert (failed.type, failed.text) == ("KeyError", "'a'")


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_hostile_errors_are_counted_within_bounds():
    assert failure_of(Hostile(), "j").text == ""
    failed = failure_of(type("T" * 9_999, (Exception,), {})("\ud800x\x00" * 9_999), "j\udfff" * 999)
    assert len(failed.type) <= LONGEST_NAME
    assert len(failed.text) <= 6 * LONGEST_TEXT
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(failed), type=Failure) == failed


def test_a_huge_text_takes_no_time_to_speak_of():
    for text in ("x" * 10_000_000, "' " * 5_000_000, "\n" * 10_000_000):
        assert len(plain_failure("E", text, "j").text) <= LONGEST_TEXT


def test_an_example_is_bounded_even_if_nothing_compresses():
    random = Random(7)
    noise = "".join(chr(random.randrange(32, 0x2FFF)) for _ in range(32_000))
    failed = with_example(plain_failure("E", "t", "j"), noise, wire.error_text(noise))
    assert 0 < len(failed.example) <= LONGEST_EXAMPLE
    assert noise.endswith((wire.traceback(failed.example) or "")[-100:])
    assert with_example(failed, "short", wire.error_text("short")) is failed
