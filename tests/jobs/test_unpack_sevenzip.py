"""A 7z archive becomes plain files as any other does: all of them as they were, or none and a line why."""

from __future__ import annotations

import lzma
import random
import tempfile
import zlib

import py7zr
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from packmule.jobs import context
from packmule.jobs.files.unpacking.bounds import ArchiveTooLarge
from packmule.jobs.files.unpacking.folder import MembersRefused
from packmule.jobs.files.unpacking.members import NotAnArchive
from packmule.jobs.files.unpacking.sevenzip import coders
from packmule.jobs.files.unpacking.streams import CHUNK, BrokenArchive
from packmule.jobs.files.unpacking.zips import ArchiveLocked
from packmule.jobs.storage import Storage
from packmule.tests.jobs.archives import raw_sevenzip, sevenzipped, with_start
from packmule.tests.jobs.test_unpack import FILES, LIMITS, PARTS, contents, listed, refused, unpacked

LZMA2 = {"id": py7zr.FILTER_LZMA2, "preset": 1}
METHODS = {
    "as 7-Zip does": None,
    "LZMA2": [LZMA2],
    "LZMA": [{"id": py7zr.FILTER_LZMA}],
    "BZip2": [{"id": py7zr.FILTER_BZIP2}],
    "Deflate": [{"id": py7zr.FILTER_DEFLATE}],
    "Zstandard": [{"id": py7zr.FILTER_ZSTD}],
    "nothing": [{"id": py7zr.FILTER_COPY}],
    "x86 and LZMA2": [{"id": py7zr.FILTER_X86}, LZMA2],
    "x86 and LZMA": [{"id": py7zr.FILTER_X86}, {"id": py7zr.FILTER_LZMA}],
    "ARM and LZMA": [{"id": py7zr.FILTER_ARM}, {"id": py7zr.FILTER_LZMA}],
    "x86 and BZip2": [{"id": py7zr.FILTER_X86}, {"id": py7zr.FILTER_BZIP2}],
    "differences": [{"id": py7zr.FILTER_DELTA}, LZMA2],
}
PROGRAM = b"".join(b"\xe8" + random.Random(at).randbytes(3) + b"\0\x90" for at in range(20_000)) + b"\xe8\1"


@pytest.fixture
def storage(tmp_path):
    store = Storage(str(tmp_path / "files"))
    context.provide(store, LIMITS)
    return store


@pytest.mark.parametrize("method", METHODS)
def test_an_archive_of_any_method_is_unpacked_as_it_was(storage, method):
    files = {**FILES, "program": PROGRAM}
    result = unpacked(storage, sevenzipped(files.items(), METHODS[method]), "a.bin")
    assert contents(storage) == files
    assert {line["path"]: line["bytes"] for line in listed(storage)} == {
        name: len(content) for name, content in files.items()
    }
    assert (result["members"], result["bytes"]) == (len(files), sum(map(len, files.values())))


def test_an_archive_without_files_is_an_empty_folder(storage):
    assert unpacked(storage, with_start(b"", b""))["members"] == 0


def test_several_streams_and_folders_are_unpacked(storage, tmp_path):
    (tmp_path / "tree/empty").mkdir(parents=True)
    (tmp_path / "tree/a").write_bytes(b"1" * 5_000)
    (tmp_path / "tree/nothing").write_bytes(b"")
    with py7zr.SevenZipFile(tmp_path / "a.7z", "w") as archive:
        archive.writeall(tmp_path / "tree", "tree")
    with py7zr.SevenZipFile(tmp_path / "a.7z", "a", filters=METHODS["BZip2"]) as archive:
        archive.writestr(b"2" * 7_000, "b")
    unpacked(storage, (tmp_path / "a.7z").read_bytes())
    assert contents(storage) == {"tree/a": b"1" * 5_000, "tree/nothing": b"", "b": b"2" * 7_000}


@settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
@given(
    some.dictionaries(
        some.lists(PARTS, min_size=1, max_size=3).map(lambda parts: f"f{len(parts)}" + "/d".join(parts)),
        some.binary(max_size=3_000),
        max_size=6,
    ),
    some.sampled_from([*METHODS.values()]),
)
def test_whatever_py7zr_writes_is_read_back(files, filters):
    with tempfile.TemporaryDirectory() as folder:
        store = Storage(folder)
        context.provide(store, LIMITS)
        result = unpacked(store, sevenzipped(files.items(), filters))
        assert sorted(contents(store).values()) == sorted(files.values())
        assert result["members"] == len(files)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil", "leads out of the folder"),
        ("a/../../evil", "leads out of the folder"),
        ("/etc/passwd", "is absolute"),
        ("C:/evil", "is absolute"),
        ("..\\evil", "backslash"),
        ("a\x1b[2J", "control characters"),
        ("\ud800", "control characters, or bytes that are not text"),
        ("", "no name"),
        ("d/" * 40 + "a", "more than 32 folders deep"),
        ("ü" * 128, "more than 255 bytes"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused_or_left_out(storage, name, reason):
    content = raw_sevenzip([(name, b"evil", {}), ("good.txt", b"good", {})])
    assert reason in refused(storage, MembersRefused, content)
    result = unpacked(storage, content, skip=True)
    assert contents(storage) == {"good.txt": b"good"}
    assert reason in result["refused"][0]["reason"]


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        (0o120777 << 16 | 0x8000, "it is a link"),
        (0x400, "it is a link"),
        (0o020644 << 16 | 0x8000, "it is a device or a pipe"),
        (0o010644 << 16 | 0x8000, "it is a device or a pipe"),
    ],
)
def test_links_devices_and_pipes_are_no_files(storage, attributes, reason):
    content = raw_sevenzip([("x", b"/etc/passwd", {"attributes": attributes}), ("y", b"1", {})])
    assert reason in refused(storage, MembersRefused, content)
    assert unpacked(storage, content, skip=True)["paths"] == ["out/y"]


def test_an_order_to_delete_is_refused(storage):
    content = raw_sevenzip([("x", b"", {"anti": 1}), ("y", b"1", {})])
    assert "it says what to delete" in refused(storage, MembersRefused, content)


def test_a_password_is_said_to_be_one(storage):
    for hidden in (False, True):
        content = sevenzipped([("a", b"1")], password="x", header_encryption=hidden)
        assert "is protected by a password" in refused(storage, ArchiveLocked, content)


@pytest.mark.parametrize(
    ("filters", "name"),
    [
        ([{"id": py7zr.FILTER_PPMD, "order": 6, "mem": 24}], "PPMd"),
        ([{"id": py7zr.FILTER_BROTLI, "level": 5}], "Brotli"),
    ],
)
def test_a_method_that_cannot_be_read_is_named(storage, filters, name):
    said = refused(storage, NotAnArchive, sevenzipped([("a", b"1" * 99)], filters))
    assert f"packed with {name}, which can't be read: pack it with LZMA2" in said


def test_a_method_that_nobody_knows_or_that_has_several_inputs_is_named(storage):
    said = refused(storage, NotAnArchive, raw_sevenzip([("a", b"1", {})], b"\1\2\x7f\x01"))
    assert "packed with the method 7f01" in said
    deflate64 = raw_sevenzip([("a", b"1", {})], b"\1\3\4\1\x09")
    assert "packed with Deflate64" in refused(storage, NotAnArchive, deflate64)
    bcj2 = b"\1\x14\3\3\1\x1b\4\1" + b"\0\1\2\3"
    assert "packed with BCJ2" in refused(storage, NotAnArchive, with_lengths(bcj2))


def with_lengths(folder):
    """An archive whose stream has four inputs of a byte each."""
    header = b"\1\x04\x06\0\4\x09\1\1\1\1\0\x07\x0b\1\0" + folder + b"\x0c\4\0\0\5\1\x11\5\0a\0\0\0\0\0"
    return with_start(b"1234", header)


def test_members_bytes_and_ratio_have_bounds(storage):
    many = sevenzipped((f"f{number}", b"") for number in range(20))
    assert "more than 10 members" in refused(storage, ArchiveTooLarge, many, max_members=10)
    large = sevenzipped([("f", bytes(30_000_000))])
    assert "more than 1,000,000 bytes" in refused(storage, ArchiveTooLarge, large, max_bytes=1_000_000)
    assert "more than 200 times" in refused(storage, ArchiveTooLarge, large)
    assert unpacked(storage, large, max_ratio=10_000)["bytes"] == 30_000_000


@pytest.mark.parametrize("method", METHODS)
def test_a_bomb_that_says_little_ends_at_what_it_says_and_comes_in_small_pieces(storage, method, monkeypatch):
    largest = 0
    original = coders._decoded

    def watched(*args):
        nonlocal largest
        for piece in original(*args):
            largest = max(largest, len(piece))
            yield piece

    monkeypatch.setattr(coders, "_decoded", watched)
    content = bytes(5_000_000)
    unpacked(storage, sevenzipped([("f", content)], METHODS[method]), max_ratio=10_000)
    assert 0 < largest <= CHUNK + coders.BLOCK
    storage.delete_folder("out")
    storage.delete("a.zip")
    lying = raw_sevenzip(
        [("f", content, {"size": 1_000, "crc": zlib.crc32(bytes(1_000))})], b"\1\x21\x21\1\x10", lzma2
    )
    assert unpacked(storage, lying)["bytes"] == 1_000


def lzma2(content):
    return lzma.compress(content, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 2**20}])


def test_sizes_and_checksums_that_lie_are_found(storage):
    for lies in ({"crc": 1}, {"size": 4}, {"size": 6}):
        said = refused(storage, BrokenArchive, raw_sevenzip([("f", b"hello", lies), ("g", b"x", {})]))
        assert "damaged" in said or "cut" in said
    for whole in (5, 7):
        refused(storage, BrokenArchive, raw_sevenzip([("f", b"hello", {}), ("g", b"x", {})], whole=whole))
    short = raw_sevenzip([("f", b"hello", {"size": 9_000})], b"\1\x21\x21\1\x10", lzma2)
    assert "is truncated" in refused(storage, BrokenArchive, short)


def test_a_header_that_would_fill_the_memory_is_not_read(storage):
    for content in (
        raw_sevenzip([("f", b"1", {})], count=2**60),
        with_start(b"", b"\1", length=2**62),
        with_start(b"", b"\1\5" + b"\xff" * 9),
        with_start(b"", b"\1\4\6\0\xff" + b"\xff" * 8),
        with_start(b"1", b"\1\4\6\0\1\x09\1\0\x07\x0b" + b"\xff" * 9),
        with_start(b"1", b"\1\4\6\0\1\x09\1\0\x07\x0b\1\0\1\x11\0\xff" + b"\xff" * 16),
        with_start(
            b"1", b"\1\4\6\0\1\x09\1\0\x07\x0b\1\0\1\1\0\x0c\1\0\x08\x0d\xff" + b"\xff" * 8 + b"\x09\0"
        ),
    ):
        refused(storage, BrokenArchive, content)
    packed = lzma2(bytes(40_000_000))
    nested = (
        b"\x17\x06\0\1\x09\xff"
        + len(packed).to_bytes(8, "little")
        + b"\0\x07\x0b\1\0\1\x21\x21\1\x10\x0c\xff"
    )
    header = nested + (40_000_000).to_bytes(8, "little") + b"\0\0"
    assert "a header of 40,000,000 bytes" in refused(storage, BrokenArchive, with_start(packed, header))


def test_a_dictionary_that_would_fill_the_memory_is_not_made(storage):
    content = raw_sevenzip([("f", b"hello", {})], b"\1\x21\x21\1\x28", lzma2)
    assert "needs 4,294,967,295 bytes of memory" in refused(storage, NotAnArchive, content)


def test_an_archive_that_is_cut_is_no_part_of_one(storage):
    noise = random.Random(1).randbytes
    whole = sevenzipped([(f"f{number}", noise(5_000)) for number in range(10)])
    for size in (6, 20, 32, 40, 1_000, len(whole) // 2, len(whole) - 1):
        with pytest.raises((BrokenArchive, NotAnArchive)):
            unpacked(storage, whole[:size])
        assert contents(storage) == {}


def test_damage_anywhere_is_one_line_or_harmless(storage):
    rng = random.Random(7)
    files = {f"f{number}": rng.randbytes(700) for number in range(5)}
    known = (BrokenArchive, NotAnArchive, ArchiveTooLarge, ArchiveLocked)
    bare = raw_sevenzip([(name, content, {}) for name, content in files.items()])
    header = bare[32 + 3_500 :]
    for number in range(400):
        # With a right checksum it is read in spite of the damage.
        damaged = bytearray(header) if number % 4 else bytearray(sevenzipped(files.items()))
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        content = with_start(bare[32 : 32 + 3_500], bytes(damaged)) if number % 4 else bytes(damaged)
        try:
            unpacked(storage, content, skip=True)
        except known as error:
            assert str(error).isprintable()
