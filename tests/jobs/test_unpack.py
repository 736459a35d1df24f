"""Archives become plain files in a folder: all of them as they were, or none and a line that says why."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as some

from packmule.jobs import context
from packmule.jobs.files import unpack
from packmule.jobs.files.reading import UnfitOption
from packmule.jobs.files.unpacking import streams, tars, zips
from packmule.jobs.files.unpacking.bounds import ArchiveTooLarge, UnfitBound
from packmule.jobs.files.unpacking.folder import LISTING, MembersRefused
from packmule.jobs.files.unpacking.members import NotAnArchive
from packmule.jobs.files.unpacking.streams import BrokenArchive
from packmule.jobs.files.unpacking.zips import ArchiveLocked
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.storage import FileTooLarge, MissingFile, OutsideStorage, Storage, StorageError
from packmule.tests.jobs.archives import (
    COMPRESS,
    overlapping_zip,
    raw_zip,
    special,
    tar_of,
    tarred,
    zipped,
)

LIMITS = InputLimits(file_bytes=100_000_000, attachment_bytes=1, pixels=1)
FILES = {"a.txt": b"alpha", "b/c.bin": bytes(range(256)) * 5_000, "b/empty": b"", "ü/日本.txt": "ä".encode()}


@pytest.fixture(params=["folder", "memory"])
def storage(request, tmp_path):
    store = Storage(str(tmp_path / "files") if request.param == "folder" else f"memory://{uuid4().hex}/files")
    context.provide(store, LIMITS)
    return store


def unpacked(storage, content, name="a.zip", **options):
    storage.write_bytes(name, content)
    return unpack(name, "out", **options)


def contents(storage):
    """What is in the storage besides the source and the listing."""
    return {
        path.removeprefix("out/"): storage.read_bytes(path)
        for path in storage.names("out/")
        if path != f"out/{LISTING}"
    }


def listed(storage):
    return [json.loads(line) for line in storage.read_bytes(f"out/{LISTING}").splitlines()]


def refused(storage, error, content, name="a.zip", **options):
    """The one line with which unpacking fails, having left nothing."""
    with pytest.raises(error) as failed:
        unpacked(storage, content, name, **options)
    assert storage.names() == [name]
    assert str(failed.value).isprintable()
    assert name in str(failed.value)
    return str(failed.value)


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_zip_of_any_method_is_unpacked_as_it_was(storage, method):
    result = unpacked(storage, zipped(FILES.items(), method))
    assert contents(storage) == FILES
    assert result["members"] == 4
    assert result["bytes"] == sum(map(len, FILES.values()))
    assert {line["path"]: line["bytes"] for line in listed(storage)} == {
        name: len(content) for name, content in FILES.items()
    }
    assert result["path"] == "out"
    assert sorted(result["paths"]) == sorted(f"out/{name}" for name in FILES)


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_tar_of_any_compression_is_unpacked_as_it_was(storage, suffix, format):
    files = {**FILES, f"{'d' * 90}/{'e' * 90}/{'f' * 90}": b"deep"}
    unpacked(storage, tarred(files.items(), suffix, format), f"a.tar{suffix}")
    assert contents(storage) == files


@pytest.mark.parametrize("suffix", [suffix for suffix in COMPRESS if suffix])
def test_a_single_compressed_file_becomes_one_file(storage, suffix):
    content = FILES["b/c.bin"]
    unpacked(storage, COMPRESS[suffix](content) + COMPRESS[suffix](b"more"), f"up/Report 1.csv{suffix}")
    assert contents(storage) == {"Report-1.csv": content + b"more"}


PARTS = some.text(
    some.characters(categories=["L", "N", "P", "S"], exclude_characters="/\\:\x7f"), min_size=1, max_size=20
).filter(lambda part: part not in {".", ".."} and unicodedata.is_normalized("NFC", part))


@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
@given(
    files=some.dictionaries(
        some.lists(PARTS, min_size=1, max_size=3).map(lambda parts: f"f{len(parts)}" + "/d".join(parts)),
        some.binary(max_size=3_000),
        max_size=6,
    ),
    kind=some.sampled_from(["zip", *(f"tar{suffix}" for suffix in COMPRESS)]),
)  # fmt: skip
def test_whatever_pythons_modules_write_is_read_back(files, kind):
    folded = {unicodedata.normalize("NFC", name.casefold()) for name in files}
    with tempfile.TemporaryDirectory() as folder:
        store = Storage(folder)
        context.provide(store, LIMITS)
        assume(files or kind == "zip")
        packed = zipped(files.items()) if kind == "zip" else tarred(files.items(), kind[3:])
        result = unpacked(store, packed)
        if len(folded) == len(files):
            assert contents(store) == files
        assert sorted(contents(store).values()) == sorted(files.values())
        assert result["members"] == len(files)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil", "leads out of the folder"),
        ("a/../../evil", "leads out of the folder"),
        ("a/..", "leads out of the folder"),
        ("/etc/passwd", "is absolute"),
        ("C:/evil", "is absolute"),
        ("c:evil", "is absolute"),
        ("a\\..\\evil", "backslash"),
        ("..\\evil", "backslash"),
        ("a\0b", "control characters"),
        ("a\x1b[2J", "control characters"),
        ("a\nb", "control characters"),
        (".", "no name"),
        ("d/" * 40 + "a", "more than 32 folders deep"),
        ("a" * 256, "more than 255 bytes"),
        ("ü" * 128, "more than 255 bytes"),
        ("/".join(["a" * 200] * 5), "more than 900 bytes"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_name_that_leads_elsewhere_is_refused_or_left_out(storage, name, reason, kind, tmp_path):
    files = [("good.txt", b"good"), (name, b"evil")]
    if kind == "zip":
        content = raw_zip([(each.encode(), data, {}) for each, data in files], flags=0x800)
    elif "\0" in name:
        pytest.skip("a name in a tar ends at a zero byte")
    else:
        content = tarred(files)
    said = refused(storage, MembersRefused, content)
    assert reason in said
    assert "--skip" in said
    result = unpacked(storage, content, skip=True)
    assert contents(storage) == {"good.txt": b"good"}
    assert reason in result["refused"][0]["reason"]
    assert [line.get("path") for line in listed(storage)] == ["good.txt", None]
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name or path.name == "passwd"]


def test_links_devices_and_pipes_are_no_files(storage):
    kinds = {
        "sym": (tarfile.SYMTYPE, "a link"), "hard": (tarfile.LNKTYPE, "a link"),
        "char": (tarfile.CHRTYPE, "a device"), "block": (tarfile.BLKTYPE, "a device"),
        "fifo": (tarfile.FIFOTYPE, "a pipe"), "sparse": (tarfile.GNUTYPE_SPARSE, "sparse"),
        "odd": (b"!", "unknown kind"),
    }  # fmt: skip
    for name, (kind, reason) in kinds.items():
        content = tar_of(special("folder", tarfile.DIRTYPE), special(name, kind, "/etc/passwd"))
        assert reason in refused(storage, MembersRefused, content, "a.tar")
    content = tar_of(*(special(name, kind, "../x") for name, (kind, _) in kinds.items()))
    assert len(unpacked(storage, content, "a.tar", skip=True)["refused"]) == len(kinds)
    for mode in (0o120777, 0o020644, 0o060644, 0o010644, 0o140644):
        content = raw_zip([(b"link", b"/etc/passwd", {"mode": mode})])
        storage.delete_folder("out")
        storage.delete("a.tar")
        assert "it is a" in refused(storage, MembersRefused, content)


def test_a_folder_with_content_is_refused(storage):
    for name, entry in ((b"x", {"mode": 0o040755}), (b"x/", {})):
        content = raw_zip([(name, b"content", entry), (b"y/", b"", {"mode": 0o040755}), (b"z", b"1", {})])
        assert "it is a folder with content" in refused(storage, MembersRefused, content)
        assert unpacked(storage, content, skip=True)["paths"] == ["out/z"]
        storage.delete_folder("out")


def test_a_link_and_a_file_behind_it_write_nothing_outside(storage, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(special("door", tarfile.SYMTYPE, str(outside)))
        member = tarfile.TarInfo("door/evil")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))
    unpacked(storage, file.getvalue(), "a.tar", skip=True)
    assert contents(storage) == {"door/evil": b"evil"}
    assert list(outside.iterdir()) == []


def test_names_that_are_one_file_on_some_systems_are_told_apart(storage):
    names = [
        "Photo.jpg",
        "photo.JPG",
        "photo.jpg",
        "e\u0301.txt",
        "\u00e9.txt",
        "D/x",
        "d/y",
        LISTING,
        "d",
        "Photo.jpg",
    ]
    content = raw_zip([(name.encode(), str(at).encode(), {}) for at, name in enumerate(names)], flags=0x800)
    unpacked(storage, content)
    found = contents(storage)
    assert sorted(found.values()) == [str(at).encode() for at in range(len(names))]
    folded = [unicodedata.normalize("NFC", path.casefold()) for path in found]
    assert len({*folded}) == len(names)
    assert {line["name"]: line["path"] for line in listed(storage)}["d/y"] == "D/y"
    assert "a file has the name" in refused_in(storage, [("a", b"1"), ("a/b", b"2")])


def refused_in(storage, files):
    storage.delete_folder("out")
    return refused(storage, MembersRefused, zipped(files))


def test_dots_and_empty_parts_of_paths_say_nothing(storage):
    unpacked(storage, tarred([("./a//b/./c.txt", b"c")]), "a.tar")
    assert contents(storage) == {"a/b/c.txt": b"c"}


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("Übergröße.txt", "cp437"), ("Übergröße.txt", "utf-8"), ("année-où.txt", "cp437"),
        ("見積書と契約書について.txt", "cp932"), ("Отчёт о продажах.txt", "cp866"),
    ],
)  # fmt: skip
def test_names_without_an_encoding_are_read_as_they_were_written(storage, name, encoding):
    unpacked(storage, raw_zip([(name.encode(encoding), b"x", {})]))
    assert [*contents(storage)] == [name]


def test_the_encoding_of_names_can_be_said(storage):
    content = raw_zip([("日本".encode("shift_jis"), b"x", {})])
    unpacked(storage, content, encoding="shift_jis")
    assert [*contents(storage)] == ["日本"]
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", encoding="cp1251", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("Отчёт"))
    unpacked(storage, file.getvalue(), "a.tar", encoding="cp1251")
    assert [*contents(storage)] == ["Отчёт"]
    with pytest.raises(UnfitOption, match="encoding can't be 'utf-99'"):
        unpack("a.zip", encoding="utf-99")


def test_a_unicode_path_is_believed_if_it_belongs_to_the_name(storage):
    def extra(name):
        field = b"\1" + zlib.crc32(name).to_bytes(4, "little") + "日本.txt".encode()
        return b"\x75\x70" + len(field).to_bytes(2, "little") + field

    unpacked(storage, raw_zip([(b"nihon\xff", b"x", {})], extra=extra))
    assert [*contents(storage)] == ["日本.txt"]
    unpacked(storage, raw_zip([(b"nihon", b"x", {})], extra=lambda name: extra(b"other")))
    assert [*contents(storage)] == ["nihon"]


def test_members_bytes_ratio_and_depth_have_bounds_that_only_fall(storage):
    many = zipped((f"f{number}", b"") for number in range(20))
    assert "more than 10 members" in refused(storage, ArchiveTooLarge, many, max_members=10)
    many = tarred((f"f{number}", b"") for number in range(20))
    assert "more than 10 members" in refused(storage, ArchiveTooLarge, many, max_members=10)
    large = zipped([("f", bytes(30_000_000))])
    assert "more than 1,000,000 bytes" in refused(storage, ArchiveTooLarge, large, max_bytes=1_000_000)
    assert "more than 200 times" in refused(storage, ArchiveTooLarge, large)
    assert unpacked(storage, large, max_ratio=2_000)["bytes"] == 30_000_000
    storage.delete_folder("out")
    for wrong in (
        {"max_members": 10_001},
        {"max_bytes": 9 << 30},
        {"max_ratio": 10_001},
        {"max_depth": 65},
        {"max_name": 0},
    ):
        with pytest.raises(UnfitBound, match=f"{next(iter(wrong))}="):
            unpack("a.zip", **wrong)


@pytest.mark.parametrize("suffix", [suffix for suffix in COMPRESS if suffix])
def test_bombs_of_streams_end_at_the_bound_and_take_no_memory(storage, suffix, monkeypatch):
    content = COMPRESS[suffix](bytes(100_000_000))
    largest = 0
    original = streams.decompressed

    def watched(*args, **options):
        nonlocal largest
        for piece in original(*args, **options):
            largest = max(largest, len(piece))
            yield piece

    monkeypatch.setattr("packmule.jobs.files.unpacking.decompressed", watched)
    assert "200 times" in refused(storage, ArchiveTooLarge, content, f"a{suffix}")
    assert 0 < largest <= streams.CHUNK
    twice = COMPRESS[suffix](content)  # the inner archive stays packed
    assert unpacked(storage, twice, f"b{suffix}")["bytes"] == len(content)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
def test_a_member_that_unpacks_to_more_than_it_says_ends_there(storage, method):
    content = zipped([("f", bytes(50_000_000))], method)
    true_size = (50_000_000).to_bytes(4, "little")
    lying = content.replace(true_size, (1000).to_bytes(4, "little"))
    assert lying != content
    assert "differs in size from the 1,000 bytes" in refused(storage, BrokenArchive, lying)


def test_sizes_and_checksums_that_lie_are_found(storage):
    for lie in ({"size": 4}, {"size": 6}, {"size": 0}, {"crc": 1}, {"packed": 3}, {"packed": 1}):
        said = refused(storage, BrokenArchive, raw_zip([(b"f", b"hello hello", lie)]))
        assert "a.zip" in said
    for lie in ({"size": 3}, {"size": 9}, {"crc": 1}):
        refused(storage, BrokenArchive, raw_zip([(b"f", b"hello", lie)], method=0))


def test_members_that_share_bytes_are_a_bomb(storage):
    assert "overlaps" in refused(storage, BrokenArchive, overlapping_zip(50, 500_000))
    inside = raw_zip([(b"a", b"x" * 1000, {}), (b"b", b"y", {"at": 10})], method=0)
    assert "overlaps" in refused(storage, BrokenArchive, inside)
    behind = raw_zip([(b"a", b"x", {"packed": 10_000})], method=0)
    assert "overlaps" in refused(storage, BrokenArchive, behind)


def test_a_directory_that_would_fill_the_memory_is_not_read(storage, monkeypatch):
    monkeypatch.setattr(zips, "MAX_DIRECTORY", 10_000)
    content = zipped((f"file-{number}", b"") for number in range(1_000))
    assert "directory of" in refused(storage, BrokenArchive, content)
    content = tar_of(*(special("x" * 200_000, tarfile.REGTYPE) for _ in range(2)))
    unpacked(storage, content, "b.tar", skip=True)
    storage.delete("a.zip"), storage.delete_folder("out"), storage.delete("b.tar")
    content = tar_of(special("x" * 300_000, tarfile.REGTYPE))
    assert "extended headers of more than" in refused(storage, BrokenArchive, content, "a.tar")


def test_a_comment_is_no_directory_whatever_it_holds(storage):
    def commented(content, comment):
        file = io.BytesIO(content)
        with zipfile.ZipFile(file, "a") as archive:
            archive.comment = comment
        return file.getvalue()

    whole = zipped(FILES.items())
    other = zipped([("evil", b"evil")])
    for comment in (b"", b"PK\5\6", b"PK\5\6" + bytes(40), b"x" * 70 + b"PK\5\6" + b"y" * 30, other + b"z"):
        unpacked(storage, commented(whole, comment))
        assert contents(storage) == FILES
        storage.delete_folder("out")
        storage.delete("a.zip")
    # These end the file as an archive does, so that other programs show other members.
    for comment in (other, b"PK\5\6" + bytes(18)):
        said = refused(storage, BrokenArchive, commented(whole, comment))
        assert "its comment holds another one" in said
    large = io.BytesIO()
    with zipfile.ZipFile(large, "w") as archive:
        archive.comment = b"PK\5\6"
        for number in range(70_000):  # more than the small record counts
            archive.writestr(f"{number}", b"")
    assert "more than 10,000 members" in refused(storage, ArchiveTooLarge, large.getvalue())


def test_a_password_is_said_to_be_one(storage):
    content = raw_zip([(b"open.txt", b"x", {}), (b"secret.txt", b"x", {})], flags=1)
    assert "open.txt is protected by a password" in refused(storage, ArchiveLocked, content)


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_an_archive_that_is_cut_is_no_part_of_one(storage, suffix, share):
    import random

    noise = random.Random(1).randbytes
    files = [(f"f{number}", noise(5_000)) for number in range(10)]
    whole = tarred(files, suffix)
    with pytest.raises((BrokenArchive, NotAnArchive)):
        unpacked(storage, whole[: int(len(whole) * share * (0.8 if not suffix else 1))], f"a.tar{suffix}")
    whole = zipped(files)
    with pytest.raises((BrokenArchive, NotAnArchive)):
        unpacked(storage, whole[: int(len(whole) * share)], f"a.tar{suffix}")
    assert contents(storage) == {}


@pytest.mark.parametrize("suffix", ["zip", *(f"tar{suffix}" for suffix in COMPRESS)])
def test_damage_anywhere_is_one_line_or_harmless(storage, suffix):
    import random

    rng = random.Random(suffix)
    files = {f"f{number}": rng.randbytes(700) for number in range(5)}
    whole = bytearray(zipped(files.items()) if suffix == "zip" else tarred(files.items(), suffix[3:]))
    for _ in range(50):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            unpacked(storage, bytes(damaged), skip=True)
        except (BrokenArchive, NotAnArchive, ArchiveTooLarge, ArchiveLocked) as error:
            assert str(error).isprintable()


def test_more_behind_the_end_of_a_tar_is_not_lost_in_silence(storage):
    two = tarred([("a", b"1")]) + tarred([("b", b"2")])
    assert "more data after its end" in refused(storage, BrokenArchive, two, "a.tar")
    unpacked(storage, tarred([("a", b"1")]) + bytes(100_000), "a.tar")
    assert contents(storage) == {"a": b"1"}


def test_what_is_no_archive_is_said_to_be_none(storage):
    for content in (b"", b"hello", b"Rar!\x1a\x07\0", b"7z\xbc\xaf\x27\x1c", b"PK\3\4", bytes(2000)):
        with pytest.raises((NotAnArchive, BrokenArchive)) as failed:
            unpacked(storage, content, "a.bin")
        assert str(failed.value).startswith("a.bin ")
    with pytest.raises(MissingFile):
        unpack("nothing.zip")
    with pytest.raises(OutsideStorage):
        unpack("a.bin", "../out")
    context.provide(InputLimits(file_bytes=10, attachment_bytes=1, pixels=1))
    with pytest.raises(FileTooLarge):
        unpack("a.bin")


def test_it_unpacks_again_in_place_of_what_it_made_and_of_nothing_else(storage):
    unpacked(storage, zipped([("a", b"1"), ("b", b"2")]))
    unpacked(storage, zipped([("c", b"3")]))
    assert contents(storage) == {"c": b"3"}
    storage.write_bytes("mine/a", b"precious")
    with pytest.raises(StorageError, match="something else"):
        unpack("a.zip", "mine")
    assert storage.read_bytes("mine/a") == b"precious"


def test_an_archive_of_many_files_gives_a_short_result(storage):
    result = unpacked(storage, zipped((f"folder-{number}/{'x' * 100}", b"") for number in range(3_000)))
    assert result["members"] == 3_000
    assert len(json.dumps(result)) < 64_000
    assert len(listed(storage)) == 3_000


def test_old_tars_are_known_by_their_checksum():
    member = tarfile.TarInfo("old")
    block = bytearray(member.tobuf(tarfile.USTAR_FORMAT)[:512])
    assert tars.is_header(bytes(block))
    block[257:265] = bytes(8)
    assert not tars.is_header(bytes(block))
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:]))
    assert tars.is_header(bytes(block))


def test_a_full_disk_and_a_kill_leave_nothing(tmp_path):
    """In a process whose files may not grow: the kernel refuses as a full disk does."""
    store = Storage(str(tmp_path / "files"))
    store.write_bytes("a.zip", zipped([("small", b"1"), ("large", bytes(3_000_000))]))
    program = (
        "import resource, signal, sys\n"
        "from packmule.jobs import context\n"
        "from packmule.jobs.files import unpack\n"
        "from packmule.jobs.input_limits import InputLimits\n"
        "from packmule.jobs.storage import Storage, StorageError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "context.provide(Storage(sys.argv[1]), InputLimits(10**9, 1, 1))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "try: unpack('a.zip', 'out')\n"
        "except StorageError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "files")],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout == "can't write large: File too large\n"
    assert store.names() == ["a.zip"]
    assert list((tmp_path / "files/.tmp").iterdir()) == []
