"""The values of a JSON text one by one, even if some of them are malformed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from packmule.errors import Error
from packmule.jobs.files.table import Report
from packmule.units import MIB

CHUNK = MIB
MARK = re.compile(rb'["\[\]{},]')
IN_TEXT = re.compile(rb'["\\]')
BLANK = b" \t\r\n"


class Unbalanced(Error):
    """A text or a bracket is never closed, so nothing says where a value ends."""


def values(file: Path, is_array: bool, longest: int, report: Report) -> Iterator[bytes]:
    """Yield each value of the array in `file`, or each of its objects, as one line.

    Where one ends is judged by its quotes and brackets alone. Of one longer than `longest` bytes only so many
    are yielded. Raises `Unbalanced`.
    """
    splitter = _Splitter(is_array, longest)
    size, done = max(1, file.stat().st_size), 0
    with file.open("rb") as content:
        while chunk := content.read(CHUNK):
            yield from splitter.fed(chunk)
            done += len(chunk)
            report(100 * done / size)
    yield from splitter.rest()


class _Splitter:
    """What is known within a value: its bytes so far, the open brackets, and whether a text is open.

    `_outer` is how many brackets are around all values, and `_is_over` says that those are closed.
    """

    def __init__(self, is_array: bool, longest: int) -> None:
        self._depth = 0
        self._in_text = False
        self._outer = int(is_array)
        self._longest = longest
        self._value = bytearray()
        self._is_escaped = False
        self._is_over = False

    def fed(self, chunk: bytes) -> Iterator[bytes]:
        """The values that end in `chunk`."""
        at = begun = 0
        if self._is_over:
            self._keep(chunk)
            return
        if self._is_escaped:
            at, self._is_escaped = 1, False
        while found := (IN_TEXT if self._in_text else MARK).search(chunk, at):
            at, mark = found.end(), found[0]
            if mark == b'"':
                self._in_text = not self._in_text
            elif mark == b"\\":
                self._is_escaped = at == len(chunk)
                at += 1
            elif mark in b"[{":
                self._depth += 1
                if self._depth == self._outer and mark == b"[":
                    begun = at
            elif mark in b"]}":
                self._depth -= 1
                self._is_over = self._depth < self._outer
                if self._depth < 0:
                    raise Unbalanced
                if self._depth == 0:
                    self._keep(chunk[begun : at - self._is_over])
                    begun = at
                    yield from self._taken()
            elif self._depth == self._outer == 1:
                self._keep(chunk[begun : at - 1])
                begun = at
                yield from self._taken()
            if self._is_over:
                break
        self._keep(chunk[begun:])

    def rest(self) -> Iterator[bytes]:
        """What follows the last value. Raises `Unbalanced`."""
        rest = [*self._taken()]
        if self._depth or self._in_text or (rest and self._is_over):
            raise Unbalanced
        return iter(rest)

    def _keep(self, part: bytes) -> None:
        self._value += part[: max(0, self._longest - len(self._value))]

    def _taken(self) -> Iterator[bytes]:
        value = bytes(self._value).strip(BLANK).replace(b"\n", b" ").replace(b"\r", b" ")
        self._value.clear()
        if value:
            yield value
