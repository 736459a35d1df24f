"""The wire: RQ reads what we write, and the worst that a hostile payload does is raise InvalidPayload."""

from __future__ import annotations

import json
import pickle
import random
import time
import traceback
import tracemalloc
import zlib
from base64 import b64decode
from datetime import UTC, datetime

import pytest
from rq.serializers import JSONSerializer
from rq.utils import utcformat, utcparse

from packmule.coordination.redis.replies import as_text
from packmule.jobs import keys, wire
from packmule.jobs.wire import InvalidPayload, Invocation

VALID = wire.encode_call("shop.jobs.report", ("2026-11", 2), {"copies": [1, 2.5, None, "ü"]})


def test_times_are_written_as_rq_writes_them_and_read_by_it():
    now = 1_793_520_000.123456
    assert wire.time_text(now) == utcformat(datetime.fromtimestamp(now, UTC))
    assert utcparse(wire.time_text(now)).timestamp() == pytest.approx(now, abs=1e-6)
    assert wire.time_text(0) == "1970-01-01T00:00:00.000000Z"


def test_times_survive_a_round_trip():
    now = round(time.time(), 6)
    assert wire.time_seconds(wire.time_text(now)) == pytest.approx(now, abs=1e-6)
    assert wire.time_seconds("") is None


def test_job_ids_are_unique_and_fit_their_pattern():
    ids = {keys.new_job_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(keys.JOB_ID.fullmatch(id) for id in ids)


def test_a_payload_is_json_that_rqs_serializer_reads():
    assert json.loads(VALID) == [
        "shop.jobs.report",
        None,
        ["2026-11", 2],
        {"copies": [1, 2.5, None, "ü"]},
    ]
    assert JSONSerializer.loads(VALID) == json.loads(VALID)


def test_what_rqs_serializer_writes_is_read():
    data = JSONSerializer.dumps(("shop.jobs.report", None, ("2026-11",), {"copies": 1}))
    call = Invocation("shop.jobs.report", None, ["2026-11"], {"copies": 1})
    assert wire.decode_call(data) == wire.decode_call(zlib.compress(data)) == call


def test_a_payload_is_compressed_if_that_saves_space():
    small, large = b"[" + b"x" * 100, b"[" + b"x" * 10_000
    noise = b"[" + random.Random(1).randbytes(10_000)
    assert wire.packed(small) == small
    assert zlib.decompress(wire.packed(large)) == large
    assert len(wire.packed(large)) < 100
    assert wire.packed(noise) == noise


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [{"deep": float("-inf")}]])
def test_nan_and_infinity_are_refused_instead_of_becoming_null(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        wire.encode_call("shop.jobs.report", (value, None), {})
    with pytest.raises(ValueError, match="not JSON compliant"):
        wire.encode_call("shop.jobs.report", (), {"value": value})


def test_a_value_that_contains_itself_is_refused():
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="contains itself"):
        wire.encode_call("shop.jobs.report", (loop,), {})


def test_null_and_large_numbers_are_carried():
    call = wire.decode_call(wire.encode_call("f", (None, 2**70, "null"), {"n": None}))
    assert call == Invocation("f", None, [None, 2**70, "null"], {"n": None})


DEEP = b'["f",null,[' + b"[" * 200_000 + b"]" * 200_000 + b"],{}]"
HOSTILE = {
    "empty": b"",
    "a pickle": pickle.dumps(("os.system", None, ("true",), {})),
    "a compressed pickle": zlib.compress(pickle.dumps(("os.system", None, ("true",), {}))),
    "an old pickle": pickle.dumps(("os.system", None, ("true",), {}), protocol=0),
    "no JSON": b"[nonsense",
    "bytes that are no text": b'["\xff\xfe",null,[],{}]',
    "compressed bytes that are no text": zlib.compress(b'["\xff\xfe",null,[],{}]'),
    "a cut payload": VALID[:-5],
    "a cut compressed payload": zlib.compress(VALID)[:-10],
    "a compressed payload without its check sum": zlib.compress(VALID)[:-4],
    "a compressed payload with a wrong check sum": zlib.compress(VALID)[:-4] + b"abcd",
    "zlib's first bytes alone": b"x\x9c",
    "an object": b'{"f": 1}',
    "a compressed object": zlib.compress(b'{"f": 1}'),
    "a number": b"7",
    "too few parts": b'["f", null, []]',
    "too many parts": b'["f", null, [], {}, 1]',
    "a name that is none": b"[7, null, [], {}]",
    "arguments that are none": b'["f", null, {}, {}]',
    "named arguments that are none": b'["f", null, [], []]',
    "a method call": b'["run", {"class": "x"}, [], {}]',
    "deep nesting": DEEP,
    "compressed deep nesting": zlib.compress(DEEP),
    "two payloads": VALID + VALID,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_payload_is_an_invalid_payload(data):
    with pytest.raises(InvalidPayload) as refused:
        wire.decode_call(data)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("form", [lambda data: data, zlib.compress])
def test_a_pickle_is_named_as_such_and_never_loaded(form, tmp_path):
    marker = tmp_path / "opened"

    class Trap:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    with pytest.raises(InvalidPayload, match="pickle: enqueue with RQ's JSONSerializer"):
        wire.decode_call(form(pickle.dumps(Trap())))
    assert not marker.exists()


def test_a_method_call_is_named_as_such():
    with pytest.raises(InvalidPayload, match="method"):
        wire.decode_call(HOSTILE["a method call"])


def test_a_compression_bomb_is_refused_before_it_unpacks():
    packer = zlib.compressobj(9)
    mib = b" " * 2**20
    bomb = packer.compress(b"[")
    for _ in range(512):
        bomb += packer.compress(mib)
    bomb += packer.flush()
    tracemalloc.start()
    try:
        with pytest.raises(InvalidPayload, match="unpacks to more than 16777216 bytes"):
            wire.decode_call(bomb)
        assert tracemalloc.get_traced_memory()[1] < 4 * wire.MAX_PAYLOAD_BYTES
    finally:
        tracemalloc.stop()


def test_a_payload_of_exactly_the_limit_is_read(monkeypatch):
    monkeypatch.setattr(wire, "MAX_PAYLOAD_BYTES", len(VALID))
    assert wire.decode_call(zlib.compress(VALID)).name == "shop.jobs.report"
    monkeypatch.setattr(wire, "MAX_PAYLOAD_BYTES", len(VALID) - 1)
    with pytest.raises(InvalidPayload, match="unpacks to more"):
        wire.decode_call(zlib.compress(VALID))


@pytest.mark.parametrize(
    "original", [VALID, zlib.compress(VALID), pickle.dumps(VALID)], ids=["json", "zlib", "pickle"]
)
def test_a_damaged_payload_is_read_or_refused(original):
    chance = random.Random(7)
    refused = 0
    for _ in range(5000):
        data = bytearray(original)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            call = wire.decode_call(
                bytes(data[: chance.randint(0, len(data))] if chance.random() < 0.3 else data)
            )
        except InvalidPayload:
            refused += 1
        else:
            assert isinstance(call.name, str)
    assert refused > 1000


def test_keys_are_named_as_rq_names_them():
    assert keys.queue_key("high") == "rq:queue:high"
    assert keys.queue_name("rq:queue:high") == "high"
    assert keys.worker_name(keys.worker_key("w1")) == "w1"


def test_an_id_that_is_not_utf8_is_still_shown():
    assert as_text(b"caf\xc3\xa9") == as_text("café") == "café"
    assert as_text(b"\xff") == "\ufffd"


def test_an_error_text_is_stored_as_rq_reads_it():
    assert zlib.decompress(b64decode(wire.error_text("bad \udcff"))).decode() == "bad \\udcff"


TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop.py", line 3, in report
    cursor.execute(sql)
    ~~~~~~~~~~~~~~^^^^^
"""
OTHER = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    raise KeyError\nKeyError: 1\n\n'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (TRACEBACK + "ValueError: no such month\n", "ValueError: no such month"),
        (
            TRACEBACK + "psycopg.errors.SyntaxError: at LINE 1\nLINE 1: selct\n        ^",
            "SyntaxError: at LINE 1",
        ),
        (TRACEBACK + "ValueError: first\n\n  third\nlast", "ValueError: first"),
        (OTHER + "During handling, another one occurred:\n\n" + TRACEBACK + "OSError\n", "OSError"),
        ("...\n    raise Deep\n" + TRACEBACK.partition("\n")[2] + "shop.Deep: far\n down\n", "Deep: far"),
        ("packmule.jobs.wire.InvalidPayload: no JSON\nat 3\n", "InvalidPayload: no JSON"),
        ("killed", "killed"),
        ("", ""),
    ],
)
def test_the_reason_is_the_first_line_of_the_last_error(text, reason):
    assert wire.reason(text) == reason


def test_the_reason_of_a_group_of_errors_is_what_the_group_says():
    with pytest.raises(ExceptionGroup) as raised:
        raise ExceptionGroup("two failed", [ValueError("1"), OSError("2\n  3")])
    text = "".join(traceback.format_exception(raised.value))
    assert wire.reason(text) == "ExceptionGroup: two failed (2 sub-exceptions)"
