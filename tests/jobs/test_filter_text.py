"""Filters as people type them: what each word means, and which one is marked if it means nothing."""

from __future__ import annotations

import pytest

from packmule.jobs.filter_text import InvalidWord, Word, joined, parse, without, word, words
from packmule.jobs.job_filter import JobFilter

NOW = 1_764_504_000.0


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", JobFilter()),
        ("report", JobFilter(name="report")),
        ("2a9f17cc", JobFilter(id="2a9f17cc")),
        ("name:shop.report status:failed", JobFilter(name="shop.report", status="failed")),
        ("status:running", JobFilter(status="started")),
        ("status:waiting", JobFilter(status="queued")),
        ("error:TimeoutError queue:low", JobFilter(error="TimeoutError", queue="low")),
        ("since:2h", JobFilter(since=NOW - 7200)),
        ("until:2025-11-30T12:00", JobFilter(until=NOW)),
        ("until:2025-11-30T13:00+01:00", JobFilter(until=NOW)),
        ("args.month:2026-11 args.0:7", JobFilter(args={"month": "2026-11", "0": "7"})),
        ('queue:"a b:c"', JobFilter(queue="a b:c")),
        (r'queue:"a \"b\" \\"', JobFilter(queue=r'a "b" \ '.rstrip())),
        ('args."of whom":ada', JobFilter(args={"of whom": "ada"})),
        ("args.empty:", JobFilter(args={"empty": ""})),
        ("args.url:https://example.org/?a=b", JobFilter(args={"url": "https://example.org/?a=b"})),
    ],
)
def test_words_make_a_filter(text, wanted):
    assert parse(text, NOW) == wanted


@pytest.mark.parametrize(
    ("text", "marked", "says"),
    [
        ("queue:low colour:red", "colour:red", "colour is not a filter: use name, queue, status"),
        ("statsu:failed", "statsu:failed", "did you mean status:"),
        ("status:done", "status:done", "no status is called that: use queued, started"),
        ("queue:low since:yesterday", "since:yesterday", "not a time: write 2h"),
        ("queue: status:failed", "queue:", "has no value: write queue:default"),
        ("queue:a queue:b", "queue:b", "is given twice"),
        ("args.a:1 args.a:2", "args.a:2", "is given twice"),
        ("args.:1", "args.:1", "is not a filter"),
        ('queue:"low', 'queue:"low', "no closing quotation mark"),
        ("until:99999-01-01", "until:99999-01-01", "not a time"),
    ],
)
def test_a_word_that_means_nothing_is_marked(text, marked, says):
    with pytest.raises(InvalidWord, match=says) as raised:
        parse(text, NOW)
    assert text[raised.value.start : raised.value.end] == marked


def test_a_filter_is_bounded():
    for text in ("a" * 2_001, " ".join(f"args.a{n}:1" for n in range(31))):
        with pytest.raises(InvalidWord, match="at most"):
            parse(text)


@pytest.mark.parametrize(
    "value", ["low", "a b", 'say "no"', "back\\slash", "a:b", "ünï", ":", '"', "\\", "a\tb"]
)
@pytest.mark.parametrize("field", ["queue", "args.x", "args.of whom", 'args.a"b', "args.a:b"])
def test_what_is_written_is_read_back(field, value):
    assert [(each.field, each.value) for each in words(word(field, value))] == [(field, value)]


def test_words_are_left_out_and_joined_again():
    found = words('status:failed report  args.a:"1 2"')
    assert joined(without(found, "status")) == 'name:report args.a:"1 2"'
    assert found[1] == Word("name", "report", 14, 20)
