"""Tar: a stream of headers and contents, whose end must be there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from packmule.jobs.files.encodings import found_encoding
from packmule.jobs.files.unpacking.members import Member
from packmule.jobs.files.unpacking.streams import BrokenArchive
from packmule.units import KIB, MIB

BLOCK = 512
MOST_HEADER = 256 * KIB
"""What a member may say of itself in extended headers."""
MOST_PADDING = 64 * MIB
END = bytes(BLOCK)
FILES, FOLDERS, LINKS, DEVICES = b"\x0007", b"5D", b"12", b"346"
PAX, PAX_GLOBAL, LONG_NAME, LONG_LINK = b"x", b"g", b"L", b"K"
SPARSE = "it is a sparse file"


def is_header(block: bytes) -> bool:
    """Whether `block` is the first of a tar, old ones without a mark included."""
    return len(block) == BLOCK and block != END and _has_right_checksum(block)


def members(source: str, pieces: Iterable[bytes], encoding: str | None) -> Iterator[Member]:
    """Yield the members in their order. Raises `BrokenArchive`."""
    stream = Stream(source, iter(pieces))
    said: dict[str, str] = {}  # what extended headers say of the next member
    said_of_all: dict[str, str] = {}
    said_bytes = 0
    while (block := stream.take(BLOCK)) != END:
        if not _has_right_checksum(block):
            raise BrokenArchive(f"{source} is damaged: a header's checksum is wrong")
        kind, size = block[156:157], _number(source, block[124:136])
        if kind in (PAX, PAX_GLOBAL, LONG_NAME, LONG_LINK):
            said_bytes += size
            if said_bytes > MOST_HEADER:
                raise BrokenArchive(f"{source} has extended headers of more than {MOST_HEADER:,} bytes")
            content = stream.take_padded(size)
            if kind == LONG_NAME:
                said["path"] = _text(content.partition(b"\0")[0], encoding)
            elif kind != LONG_LINK:
                (said if kind == PAX else said_of_all).update(_records(source, content))
            continue
        facts, said, said_bytes = {**said_of_all, **said}, {}, 0
        if (given := facts.get("size")) is not None:
            size = int(given) if re.fullmatch("[0-9]{1,19}", given) else -1
        if size < 0:
            raise BrokenArchive(f"{source} is damaged: a member's size is wrong")
        name = facts.get("path") or _text(_name(block), encoding)
        is_folder = kind in FOLDERS or (kind == b"\0" and name.endswith("/"))
        has_content = kind not in LINKS + DEVICES + b"5"
        yield Member(
            name, stream.content(size if has_content else 0), _fault(kind, facts, is_folder), is_folder
        )
        stream.skip_content()
    stream.check_end()


def _fault(kind: bytes, facts: dict[str, str], is_folder: bool) -> str | None:
    if is_folder:
        return None
    if kind in LINKS:
        return "it is a link"
    if kind in DEVICES:
        return "it is a device or a pipe"
    if kind == b"S" or any(key.startswith("GNU.sparse.") for key in facts):
        return SPARSE
    return None if kind in FILES else f"it is of the unknown kind {kind!r}"


@dataclass(slots=True)
class Stream:
    """The bytes of a tar, read forwards only."""

    source: str
    pieces: Iterator[bytes]
    _held: bytes = b""
    _at: int = 0
    """Where in what is held the next byte is."""
    _left: int = 0
    """What the member at hand has left of its content."""
    _padding: int = 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes. Raises `BrokenArchive` if there aren't as many."""
        parts = []
        while size > 0:
            parts.append(piece := self._some(size))
            size -= len(piece)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def take_padded(self, size: int) -> bytes:
        """The next `size` bytes, which fill up blocks."""
        return self.take(size + -size % BLOCK)[:size]

    def content(self, size: int) -> Iterator[bytes]:
        """Yield the next `size` bytes; what isn't asked for, `skip_content` reads."""
        self._left, self._padding = size, -size % BLOCK
        return self._content()

    def skip_content(self) -> None:
        """Go to the next header."""
        for _ in self._content():
            pass
        self.take(self._padding)

    def _content(self) -> Iterator[bytes]:
        while self._left:
            piece = self._some(self._left)
            self._left -= len(piece)
            yield piece

    def check_end(self) -> None:
        """Read what is behind the mark of the end. Raises `BrokenArchive` if that is no padding."""
        rest = self._held[self._at :]
        for piece in chain([rest], self.pieces):
            self._padding += len(piece)
            if piece.strip(b"\0") or self._padding > MOST_PADDING:
                raise BrokenArchive(f"{self.source} has more data after its end: unpack it by hand")

    def _some(self, most: int) -> bytes:
        """The next bytes, at least one and not more than `most`."""
        if self._at == len(self._held):
            self._held, self._at = next(self.pieces, b""), 0
            if not self._held:
                raise BrokenArchive(f"{self.source} is truncated: its end is missing")
        piece = self._held[self._at : self._at + most]
        self._at += len(piece)
        return piece


def _has_right_checksum(block: bytes) -> bool:
    """Whether the sum of a header is what it says; some programs have added signed bytes."""
    try:
        said = int(block[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    total = sum(block[:148]) + 8 * 32 + sum(block[156:])
    if said == total:
        return True
    return said == total - 256 * sum(byte > 127 for byte in block[:148] + block[156:])  # noqa: PLR2004


def _number(source: str, digits: bytes) -> int:
    """A number in octal, or if its first bit is set in binary."""
    if digits[0] == 0x80:  # noqa: PLR2004
        return int.from_bytes(digits[1:])
    try:
        return int(digits.partition(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        raise BrokenArchive(f"{source} is damaged: {digits!r} is not a size") from None


def _name(block: bytes) -> bytes:
    """A name in a header, with its first part if that has another place."""
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _records(source: str, content: bytes) -> dict[str, str]:
    """The records of an extended header: `30 path=...` and a line's end, the number being its length."""
    found, at, end = {}, 0, len(content.rstrip(b"\0"))
    while at < end:
        digits = content[at : at + 8].partition(b" ")[0]
        length = int(digits) if digits.isdigit() else 0
        record = content[at + len(digits) + 1 : at + length]
        name, equals, value = record.partition(b"=")
        if not equals or not record.endswith(b"\n"):
            raise BrokenArchive(f"{source} is damaged: an extended header is wrong")
        if name in (b"path", b"size") or name.startswith(b"GNU.sparse."):
            found[name.decode("ascii", "replace")] = value[:-1].decode("utf-8", "surrogateescape")
        at += length
    return found


def _text(name: bytes, encoding: str | None) -> str:
    """A name that doesn't say its encoding."""
    try:
        return name.decode()
    except UnicodeError:
        return name.decode(encoding or found_encoding(name)[0] or "utf-8", "surrogateescape")
