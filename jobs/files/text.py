"""Text as UTF-8: a file's encoding, a UTF-8 copy if it has another one, and its delimiter."""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from packmule.errors import UsageError
from packmule.jobs.files.encodings import found_encoding
from packmule.jobs.files.reading import is_encoding
from packmule.jobs.files.table import Work
from packmule.units import KIB, MIB

CHUNK = MIB
HEAD = 1024
JUDGED = 64 * KIB
"""Bytes of lines with other than ASCII characters that decide on an encoding."""
DELIMITERS = ",;\t|"
SAMPLED_LINES = 200
AGREEMENT = 0.6
"""The share of sampled rows that must have the same number of fields."""

BYTE_ORDER_MARKS: tuple[tuple[bytes, str], ...] = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\x1b"))
"""Bytes that text never contains."""


class UnreadableText(UsageError, ValueError):
    """A text begins in an encoding that its rest doesn't follow."""


@dataclass(frozen=True, slots=True)
class Text:
    """A file in UTF-8, and its original encoding; not `is_sure` if only the first bytes were looked at."""

    file: Path
    encoding: str
    is_sure: bool = True


def utf8_of(work: Work) -> Text:
    """The text of a file that is to be read as a table, as `as_utf8` finds it."""
    return as_utf8(
        work.source, work.file, work.folder / "utf-8", work.stage(0, 5, "reading"), work.reading.encoding
    )


def likely_utf8_of(work: Work) -> Text:
    """The text of a file by its first bytes, if these are UTF-8; the whole file need not be read then."""
    if work.reading.encoding is not None or not _begins_as_utf8(work.file):
        return utf8_of(work)
    return Text(work.file, "utf-8", is_sure=False)


def _begins_as_utf8(file: Path) -> bool:
    """Whether the first bytes are UTF-8, as far as can be seen before all are read."""
    if marked(file) not in {None, "utf-8-sig"}:
        return False
    with file.open("rb") as content:
        head = content.read(MIB)
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" and len(head) == MIB
    return True


def as_utf8(
    source: str, file: Path, copy: Path, report: Callable[[float], None], given: str | None = None
) -> Text:
    """`file` itself if it is UTF-8, otherwise `copy`, converted; `report` gets the percentage done.

    If its encoding is `given`, all of it must follow that. A file that is not UTF-8 and has no byte order
    mark has the only encoding that fits well. But if it has at least as many valid UTF-8 sequences as broken
    ones around the breaks, it counts as UTF-8 with bad rows. Raises `UnreadableText`, which names `source`.
    """
    if given is not None:
        return _as_given(source, file, copy, report, given)
    encoding = marked(file) or _unmarked(source, file, report)
    if encoding == "utf-8":
        return Text(file, encoding)
    try:
        _converted(file, copy, report, encoding, "strict" if encoding.startswith("utf") else "replace")
    except UnicodeError as error:
        raise UnreadableText(f"{source} begins as {encoding}, but {error}") from None
    return Text(copy, encoding.removesuffix("-sig"))


def marked(file: Path) -> str | None:
    """The encoding that a byte order mark names, or UTF-16 without a mark."""
    with file.open("rb") as content:
        head = content.read(HEAD)
    return _marked(head) or _unmarked_utf16(head)


def _as_given(source: str, file: Path, copy: Path, report: Callable[[float], None], given: str) -> Text:
    if not is_encoding(given):
        raise UnreadableText(
            f"no encoding is called {given[:40]!r}: use one such as utf-8, utf-16, cp1252 or latin-1"
        )
    encoding = codecs.lookup(given).name
    try:
        # A byte order mark is no part of the text.
        _converted(file, copy, report, "utf-8-sig" if encoding == "utf-8" else encoding, "strict")
    except UnicodeError as error:
        why = getattr(error, "reason", "") or str(error)
        raise UnreadableText(
            f"{source} is not {encoding}: {why}; give its encoding, or omit it to have it detected"
        ) from None
    return Text(copy, encoding)


def _converted(file: Path, copy: Path, report: Callable[[float], None], encoding: str, errors: str) -> None:
    """Write `file` to `copy` in UTF-8."""
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    with copy.open("wb") as target:
        for chunk in _chunks(file, report):
            target.write(decoder.decode(chunk, final=not chunk).encode())


def _chunks(file: Path, report: Callable[[float], None]) -> Iterator[bytes]:
    """Yield the content of `file`, and an empty chunk at the end."""
    size, done = file.stat().st_size, 0
    with file.open("rb") as content:
        while chunk := content.read(CHUNK):
            yield chunk
            done += len(chunk)
            report(100 * done / size)
    yield b""


def decoded_head(head: bytes) -> str | None:
    """The first bytes of a file as text, or None if they aren't text."""
    encoding = _marked(head) or _unmarked_utf16(head)
    if encoding is None:
        if any(control in head for control in CONTROLS):
            return None
        encoding = "utf-8"
    try:
        # Not final, because the last character may be cut.
        return codecs.getincrementaldecoder(encoding)().decode(head).removeprefix("\ufeff")
    except UnicodeError:
        if encoding != "utf-8":
            return None
        lines = b"\n".join(line for line in head.splitlines() if not line.isascii())
        return head.decode(found_encoding(lines)[0] or "cp1252", "replace")


def delimiter(text: str) -> str | None:
    """The delimiter that gives most lines of `text` the same number of fields, at least two; or None."""
    lines = [
        line
        for line in islice(io.StringIO(text, newline=""), SAMPLED_LINES)
        if line.strip() and line[0] != "#"
    ]
    best: tuple[float, int, str] | None = None
    for candidate in DELIMITERS:
        for fields in _field_counts(lines, candidate):
            count, rows = Counter(fields).most_common(1)[0] if fields else (0, 0)
            if count > 1 and rows >= AGREEMENT * len(fields):
                best = max(best or (0, 0, ""), (rows / len(fields), count, candidate))
    return best[2] if best else None


def _field_counts(lines: list[str], delimiter: str) -> Iterator[list[int]]:
    """Yield the fields per line with each kind of quote, and then without regard to quotes."""
    for quote in ('"', "'"):
        with suppress(csv.Error):
            yield [len(row) for row in csv.reader(lines, delimiter=delimiter, quotechar=quote) if row]
    # Because a quote that is never closed swallows all lines after it into one field.
    yield [line.count(delimiter) + 1 for line in lines]


def _marked(head: bytes) -> str | None:
    return next((encoding for mark, encoding in BYTE_ORDER_MARKS if head.startswith(mark)), None)


def _unmarked_utf16(head: bytes) -> str | None:
    """UTF-16 without a mark: in text with mostly Latin letters, every other byte is zero."""
    sample = head[:HEAD]
    half = len(sample) // 2
    if half == 0:
        return None
    zeros = sample[0::2].count(0), sample[1::2].count(0)
    if zeros[0] == 0 and zeros[1] > half * 0.7:
        return "utf-16-le"
    if zeros[1] == 0 and zeros[0] > half * 0.7:
        return "utf-16-be"
    return None


def _unmarked(source: str, file: Path, report: Callable[[float], None]) -> str:
    broken = valid = 0
    sample: list[bytes] = []
    decoder = codecs.getincrementaldecoder("utf-8")()
    for chunk in _chunks(file, report):
        before = decoder.getstate()[0]
        try:
            decoder.decode(chunk, final=not chunk)
        except UnicodeError:
            text = (before + chunk).decode("utf-8", "replace")
            replaced = text.count("\ufffd")
            broken += replaced
            valid += sum(not character.isascii() for character in text) - replaced
            if sum(map(len, sample)) < JUDGED:
                sample += [line for line in chunk.splitlines() if not line.isascii()]
            decoder.reset()
    if valid >= broken:
        return "utf-8"
    found, likely = found_encoding(b"\n".join(sample)[:JUDGED])
    if found is None:
        guess = f"; it may be {' or '.join(likely[:3])}" if likely else ""
        raise UnreadableText(
            f"{source} is not UTF-8, and its encoding can't be detected{guess}: give --encoding (encoding=)"
        )
    return found
