"""Key templates: checked at definition, with equal keys for equal calls and different keys for others."""

from __future__ import annotations

import inspect
import itertools
import json
import random
import subprocess
import sys
import uuid
from datetime import UTC, date, datetime

import msgspec
import pytest

from packmule.coordination.key_template import InvalidKeyTemplate, UnfitValue, template
from packmule.coordination.limits.rate import InvalidRate, Rate
from packmule.jobs.limits import rate_by


def charge(
    account_id: int, domain: str = "example.org", *extra: int, to: object = None, **rest: object
) -> None:
    pass


SIGNATURE = inspect.signature(charge)


def key(text: str, *args: object, **kwargs: object) -> str:
    return template(text, SIGNATURE).fill(SIGNATURE.bind(*args, **kwargs).arguments)


def test_positional_named_and_default_arguments_are_filled_in():
    assert key("{account_id}:{domain}", 7) == "7:example.org"
    assert key("{account_id}:{domain}", 7, "a.com") == "7:a.com"
    assert key("{account_id}:{domain}", domain="a.com", account_id=7) == "7:a.com"
    assert key("for {account_id} only", 7) == "for 7 only"
    assert key("nightly", 7) == "nightly"
    assert key("{extra}", 1, "a", 2, 3) == "%5B2%2C3%5D"
    assert key("{extra}/{rest}", 1) == "%5B%5D/%7B%7D"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (7, "7"),
        (7.0, "7"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (10**30, "1" + "0" * 30),
        (True, "true"),
        (None, "null"),
        ("", ""),
        ("ada+x@example.org", "ada+x@example.org"),
        ("a:b/c d", "a%3Ab%2Fc%20d"),
        ("größer", "gr%C3%B6%C3%9Fer"),
        ("7", "'7"),
        ("null", "'null"),
        ("nullable", "nullable"),
        ("'7", "%277"),
        ("[1]", "'%5B1%5D"),
        (date(2026, 11, 2), "'2026-11-02"),
        (datetime(2026, 11, 2, 3, 4, tzinfo=UTC), "'2026-11-02T03%3A04%3A00Z"),
        (uuid.UUID(int=1), "'00000000-0000-0000-0000-000000000001"),
        ([1, "a"], "%5B1%2C%22a%22%5D"),
        ((1, "a"), "%5B1%2C%22a%22%5D"),
        ({"b": 1, "a": 2}, "%7B%22a%22%3A2%2C%22b%22%3A1%7D"),
        ("{account_id}", "'%7Baccount_id%7D"),
        ("\x00\r\n", "%00%0D%0A"),
    ],
)
def test_a_value_has_one_readable_form(value, shown):
    assert key("{to}", 1, to=value) == shown


def test_a_key_is_the_same_in_every_process():
    code = (
        "import inspect; from packmule.coordination.key_template import template\n"
        "def f(a): pass\n"
        "print(template('{a}', inspect.signature(f)).fill({'a': {'x', 'y', 'z', 'w', 'v'}}))"
    )
    shown = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in range(4)
    }
    assert len(shown) == 1


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is not a key"),
        (" ", "is not a key"),
        (None, "is not a key"),
        (7, "is not a key"),
        ("{missing}", "no argument missing; it has account_id, domain, extra, to, rest"),
        ("{}", "an argument's name"),
        ("{0}", "an argument's name"),
        ("{account_id.real}", "an argument's name"),
        ("{account_id.__class__.__init__.__globals__}", "an argument's name"),
        ("{account_id[0]}", "an argument's name"),
        ("{account_id!r}", "an argument's name"),
        ("{account_id:>1000000000}", "an argument's name"),
        ("{ account_id }", "an argument's name"),
        ("{@}", "an argument's name"),
        ("{to@@}", "an argument's name"),
        ("{{account_id}}", "braces don't match"),
        ("{account_id", "braces don't match"),
        ("account_id}", "braces don't match"),
        ("{account_id}}", "braces don't match"),
        ("{account_id}{domain}", "put a separator such as : or / before {domain}"),
        ("{account_id}x{domain}", "put a separator such as : or /"),
        ("{account_id}%{domain}", "put a separator such as : or /"),
        ("{account_id}'{domain}", "put a separator such as : or /"),
        ("a\nb", "visible"),
        ("\ud800", "visible"),
        ("x" * 201, "up to 200"),
        ("{" * 10**6, "up to 200"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused_at_definition(text, fault):
    with pytest.raises(InvalidKeyTemplate) as refused:
        template(text, SIGNATURE)
    assert fault in str(refused.value)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), "\ud800", [10**5000], {object()}])
def test_a_value_unfit_for_a_key_is_refused_with_its_arguments_name(value):
    with pytest.raises(UnfitValue, match="the argument to can't be part of a key: "):
        key("{to}", 1, to=value)


def test_a_value_that_contains_itself_is_refused():
    value: list[object] = []
    value.append(value)
    with pytest.raises(UnfitValue):
        key("{to}", 1, to=value)


@pytest.mark.parametrize(
    "to",
    [
        "ada@example.org",
        " Ada@EXAMPLE.org ",
        "Ada <ada@example.org>",
        '"a@b, c" <ada@example.org>',
        ["ada@example.org", "Bob <bob@Example.org>"],
    ],
)
def test_the_domain_of_an_address_can_be_a_key(to):
    assert key("{to@}", 1, to=to) == "example.org"


@pytest.mark.parametrize(
    "to", [None, 1, "", "ada", "ada@", "@", [], ["a@a.org", "b@b.org"], ["a@a.org", None], "a@b,c@d", b"a@b"]
)
def test_addresses_without_a_common_domain_are_refused(to):
    with pytest.raises(UnfitValue, match="the argument to can't be part of a key"):
        key("{to@}", 1, to=to)


def test_long_values_make_short_but_different_keys():
    long = [key("{to}", 1, to="a" * length) for length in range(150, 400)]
    assert max(len(each) for each in long) <= 160
    assert len(set(long)) == len(long)


def test_different_arguments_have_different_keys():
    filled = template("{account_id}:{to}", SIGNATURE).fill
    assert filled({"account_id": "a:b", "to": "c"}) != filled({"account_id": "a", "to": "b:c"})
    rng = random.Random(4)
    texts = {
        "".join(rng.choice("a:1-'\"[]{}%~, ntrue") for _ in range(rng.randint(0, 4))) for _ in range(900)
    }
    values = [*texts, 1, 11, 1.1, -1, True, False, None, [], [1], ["1"], ["1", "1"], {}, {"a": 1}]
    seen = {filled({"account_id": a, "to": b}) for a, b in itertools.product(values, values)}
    assert len(seen) == len(values) ** 2


def test_the_job_that_comes_off_the_wire_has_the_key_of_the_call():
    # So that a worker can derive it from the payload if the record has none.
    filled = template("{to}", SIGNATURE).fill
    for value in [
        1,
        1.5,
        "1",
        None,
        True,
        date(2026, 1, 2),
        [1, (2, "x")],
        {"b": 1, "a": [None]},
        uuid.UUID(int=7),
    ]:
        assert filled({"to": value}) == filled({"to": json.loads(msgspec.json.encode(value))})


def test_any_template_is_accepted_or_refused():
    rng = random.Random(4)
    pieces = [
        "{",
        "}",
        "{to}",
        "{to@}",
        "{account_id}",
        ":",
        "/",
        "a",
        " ",
        "@",
        "%",
        "'",
        "ä",
        "\x00",
        "!r",
        ".",
    ]
    made = 0
    for _ in range(20_000):
        text = "".join(rng.choice(pieces) for _ in range(rng.randint(0, 8)))
        try:
            filled = template(text, SIGNATURE).fill({"account_id": 1, "to": "a@b.org"})
        except InvalidKeyTemplate:
            continue
        made += 1
        assert "{" not in filled
        assert "}" not in filled
    assert made > 1000


def test_a_rate_may_depend_on_an_argument():
    assert rate_by("100/m", SIGNATURE) == (Rate(100, 60.0), None, None)
    rate, by, _ = rate_by(" 100/m burst 20  by {domain}:{account_id} ", SIGNATURE)
    assert rate == Rate(100, 60.0, 20)
    assert by.fill({"account_id": 7}) == "example.org:7"


@pytest.mark.parametrize(
    ("text", "error", "fault"),
    [
        ("10/fortnight by {domain}", InvalidRate, "'10/fortnight' is not a rate"),
        ("by {domain}", InvalidRate, "is not a rate"),
        ("10/m by", InvalidRate, "is not a rate"),
        ("10/m {domain}", InvalidRate, "is not a rate"),
        ("10/m by domain", InvalidKeyTemplate, "put the argument in braces, as in 10/m by {name}"),
        ("10/m by {host}", InvalidKeyTemplate, "no argument host"),
        (None, InvalidRate, "write it as text"),
        (10, InvalidRate, "write it as text"),
    ],
)
def test_a_rate_by_an_unknown_argument_is_refused(text, error, fault):
    with pytest.raises(error) as refused:
        rate_by(text, SIGNATURE)
    assert fault in str(refused.value)
