"""Archives for tests, and bombs of all kinds."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import py7zr

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd.compress,
}
Contents = Iterable[tuple[str, bytes]]


def zipped(contents: Contents, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in contents:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return file.getvalue()


def tarred(contents: Contents, suffix: str = "", format: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        for name, content in contents:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return COMPRESS[suffix](file.getvalue())


def tar_of(*members: tarfile.TarInfo) -> bytes:
    """A tar of members without content."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for member in members:
            archive.addfile(member)
    return file.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """A link, a device, a pipe or a folder."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def sevenzipped(contents: Contents, filters: list[dict[str, Any]] | None = None, **options: Any) -> bytes:
    """A solid 7z archive, as py7zr writes it."""
    file = io.BytesIO()
    with py7zr.SevenZipFile(file, "w", filters=filters, **options) as archive:
        for name, content in contents:
            archive.writestr(content, name)
    return file.getvalue()


def raw_zip(
    members: Iterable[tuple[bytes, bytes, dict[str, int]]],
    flags: int = 0,
    method: int = 8,
    extra: Callable[[bytes], bytes] = lambda name: b"",
) -> bytes:
    """A ZIP by hand, whose names are bytes; the dict of a member lies about `size`, `packed`, `crc`, `at`."""
    body, directory, count = b"", b"", 0
    for name, content, lies in members:
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = packer.compress(content) + packer.flush() if method == 8 else content
        crc = lies.get("crc", zlib.crc32(content))
        length, size = lies.get("packed", len(packed)), lies.get("size", len(content))
        fields = struct.pack(
            "<HHHHIIIHH", flags, method, 0, 0, crc, length, size, len(name), len(extra(name))
        )
        at = lies.get("at", len(body))
        body += b"PK\3\4" + struct.pack("<H", 20) + fields + name + extra(name) + packed
        directory += (
            b"PK\1\2"
            + struct.pack("<HH", lies.get("system", 3) << 8 | 20, 20)
            + fields
            + struct.pack("<HHHII", 0, 0, 0, lies.get("mode", 0o100644) << 16, at)
            + name
            + extra(name)
        )
        count += 1
    end = struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), len(body), 0)
    return body + directory + b"PK\5\6" + end


def number(value: int) -> bytes:
    """A number as 7z headers have them."""
    return bytes([value]) if value < 128 else b"\xff" + value.to_bytes(8, "little")


COPY = b"\1\1\0"
"""The coders of a stream that isn't packed: one, whose number has one byte."""


def raw_sevenzip(
    files: Iterable[tuple[str, bytes, dict[str, int]]],
    coders: bytes = COPY,
    pack: Callable[[bytes], bytes] = bytes,
    whole: int | None = None,
    count: int | None = None,
) -> bytes:
    """A 7z by hand; a file's dict lies about its `size` or `crc`, and may have `attributes` or `anti`.

    `coders` say how `pack` has packed the stream. Its size is said to be `whole`, and the files are `count`.
    """
    entries = [*files]
    stored = [entry for entry in entries if entry[1] or "size" in entry[2]]
    content = b"".join(each for _, each, _ in entries)
    packed = pack(content)
    sizes = [lies.get("size", len(each)) for _, each, lies in stored]
    total = sum(sizes) if whole is None else whole
    crcs = b"".join(struct.pack("<I", lies.get("crc", zlib.crc32(each))) for _, each, lies in stored)
    streams = (
        b"\x04\x06" + number(0) + number(1) + b"\x09" + number(len(packed)) + b"\0"
        + b"\x07\x0b\1\0" + coders + b"\x0c" + number(total) * coders[0] + b"\0"
        + b"\x08\x0d" + number(len(stored)) + b"\x09" * (len(stored) > 1)
        + b"".join(map(number, sizes[:-1])) + b"\x0a\1" + crcs + b"\0\0"
    ) if stored else b""  # fmt: skip

    def bits(values: Iterable[bool]) -> bytes:
        text = "".join("01"[value] for value in values)
        return int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")

    def field(kind: int, body: bytes) -> bytes:
        return bytes([kind]) + number(len(body)) + body

    empty = [entry for entry in entries if entry not in stored]
    said = field(
        0x11, b"\0" + b"".join(name.encode("utf-16-le", "surrogatepass") + b"\0\0" for name, *_ in entries)
    )
    if empty:
        said += field(0x0E, bits(entry in empty for entry in entries))
        said += field(0x0F, bits(not name.endswith("/") for name, *_ in empty))
        said += field(0x10, bits("anti" in lies for *_, lies in empty))
    attributes = b"".join(struct.pack("<I", lies.get("attributes", 0)) for *_, lies in entries)
    said += field(0x15, b"\1\0" + attributes)
    header = b"\1" + streams + b"\5" + number(len(entries) if count is None else count) + said + b"\0\0"
    return with_start(packed, header)


def with_start(packed: bytes, header: bytes, length: int | None = None) -> bytes:
    """A 7z of its two parts; `length` lies about the header's."""
    size = len(header) if length is None else length
    start = struct.pack("<QQI", len(packed), size, zlib.crc32(header))
    return b"7z\xbc\xaf\x27\x1c\0\4" + struct.pack("<I", zlib.crc32(start)) + start + packed + header


def overlapping_zip(files: int, size: int) -> bytes:
    """Fifield's bomb in its simplest form: all members are the same bytes."""
    return raw_zip([(b"f%d" % number, bytes(size), {"at": 0}) for number in range(files)])
