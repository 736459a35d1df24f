"""The header of a 7z archive: what is in it, and how it was packed."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from packmule.jobs.files.unpacking.sevenzip.coders import Coder, Packed
from packmule.jobs.files.unpacking.sevenzip.cursor import Cursor
from packmule.jobs.files.unpacking.streams import BrokenArchive
from packmule.jobs.files.unpacking.zips import MAX_DIRECTORY

MARK, START = b"7z\xbc\xaf\x27\x1c", 32
MOST_CODERS, MOST_NESTED = 32, 4
END, HEADER, PROPERTIES, STREAMS, FILES, PACKS, FOLDERS, SUBSTREAMS = 0, 1, 2, 4, 5, 6, 7, 8
SIZE, CRC, FOLDER, SIZES, COUNTS, NO_STREAM, EMPTY_FILE, ANTI, NAMES = 9, 10, 11, 12, 13, 14, 15, 16, 17
ATTRIBUTES, ENCODED = 21, 23


@dataclass(slots=True)
class Entry:
    """What the header says of one file or folder; it is in the packed streams if it `has_stream`."""

    name: str = ""
    attributes: int = 0
    has_stream: bool = True
    is_folder: bool = False
    is_anti: bool = False


@dataclass(frozen=True, slots=True)
class Contents:
    """The entries in their order, and the streams of those that have one."""

    entries: list[Entry]
    streams: list[Packed]


def contents(source: str, content: BinaryIO, check_count: Callable[[int], None]) -> Contents:
    """What the archive says is in it; `check_count` gets how many entries that is, before they are read.

    Raises `BrokenArchive`, and what unpacking the header raises.
    """
    size = content.seek(0, 2)
    content.seek(0)
    start = content.read(START)
    if len(start) < START:
        raise BrokenArchive(f"{source} is truncated: its header is missing")
    at, length, crc = struct.unpack_from("<QQI", start, 12)
    if zlib.crc32(start[12:]) != struct.unpack_from("<I", start, 8)[0]:
        raise BrokenArchive(f"{source} is damaged: its start has a wrong checksum")
    if START + at + length > size:
        raise BrokenArchive(f"{source} is truncated: its header is missing")
    _check_size(source, length)
    content.seek(START + at)
    data = content.read(length)
    for _ in range(MOST_NESTED):
        if zlib.crc32(data) != crc:
            raise BrokenArchive(f"{source} is damaged: its header has a wrong checksum")
        if not data:
            return Contents([], [])
        header = Cursor(source, data)
        if (kind := header.byte()) == HEADER:
            return _contents(header, at, check_count)
        if kind != ENCODED:
            break
        if not (found := _streams(header, at)):
            break
        packed = found[0]
        _check_size(source, sum(packed.sizes))
        data = b"".join(packed.unpacked(source, content))
        crc = packed.crc if packed.crc is not None else zlib.crc32(data)
    raise BrokenArchive(f"{source} is damaged: it has no header")


def _check_size(source: str, size: int) -> None:
    if size > MAX_DIRECTORY:
        raise BrokenArchive(f"{source} has a header of {size:,} bytes, over the limit of {MAX_DIRECTORY:,}")


def _streams(header: Cursor, end: int) -> list[Packed]:
    """The packed streams, all of them in front of `end`."""
    lengths: list[int] = []
    position = 0
    found: list[Packed] = []
    kind = header.byte()
    if kind == PACKS:
        position, count = header.number(), header.count()
        while (kind := header.expect(SIZE, CRC, END)) != END:
            if kind == SIZE:
                lengths = [header.number() for _ in range(count)]
            else:
                header.checksums(count)
        kind = header.byte()
    if kind == FOLDERS:
        found = _folders(header)
        kind = header.byte()
    if kind == SUBSTREAMS:
        _divide(header, found)
        kind = header.byte()
    else:
        for each in found:
            each.files = [(each.sizes[-1], each.crc)]
    if kind != END or position + sum(lengths) > end:
        raise header.damaged()
    _place(header, found, lengths, START + position)
    return found


def _place(header: Cursor, found: list[Packed], lengths: list[int], position: int) -> None:
    """Say where the bytes of each stream are."""
    if sum(each.inputs for each in found) > len(lengths):
        raise header.damaged()
    ordered = iter(lengths)
    for each in found:
        each.position = position
        each.length = sum(next(ordered) for _ in range(each.inputs))
        position += each.length


def _folders(header: Cursor) -> list[Packed]:
    header.expect(FOLDER)
    count = header.count()
    header.expect(0)  # nothing is elsewhere
    read = [_folder(header) for _ in range(count)]
    found = [packed for packed, _, _ in read]
    header.expect(SIZES)
    for packed, outputs, order in read:
        sizes = [header.number() for _ in range(outputs)]
        packed.sizes = [sizes[place] for place in order]
    if header.expect(CRC, END) == CRC:
        for packed, crc in zip(found, header.checksums(count), strict=True):
            packed.crc = crc
        header.expect(END)
    return found


def _folder(header: Cursor) -> tuple[Packed, int, list[int]]:
    """A stream, how many sizes follow later, and which of them belong to its coders in their order."""
    coders, inputs, outputs, is_chain = [], 0, 0, True
    for _ in range(header.count()):
        flags = header.byte()
        method = header.take(flags & 0x0F) or b"\0"
        taken, given = (header.number(), header.number()) if flags & 0x10 else (1, 1)
        inputs, outputs, is_chain = inputs + taken, outputs + given, is_chain and taken == given == 1
        coders.append(Coder(method, header.take(header.number()) if flags & 0x20 else b""))
        if inputs > MOST_CODERS or outputs > MOST_CODERS:
            raise header.damaged()
    feeds = {}
    for _ in range(outputs - 1):
        taker = header.number()
        feeds[header.number()] = taker
    packed = inputs - len(feeds)
    last = [place for place in range(outputs) if place not in feeds]
    if packed < 1 or len(last) != 1:
        raise header.damaged()
    if packed > 1:
        for _ in range(packed):
            header.number()
    if not is_chain:
        return Packed(coders, is_chain, packed), outputs, last
    order = [place for place in range(outputs) if place not in feeds.values()][:1]
    while (taker := feeds.pop(order[-1], -1)) >= 0:
        order.append(taker)
    if sorted(order) != [*range(outputs)]:
        raise header.damaged()
    return Packed([coders[place] for place in order], is_chain), outputs, order


def _divide(header: Cursor, found: list[Packed]) -> None:
    """Say which files make up each stream."""
    counts = [1] * len(found)
    kind = header.expect(COUNTS, SIZE, CRC, END)
    if kind == COUNTS:
        counts = [header.number() for _ in found]
        kind = header.expect(SIZE, CRC, END)
    has_sizes = kind == SIZE
    sizes = []
    for packed, count in zip(found, counts, strict=True):
        if count > 1 and (not has_sizes or count - 1 > header.left):
            raise header.damaged()
        some = [header.number() for _ in range(count - 1)]
        if count:
            some.append(packed.sizes[-1] - sum(some))
            if some[-1] < 0:
                raise header.damaged()
        sizes.append(some)
    if has_sizes:
        kind = header.expect(CRC, END)
    is_known = [count == 1 and packed.crc is not None for packed, count in zip(found, counts, strict=True)]
    unknown = sum(count for count, known in zip(counts, is_known, strict=True) if not known)
    checksums = iter(header.checksums(unknown) if kind == CRC else [None] * unknown)
    for packed, some, known in zip(found, sizes, is_known, strict=True):
        packed.files = [(size, packed.crc if known else next(checksums)) for size in some]
    if kind == CRC:
        header.expect(END)


def _contents(header: Cursor, end: int, check_count: Callable[[int], None]) -> Contents:
    kind = header.expect(PROPERTIES, STREAMS, FILES, END)
    if kind == PROPERTIES:
        while header.number():
            header.take(header.number())
        kind = header.expect(STREAMS, FILES, END)
    streams: list[Packed] = []
    if kind == STREAMS:
        streams = _streams(header, end)
        kind = header.expect(FILES, END)
    entries = _entries(header, check_count) if kind == FILES else []
    if sum(each.has_stream for each in entries) != sum(len(each.files) for each in streams):
        raise header.damaged()
    return Contents(entries, streams)


def _entries(header: Cursor, check_count: Callable[[int], None]) -> list[Entry]:
    count = header.count()
    check_count(count)
    entries = [Entry() for _ in range(count)]
    has_names = False
    while kind := header.number():
        body = Cursor(header.source, header.take(header.number()))
        if kind in (NO_STREAM, EMPTY_FILE, ANTI):
            _mark(entries, kind, body)
        elif kind == NAMES:
            has_names = True
            for entry, name in zip(entries, _names(body, count), strict=True):
                entry.name = name
        elif kind == ATTRIBUTES:
            is_said = body.defined(count)
            body.expect(0)
            for entry, is_there in zip(entries, is_said, strict=True):
                entry.attributes = body.word() if is_there else 0
    if entries and not has_names:
        raise header.damaged()
    return entries


def _mark(entries: list[Entry], kind: int, body: Cursor) -> None:
    """Note which entries have no stream, or which of these are files, or are to be deleted."""
    marked = entries if kind == NO_STREAM else [entry for entry in entries if not entry.has_stream]
    for entry, is_set in zip(marked, body.bits(len(marked)), strict=True):
        if kind == NO_STREAM:
            entry.has_stream, entry.is_folder = not is_set, is_set
        elif kind == EMPTY_FILE:
            entry.is_folder = not is_set
        else:
            entry.is_anti = is_set


def _names(body: Cursor, count: int) -> list[str]:
    body.expect(0)  # nothing is elsewhere
    try:
        *names, rest = body.take(body.left).decode("utf-16-le", "surrogatepass").split("\0")
    except UnicodeError:
        raise body.damaged() from None
    if rest or len(names) != count:
        raise body.damaged()
    return names
